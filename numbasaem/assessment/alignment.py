"""Bring a volume onto a reference: rotation, translation and hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import finufft
import numpy as np
from scipy import fft
from scipy.spatial.transform import Rotation

from numbasaem.geometry.grids import ball, lattice, offsets
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.micrographs.fourier_crop import fourier_crop

from .fsc import (
    Resolution,
    check_pair,
    correlation,
    fourier_shell_correlation,
    resolution,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

_COARSE_SIZE = 15
"""Voxels a side at which the grid of rotations is tried."""
_COARSE_ROTATIONS = 4608
"""Rotations of the grid, 15 degrees apart.

From there the refinement reaches the maximum of what 15 voxels can show.
"""
_COARSE_BATCH = 256
"""Rotations that are tried at once."""
_COARSE_ACCURACY = 1e-3
"""Relative accuracy of the interpolation on the grid of rotations."""
_CANDIDATES = 6
"""Poses of each hand that are refined."""
_APART = np.deg2rad(25)
"""Least angle between candidates, so that they are not all of one peak."""
_FIT_ACCURACY = 1e-6
"""Relative accuracy of the interpolation in a refinement."""
_ACCURACY = 1e-9
"""Relative accuracy of the interpolation of the volume that is handed out."""
_MOST_STEPS = 50
"""Largest number of steps of a refinement."""
_COARSE_LAST_STEP = 0.03
"""Length of a refinement's last step at low resolution, as below."""
_LAST_STEP = 1e-3
"""Voxels by which the last step of a refinement moves the volume's surface."""
_HALF_TURN = np.diag([1.0, -1.0, -1.0])
"""Half a turn about x: followed by inversion through the centre, it reverses x."""


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
        The best pose found; to 0.1 degree and 0.01 voxel where the volumes tell.

    Raises
    ------
    InputError
        If the volumes are not finite cubes of the same size.

    Notes
    -----
    An even grid of rotations with all translations by FFT, at low resolution; the
    best few of each hand refined there, and the best of each hand at full resolution.
    What is maximized is the correlation over the ball that every rotation keeps
    inside the cube: corners have no counterpart.

    Examples
    --------
    >>> from numbasaem.volume.phantom import folded_chain
    >>> volume = folded_chain(7)
    >>> alignment = align(volume[::-1], volume)  # the other hand
    >>> alignment.mirrored, bool(alignment.correlation > 0.99)
    (True, True)
    """
    moving, target = check_pair(volume, reference)
    size = min(len(moving), _COARSE_SIZE)
    small, goal = (
        np.asarray(fourier_crop(each, size), dtype=np.float64)
        for each in (moving, target)
    )
    finalists = []
    for mirrored, candidates in _coarse_poses(small, goal, mirror):
        fit = _Fit(_mirrored(small) if mirrored else small, goal)
        refined = [fit.refined(pose, _COARSE_LAST_STEP) for pose in candidates]
        _, pose = max(refined, key=_score)
        pose = pose._replace(shift=pose.shift * len(moving) / size)
        source = _mirrored(moving) if mirrored else moving
        best = _Fit(source, target).refined(pose, _LAST_STEP)
        finalists.append((*best, mirrored, source))
    _, pose, mirrored, source = max(finalists, key=_score)
    aligned = moved(source, pose.rotation, pose.shift)
    return Alignment(
        volume=aligned,
        rotation=pose.rotation,
        shift=pose.shift,
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
    grid = lattice(offsets(len(volume)), 3).reshape(3, -1)
    points = _backwards(rotation) @ (grid - shift[:, np.newaxis])
    return _Interpolant(volume)(points).reshape(volume.shape)


class _Pose(NamedTuple):
    """Rotation matrix on (x, y, z) columns, then a shift in voxels, (z, y, x)."""

    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]


def _score(candidate: tuple[float, *tuple[object, ...]]) -> float:
    """Correlation, which comes first."""
    return candidate[0]


def _mirrored(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reverse x about the centre; for even sizes the unpaired first plane stays."""
    flipped = volume[:, :, ::-1]
    return np.roll(flipped, 1, axis=2) if len(volume) % 2 == 0 else flipped.copy()


def _backwards(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """R^T for (z, y, x) columns, from R for (x, y, z) columns."""
    return np.swapaxes(rotations, -1, -2)[..., ::-1, ::-1]


def _radius(size: int) -> float:
    """Radius of the ball that every rotation keeps inside a cube of this size."""
    return (size - 1) // 2 + 0.5


class _Interpolant:
    """The trigonometric polynomial through the voxels of a volume.

    It is zero outside the cube; points are offsets (z, y, x) from the centre.
    """

    def __init__(
        self, volume: NDArray[np.float64], accuracy: float = _ACCURACY
    ) -> None:
        self.size = len(volume)
        self.accuracy = accuracy
        spectrum = fft.fftshift(fft.fftn(fft.ifftshift(volume))) / volume.size
        if self.size % 2 == 0:
            # halves of the Nyquist terms at +1/2 and -1/2 keep the polynomial real
            for axis in range(3):
                spectrum = np.moveaxis(spectrum, axis, 0)
                spectrum[0] /= 2
                spectrum = np.concatenate([spectrum, spectrum[:1]])
                spectrum = np.moveaxis(spectrum, 0, axis)
        frequency = 2j * np.pi / self.size * (np.arange(len(spectrum)) - self.size // 2)
        slopes = [
            frequency.reshape(np.roll((-1, 1, 1), axis)) * spectrum for axis in range(3)
        ]
        self.spectra = np.stack([spectrum, *slopes])

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values, (n,), at points (3, n)."""
        return self._evaluated(self.spectra[0], points)

    def with_gradient(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values and derivatives along z, y and x, (4, n), at points (3, n)."""
        return self._evaluated(self.spectra, points)

    def _evaluated(
        self, spectra: NDArray[np.complex128], points: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        phase = 2 * np.pi / self.size * points
        values = finufft.nufft3d2(
            *phase, spectra, eps=self.accuracy, isign=1, nthreads=1
        ).real
        low, high = -(self.size // 2) - 0.5, _radius(self.size)
        inside = ((points >= low) & (points <= high)).all(axis=0)
        result: NDArray[np.float64] = np.where(inside, values, 0.0)
        return result


def _coarse_poses(
    source: NDArray[np.float64], target: NDArray[np.float64], mirror: bool
) -> Iterator[tuple[bool, list[_Pose]]]:
    """For each hand, the best poses of an even grid that are not of one peak."""
    rotations = rotation_grid(_COARSE_ROTATIONS)
    scores, shifts = _grid_search(source, target, rotations, 2 if mirror else 1)
    for mirrored in range(len(scores)):
        turns = rotations @ _HALF_TURN if mirrored else rotations
        chosen: list[int] = []
        for place in np.argsort(-scores[mirrored], kind="stable"):
            traces = np.einsum("nij,ij->n", turns[chosen], turns[place])
            if (traces < 1 + 2 * np.cos(_APART)).all():
                chosen.append(place)
            if len(chosen) == _CANDIDATES:
                break
        poses = [_Pose(turns[place], shifts[mirrored, place]) for place in chosen]
        yield bool(mirrored), poses


def _grid_search(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    rotations: NDArray[np.float64],
    n_hands: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation and shift (z, y, x) at the best whole-voxel shift.

    Shapes (n_hands, n) and (n_hands, n, 3); the second hand is the first inverted
    through the centre after the rotation, its spectrum the conjugate one.
    """
    size = len(source)
    shape = source.shape
    offset = np.fft.ifftshift(offsets(size))
    grid = lattice(offset, 3)
    inside = np.fft.ifftshift(ball(size, _radius(size)))
    goal = fft.rfftn(fft.ifftshift(target - target.mean())).conj()
    interpolant = _Interpolant(source, _COARSE_ACCURACY)
    scores = np.empty((n_hands, len(rotations)))
    shifts = np.empty((n_hands, len(rotations), 3))
    for start in range(0, len(rotations), _COARSE_BATCH):
        batch = slice(start, start + _COARSE_BATCH)
        points = _backwards(rotations[batch]) @ grid[:, inside]
        values = interpolant(np.moveaxis(points, 1, 0).reshape(3, -1))
        turned = np.zeros((len(points), *shape))
        turned[:, inside] = values.reshape(len(points), -1)
        spread = np.maximum(turned.std(axis=(1, 2, 3)), np.finfo(float).tiny)
        spectrum = fft.rfftn(turned, axes=(1, 2, 3))
        for hand in range(n_hands):
            product = (spectrum.conj() if hand else spectrum) * goal
            cross = fft.irfftn(product, s=shape, axes=(1, 2, 3))
            cross = cross.reshape(len(points), -1)
            scores[hand, batch] = cross.max(axis=1) / spread
            # the peak lies at minus the shift that brings the volume onto the target
            lag = np.unravel_index(cross.argmax(axis=1), shape)
            shifts[hand, batch] = -offset[np.stack(lag, axis=1)]
    return scores, shifts


class _Fit:
    """Correlation of a moved volume with a target, and its nearest maximum."""

    def __init__(
        self, source: NDArray[np.float64], target: NDArray[np.float64]
    ) -> None:
        size = len(source)
        inside = ball(size, _radius(size))
        self.radius = _radius(size)
        self.grid = lattice(offsets(size), 3)[:, inside].astype(np.float64)
        self.goal = _standardized(target[inside])[0]
        self.interpolant = _Interpolant(source, _FIT_ACCURACY)

    def refined(self, pose: _Pose, last_step: float) -> tuple[float, _Pose]:
        """Correlation and pose at the maximum that the pose given leads to.

        Levenberg-Marquardt on the difference of the two standardized volumes, which
        is twice one minus their correlation.
        """
        score, gradient, curvature = self._linearized(pose)
        damping = 1e-2
        for _ in range(_MOST_STEPS):
            scale = np.trace(curvature)
            if scale == 0:
                break
            damped = curvature + damping * scale / 6 * np.eye(6)
            step = np.linalg.solve(damped, gradient)
            trial = self._stepped(pose, step)
            there = self._linearized(trial)
            if there[0] > score:
                pose, (score, gradient, curvature) = trial, there
                damping /= 10
            else:
                damping *= 10
            if np.linalg.norm(step) < last_step:
                break
        return score, pose

    def _stepped(self, pose: _Pose, step: NDArray[np.float64]) -> _Pose:
        """Turn a pose further, (x, y, z) in voxels at the rim, and shift it."""
        turn = Rotation.from_rotvec(step[:3] / self.radius).as_matrix()
        return _Pose(turn @ pose.rotation, pose.shift + step[3:])

    def _linearized(
        self, pose: _Pose
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Correlation, its gradient and the Gauss-Newton curvature in the step."""
        arms = self.grid - pose.shift[:, np.newaxis]
        backwards = _backwards(pose.rotation)
        values, *slopes = self.interpolant.with_gradient(backwards @ arms)
        # of f(R^T (r - t)) in r, along z, y and x
        slope = backwards.T @ np.stack(slopes)
        turning = np.cross(slope[::-1], arms[::-1], axis=0) / self.radius
        derivatives = np.concatenate([turning, -slope])
        values, spread = _standardized(values)
        derivatives = derivatives - derivatives.mean(axis=1, keepdims=True)
        derivatives -= (derivatives @ values)[:, np.newaxis] * values
        derivatives /= spread
        return (
            float(values @ self.goal),
            derivatives @ self.goal,
            derivatives @ derivatives.T,
        )


def _standardized(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Values of mean 0 and norm 1, and the norm they had; constant ones become 0."""
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    if norm <= 1e-12 * float(np.linalg.norm(values)):
        return np.zeros_like(values), 1.0
    return centred / norm, norm
