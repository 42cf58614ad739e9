"""Gaussian prior of the volume: what the M-step adds to the matrix of its equations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .normal_equations import normal_equations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.observations.statistics import Statistics
    from numbasaem.projection.operator import ProjectionOperator
    from numbasaem.projection.view_projections import ViewProjections
    from numbasaem.volume.basis import VolumeBasis

_LEAST_AGREEMENT = 1e-3
"""Least share of the power of two halves that is taken for signal."""


def wide_precision(
    trace: float, statistics: Statistics, brightest: float, noise_variance: float
) -> float:
    """Noise variance over the prior variance of each coefficient, far above any volume.

    Parameters
    ----------
    trace : float
        Trace of the matrix A of (29).
    statistics : Statistics
        Statistics that A is made from.
    brightest : float
        Power of projections, over that of the pixels, that the prior expects.
    noise_variance : float
        sigma**2 of the pixels.

    Returns
    -------
    float
        The precision. Independent coefficients of that variance have projections of
        that power, since the diagonal of A, which the trace sums up, is the energy of
        each, summed up over the particles.
    """
    energy = brightest * statistics.patch_energy / statistics.n_patches
    of_particles = max(statistics.particle_mass * energy, np.finfo(float).tiny)
    return float(noise_variance * trace / of_particles)


def tau_precision(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    shells: NDArray[np.intp],
    noise_variance: float,
) -> NDArray[np.float64]:
    """Noise variance over the power of the signal in each shell of frequency.

    Parameters
    ----------
    first, second : float64, shape (M,)
        Volumes found from two halves of a minibatch.
    shells : intp, shape (M,)
        Shell of each coefficient; zero throughout for the white spectrum of atoms that
        are scattered over the ball, of which Wilson's statistics (Nature 150, 152,
        1942) leave one scale to fit.
    noise_variance : float
        sigma**2 of the pixels.

    Returns
    -------
    float64, shape (M,)
        sigma**2 / tau**2 of each coefficient: tau**2 is the mean product of the two
        volumes in its shell, to which noise does not add.

    Notes
    -----
    The role is that of tau**2 in RELION's M-step (Scheres, J. Struct. Biol. 180, 519,
    2012), which takes it from the FSC of half maps.
    """
    counts = np.maximum(np.bincount(shells), 1)
    signal = np.bincount(shells, first * second) / counts
    power = np.bincount(shells, first**2 + second**2) / counts / 2
    floor = np.maximum(_LEAST_AGREEMENT * power, np.finfo(float).tiny)
    return np.asarray(noise_variance / np.maximum(signal, floor)[shells])


def half_volumes(
    operator: ProjectionOperator | ViewProjections,
    symmetric: NDArray[np.float64],
    halves: tuple[Statistics, Statistics],
    brightest: float,
    noise_variance: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Volumes of the M-step on two halves of a minibatch.

    Parameters
    ----------
    operator : ProjectionOperator or ViewProjections
        Projections in the rotations that the statistics refer to.
    symmetric : float64, shape (M, n)
        Volumes whose combinations have the symmetry of the run.
    halves : tuple of two Statistics
        Statistics of each half.
    brightest, noise_variance : float
        As in :func:`wide_precision`.

    Returns
    -------
    two float64 arrays, shape (M,)
        The volumes.
    """
    volumes = []
    for statistics in halves:
        equations = normal_equations(operator, statistics)
        wide = wide_precision(equations.trace, statistics, brightest, noise_variance)
        equations = equations.with_precision(np.full(len(symmetric), wide))
        volumes.append(symmetric @ equations.restricted(symmetric).solve())
    return volumes[0], volumes[1]


def shells_of_frequency(basis: VolumeBasis) -> NDArray[np.intp]:
    """Shell of radial frequency of each coefficient.

    Parameters
    ----------
    basis : VolumeBasis
        Basis of the volume.

    Returns
    -------
    intp, shape (M,)
        Frequency in cycles per box, rounded: u_{ell,s} / (2 pi) of a radius of
        floor(L / 2) pixels in L of them.
    """
    zeros = [basis.radial_zeros(ell) for ell in range(basis.ell_max + 1)]
    ell, _, s = basis.indices.T
    wave_numbers = np.array(
        [zeros[degree][n - 1] for degree, n in zip(ell, s, strict=True)]
    )
    cycles = wave_numbers / (2 * np.pi) * basis.size / (basis.size // 2)
    return np.rint(cycles).astype(np.intp)
