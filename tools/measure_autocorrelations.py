"""Measure the pass over a micrograph, and fits to autocorrelations without noise.

    python tools/measure_autocorrelations.py MAP... [--pixels 2992] [--size 11]
        [--ell-max 4] [--starts 5] [--rounds 3] [--touching DENSITY]

The pass is timed beside a symmetric product, ssyrk, in alternation; its useful
multiply-adds are pixels times distinct values of the third order. A fit has the exact
autocorrelations of a map at the given degree, as files or names that `simulate` takes,
and begins from one random volume. With `--touching`, fits to noisy micrographs of
particles so dense instead, one a seed (as many as starts), with and without their
surroundings.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from problems import MATRIX_SIDE, shortest, timed
from scipy.linalg.blas import ssyrk

from numbasaem import (
    VolumeBasis,
    align,
    autocorrelations,
    fit_autocorrelations,
    simulate,
)
from numbasaem.autocorrelation.fit import autocorrelations_of_volume
from numbasaem.io.atomic_models import load_volume
from numbasaem.micrographs.fourier_crop import fourier_crop
from numbasaem.volume.phantom import folded_chain

DENSITY = 0.1
"""Particles in the area of a box."""


def print_rate(size: int, pixels: int, rounds: int) -> None:
    """Print seconds and rate of a pass, and its rate over ssyrk's."""
    generator = np.random.default_rng(0)
    micrograph = generator.standard_normal((pixels, pixels), dtype=np.float32)
    matrix = generator.standard_normal((MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32)
    one_pass = partial(autocorrelations, [micrograph], size)
    seconds, of_product = shortest([one_pass, lambda: ssyrk(1.0, matrix)], rounds)
    moments = one_pass()
    rate = moments.n_pixels * len(moments.third) / seconds / 1e9
    of_ssyrk = MATRIX_SIDE**3 / 2 / of_product / 1e9
    print(
        f"pass of {pixels} x {pixels} pixels at L = {size}: {seconds:.1f} s, "
        f"{rate:.0f} G multiply-adds/s; ssyrk {of_ssyrk:.0f} G; "
        f"ratio {rate / of_ssyrk:.2f}",
        flush=True,
    )


def print_fits(name: str, size: int, ell_max: int, n_starts: int) -> None:
    """Print what each start makes of the exact autocorrelations of a map."""
    density, _ = load_volume(name, size)
    basis = VolumeBasis(size, ell_max)
    whole = fourier_crop(density, size)
    x = basis.expand(whole)
    moments = autocorrelations_of_volume(basis, x, DENSITY / size**2)
    for seed in range(n_starts):
        fit, seconds = timed(
            partial(fit_autocorrelations, moments, basis, n_starts=1, seed=seed)
        )
        volume = basis.evaluate(fit.volume_coefficients)
        at_degree = align(volume, basis.evaluate(x)).correlation
        print(
            f"{name}, degree {ell_max}, start {seed}: correlation {at_degree:.4f}, "
            f"with the whole map {align(volume, whole).correlation:.4f}, "
            f"misfit {fit.misfit:.2g}{', stalled' if fit.stalled else ''}, "
            f"{seconds:.1f} s",
            flush=True,
        )


def print_touching(size: int, ell_max: int, density: float, seeds: int) -> None:
    """Print fits to a noisy micrograph of touching particles, both ways."""
    basis = VolumeBasis(size, ell_max)
    for seed in range(seeds):
        sample = simulate(
            folded_chain(size),
            size=size,
            pixels=1500,
            snr=5,
            ell_max=ell_max,
            spacing="arbitrary",
            density=density,
            seed=seed,
        )
        moments = autocorrelations(sample.micrographs, size)
        true_density = sum(sample.placed) / sample.micrographs[0].size
        for surroundings in (False, True):
            fit = fit_autocorrelations(
                moments, basis, n_starts=3, seed=seed, surroundings=surroundings
            )
            volume = basis.evaluate(fit.volume_coefficients)
            found = align(volume, sample.volume_true).correlation
            print(
                f"touching, seed {seed}, {'with' if surroundings else 'without'} "
                f"surroundings: correlation {found:.4f}, density "
                f"{fit.density / true_density:.3f} and noise variance "
                f"{fit.noise_variance / sample.noise_variance:.3f} of the truth's, "
                f"misfit {fit.misfit:.2g}",
                flush=True,
            )


def main() -> None:
    """Print the pass, then the fits to each map or to touching particles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", nargs="*", metavar="MAP")
    parser.add_argument("--pixels", type=int, default=2992, help="micrograph's side")
    parser.add_argument("--size", type=int, default=11)
    parser.add_argument("--ell-max", type=int, default=4)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--touching", type=float, metavar="DENSITY", help="particles in a box's area"
    )
    arguments = parser.parse_args()
    if arguments.touching is not None:
        size, ell_max = arguments.size, arguments.ell_max
        print_touching(size, ell_max, arguments.touching, arguments.starts)
        return
    print_rate(arguments.size, arguments.pixels, arguments.rounds)
    for name in arguments.maps:
        print_fits(name, arguments.size, arguments.ell_max, arguments.starts)


if __name__ == "__main__":
    main()
