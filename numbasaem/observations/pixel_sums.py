"""Sums over the pixels of micrographs, which add up to the same bits in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class PixelSums:
    """Sums over the pixels of a micrograph's patches.

    Attributes
    ----------
    n_patches, n_pixels : int
        Number of patches and of pixels.
    total, energy : float
        Sum of the pixels and of their squares.
    brightest : float
        Largest distance of a pixel from zero.
    """

    n_patches: int
    n_pixels: int
    total: float
    energy: float
    brightest: float


def pixel_sums(patches: NDArray[np.float32]) -> PixelSums:
    """Sum up the pixels of a micrograph's patches.

    Parameters
    ----------
    patches : float32, shape (n_patches, L, L)
        Patches.

    Returns
    -------
    PixelSums
        The sums, without a copy of the patches.
    """
    return PixelSums(
        n_patches=len(patches),
        n_pixels=patches.size,
        total=float(np.sum(patches, dtype=np.float64)),
        energy=float(np.einsum("pij,pij->", patches, patches, dtype=np.float64)),
        brightest=float(max(patches.max(initial=0), -patches.min(initial=0))),
    )


def variance_and_brightest(sums: Sequence[PixelSums]) -> tuple[float, float]:
    """Variance of all pixels, and the largest distance from zero.

    Parameters
    ----------
    sums : sequence of PixelSums
        Sums over each micrograph.

    Returns
    -------
    variance, brightest : float
        The same bits in any order of the micrographs.
    """
    n_pixels = sum(micrograph.n_pixels for micrograph in sums)
    mean = math.fsum(micrograph.total for micrograph in sums) / n_pixels
    square = math.fsum(micrograph.energy for micrograph in sums) / n_pixels
    return square - mean**2, max(micrograph.brightest for micrograph in sums)
