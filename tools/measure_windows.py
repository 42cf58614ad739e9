"""Measure the window model's E-step in steerable features against that in pixels.

    python tools/measure_windows.py [--cases 11:10:576 21:18:4608] [--rounds 3]

A case is L, the degree and about how many rotations. Both E-steps see one simulated
micrograph with the projections of its truth. What a run does once a stage is left out.
Every ratio is that of the shortest of several alternating runs in one process.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from numpy.typing import NDArray
from problems import shortest

from numbasaem import ViewGrid, VolumeBasis, machine, simulate
from numbasaem.observations.pixel_expectation import PixelExpectation
from numbasaem.observations.window_expectation import WindowExpectation
from numbasaem.observations.window_tiles import Regions
from numbasaem.projection.steerable import ViewProjections
from numbasaem.volume.phantom import folded_chain

EMPTY_PRIOR = 0.4


def print_case(
    size: int, ell_max: int, n_rotations: int, pixels: int, snr: float, rounds: int
) -> None:
    """Measure one case, on one thread and on two, and print a row for each."""
    density, basis = folded_chain(size), VolumeBasis(size, ell_max)
    sample = simulate(density, size=size, pixels=pixels, snr=snr, ell_max=ell_max)
    micrograph, variance = sample.micrographs[0], sample.noise_variance
    x, views = basis.expand(density), ViewGrid(n_rotations)
    operator, images = ViewProjections(basis, views), basis.project(x, views.rotations)
    whole = np.ones((pixels - size + 1,) * 2, bool)
    regions = Regions(micrograph[None], whole[None], whole[None])

    def in_pixels(threads: int) -> NDArray[np.float32]:
        e_step = PixelExpectation(images, variance, EMPTY_PRIOR, None)
        _, (posterior,) = e_step.statistics(regions, threads)
        return posterior  # type: ignore[no-any-return]

    def in_features(threads: int) -> NDArray[np.float32]:
        e_step = WindowExpectation(operator, x, variance, EMPTY_PRIOR, None, size)
        return e_step.statistics(micrograph, whole, whole, threads)[1]

    difference = np.abs(in_pixels(2) - in_features(2)).max()
    for threads in (1, 2):
        works = [partial(in_pixels, threads), partial(in_features, threads)]
        seconds = shortest(works, rounds)
        before, after = (1e9 * s / whole.size / len(views) for s in seconds)
        print(
            f"| {size} | {ell_max} | {len(views)} | {threads} | {before:.2f} | "
            f"{after:.2f} | {before / after:.1f} | {difference:.0e} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", default=["11:10:576", "11:10:4608", "21:18:4608"]
    )
    parser.add_argument("--pixels", type=int, default=256, help="micrograph's side")
    parser.add_argument("--snr", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{machine.describe()['processor']}; ns for each position and rotation\n")
    print(
        "| L | degree | rotations | threads | pixels | features | ratio | difference |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        size, ell_max, n_rotations = (int(number) for number in case.split(":"))
        print_case(
            size,
            ell_max,
            n_rotations,
            arguments.pixels,
            arguments.snr,
            arguments.rounds,
        )


if __name__ == "__main__":
    main()
