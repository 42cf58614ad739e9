"""How alike two volumes are: Fourier shell correlation and resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected
from numbasaem.geometry.grids import ball, distances, offsets

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ROUND_OFF = 1e-24
"""Share of a volume's power below which a shell holds only errors of the FFT."""
_RANDOM_BELOW = 0.8
"""Correlation below which the phases are made random."""
_PHASE_DRAWS = 32
"""Draws of random phases.

Small maps have few frequencies a shell: one draw would add its own noise.
"""
_MOST_OF_NOISE = 1 - 1e-6
"""Largest correlation of noise: it bounds the quotient of the correction."""


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
    mask : str
        What the maps were multiplied by before the correlation.
    """

    threshold: float
    shell: float
    angstrom: float
    crossed: bool
    mask: str = "no mask"

    def __str__(self) -> str:
        """Resolution and criterion in words."""
        limit = "" if self.crossed else " or better"
        return f"{self.angstrom:.2f} A{limit} (FSC = {self.threshold:g}, {self.mask})"


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
    shell = np.rint(_radii(size)).astype(int)
    inside = shell <= size // 2
    f, g = np.fft.fftn(a)[inside], np.fft.fftn(b)[inside]
    cross, power_a, power_b = (
        np.bincount(shell[inside], weights=values)
        for values in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)
    )
    filled = np.minimum(power_a / _total(a), power_b / _total(b)) > _ROUND_OFF
    fsc = np.zeros(len(cross))
    fsc[filled] = cross[filled] / np.sqrt(power_a[filled] * power_b[filled])
    return fsc


def _total(volume: NDArray[np.float64]) -> float:
    """Power of all frequencies, by Parseval; 1 for a volume of zeros."""
    return float(np.sum(volume**2)) * volume.size or 1.0


@dataclass(frozen=True)
class HalfMapCorrelation:
    """Fourier shell correlation of half maps, without a mask and corrected for one.

    Attributes
    ----------
    unmasked : float64, shape (L // 2 + 1,)
        Correlation of the maps as they are.
    masked : float64, shape (L // 2 + 1,)
        Correlation of the maps under the mask.
    randomized : float64, shape (L // 2 + 1,)
        Correlation of the maps with random phases from shell `randomized_from` on,
        under the mask; the mean of several draws. As `masked` where no phase is random.
    corrected : float64, shape (L // 2 + 1,)
        Correlation of the maps under the mask, less what the mask alone makes of noise.
    randomized_from : int or None
        First shell where `unmasked` is below 0.8, if there is one.
    mask : str
        The mask and the correction in words.
    """

    unmasked: NDArray[np.float64]
    masked: NDArray[np.float64]
    randomized: NDArray[np.float64]
    corrected: NDArray[np.float64]
    randomized_from: int | None
    mask: str


def soft_ball(size: int) -> NDArray[np.float64]:
    """Mask of the ball that the model supports, with a soft edge.

    Parameters
    ----------
    size : int
        L, voxels a side.

    Returns
    -------
    float64, shape (L, L, L)
        1 up to a voxel inside the radius L // 2, then half a cosine wave down to 0 a
        voxel outside.
    """
    beyond = np.clip((distances(offsets(size)) - (size // 2 - 1)) / 2, 0, 1)
    mask: NDArray[np.float64] = (1 + np.cos(np.pi * beyond)) / 2
    return mask


def half_map_correlation(
    half1: ArrayLike, half2: ArrayLike, mask: ArrayLike | None = None, seed: int = 0
) -> HalfMapCorrelation:
    """Fourier shell correlation of half maps, corrected for the mask.

    Parameters
    ----------
    half1, half2 : array, shape (L, L, L)
        Maps of two independent halves of the data, aligned.
    mask : array, shape (L, L, L), optional
        Between 0 and 1; :func:`soft_ball` if left out.
    seed : int
        Seed of the random phases.

    Returns
    -------
    HalfMapCorrelation
        All curves.

    Raises
    ------
    InputError
        If the maps are not finite cubes of the same size.

    Notes
    -----
    Chen et al., Ultramicroscopy 135 (2013): beyond the first shell whose FSC without a
    mask is below 0.8, FSC_true = (FSC_t - FSC_n) / (1 - FSC_n), with FSC_t of the
    masked maps and FSC_n of the maps whose phases were random from that shell on before
    they were masked.
    """
    a, b = check_pair(half1, half2)
    size = len(a)
    given = mask is not None
    weight = np.asarray(mask, dtype=np.float64) if given else soft_ball(size)
    unmasked = fourier_shell_correlation(a, b)
    masked = fourier_shell_correlation(a * weight, b * weight)
    randomized, corrected = masked.copy(), masked.copy()
    below = np.flatnonzero(unmasked[1:] < _RANDOM_BELOW) + 1
    first = int(below[0]) if below.size else None
    if first is not None:
        generator = np.random.default_rng(seed)
        draws = [
            fourier_shell_correlation(
                weight * _random_phases(a, first, generator),
                weight * _random_phases(b, first, generator),
            )
            for _ in range(_PHASE_DRAWS)
        ]
        randomized = np.mean(draws, axis=0)
        of_noise = np.minimum(randomized[first + 1 :], _MOST_OF_NOISE)
        true = (masked[first + 1 :] - of_noise) / (1 - of_noise)
        corrected[first + 1 :] = np.clip(true, -1, 1)
    shape = "a mask" if given else f"a soft ball of radius {size // 2} voxels"
    words = f"{shape}, corrected by random phases"
    return HalfMapCorrelation(unmasked, masked, randomized, corrected, first, words)


def _random_phases(
    volume: NDArray[np.float64], first_shell: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """The volume with phases of white noise from a shell on."""
    size = len(volume)
    spectrum = np.fft.fftn(volume)
    noise = np.fft.fftn(generator.standard_normal(volume.shape))
    random = np.rint(_radii(size)) >= first_shell
    spectrum[random] = (np.abs(spectrum) * noise / np.abs(noise))[random]
    return np.asarray(np.fft.ifftn(spectrum).real, dtype=np.float64)


def _radii(size: int) -> NDArray[np.float64]:
    """Distance of each frequency from zero, cycles per length of the cube."""
    return distances(np.fft.fftfreq(size, 1 / size))


def resolution(
    fsc: ArrayLike,
    threshold: float,
    voxel_size: float,
    size: int,
    mask: str = "no mask",
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
    mask : str
        What the maps were multiplied by, in words.

    Returns
    -------
    Resolution
        Resolution of the first crossing, or of the last shell.
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
    return Resolution(threshold, shell, float(angstrom), crossed, mask)


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
    return bool(np.mean(density[ball(len(density))] ** 3) < 0)
