"""The side of a patch and the molecule's extent in it, from one to the other.

A patch of L pixels holds a disc of ``2 (L // 2)`` pixels, of which one is left free for
the ringing at the rim: half on either side. The rest is for the molecule.
"""

from __future__ import annotations

import math

from numbasaem.errors import expected

_RINGING = 1
"""Pixels of the disc's diameter left free, half on either side, for ringing."""
FIRST_LOOK = 13
"""Side of a patch, pixels, for a first look at a molecule."""
_LEAST_FOR_RESOLUTION = 11
"""Smallest side of a patch, pixels, where a resolution is aimed at."""
_FEWEST_PIXELS = 5
"""Fewest pixels of a micrograph across a molecule."""
_TOLERANCE = 1e-6
"""Relative difference of lengths that are the same but for rounding."""


def molecule_pixels(size: int) -> int:
    """Pixels across the molecule in a patch.

    Parameters
    ----------
    size : int
        L, side of the patch, pixels.

    Returns
    -------
    int
        Diameter of the disc in the patch less what ringing takes.

    Examples
    --------
    >>> [molecule_pixels(size) for size in (11, 12, 13)]
    [9, 11, 11]
    """
    return 2 * (size // 2) - _RINGING


def size_for(diameter: float, pixel_size: float, resolution: float | None) -> int:
    """Side of a patch that shows a molecule as finely as is asked.

    Parameters
    ----------
    diameter : float
        Longest extent of the molecule, angstrom.
    pixel_size : float
        Angstrom per pixel of the micrographs.
    resolution : float or None
        Length that two pixels are to come to at most, angstrom; None is a first look.

    Returns
    -------
    int
        L, odd: 13 for a first look, at least 11 for a resolution; fewer where pixels
        would become smaller than those of the micrographs.

    Raises
    ------
    InputError
        If the resolution is below two pixels of the micrographs, or fewer than 5 of
        them span the molecule.

    Examples
    --------
    >>> [size_for(120.0, 1.5, resolution) for resolution in (None, 20.0, 10.0, 3.0)]
    [13, 15, 27, 81]
    >>> size_for(30.0, 5.0, None)  # 6 pixels across the molecule, of which 5 are used
    7
    """
    pixels = f"pixels of {pixel_size:.4g} A"
    if diameter < _FEWEST_PIXELS * pixel_size * (1 - _TOLERANCE):
        least = f"at least {_rounded_up(_FEWEST_PIXELS * pixel_size)} A"
        wanted = f"{least}, {_FEWEST_PIXELS} {pixels}"
        raise expected("particle_diameter", wanted, f"{diameter:g} A")
    wanted_size = FIRST_LOOK
    if resolution is not None:
        if resolution < 2 * pixel_size * (1 - _TOLERANCE):
            wanted = f"at least {_rounded_up(2 * pixel_size)} A, two {pixels}"
            raise expected("resolution", wanted, f"{resolution:g} A")
        across = math.ceil(2 * diameter / resolution * (1 - _TOLERANCE))
        wanted_size = max(_smallest_odd_size(across), _LEAST_FOR_RESOLUTION)
    return min(wanted_size, _largest_odd_size(diameter / pixel_size))


def _smallest_odd_size(across: int) -> int:
    """Smallest odd side of a patch with so many pixels across the molecule."""
    least = across + _RINGING + 1
    return least + (least + 1) % 2


def _largest_odd_size(across: float) -> int:
    """Largest odd side of a patch with at most so many pixels across the molecule."""
    most = math.floor(across * (1 + _TOLERANCE)) + _RINGING + 1
    return most - (most + 1) % 2


def _rounded_up(length: float) -> str:
    """Length of which no digit shown is too low."""
    return f"{math.ceil(length * 100 - _TOLERANCE) / 100:g}"
