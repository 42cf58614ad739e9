"""Made-up volumes: the 3-D Shepp-Logan phantom and a folded chain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numbasaem.geometry.grids import lattice, offsets

# Value added inside, semi-axes (3), centre (3), then the angles (degrees) of the turn
# about the third axis, the tilt about the new first and the turn about the new third.
# Lengths are fractions of the half-width. The contrast is that of the "modified"
# phantom, as MATLAB's `phantom3d` has it.
ELLIPSOIDS = (
    (1.0, 0.69, 0.92, 0.81, 0.0, 0.0, 0.0, 0, 0, 0),
    (-0.8, 0.6624, 0.874, 0.78, 0.0, -0.0184, 0.0, 0, 0, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.22, 0.0, 0.0, -18, 0, 10),
    (-0.2, 0.16, 0.41, 0.28, -0.22, 0.0, 0.0, 18, 0, 10),
    (0.1, 0.21, 0.25, 0.41, 0.0, 0.35, -0.15, 0, 0, 0),
    (0.1, 0.046, 0.046, 0.05, 0.0, 0.1, 0.25, 0, 0, 0),
    (0.1, 0.046, 0.046, 0.05, 0.0, -0.1, 0.25, 0, 0, 0),
    (0.1, 0.046, 0.023, 0.05, -0.08, -0.605, 0.0, 0, 0, 0),
    (0.1, 0.023, 0.023, 0.02, 0.0, -0.606, 0.0, 0, 0, 0),
    (0.1, 0.023, 0.046, 0.02, 0.06, -0.605, 0.0, 0, 0, 0),
)


_BEADS = 40


def shepp_logan(size: int) -> NDArray[np.float64]:
    """Sample the 3-D Shepp-Logan phantom at the voxel centres of a cube.

    The centre of the head is at index ``size // 2`` and its half-width is ``size // 2``
    voxels, so that it lies in the ball the volume is reconstructed in.

    Parameters
    ----------
    size : int
        Length of the cube in voxels, at least 3.

    Returns
    -------
    float64, shape (size, size, size)
        Values from 0 to 1, ``volume[z, y, x]``. The table's first axis lies along y and
        its second along x, as in the paper's stored phantom.
    """
    places = offsets(size) / (size // 2)
    third, first, second = lattice(places, 3)
    points = np.stack([first, second, third])
    volume = np.zeros((size,) * 3)
    for value, *numbers in ELLIPSOIDS:
        axes, centre, angles = np.reshape(numbers, (3, 3))
        # The centre is given along the turned axes: the table's own convention.
        turned = np.tensordot(_turn(angles), points, axes=1)
        offset = (turned - centre[:, None, None, None]) / axes[:, None, None, None]
        volume[np.sum(offset**2, axis=0) <= 1] += value
    # Sums such as 1 - 0.8 - 0.2 leave rounding behind.
    return np.round(volume, 12) + 0.0


def _turn(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    (c1, c2, c3), (s1, s2, s3) = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
    return np.array(
        [
            [c3 * c1 - c2 * s1 * s3, c3 * s1 + c2 * c1 * s3, s3 * s2],
            [-s3 * c1 - c2 * s1 * c3, -s3 * s1 + c2 * c1 * c3, c3 * s2],
            [s2 * s1, -s2 * c1, c2],
        ]
    )


def folded_chain(size: int, seed: int = 0, radius: float = 0.3) -> NDArray[np.float64]:
    """Make up a molecule: a chain of Gaussian beads folded into a ball.

    Parameters
    ----------
    size : int
        Voxels a side.
    seed : int
        Seed of the random walk.
    radius : float
        Radius that the beads keep to, in sizes; up to 0.3 their tails, too, end inside
        the ball that a volume basis of this size covers.

    Returns
    -------
    float64, shape (size, size, size)
        Density, indexed [z, y, x]; it has no symmetry and a hand.
    """
    generator = np.random.default_rng(seed)
    step, limit, width = 0.1 * size, radius * size, 0.04 * size
    beads = np.zeros((_BEADS, 3))
    for i in range(1, _BEADS):
        while True:
            move = generator.standard_normal(3)
            bead = beads[i - 1] + step * move / np.linalg.norm(move)
            if np.linalg.norm(bead) < limit:
                break
        beads[i] = bead
    profiles = np.exp(-((offsets(size) - beads[..., np.newaxis]) ** 2) / (2 * width**2))
    density: NDArray[np.float64] = np.einsum("bz,by,bx->zyx", *profiles.swapaxes(0, 1))
    return density
