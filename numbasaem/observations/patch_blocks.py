"""How a batch of patches is divided into blocks, and what a block takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.kernels.llvm import LANES
from numbasaem.kernels.patches import spectral

from .exact_sums import BatchLayout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FOURIER_FROM = spectral.faster_from(LANES)
"""Smallest L whose correlations are taken through Fourier transforms."""
_SHORTEST_BLOCK, _LONGEST_BLOCK = 64, 512
"""Patches of a block: adding up the images of a shorter one would show in the time."""
_ENOUGH_BLOCKS = 64
"""Blocks to share among threads."""
_WIDEST = 16
"""Patches in step on the widest processors; a block is a multiple of them."""
_SPECTRAL_WORK = 2 * 12**2
"""Work of a rotation through Fourier transforms, over L**2: as much as sums over
pixels where one takes over from the other."""
_BLOCK_WORK = 1 << 35
"""Multiply-adds of a block, at most: the second or so that an interruption waits."""


def batch_layout(n_patches: int, images: ArrayLike, brightest: float) -> BatchLayout:
    """Divide a batch into blocks, whoever will work on them.

    Parameters
    ----------
    n_patches : int
        Patches of the whole batch.
    images : array, shape (n_rotations, L, L)
        Projections.
    brightest : float
        No pixel of the patches is further from zero.

    Returns
    -------
    BatchLayout
        The same on any number of threads and computers.
    """
    n_rotations, size, _ = np.shape(images)
    length = _block_length(n_patches, n_rotations, size, is_spectral(size))
    return BatchLayout(n_patches, length, brightest)


def is_spectral(size: int) -> bool:
    """Whether correlations are taken through Fourier transforms.

    Parameters
    ----------
    size : int
        L, side of a patch, pixels.

    Returns
    -------
    bool
        Decided by what is faster on this machine.
    """
    return LANES > 1 and size >= FOURIER_FROM


def _block_length(
    n_patches: int, n_rotations: int, size: int, through_spectra: bool
) -> int:
    """Patches of a block: the same for any number of threads, so that sums are, too."""
    work = _SPECTRAL_WORK * size**2 if through_spectra else 2 * size**4
    affordable = min(_LONGEST_BLOCK, _BLOCK_WORK // (n_rotations * work))
    wanted = max(_SHORTEST_BLOCK, n_patches // _ENOUGH_BLOCKS)
    return max(1, min(affordable, wanted) // _WIDEST) * _WIDEST


class BlockSums:
    """Arrays that blocks of patches are summed into, for as many as run at once.

    Parameters
    ----------
    n_blocks : int
        Blocks at once.
    n_rotations : int
        K, rounded up to an even number.
    size : int
        L, side of a patch, pixels.
    """

    def __init__(self, n_blocks: int, n_rotations: int, size: int) -> None:
        self.images = np.empty((n_blocks, n_rotations, 2 * size**2))
        self.rotation_mass = np.empty((n_blocks, n_rotations))
        self.shift_mass = np.empty((n_blocks, (2 * size - 1) ** 2))
        self.tallies = np.empty((n_blocks, 2))


def block_bytes(n_rotations: int, size: int) -> int:
    """Memory of a block of patches: what it writes, and what its kernel works on.

    Parameters
    ----------
    n_rotations : int
        K.
    size : int
        L, side of a patch, pixels.

    Returns
    -------
    int
        Bytes, on the widest processors.
    """
    n_even = n_rotations + n_rotations % 2
    slab = 2 * 8 * n_even * size**2
    work = 4 * _WIDEST * (2 * n_even * (size**2 + 1) + 4 * (2 * size) ** 2)
    return slab + work
