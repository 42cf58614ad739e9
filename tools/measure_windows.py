"""Measure the window model's E-step: hypotheses a second, and their ratio to sgemm.

    python tools/measure_windows.py [--cases 11:10:576 21:18:4608] [--rounds 3]

A case is L, the degree and about how many rotations. A hypothesis is a position and a
rotation, worth L**2 useful multiply-adds in each of the two passes, the evidence and
the weights. Every E-step sees one simulated micrograph with the projections of its
truth; what a run does once a stage is left out. Rates are those of the shortest of
several runs that alternate with a matrix product in one process.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from problems import MATRIX_SIDE, matrix_product, shortest

from numbasaem import ViewGrid, VolumeBasis, machine, simulate
from numbasaem.observations.window_expectation import WindowExpectation
from numbasaem.projection.view_projections import ViewProjections
from numbasaem.reconstruction.maximization import maximization
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
    operator = ViewProjections(basis, views)
    whole = np.ones((pixels - size + 1,) * 2, bool)
    nowhere = np.zeros_like(whole)
    e_step = WindowExpectation(operator, x, variance, EMPTY_PRIOR, None, size)
    statistics, _ = e_step.statistics(micrograph, whole, whole)
    (seconds_of_m_step,) = shortest([partial(maximization, basis, views, statistics)])
    share = statistics.n_weighed / whole.size
    for threads in (1, 2):
        works = [
            partial(e_step.statistics, micrograph, whole, counting, threads)
            for counting in (nowhere, whole)
        ]
        evidence, both, product = shortest([*works, matrix_product(threads)], rounds)
        n_hypotheses = whole.size * len(views)
        passes = evidence, both - evidence, both
        rates = [n_hypotheses / seconds / 1e9 for seconds in passes]
        rates[1] *= share
        sgemm = MATRIX_SIDE**3 / product / 1e9
        useful = [
            n * size**2 * rate / sgemm for n, rate in zip((1, 1, 2), rates, strict=True)
        ]
        columns = " | ".join(
            f"{rate:.2f} | {ratio:.1f}"
            for rate, ratio in zip(rates, useful, strict=True)
        )
        print(
            f"| {size} | {ell_max} | {len(views)} | {threads} | {columns} | "
            f"{share:.0%} | {seconds_of_m_step:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases",
        nargs="+",
        default=["11:4:576", "11:10:576", "11:10:4608", "21:18:4608"],
    )
    parser.add_argument("--pixels", type=int, default=256, help="micrograph's side")
    parser.add_argument("--snr", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{machine.describe()['processor']}; 10^9 hypotheses a second, and their")
    print("useful multiply-adds over those of a float32 matrix product\n")
    print(
        "| L | degree | rotations | threads | evidence | / sgemm | weights | / sgemm | "
        "E-step | / sgemm | weighed | M-step s |"
    )
    print(12 * "|---" + "|")
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
