"""What every benchmark starts from: simulated patches and a posterior to compute."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

import numbasaem
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.shift_prior import uniform_shift_prior

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Problem:
    """Input of one E-step: the truth's projections and patches at SNR 1."""

    patches: NDArray[np.float32]
    images: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float

    def expectation(self, threads: int | None = None) -> numbasaem.Statistics:
        """Run the E-step."""
        return numbasaem.expectation(
            self.patches,
            self.images,
            self.shift_prior,
            self.noise_variance,
            threads=threads,
        )


def problem(size: int, n_rotations: int, n_patches: int, snr: float = 1.0) -> Problem:
    """Simulate patches of a random smooth volume."""
    basis = numbasaem.VolumeBasis(size, 6)
    generator = np.random.default_rng(0)
    degree = basis.indices[:, 0]
    x = generator.standard_normal(basis.n_coefficients) / (1 + degree)
    pixels = size * (int(np.ceil(np.sqrt(n_patches))) + 1)
    simulation = numbasaem.simulate(
        basis.evaluate(x), size=size, pixels=pixels, snr=snr, ell_max=6
    )
    patches = cut_patches(simulation.micrographs[0], size)[:n_patches]
    return Problem(
        patches,
        basis.project(x, numbasaem.rotation_grid(n_rotations)),
        uniform_shift_prior(size, 0.5),
        simulation.noise_variance,
    )


def multiply_adds(size: int, n_rotations: int, n_patches: int) -> int:
    """Useful multiply-adds of an E-step: L^4 for correlation and for adjoint."""
    return 2 * n_patches * n_rotations * size**4


def best_time(work: Callable[[], object], repeats: int = 3) -> float:
    """Shortest of a few runs, after one that is thrown away, in seconds."""
    work()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times)


def sgemm_rate(threads: int, n: int = 2048) -> float:
    """Multiply-adds a second of a float32 matrix product."""
    matrix = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    with threadpool_limits(threads):
        return n**3 / best_time(lambda: matrix @ matrix)
