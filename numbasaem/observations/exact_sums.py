"""Sums over blocks of patches, the same bits however the blocks are divided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SUM_BITS = 46
"""Bits of the largest sum: far more than float32 sums of a block have, and few enough
that sign and carry fit into the bytes in which sums travel."""
PACKED_BYTES = 6
"""Bytes of each number of :class:`PartialSums` on its way between processes."""


@dataclass(frozen=True)
class BatchLayout:
    """Layout that all parts of a batch share, so that their sums add up exactly.

    Attributes
    ----------
    n_patches : int
        Number of patches of the whole batch.
    block_length : int
        Number of patches of a block; every part but the last holds a multiple of it.
    brightest : float
        Largest distance of a pixel from zero.
    """

    n_patches: int
    block_length: int
    brightest: float

    @property
    def n_blocks(self) -> int:
        """Number of blocks of the whole batch; the last one may be short."""
        return -(-self.n_patches // self.block_length)

    @property
    def units(self) -> tuple[float, float]:
        """Inverse of the units in which sums of weights and of pixels are counted."""
        weights, pixels = (math.frexp(x)[1] for x in (self.n_patches, self.brightest))
        return 2.0 ** (_SUM_BITS - weights), 2.0 ** (_SUM_BITS - weights - pixels)


@dataclass(frozen=True)
class PartialSums:
    """Sums over blocks of a batch; any grouping of them adds up to the same bits.

    Attributes
    ----------
    counts : float64, shape (n,)
        Images, rotation mass and displacement mass, in whole numbers of a unit.
    of_blocks : float64, shape (n_blocks, 3)
        Base-2 log of the patches' total mass, mass of empty, and energy of each block.
    """

    counts: NDArray[np.float64]
    of_blocks: NDArray[np.float64]

    def __add__(self, other: PartialSums) -> PartialSums:
        """Sums over the blocks of both."""
        of_blocks = np.concatenate([self.of_blocks, other.of_blocks])
        return PartialSums(self.counts + other.counts, of_blocks)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel as integers of six bytes."""
        octets = self.counts.astype("<i8").view(np.uint8).reshape(-1, 8)
        packed = np.ascontiguousarray(octets[:, :PACKED_BYTES])
        return _unpacked, (packed, self.of_blocks)


def _unpacked(packed: NDArray[np.uint8], of_blocks: NDArray[np.float64]) -> PartialSums:
    """Inverse of :meth:`PartialSums.__reduce__`."""
    octets = np.zeros((len(packed), 8), np.uint8)
    octets[:, -PACKED_BYTES:] = packed
    shifted = octets.view("<i8").ravel() >> 8 * (8 - PACKED_BYTES)
    return PartialSums(shifted.astype(np.float64), of_blocks)
