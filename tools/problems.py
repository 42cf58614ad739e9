"""The problem that tools and benchmarks time, and how they time it.

Scripts of this folder import it by its name alone, because Python looks beside a script
first; the benchmarks put this folder on their path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_expectation import expectation
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain

ELL_MAX = 10
N_ROTATIONS = 552
SNR = 1.0
MATRIX_SIDE = 2048
"""Side of the float32 matrices whose product the E-step is compared with."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Problem:
    """Input of one iteration: patches and the projections of the molecule in them.

    Attributes
    ----------
    patches : float32, shape (P, L, L)
        Patches of a simulated micrograph.
    operator : ProjectionOperator
        Operator from coefficients to projections.
    coefficients : float64, shape (M,)
        Coefficients of the molecule.
    images : float64, shape (K, L, L)
        Projections of the molecule.
    shift_prior : float64, shape (2L, 2L)
        Uniform prior, half of the patches without a particle.
    noise_variance : float
        Noise variance of the micrograph.
    """

    patches: NDArray[np.float32]
    operator: ProjectionOperator
    coefficients: NDArray[np.float64]
    images: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float

    def expectation(self, threads: int | None = None) -> ImageStatistics:
        """Posterior of all patches, summed up."""
        return expectation(
            self.patches,
            self.images,
            self.shift_prior,
            self.noise_variance,
            threads=threads,
        )

    def noise(self, *shape: int) -> NDArray[np.float32]:
        """Pixels of the same noise without a particle."""
        deviation = np.sqrt(self.noise_variance)
        return np.random.default_rng(1).normal(0, deviation, shape).astype(np.float32)

    @property
    def multiply_adds(self) -> int:
        """Useful multiply-adds: L**4 a patch and rotation for each of two products."""
        size = int(self.images.shape[1])
        return 2 * len(self.patches) * len(self.images) * size**4


def simulated_problem(
    size: int, n_patches: int, n_rotations: int = N_ROTATIONS
) -> Problem:
    """Patches of a simulated micrograph at SNR 1, and the truth's projections."""
    density = folded_chain(size)
    basis = VolumeBasis(size, ELL_MAX)
    operator = ProjectionOperator(basis, ViewGrid(n_rotations).rotations)
    coefficients = basis.expand(density)
    pixels = size * (int(np.ceil(np.sqrt(n_patches))) + 1)
    simulation = simulate(density, size=size, pixels=pixels, snr=SNR, ell_max=ELL_MAX)
    return Problem(
        patches=cut_patches(simulation.micrographs[0], size)[:n_patches],
        operator=operator,
        coefficients=coefficients,
        images=operator.project(coefficients),
        shift_prior=uniform_shift_prior(size, 0.5),
        noise_variance=simulation.noise_variance,
    )


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Result of the work, and its wall time in seconds."""
    began = perf_counter()
    result = work()
    return result, perf_counter() - began


def shortest(works: Sequence[Callable[[], object]], rounds: int = 3) -> list[float]:
    """Shortest time of each piece of work, in seconds, of alternating runs.

    A run of each is thrown away first: it may compile.
    """
    for work in works:
        work()
    times = [[timed(work)[1] for work in works] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def matrix_product(threads: int) -> Callable[[], object]:
    """A float32 matrix product on that many threads."""
    shape = (MATRIX_SIDE, MATRIX_SIDE)
    matrix = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def multiply() -> None:
        with threadpool_limits(threads):
            matrix @ matrix

    return multiply
