"""Volumes brought back to the middle of their box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from numbasaem.geometry.grids import offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .basis import VolumeBasis

FARTHEST = 1.0
"""Distance of the centre, voxels, from which a volume is moved.

A particle's own centre of energy may be half a voxel from the point that its positions
refer to; particles that stand on whole pixels, as simulated ones do, tie the volume to
that point.
"""


def centred(
    basis: VolumeBasis, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Move a volume whose centre lies far off to the middle of the box.

    The likelihood of windows is the same wherever in the box the volume is, until the
    ball cuts off what reaches out of it.

    Parameters
    ----------
    basis : VolumeBasis
        Basis of the volume.
    coefficients : float64, shape (M,)
        The volume.

    Returns
    -------
    float64, shape (M,)
        The moved volume; the same array if its centre of energy is less than a voxel
        from the middle.

    Examples
    --------
    >>> from numbasaem import VolumeBasis
    >>> basis = VolumeBasis(9, 8)
    >>> blob = np.zeros((9, 9, 9))
    >>> blob[5:8, 3:6, 3:6] = 1
    >>> volume = basis.evaluate(centred(basis, basis.expand(blob)))
    >>> bool(np.linalg.norm(centre_of_energy(volume)) < 0.1)
    True
    """
    volume = basis.evaluate(coefficients)
    centre = centre_of_energy(volume)
    if np.linalg.norm(centre) < FARTHEST:
        return coefficients
    return basis.expand(_moved(volume, -centre))


def centre_of_energy(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean position, weighted by the square of the density.

    Parameters
    ----------
    volume : float64, shape (L, L, L)
        Densities of either sign.

    Returns
    -------
    float64, shape (3,)
        Position (z, y, x) from the middle of the box, voxels; zero if there is nothing.
    """
    energy = np.square(volume)
    total = max(energy.sum(), np.finfo(float).tiny)
    places = offsets(len(volume))
    others = ((1, 2), (0, 2), (0, 1))
    return np.array([energy.sum(axis=axes) @ places / total for axes in others])


def _moved(
    volume: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Volume moved by (z, y, x) voxels, by phases; what leaves the box is lost."""
    size = len(volume)
    padded = fft.rfftn(volume, s=(2 * size,) * 3)
    steps = (*[fft.fftfreq(2 * size)] * 2, fft.rfftfreq(2 * size))
    for axis, (frequencies, length) in enumerate(zip(steps, shift, strict=True)):
        phases = np.exp(-2j * np.pi * frequencies * length)
        padded *= np.expand_dims(phases, [other for other in range(3) if other != axis])
    whole = fft.irfftn(padded, s=(2 * size,) * 3)
    return np.asarray(whole[:size, :size, :size])
