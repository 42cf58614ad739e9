"""What the kernels of both models agree on: routes, tiles, ranges of exponents."""

from __future__ import annotations

from math import isqrt

SQUARE, DISC, SPECTRAL = range(3)
"""Routes: sums over all pixels; over those of the disc, outside of which templates have
to be zero; Fourier transforms."""
HIDDEN = -1e30
"""Base-2 log-weight of a state of zero prior: finite, so that it never makes a NaN."""
LOG2_FLUSH = -50.0
"""Weights below 2**-50 of the largest become zero: products never get denormal."""
HEADROOM = 64.0
"""Powers of two by which an exponent may exceed its window's level: sums of that many
stay far below the largest float32."""
TILE = 48
"""Windows along a side of a tile; a multiple of those worked on at once."""


def half_widths_of_disc(size: int) -> list[int]:
    """Columns on either side of the centre that the disc covers, for each row."""
    radius = size // 2
    return [isqrt(radius**2 - (row - radius) ** 2) for row in range(size)]
