"""How alike two volumes are: Fourier shell correlation and resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import expected

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ROUND_OFF = 1e-24
"""Share of a volume's power below which a shell holds only errors of the FFT."""


@dataclass(frozen=True)
class Resolution:
    """Where a Fourier shell correlation first falls below a threshold.

    Attributes
    ----------
    threshold : float
        The criterion, 0.5 against a known truth, 0.143 between half maps.
    shell : float
        Shell of the crossing, interpolated linearly; the last one if there is none.
    angstrom : float
        Resolution there.
    crossed : bool
        Whether the correlation falls below the threshold at all.
    """

    threshold: float
    shell: float
    angstrom: float
    crossed: bool

    def __str__(self) -> str:
        """Resolution and criterion in words."""
        relation = "" if self.crossed else "at least "
        return f"{relation}{self.angstrom:.2f} A (FSC = {self.threshold:g}, no mask)"


def check_pair(
    first: ArrayLike, second: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two finite cubes of the same size, as float64.

    Parameters
    ----------
    first, second : array, shape (L, L, L)
        Volumes.

    Returns
    -------
    two float64 arrays, shape (L, L, L)
        The same.

    Raises
    ------
    InputError
        If they are not finite cubes of the same size.
    """
    a, b = (np.asarray(volume, dtype=np.float64) for volume in (first, second))
    if a.ndim != 3 or len(set(a.shape)) != 1:
        raise expected("volume", "a cube", f"shape {a.shape}")
    if a.shape != b.shape:
        raise expected("reference", f"shape {a.shape}", f"shape {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise expected("volumes", "finite voxels", "NaN or infinity")
    return a, b


def fourier_shell_correlation(
    volume_a: ArrayLike, volume_b: ArrayLike
) -> NDArray[np.float64]:
    """Correlation of two volumes, frequency shell by frequency shell.

    Parameters
    ----------
    volume_a, volume_b : array, shape (L, L, L)
        Volumes.

    Returns
    -------
    float64, shape (L // 2 + 1,)
        One value per shell; shell r holds the frequencies whose distance from zero
        rounds to r / L cycles per voxel. Zero where a volume has no power but
        that of round-off.

    Raises
    ------
    InputError
        If the volumes are not finite cubes of the same size.

    Notes
    -----
    Equation (38).

    Examples
    --------
    >>> volume = np.random.default_rng(0).random((7, 7, 7))
    >>> fourier_shell_correlation(volume, 2 * volume).round(6)
    array([1., 1., 1., 1.])
    """
    a, b = check_pair(volume_a, volume_b)
    size = len(a)
    frequency = np.fft.fftfreq(size, 1 / size)
    squares = np.add.outer(np.add.outer(frequency**2, frequency**2), frequency**2)
    shell = np.rint(np.sqrt(squares)).astype(int)
    inside = shell <= size // 2
    f, g = np.fft.fftn(a)[inside], np.fft.fftn(b)[inside]
    cross, power_a, power_b = (
        np.bincount(shell[inside], weights=values)
        for values in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)
    )
    seen = np.minimum(power_a / _total(a), power_b / _total(b)) > _ROUND_OFF
    fsc = np.zeros(len(cross))
    fsc[seen] = cross[seen] / np.sqrt(power_a[seen] * power_b[seen])
    return fsc


def _total(volume: NDArray[np.float64]) -> float:
    """Power of all frequencies, by Parseval; 1 for a volume of zeros."""
    return float(np.sum(volume**2)) * volume.size or 1.0


def resolution(
    fsc: ArrayLike, threshold: float, voxel_size: float, size: int
) -> Resolution:
    """Resolution at which a Fourier shell correlation falls below a threshold.

    Parameters
    ----------
    fsc : array, shape (L // 2 + 1,)
        Fourier shell correlation.
    threshold : float
        Criterion.
    voxel_size : float
        Angstrom per voxel.
    size : int
        L, voxels a side.

    Returns
    -------
    Resolution
        Of the first crossing, or of the last shell.
    """
    curve = np.asarray(fsc, dtype=np.float64)
    below = np.flatnonzero(curve[1:] < threshold) + 1
    crossed = below.size > 0
    shell = float(len(curve) - 1)
    if crossed:
        low, high = curve[below[0] - 1], curve[below[0]]
        share = (low - threshold) / (low - high) if low > threshold else 0.0
        shell = float(below[0] - 1 + share)
    angstrom = voxel_size * size / shell if shell > 0 else np.inf
    return Resolution(threshold, shell, float(angstrom), crossed)


def correlation(volume_a: ArrayLike, volume_b: ArrayLike) -> float:
    """Pearson correlation of the voxels of two volumes.

    Parameters
    ----------
    volume_a, volume_b : array, shape (L, L, L)
        Volumes.

    Returns
    -------
    float
        Between -1 and 1; 0 if a volume is constant.

    Raises
    ------
    InputError
        If the volumes are not finite cubes of the same size.
    """
    a, b = (volume - volume.mean() for volume in check_pair(volume_a, volume_b))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / norm) if norm > 0 else 0.0


def is_mostly_negative(volume: ArrayLike) -> bool:
    """Whether what stands out in the ball of a map does so below zero.

    Parameters
    ----------
    volume : array, shape (L, L, L)
        Map.

    Returns
    -------
    bool
        Whether its third moment within L // 2 voxels of the centre is negative.
    """
    density = np.asarray(volume, dtype=np.float64)
    offset = np.arange(len(density)) - len(density) // 2
    squares = np.add.outer(np.add.outer(offset**2, offset**2), offset**2)
    ball = squares <= (len(density) // 2) ** 2
    return bool(np.mean(density[ball] ** 3) < 0)
