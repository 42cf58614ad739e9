"""Bring a volume onto a reference: rotation, translation and hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import finufft
import numpy as np
from scipy import ndimage, optimize, signal
from scipy.spatial.transform import Rotation

from .metrics import (
    Resolution,
    check_pair,
    correlation,
    fourier_shell_correlation,
    resolution,
)
from .resampling import fourier_crop
from .rotations import rotation_grid

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_COARSE_ROTATIONS = 4608
"""15 degrees apart: within reach of the refinement for what 15 voxels can show."""
_COARSE_SIZE = 15
_COARSE_BATCH = 256
_CANDIDATES = 4
_OVERSAMPLING = 3


@dataclass(frozen=True)
class Alignment:
    """A volume brought onto a reference.

    Attributes
    ----------
    volume : float64, shape (L, L, L)
        The input, with its x axis reversed about the centre if `mirrored`, then
        rotated by `rotation` about the centre, then moved by `shift`; zero where it
        comes from outside the cube.
    rotation : float64, shape (3, 3)
        Rotation matrix on (x, y, z) columns.
    shift : float64, shape (3,)
        Translation in voxels, (z, y, x).
    mirrored : bool
        Whether the other hand fits better.
    correlation : float
        Pearson correlation of `volume` with the reference.
    """

    volume: NDArray[np.float64]
    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]
    mirrored: bool
    correlation: float


@dataclass(frozen=True)
class Comparison:
    """A volume measured against a reference.

    Attributes
    ----------
    alignment : Alignment
        How it was brought onto the reference.
    fsc : float64, shape (L // 2 + 1,)
        Fourier shell correlation with the reference.
    resolution_half : Resolution
        Resolution at FSC 0.5.
    resolution_0143 : Resolution
        Resolution at FSC 0.143.
    correlation : float
        Pearson correlation with the reference.
    hand : str
        "same" or "mirrored".
    """

    alignment: Alignment
    fsc: NDArray[np.float64]
    resolution_half: Resolution
    resolution_0143: Resolution
    correlation: float
    hand: str


def evaluate_against(
    volume: ArrayLike, reference: ArrayLike, voxel_size: float = 1.0
) -> Comparison:
    """Align a volume to a reference and measure how alike they are.

    Parameters
    ----------
    volume, reference : array, shape (L, L, L)
        Volumes.
    voxel_size : float
        Angstrom per voxel.

    Returns
    -------
    Comparison
        FSC, resolutions, correlation and hand.

    Raises
    ------
    InputError
        If the volumes are not finite cubes of the same size.
    """
    aligned = align(volume, reference)
    fsc = fourier_shell_correlation(aligned.volume, reference)
    at_half, at_0143 = (
        resolution(fsc, threshold, voxel_size, len(aligned.volume))
        for threshold in (0.5, 0.143)
    )
    return Comparison(
        alignment=aligned,
        fsc=fsc,
        resolution_half=at_half,
        resolution_0143=at_0143,
        correlation=aligned.correlation,
        hand="mirrored" if aligned.mirrored else "same",
    )


def align(volume: ArrayLike, reference: ArrayLike, mirror: bool = True) -> Alignment:
    """Rotate, move and, if that fits better, mirror a volume onto a reference.

    Parameters
    ----------
    volume, reference : array, shape (L, L, L)
        Volumes; the centre is index L // 2.
    mirror : bool
        Whether the other hand is tried.

    Returns
    -------
    Alignment
        The best pose found; rotation to about 0.1 degree where the volumes tell.

    Raises
    ------
    InputError
        If the volumes are not finite cubes of the same size.

    Notes
    -----
    An even grid of rotations with all translations by FFT, at low resolution; then
    the best few of each hand refined at full resolution.
    """
    moving, target = check_pair(volume, reference)
    hands = [False, True] if mirror else [False]
    best: tuple[float, bool, NDArray[np.float64]] | None = None
    for mirrored in hands:
        source = _mirrored(moving) if mirrored else moving
        for pose in _coarse_poses(source, target):
            score, refined = _refined(source, target, pose)
            if best is None or score > best[0]:
                best = (score, mirrored, refined)
    assert best is not None
    _, mirrored, pose = best
    source = _mirrored(moving) if mirrored else moving
    rotation = Rotation.from_rotvec(pose[:3]).as_matrix()
    aligned = moved(source, rotation, pose[3:])
    return Alignment(
        volume=aligned,
        rotation=rotation,
        shift=pose[3:],
        mirrored=mirrored,
        correlation=correlation(aligned, target),
    )


def moved(
    volume: NDArray[np.float64],
    rotation: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Rotate a volume about its centre, then translate it.

    Parameters
    ----------
    volume : float64, shape (L, L, L)
        Volume, indexed [z, y, x].
    rotation : float64, shape (3, 3)
        Rotation matrix R on (x, y, z) columns.
    shift : float64, shape (3,)
        Translation t in voxels, (z, y, x).

    Returns
    -------
    float64, shape (L, L, L)
        f(R^T (r - t)), exact for a volume without frequencies beyond Nyquist; zero
        where it comes from outside the cube.
    """
    size = len(volume)
    points = _source_points(size, rotation, shift)
    spectrum = np.fft.fftshift(np.fft.fftn(volume)) / volume.size
    phase = 2 * np.pi / size * (points + size // 2)
    values = finufft.nufft3d2(*phase, spectrum.astype(np.complex128), eps=1e-9, isign=1)
    values = np.where(_outside(points, size), 0.0, values.real)
    result: NDArray[np.float64] = values.reshape(volume.shape)
    return result


def _mirrored(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reverse x about the centre; for even sizes the unpaired first plane stays."""
    flipped = volume[:, :, ::-1]
    return np.roll(flipped, 1, axis=2) if len(volume) % 2 == 0 else flipped.copy()


def _source_points(
    size: int, rotation: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where each voxel comes from: offsets (z, y, x) from the centre, shape (3, n)."""
    offset = np.arange(size) - size // 2
    grid = np.stack(np.meshgrid(offset, offset, offset, indexing="ij")).reshape(3, -1)
    # R^T on (x, y, z) columns is R^T with both axes reversed on (z, y, x)
    backwards = rotation.T[::-1, ::-1]
    points: NDArray[np.float64] = backwards @ (grid - shift[:, np.newaxis])
    return points


def _outside(points: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    low, high = -(size // 2) - 0.5, (size - 1) // 2 + 0.5
    return ((points < low) | (points > high)).any(axis=0)


class _Interpolant:
    """Fast evaluation of a volume at any points: a spline on a finer grid."""

    def __init__(self, volume: NDArray[np.float64], order: int) -> None:
        fine = volume
        for axis in range(3):
            fine = signal.resample(fine, _OVERSAMPLING * len(volume), axis=axis)
        self.size = len(volume)
        self.order = order
        self.splines = fine
        if order > 1:
            self.splines = ndimage.spline_filter(fine, order, mode="grid-wrap")

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        at = _OVERSAMPLING * (points + self.size // 2)
        values = ndimage.map_coordinates(
            self.splines, at, order=self.order, mode="grid-wrap", prefilter=False
        )
        result: NDArray[np.float64] = np.where(_outside(points, self.size), 0, values)
        return result


def _coarse_poses(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Rotation vectors and shifts, (6,) each, of the best poses on an even grid."""
    size = min(len(source), _COARSE_SIZE)
    small, goal = (fourier_crop(volume, size) for volume in (source, target))
    spectrum = np.fft.rfftn(goal - goal.mean()).conj()
    interpolant = _Interpolant(small, order=1)
    rotations = rotation_grid(_COARSE_ROTATIONS)
    no_shift = np.zeros(3)
    scores = np.empty(len(rotations))
    shifts = np.empty((len(rotations), 3))
    for start in range(0, len(rotations), _COARSE_BATCH):
        batch = rotations[start : start + _COARSE_BATCH]
        points = [_source_points(size, rotation, no_shift) for rotation in batch]
        turned = interpolant(np.concatenate(points, axis=1)).reshape(-1, *small.shape)
        norms = np.linalg.norm(turned.reshape(len(batch), -1), axis=1)
        product = np.fft.rfftn(turned, axes=(1, 2, 3)) * spectrum
        cross = np.fft.irfftn(product, s=small.shape, axes=(1, 2, 3))
        flat = cross.reshape(len(batch), -1)
        peak = flat.argmax(axis=1)
        stop = start + len(batch)
        scores[start:stop] = flat.max(axis=1) / np.maximum(norms, 1e-300)
        # the peak lies at minus the shift that brings the volume onto the target
        lag = np.stack(np.unravel_index(peak, small.shape), axis=1)
        shifts[start:stop] = -((lag + size // 2) % size - size // 2)
    best = np.argsort(scores)[::-1][:_CANDIDATES]
    turns = Rotation.from_matrix(rotations[best]).as_rotvec()
    scale = len(source) / size
    return list(np.concatenate([turns, shifts[best] * scale], axis=1))


def _refined(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    pose: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64]]:
    """Correlation and pose at the nearest maximum of the correlation."""
    interpolant = _Interpolant(source, order=3)
    goal = (target - target.mean()).ravel()
    goal /= max(np.linalg.norm(goal), 1e-300)
    start = Rotation.from_rotvec(pose[:3])

    def composed(step: NDArray[np.float64]) -> NDArray[np.float64]:
        turn = (Rotation.from_rotvec(step[:3]) * start).as_rotvec()
        return np.concatenate([turn, pose[3:] + step[3:]])

    def loss(step: NDArray[np.float64]) -> float:
        at = composed(step)
        matrix = Rotation.from_rotvec(at[:3]).as_matrix()
        values = interpolant(_source_points(len(source), matrix, at[3:]))
        values = values - values.mean()
        return -float(values @ goal) / max(float(np.linalg.norm(values)), 1e-300)

    found = optimize.minimize(
        loss, np.zeros(6), method="BFGS", options={"gtol": 1e-6, "maxiter": 60}
    )
    return -float(found.fun), composed(found.x)
