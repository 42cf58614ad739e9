"""How large the exponents of the E-step may get in float32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 0.1
"""Typical error in the log-likelihood of one patch that may come from rounding."""
LARGEST_EXPONENT = TOLERANCE / (3 * 2.0**-24)
"""Largest log-weight that float32 sums give to within `TOLERANCE`.

One rounding is 2**-24 of it, and those of the terms of a sum or of the passes of a
transform, which are random, come to about three times that. Of patches that show their
particle the exponent is L**2 times the SNR, over 2: the largest SNR is 9,200 at L = 11
and 1,160 at L = 31.
"""

_OVERFLOW = 1e30
"""Exponent far below the overflow of float32 products."""
_STRONGEST = 10.0
"""Energy of the strongest patch over the mean of all: some show nothing."""


def refuse_large_exponents(
    where: str,
    strongest: float,
    template: float,
    noise_variance: float,
    empty_possible: bool = True,
) -> None:
    """Refuse data whose log-weights float32 would round too much.

    Parameters
    ----------
    where : str
        The arguments at fault, as the user knows them.
    strongest : float
        Largest norm of a patch, or of a window.
    template : float
        Largest norm of a projection.
    noise_variance : float
        sigma**2.
    empty_possible : bool
        Whether a patch may hold no particle.

    Raises
    ------
    InputError
        If a log-weight may exceed `LARGEST_EXPONENT`.

    Notes
    -----
    A log-weight is (<I, P> - ||P||**2 / 2) / sigma**2, summed up from its second term
    on. By the inequality of Cauchy and Schwarz no partial sum is farther from zero than
    (max(||I||, ||P||) ||P|| - ||P||**2 / 2) / sigma**2, which grows with ||P||. Where a
    patch may be empty, projections of more than twice its norm have no weight, however
    their exponents are rounded: in the middle of a run a volume may overshoot by far.
    """
    weighty = min(template, 2 * strongest) if empty_possible else template
    largest = weighty * (max(strongest, weighty) - weighty / 2) / noise_variance
    overflows = not template**2 / noise_variance <= _OVERFLOW  # NaN of squares, too
    if overflows or not largest <= LARGEST_EXPONENT:
        raise expected(
            where,
            "pixels of the order of the noise, "
            f"log-weights of at most {LARGEST_EXPONENT:.2g}",
            f"{largest:.2g} at noise_variance {noise_variance:.3g}",
        )


def least_noise_variance(mean_energy: float) -> float:
    """Least noise variance under which a run's log-weights are exact enough.

    Parameters
    ----------
    mean_energy : float
        Mean of ||I||**2 over the patches.

    Returns
    -------
    float
        Under it the exponents of all patches stay below `LARGEST_EXPONENT`, unless one
        is far stronger than the others.
    """
    return _STRONGEST * mean_energy / 2 / LARGEST_EXPONENT


def strongest_patch(patches: NDArray[np.float32]) -> float:
    """Largest norm of a patch.

    Parameters
    ----------
    patches : float32, shape (n_patches, L, L)
        Patches.

    Returns
    -------
    float
        Of no patches, 0.
    """
    energies = np.einsum("pij,pij->p", patches, patches, dtype=np.float64)
    return math.sqrt(energies.max(initial=0.0))


def strongest_window(pixels: NDArray[np.float32], size: int) -> float:
    """Largest norm of a window.

    Parameters
    ----------
    pixels : float32, shape (n_regions, rows, columns)
        Regions of micrographs, at least L pixels a side.
    size : int
        L, side of a window.

    Returns
    -------
    float
        Of no regions, 0.
    """
    strongest = 0.0
    for region in pixels:
        table = np.zeros([n + 1 for n in region.shape])
        np.square(region, out=table[1:, 1:], dtype=np.float64)
        table.cumsum(axis=0, out=table).cumsum(axis=1, out=table)
        down = table[size:] - table[:-size]
        energies = down[:, size:] - down[:, :-size]
        strongest = max(strongest, float(energies.max()))
    return math.sqrt(strongest)
