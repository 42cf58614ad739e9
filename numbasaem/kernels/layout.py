"""Constants of the kernels: routes of the patch model, ranges of exponents."""

from __future__ import annotations

from math import isqrt

SQUARE, DISC, SPECTRAL = range(3)
"""Routes: sums over all pixels; sums over the disc, for templates that are zero outside
of it; Fourier transforms."""
HIDDEN = -1e30
"""Base-2 log-weight of a state of zero prior: finite, so that it never makes a NaN."""
LOG2_FLUSH = -50.0
"""Base-2 logarithm of the smallest weight, relative to the level, that is not zero.

Without smaller ones no product gets denormal.
"""
HEADROOM = 64.0
"""Powers of two by which an exponent may exceed its window's level: sums of such terms
stay far below the largest float32."""


def half_widths_of_disc(size: int) -> list[int]:
    """Columns on either side of the centre that the disc covers, for each row."""
    radius = size // 2
    return [isqrt(radius**2 - (row - radius) ** 2) for row in range(size)]
