"""One micrograph after the other: particles, lens and noise, equations (2) to (5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from numbasaem.aliases import PathLike
from numbasaem.errors import expected
from numbasaem.geometry.grids import ball
from numbasaem.geometry.rotations import random_rotations
from numbasaem.io.mrc import read_micrographs
from numbasaem.micrographs.ctf import ContrastTransferFunction
from numbasaem.micrographs.fourier_crop import fourier_crop_axis
from numbasaem.micrographs.noise_spectrum import RadialSpectrum
from numbasaem.volume.basis import VolumeBasis

from .placement import place_squares
from .settings import VOLTAGE, SimulationSettings
from .slices import downsampled, project_slices

BATCH_PIXELS = 1 << 24
"""Pixels of all projections that are held at once."""
STRIP_PIXELS = 1 << 26
"""Pixels of the one full-size strip of the micrograph that is held at once."""
_CONE = np.radians(30)
"""Angle from the molecule's z axis within which preferred views lie."""

Float = NDArray[np.float64]
Image = NDArray[np.float32]
Progress = Callable[[int, int], None]
Projector = Callable[[Float], NDArray[np.floating]]


@dataclass(frozen=True)
class SimulatedMicrograph:
    """One micrograph and what is in it.

    Attributes
    ----------
    micrograph : ndarray, shape (N, N), float32
        Pixels, ``image[y, x]``.
    coordinates : ndarray, shape (T, 2)
        Particle centres (y, x), pixels counted from 0; whole numbers unless the
        micrograph was downsampled.
    rotations : ndarray, shape (T, 3, 3)
        Rotation of each particle.
    noise_variance : float
        Variance of the noise in a pixel.
    ctf : ContrastTransferFunction or None
        Contrast transfer function, if there is a lens.
    """

    micrograph: Image
    coordinates: Float
    rotations: Float
    noise_variance: float
    ctf: ContrastTransferFunction | None = None


@dataclass(frozen=True)
class Simulation:
    """Micrographs and the truth behind them.

    Attributes
    ----------
    micrographs : list of ndarray, shape (N, N), float32
        Pixels, ``image[y, x]``.
    coordinates : list of ndarray, shape (T, 2)
        Particle centres (y, x) per micrograph, pixels counted from 0.
    rotations : list of ndarray, shape (T, 3, 3)
        Rotations per micrograph.
    noise_variance : float
        Variance of the noise in a pixel, the same in all micrographs.
    requested : int or None
        Particles per micrograph that were asked for.
    placed : list of int
        Particles per micrograph that there are.
    volume_true : ndarray, shape (L, L, L)
        The volume to be recovered; its projections are in micrograph units.
    ctfs : list of ContrastTransferFunction
        Contrast transfer function of each micrograph; empty if there is no lens.
    """

    micrographs: list[Image]
    coordinates: list[Float]
    rotations: list[Float]
    noise_variance: float
    requested: int | None
    placed: list[int]
    volume_true: Float
    ctfs: list[ContrastTransferFunction] = field(default_factory=list)


def simulate(
    volume: NDArray[np.floating],
    settings: SimulationSettings | None = None,
    *,
    progress: Progress | None = None,
    **overrides: Any,
) -> Simulation:
    """Simulate micrographs of a volume, equations (2) to (5).

    Parameters
    ----------
    volume : ndarray, shape (n, n, n), n >= size
        The map, ``volume[z, y, x]``; downsampled to `size` or, with
        ``method="original"``, projected as it is.
    settings : SimulationSettings, optional
        What to simulate.
    progress : callable, optional
        Called with the number of micrographs done and of all.
    **overrides
        Fields of `settings`, in place of those given there.

    Returns
    -------
    Simulation
        The micrographs and the truth.

    Raises
    ------
    InputError
        If the volume or a setting cannot be used.

    Examples
    --------
    >>> from numbasaem.volume.phantom import folded_chain
    >>> sample = simulate(folded_chain(7), size=7, pixels=96, snr=10, ell_max=4)
    >>> sample.micrographs[0].shape
    (96, 96)
    >>> len(sample.coordinates[0]) == sample.placed[0]
    True
    """
    settings = _with_overrides(settings, overrides)
    scene = Scene(volume, settings)
    simulated = list(scene.micrographs(progress))
    return Simulation(
        micrographs=[each.micrograph for each in simulated],
        coordinates=[each.coordinates for each in simulated],
        rotations=[each.rotations for each in simulated],
        noise_variance=simulated[0].noise_variance,
        requested=settings.requested,
        placed=[len(each.rotations) for each in simulated],
        volume_true=scene.volume_true,
        ctfs=[each.ctf for each in simulated if each.ctf is not None],
    )


def iterate_micrographs(
    volume: NDArray[np.floating],
    settings: SimulationSettings,
    progress: Progress | None = None,
) -> Iterator[SimulatedMicrograph]:
    """Simulate one micrograph after the other, holding one at a time.

    Parameters
    ----------
    volume : ndarray, shape (n, n, n), n >= size
        As in :func:`simulate`.
    settings : SimulationSettings
        What to simulate.
    progress : callable, optional
        Called with the number of micrographs done and of all.

    Yields
    ------
    SimulatedMicrograph
        The micrographs of :func:`simulate`, in order.

    Raises
    ------
    InputError
        If the volume cannot be used.
    """
    yield from Scene(volume, settings).micrographs(progress)


class Scene:
    """What all micrographs of a simulation share.

    Parameters
    ----------
    volume : ndarray, shape (n, n, n), n >= size
        As in :func:`simulate`.
    settings : SimulationSettings
        What to simulate.

    Attributes
    ----------
    volume_true : ndarray, shape (L, L, L)
        The volume to be recovered.

    Raises
    ------
    InputError
        If the volume, or the micrograph that the noise is like, cannot be used.
    """

    def __init__(
        self, volume: NDArray[np.floating], settings: SimulationSettings
    ) -> None:
        volume = _checked(volume, settings.size)
        self._settings = settings
        self._colour = None
        if settings.noise_like is not None:
            self._colour = _first_spectrum(settings.noise_like)
        if settings.method == "expanded":
            basis = VolumeBasis(settings.size, settings.ell_max)
            coefficients = basis.expand(downsampled(volume, settings.size))
            self.volume_true: Float = basis.evaluate(coefficients)
            self._size, self._pixels = settings.size, settings.pixels
            self._project: Projector = partial(basis.project, coefficients)
        else:
            full = len(volume)
            supported = volume * ball(full)
            self.volume_true = downsampled(supported, settings.size)
            self._size = full
            self._pixels = round(settings.pixels * full / settings.size)
            self._project = partial(project_slices, supported)

    def micrographs(self, progress: Progress | None) -> Iterator[SimulatedMicrograph]:
        """Draw them in order; the first one's projections set the noise of all.

        Parameters
        ----------
        progress : callable or None
            Called with the number of micrographs done and of all.

        Yields
        ------
        SimulatedMicrograph
            Each micrograph.
        """
        settings = self._settings
        noise_variance: float | None = None
        for number in range(settings.micrographs):
            sequence = np.random.SeedSequence(settings.seed, spawn_key=(number,))
            generator = np.random.default_rng(sequence)
            corners = self._places(generator)
            rotations = self._rotations(len(corners), generator)
            micrograph, energy = self._clean(corners, rotations)
            if noise_variance is None:
                noise_variance = self._noise_variance(energy)
            noise = generator.standard_normal(micrograph.shape, dtype=np.float32)
            ctf = None
            if settings.defocus is not None:
                defocus = float(generator.uniform(*settings.defocus))
                ctf = ContrastTransferFunction(defocus, defocus, voltage=VOLTAGE)
                micrograph = _filtered(micrograph, ctf, settings.pixel_size)
            if self._colour is not None:
                noise = _coloured(noise, self._colour)
            micrograph += np.float32(np.sqrt(noise_variance)) * noise
            yield SimulatedMicrograph(
                micrograph, self._centres(corners), rotations, noise_variance, ctf
            )
            if progress is not None:
                progress(number + 1, settings.micrographs)

    def _rotations(self, n: int, generator: np.random.Generator) -> Float:
        """Uniform, but for the preferred ones: those have R^T z near z."""
        rotations = random_rotations(n, generator)
        if self._settings.preferred == 0:
            return rotations
        preferred = generator.random(n) < self._settings.preferred
        cosine = generator.uniform(np.cos(_CONE), 1, n)
        sine, zero = np.sqrt(1 - cosine**2), np.zeros(n)
        first, last = (_about_z(2 * np.pi * generator.random(n)) for _ in range(2))
        tilt = np.array(
            [[cosine, zero, -sine], [zero, zero + 1, zero], [sine, zero, cosine]]
        ).transpose(2, 0, 1)
        return np.where(preferred[:, None, None], last @ tilt @ first, rotations)

    def _places(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """First pixels (y, x) of the projections, whole in the micrograph."""
        separated = self._settings.spacing == "separated"
        side = 2 * self._size - 1 if separated else self._size
        extent = self._pixels - self._size + 1
        return place_squares(extent, side, self._settings.requested, generator)

    def _noise_variance(self, energy: float) -> float:
        """Equation (4), then what Fourier cropping leaves of white noise."""
        variance = energy / (self._size**2 * self._settings.snr)
        return variance * (self._settings.pixels / self._pixels) ** 2

    def _centres(self, corners: NDArray[np.int64]) -> Float:
        """Fourier cropping keeps pixel ``n // 2`` in place and scales around it."""
        small, full = self._settings.pixels, self._pixels
        from_middle = corners + self._size // 2 - full // 2
        return np.asarray(from_middle * (small / full) + small // 2, dtype=np.float64)

    def _clean(
        self, corners: NDArray[np.int64], rotations: Float
    ) -> tuple[Image, float]:
        """Micrograph without noise, and the mean energy of a projection in it.

        The full-size micrograph exists as one strip of rows at a time, each shortened
        along x as soon as no further particle reaches it.
        """
        small, full, size = self._settings.pixels, self._pixels, self._size
        height = min(max(STRIP_PIXELS // full, size), full)
        rows = np.empty((full, small), dtype=np.float32)
        strip = np.zeros((height + size, full), dtype=np.float32)
        order = np.argsort(corners[:, 0], kind="stable")
        tops = range(0, full, height)
        groups = np.split(order, np.searchsorted(corners[order, 0], tops[1:]))
        energy = 0.0
        for top, group in zip(tops, groups, strict=True):
            in_strip = corners[group] - np.array([top, 0])
            energy += self._add(strip, in_strip, rotations[group])
            done = min(height, full - top)
            rows[top : top + done] = _shortened(strip[:done], small, axis=1)
            strip[:size] = strip[height:]
            strip[size:] = 0
        return _shortened(rows, small, axis=0), energy / len(corners)

    def _add(self, strip: Image, corners: NDArray[np.int64], rotations: Float) -> float:
        """Add projections to the strip; return the sum of their squares."""
        size, energy = self._size, 0.0
        batch = max(BATCH_PIXELS // size**2, 1)
        for start in range(0, len(corners), batch):
            images = self._project(rotations[start : start + batch])
            energy += float(np.vdot(images, images))
            places = corners[start : start + batch].tolist()
            for (y, x), image in zip(places, images, strict=True):
                strip[y : y + size, x : x + size] += image
        return energy


def _about_z(angle: Float) -> Float:
    """Rotations about z, shape (n, 3, 3)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    zero = np.zeros_like(angle)
    matrices = np.array(
        [[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, zero + 1]]
    )
    return matrices.transpose(2, 0, 1)


def _first_spectrum(path: PathLike) -> RadialSpectrum:
    """Radial power spectrum of a file's first micrograph."""
    sections, _ = read_micrographs(path)
    pixels = sections[0]
    return RadialSpectrum(pixels, np.zeros(pixels.shape, bool))


def _filtered(image: Image, ctf: ContrastTransferFunction, pixel_size: float) -> Image:
    """Take a micrograph without noise through a lens."""
    rows, columns = image.shape
    y, x = fft.fftfreq(rows, pixel_size)[:, None], fft.rfftfreq(columns, pixel_size)
    spectrum = fft.rfft2(image) * ctf(y, x).astype(np.float32)
    return np.asarray(fft.irfft2(spectrum, image.shape), dtype=np.float32)


def _coloured(noise: Image, power: RadialSpectrum) -> Image:
    """Give white noise a spectrum and leave its variance."""
    rows, columns = noise.shape
    gain = np.sqrt(power(fft.fftfreq(rows)[:, None], fft.fftfreq(columns)))
    gain /= np.sqrt(np.mean(gain**2))
    half = gain[:, : columns // 2 + 1].astype(np.float32)
    spectrum = fft.rfft2(noise) * half
    return np.asarray(fft.irfft2(spectrum, noise.shape), dtype=np.float32)


def _shortened(array: Image, length: int, axis: int) -> Image:
    """:func:`fourier_crop_axis`, a block of lines at a time to bound its memory."""
    if array.shape[axis] == length:
        return array.copy()
    lines = np.moveaxis(array, axis, -1)
    result = np.empty((len(lines), length), dtype=np.float32)
    block = max(BATCH_PIXELS // lines.shape[1], 1)
    for start in range(0, len(lines), block):
        piece = np.ascontiguousarray(lines[start : start + block])
        result[start : start + block] = fourier_crop_axis(piece, length, 1)
    return np.ascontiguousarray(np.moveaxis(result, -1, axis))


def _checked(volume: NDArray[np.floating], size: int) -> Float:
    """Refuse what is no volume, or one of too few voxels."""
    checked: Float = np.asarray(volume, dtype=np.float64)
    if checked.ndim != 3 or len(set(checked.shape)) != 1:
        raise expected("volume", "a cube", f"shape {checked.shape}")
    if len(checked) < size:
        raise expected("volume", f"at least {size} voxels per axis", len(checked))
    if not np.isfinite(checked).all():
        raise expected("volume", "finite voxels", "some that are not")
    if not checked.any():
        raise expected("volume", "voxels that are not all zero", "zeros")
    return checked


def _with_overrides(
    settings: SimulationSettings | None, overrides: dict[str, Any]
) -> SimulationSettings:
    """Settings with some of their fields in place of others; all needed are there."""
    names = [each.name for each in fields(SimulationSettings)]
    for name in overrides:
        if name not in names:
            raise expected("settings", f"one of {', '.join(names)}", name)
    if settings is not None:
        return replace(settings, **overrides)
    for name in ("size", "pixels", "snr"):
        if name not in overrides:
            raise expected(name, "a value", "none")
    return SimulationSettings(**overrides)
