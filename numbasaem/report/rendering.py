"""Surfaces of maps as pictures: the first crossing along each line of sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .shapes import FineMap

_PIXELS = 200
"""Side of a picture, pixels."""
_LAMP = np.array([-0.4, 0.45, 0.8]) / np.linalg.norm([-0.4, 0.45, 0.8])
"""Direction of the lamp (right, up, towards the viewer): above the left shoulder."""
_AMBIENT, _DIFFUSE, _GLOSS = 0.38, 0.72, 0.22
"""Light from all sides, light of the lamp, and the strength of its reflection."""
_SHARPNESS = 25
"""Exponent of the reflection: the higher, the smaller the bright spot."""
_HAZE = 0.5
"""Share of white in what is farthest from the viewer."""
_SHADE = 0.45
"""Share of light that hollows lose."""
_WIDTH_OF_HOLLOWS = 0.05
"""Width of the hollows that are shaded, in sides of the picture."""


def cube_of(
    density: FineMap, middle: NDArray[np.float64], reach: float
) -> NDArray[np.float32]:
    """Densities in the cube that pictures show, one sample for each pixel.

    Parameters
    ----------
    density : FineMap
        The map.
    middle : float64, shape (3,)
        Centre (x, y, z) of the cube, angstrom.
    reach : float
        Distance from the centre to the cube's faces, angstrom.

    Returns
    -------
    float32, shape (n, n, n)
        Samples, indexed [z, y, x].
    """
    steps = np.linspace(-reach, reach, _PIXELS)
    return density.resampled(*(steps + centre for centre in middle)).astype(np.float32)


def shaded_view(
    cube: NDArray[np.float32], level: float, side: str, colour: str
) -> NDArray[np.float64]:
    """Picture of a surface as a matt body under one lamp, on white.

    Parameters
    ----------
    cube : float32, shape (n, n, n)
        Densities, of :func:`cube_of`.
    level : float
        Density of the surface.
    side : str
        Axes that point right, up and along the line of sight, such as "xyz".
    colour : str
        Colour of the surface, as Matplotlib takes it.

    Returns
    -------
    float64, shape (n, n, 3)
        Red, green and blue from 0 to 1; rows from the top down.
    """
    block = _seen_from(cube, side)
    depth, coverage = _first_crossing(block, level)
    scattered, reflected = _light(_normals(block, depth))
    height = np.where(coverage > 0, len(block) - depth, 0.0)
    lit = scattered * (1 - _SHADE * _hollows(height))
    body = lit[..., np.newaxis] * to_rgb(colour) + reflected[..., np.newaxis]
    far = (height.max() - height) / len(block)
    clear = (coverage * (1 - _HAZE * far))[..., np.newaxis]
    picture: NDArray[np.float64] = 1 - clear * (1 - body.clip(0, 1))
    return picture


def _seen_from(cube: NDArray[np.float32], side: str) -> NDArray[np.float32]:
    """The same densities, indexed [away from the viewer, down, right]."""
    right, up, sight = ("zyx".index(letter) for letter in side)
    turned = cube.transpose(sight, up, right)[:, ::-1]
    # A right-handed frame looks along its third axis from the far end.
    handed = side in ("xyz", "yzx", "zxy")
    return np.ascontiguousarray(turned[::-1] if handed else turned)


def _first_crossing(
    block: NDArray[np.float32], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depth at which each line of sight meets the surface, and how much of it does.

    Lines that pass by have the depth at which they come closest.
    """
    above = block > level
    first = np.where(above.any(axis=0), above.argmax(axis=0), block.argmax(axis=0))
    before = np.maximum(first - 1, 0)
    outside, inside = (
        np.take_along_axis(block, number[np.newaxis], axis=0)[0].astype(np.float64)
        for number in (before, first)
    )
    rise = inside - outside
    share = np.divide(level - outside, rise, out=np.ones_like(rise), where=rise > 0)
    depth = before + np.where(first > 0, share.clip(0, 1), 0.0)
    # Pixels on the outline are covered in part, as the slope of the highest tells.
    highest = block.max(axis=0).astype(np.float64)
    slope = np.hypot(*np.gradient(highest))
    flat = np.where(highest > level, 1.0, -1.0)
    distance = np.divide(highest - level, slope, out=flat, where=slope > 0)
    return depth, (distance + 0.5).clip(0, 1)


def _normals(
    block: NDArray[np.float32], depth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Unit vectors (right, up, towards the viewer) out of the surface at a depth."""
    places = np.stack([depth, *np.indices(depth.shape)])
    slopes = []
    for axis in (2, 1, 0):
        step = np.zeros((3, 1, 1))
        step[axis] = 1
        ahead, behind = (
            ndimage.map_coordinates(
                block, places + sign * step, order=1, mode="nearest"
            )
            for sign in (1, -1)
        )
        slopes.append((ahead - behind).astype(np.float64))
    # Density falls outwards; rows run down and depth runs away from the viewer.
    normals: NDArray[np.float64] = np.stack([-slopes[0], slopes[1], slopes[2]], axis=-1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals /= np.where(length > 0, length, 1.0)
    return normals


def _light(normals: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Light that a surface scatters, and light that it reflects to the viewer."""
    halfway = _LAMP + np.array([0.0, 0.0, 1.0])
    halfway = halfway / np.linalg.norm(halfway)
    scattered = _AMBIENT + _DIFFUSE * np.clip(normals @ _LAMP, 0, 1)
    reflected = _GLOSS * np.clip(normals @ halfway, 0, 1) ** _SHARPNESS
    return scattered, reflected


def _hollows(height: NDArray[np.float64]) -> NDArray[np.float64]:
    """How deep each place lies below those around it, from 0 to 1."""
    width = _WIDTH_OF_HOLLOWS * len(height)
    around = ndimage.gaussian_filter(height, width)
    return np.clip((around - height) / (2 * width), 0, 1)
