"""Simulated micrographs: equations (2) to (5)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

from numbasaem.aliases import PathLike
from numbasaem.errors import expected
from numbasaem.geometry.grids import ball
from numbasaem.geometry.rotations import random_rotations, relion_angles
from numbasaem.io import written_whole
from numbasaem.io.mrc import read_micrographs, write_micrograph, write_volume
from numbasaem.io.star import (
    optics_table,
    write_micrograph_table,
    write_particles,
)
from numbasaem.micrographs.ctf import ContrastTransfer, RadialSpectrum
from numbasaem.micrographs.fourier_crop import fourier_crop, fourier_crop_axis
from numbasaem.volume.basis import VolumeBasis

SMALLEST_SIZE = 5
# Projections held at once, in pixels of all of them together.
BATCH_PIXELS = 1 << 24
# Pixels of one full-size strip of the micrograph held at once.
STRIP_PIXELS = 1 << 26

# Relative accuracy of the Fourier transform at the points of a slice, and how finely
# its grid is oversampled: what a volume of 200 voxels per axis can afford.
SLICE_ACCURACY = 1e-4
SLICE_OVERSAMPLING = 1.25
# Share of useful draws below which the free area is looked at more finely.
FEW_ACCEPTED = 0.05

_CONE = np.radians(30)

RECORD = "simulation.json"
# Of the microscope, kV.
VOLTAGE = 300.0

Float = NDArray[np.float64]
Image = NDArray[np.float32]
Progress = Callable[[int, int], None]
Projector = Callable[[Float], NDArray[np.floating]]


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate.

    Attributes
    ----------
    size : int
        Side L of a projection in the micrograph, pixels.
    pixels : int
        Side N of a micrograph, at least 2L.
    snr : float
        Signal-to-noise ratio (4); infinity leaves the noise out. With
        ``method="original"`` it is that of the full-size micrograph.
    micrographs : int
        How many.
    spacing : {"separated", "arbitrary"}
        ``separated``: squares of side 2L-1 around the particles do not overlap, (5) on
        at least one axis. ``arbitrary``: squares of side L do not.
    density : float, optional
        Share of the area under projections, ``T L² / N²``; random placement stops when
        no further particle fits, and that is where it goes when None.
    method : {"expanded", "original"}
        ``expanded``: the volume at size L, expanded by (6), is the truth exactly.
        ``original``: the volume is projected at its own size, and the micrograph
        downsampled.
    ell_max : int
        Degree of the expansion.
    seed : int
        Of every random number. Micrograph i does not depend on how many follow.
    pixel_size : float
        Angstrom per pixel of the micrographs as written.
    defocus : (float, float), optional
        Lowest and highest defocus of a micrograph, angstrom, at 300 kV; without it
        there is no lens. The lens takes from the particles, not from `snr`, which is
        that of their projections.
    noise_like : path-like, optional
        Micrograph whose radial power spectrum, over frequencies in cycles per pixel,
        the noise has; white without it.
    preferred : float
        Share of the particles that are seen within 30 degrees of the molecule's z axis.

    Raises
    ------
    InputError
        If one of them cannot be used.

    Examples
    --------
    >>> SimulationSettings(size=11, pixels=220, snr=5, density=0.1).requested
    40
    """

    size: int
    pixels: int
    snr: float
    micrographs: int = 1
    spacing: Literal["separated", "arbitrary"] = "separated"
    density: float | None = None
    method: Literal["expanded", "original"] = "expanded"
    ell_max: int = 10
    seed: int = 0
    pixel_size: float = 1.0
    defocus: tuple[float, float] | None = None
    noise_like: PathLike | None = None
    preferred: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        self._require_integer("size", SMALLEST_SIZE)
        self._require_integer("pixels", 2 * self.size)
        self._require_integer("micrographs", 1)
        self._require_integer("ell_max", 0)
        self._require_integer("seed", 0)
        if not self.snr > 0:
            raise expected("snr", "a positive number", self.snr)
        if not 0 < self.pixel_size < np.inf:
            raise expected("pixel_size", "a positive number", self.pixel_size)
        if self.spacing not in ("separated", "arbitrary"):
            raise expected("spacing", "separated or arbitrary", self.spacing)
        if self.method not in ("expanded", "original"):
            raise expected("method", "expanded or original", self.method)
        if self.density is not None and not 0 < self.density <= 1:
            raise expected("density", "a number above 0 and up to 1", self.density)
        if self.defocus is not None and not (
            0 < self.defocus[0] <= self.defocus[1] < np.inf
        ):
            what = "two numbers of angstrom above 0 that do not fall"
            raise expected("defocus", what, self.defocus)
        if not 0 <= self.preferred <= 1:
            raise expected("preferred", "a share from 0 to 1", self.preferred)
        if self.requested == 0:
            what = "enough for one particle per micrograph"
            raise expected("density", what, self.density)

    @property
    def requested(self) -> int | None:
        """Number T of particles per micrograph that `density` asks for."""
        if self.density is None:
            return None
        return round(self.density * self.pixels**2 / self.size**2)

    def _require_integer(self, name: str, least: int) -> None:
        value = getattr(self, name)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            raise expected(name, f"an integer of at least {least}", value)


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
        Of the noise in a pixel.
    lens : ContrastTransfer or None
        Contrast transfer function, if there is a lens.
    """

    micrograph: Image
    coordinates: Float
    rotations: Float
    noise_variance: float
    lens: ContrastTransfer | None = None


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
        Of the noise in a pixel, the same in all micrographs.
    requested : int or None
        Particles per micrograph that were asked for.
    placed : list of int
        Particles per micrograph that there are.
    volume_true : ndarray, shape (L, L, L)
        The volume to be recovered; its projections are in micrograph units.
    lenses : list of ContrastTransfer
        Of each micrograph; empty if there is no lens.
    """

    micrographs: list[Image]
    coordinates: list[Float]
    rotations: list[Float]
    noise_variance: float
    requested: int | None
    placed: list[int]
    volume_true: Float
    lenses: list[ContrastTransfer] = field(default_factory=list)


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
    scene = _Scene(volume, settings)
    drawn = list(scene.micrographs(progress))
    return Simulation(
        micrographs=[one.micrograph for one in drawn],
        coordinates=[one.coordinates for one in drawn],
        rotations=[one.rotations for one in drawn],
        noise_variance=drawn[0].noise_variance,
        requested=settings.requested,
        placed=[len(one.rotations) for one in drawn],
        volume_true=scene.volume_true,
        lenses=[one.lens for one in drawn if one.lens is not None],
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
    yield from _Scene(volume, settings).micrographs(progress)


def simulate_to_folder(
    folder: PathLike,
    volume: NDArray[np.floating],
    settings: SimulationSettings,
    progress: Progress | None = None,
) -> None:
    """Simulate micrographs and write each before the next is drawn.

    Parameters
    ----------
    folder : path-like
        Where to write; made if it is not there.
    volume : ndarray, shape (n, n, n), n >= size
        As in :func:`simulate`.
    settings : SimulationSettings
        What to simulate.
    progress : callable, optional
        Called with the number of micrographs done and of all.

    Raises
    ------
    InputError
        If the volume cannot be used, or the folder cannot or holds a simulation.
    """
    _prepare(folder)
    scene = _Scene(volume, settings)
    _write(folder, scene.micrographs(progress), scene.volume_true, settings)


def write_simulation(
    folder: PathLike,
    simulation: Simulation,
    settings: SimulationSettings,
) -> None:
    """Write micrographs, truth and settings.

    The folder gets ``micrograph_0001.mrc`` and so on, ``truth.star``,
    ``volume_true.mrc``, with a lens RELION's list ``micrographs.star``, and, last,
    ``simulation.json``.

    Parameters
    ----------
    folder : path-like
        Where to write; made if it is not there.
    simulation : Simulation
        What :func:`simulate` returned.
    settings : SimulationSettings
        What it was given.

    Raises
    ------
    InputError
        If the folder cannot be written or holds a simulation already.
    """
    _prepare(folder)
    variances = repeat(simulation.noise_variance)
    drawn = map(
        SimulatedMicrograph,
        simulation.micrographs,
        simulation.coordinates,
        simulation.rotations,
        variances,
        simulation.lenses or repeat(None),
    )
    _write(folder, drawn, simulation.volume_true, settings)


class _Scene:
    """What all micrographs of a simulation share."""

    def __init__(
        self, volume: NDArray[np.floating], settings: SimulationSettings
    ) -> None:
        volume = _checked(volume, settings.size)
        self.settings = settings
        self.expanded = settings.method == "expanded"
        self.noise = None
        if settings.noise_like is not None:
            sections, _ = read_micrographs(settings.noise_like)
            measured = np.asarray(next(iter(sections)), dtype=np.float32)
            self.noise = RadialSpectrum(measured, np.zeros(measured.shape, bool))
        if self.expanded:
            basis = VolumeBasis(settings.size, settings.ell_max)
            coefficients = basis.expand(downsampled(volume, settings.size))
            self.volume_true: Float = basis.evaluate(coefficients)
            self.size, self.pixels = settings.size, settings.pixels
            self.project: Projector = partial(basis.project, coefficients)
        else:
            full = len(volume)
            supported = volume * ball(full)
            self.volume_true = downsampled(supported, settings.size)
            self.size = full
            self.pixels = round(settings.pixels * full / settings.size)
            self.project = partial(project_slices, supported)

    def micrographs(self, progress: Progress | None) -> Iterator[SimulatedMicrograph]:
        """Draw them in order; the first one's projections set the noise of all."""
        settings = self.settings
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
            lens = None
            if settings.defocus is not None:
                defocus = float(generator.uniform(*settings.defocus))
                lens = ContrastTransfer(defocus, defocus, voltage=VOLTAGE)
                micrograph = _filtered(micrograph, lens, settings.pixel_size)
            if self.noise is not None:
                noise = _coloured(noise, self.noise)
            micrograph += np.float32(np.sqrt(noise_variance)) * noise
            yield SimulatedMicrograph(
                micrograph, self._centres(corners), rotations, noise_variance, lens
            )
            if progress is not None:
                progress(number + 1, settings.micrographs)

    def _rotations(self, n: int, generator: np.random.Generator) -> Float:
        """Uniform, but for the preferred ones: those have R^T z near z."""
        rotations = random_rotations(n, generator)
        if self.settings.preferred == 0:
            return rotations
        preferred = generator.random(n) < self.settings.preferred
        cosine = generator.uniform(np.cos(_CONE), 1, n)
        sine, zero = np.sqrt(1 - cosine**2), np.zeros(n)
        first, last = (_about_z(2 * np.pi * generator.random(n)) for _ in range(2))
        tilt = np.array(
            [[cosine, zero, -sine], [zero, zero + 1, zero], [sine, zero, cosine]]
        ).transpose(2, 0, 1)
        return np.where(preferred[:, None, None], last @ tilt @ first, rotations)

    def _places(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """First pixels (y, x) of the projections, whole in the micrograph."""
        separated = self.settings.spacing == "separated"
        side = 2 * self.size - 1 if separated else self.size
        extent = self.pixels - self.size + 1
        return place_squares(extent, side, self.settings.requested, generator)

    def _noise_variance(self, energy: float) -> float:
        """Equation (4), then what Fourier cropping leaves of white noise."""
        variance = energy / (self.size**2 * self.settings.snr)
        return variance * (self.settings.pixels / self.pixels) ** 2

    def _centres(self, corners: NDArray[np.int64]) -> Float:
        """Fourier cropping keeps pixel ``n // 2`` in place and scales around it."""
        small, full = self.settings.pixels, self.pixels
        from_middle = corners + self.size // 2 - full // 2
        return np.asarray(from_middle * (small / full) + small // 2, dtype=np.float64)

    def _clean(
        self, corners: NDArray[np.int64], rotations: Float
    ) -> tuple[Image, float]:
        """Micrograph without noise, and the mean energy of a projection in it.

        The full-size micrograph exists as one strip of rows at a time, each shortened
        along x as soon as no further particle reaches it.
        """
        small, full, size = self.settings.pixels, self.pixels, self.size
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
        size, energy = self.size, 0.0
        batch = max(BATCH_PIXELS // size**2, 1)
        for start in range(0, len(corners), batch):
            images = self.project(rotations[start : start + batch])
            energy += float(np.vdot(images, images))
            places = corners[start : start + batch].tolist()
            for (y, x), image in zip(places, images, strict=True):
                strip[y : y + size, x : x + size] += image
        return energy


def _about_z(angle: Float) -> Float:
    """Rotations about z, shape (n, 3, 3)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    zero, one = np.zeros_like(angle), np.ones_like(angle)
    matrices = np.array(
        [[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]]
    )
    return matrices.transpose(2, 0, 1)


def _filtered(image: Image, lens: ContrastTransfer, pixel_size: float) -> Image:
    """Take a micrograph without noise through a lens."""
    rows, columns = image.shape
    y, x = fft.fftfreq(rows, pixel_size)[:, None], fft.rfftfreq(columns, pixel_size)
    spectrum = fft.rfft2(image) * lens(y, x).astype(np.float32)
    return np.asarray(fft.irfft2(spectrum, image.shape), dtype=np.float32)


def _coloured(noise: Image, power: RadialSpectrum) -> Image:
    """Give white noise a spectrum and leave its variance."""
    rows, columns = noise.shape
    gain = np.sqrt(power(fft.fftfreq(rows)[:, None], fft.fftfreq(columns)))
    gain /= np.sqrt(np.mean(gain**2))
    half = gain[:, : columns // 2 + 1].astype(np.float32)
    spectrum = fft.rfft2(noise) * half
    return np.asarray(fft.irfft2(spectrum, noise.shape), dtype=np.float32)


def place_squares(
    extent: int, side: int, count: int | None, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Place squares one by one, uniformly among the positions still free.

    No two come closer than `side` along both axes, equation (5). Candidates are drawn
    from cells that may hold a free position; when few of them succeed, the cells are
    quartered and those that a single square blocks are forgotten. Cells of one position
    leave exactly the free positions, so the last placement ends in true jamming.

    Parameters
    ----------
    extent : int
        Positions run from 0 to ``extent - 1`` along both axes.
    side : int
        Side of the squares.
    count : int or None
        Stop at this many; None goes on until none fits.
    generator : Generator
        Source of the draws.

    Returns
    -------
    ndarray, shape (n, 2), int64
        Positions (y, x) in the order of placement, n at most `count`.
    """
    cell = 1 << max(side // 2, 1).bit_length() - 1
    corner = np.arange(0, extent, cell)
    cells = np.stack(np.meshgrid(corner, corner, indexing="ij"), -1).reshape(-1, 2)
    placed = np.empty((0, 2), dtype=np.int64)
    while len(cells) and (count is None or len(placed) < count):
        if cell == 1:
            draws = generator.permutation(cells)
        else:
            missing = len(cells) if count is None else count - len(placed)
            drawn = min(len(cells) // 4, 2 * missing) + 16
            chosen = cells[generator.integers(len(cells), size=drawn)]
            draws = chosen + generator.integers(cell, size=(drawn, 2))
        accepted = _accepted(draws, placed, extent, side)
        placed = np.concatenate([placed, accepted])
        if cell == 1:
            break
        if len(accepted) < FEW_ACCEPTED * len(draws):
            cell //= 2
            quarters = cell * np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
            cells = (cells[:, None] + quarters).reshape(-1, 2)
            cells = cells[(cells < extent).all(axis=1)]
        middle = (cell - 1) / 2
        blocked = _nearest(cells + middle, placed) + middle < side
        cells = cells[~blocked]
    return placed[:count]


def _accepted(
    draws: NDArray[np.int64], placed: NDArray[np.int64], extent: int, side: int
) -> NDArray[np.int64]:
    """Draws, in order, that meet neither a placed square nor an accepted draw."""
    draws = draws[(draws < extent).all(axis=1)]
    draws = draws[_nearest(draws, placed) >= side]
    if not len(draws):
        return draws
    pairs = cKDTree(draws).query_pairs(side - 0.5, p=np.inf, output_type="ndarray")
    alive = [True] * len(draws)
    for earlier, later in pairs[np.lexsort(pairs.T[::-1])].tolist():
        if alive[earlier]:
            alive[later] = False
    return draws[alive]


def _nearest(points: NDArray[Any], placed: NDArray[np.int64]) -> Float:
    """Distance to the nearest placed square along the axis where it is larger."""
    if not len(placed):
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(placed).query(points, p=np.inf)[0])


def project_slices(volume: NDArray[np.floating], rotations: Float) -> Image:
    """Project a volume by the Fourier slice theorem, equation (1).

    The transform of a projection is a slice through that of the volume; it is taken
    below half a cycle per pixel in every direction.

    Parameters
    ----------
    volume : ndarray, shape (n, n, n)
        The map, ``volume[z, y, x]``, zero outside the ball of radius ``n // 2``.
    rotations : ndarray, shape (K, 3, 3)
        The rotation of each projection.

    Returns
    -------
    ndarray, shape (K, n, n), float32
        Projections, ``image[y, x]``.
    """
    import finufft

    n = len(volume)
    ky, kx = np.meshgrid(fft.fftfreq(n, 1 / n), np.arange(n // 2 + 1), indexing="ij")
    band = 4 * (kx**2 + ky**2) < n**2
    slices = np.zeros((len(rotations), *band.shape), dtype=np.complex64)
    # R f has the transform f_hat(R^T xi), and xi has no z component.
    rows = np.asarray(rotations)[:, :2]
    turned = np.stack([kx[band], ky[band]], -1) @ rows * (2 * np.pi / n)
    x, y, z = turned.reshape(-1, 3).T.astype(np.float32, order="C")
    values = finufft.nufft3d2(
        z,
        y,
        x,
        volume.astype(np.complex64),
        eps=SLICE_ACCURACY,
        isign=-1,
        upsampfac=SLICE_OVERSAMPLING,
    )
    centre = np.exp(-2j * np.pi / n * (n // 2) * (kx + ky)[band])
    slices[:, band] = values.reshape(len(rotations), -1) * centre.astype(np.complex64)
    return np.asarray(fft.irfft2(slices, s=(n, n), axes=(1, 2)), dtype=np.float32)


def downsampled(volume: NDArray[np.floating], size: int) -> Float:
    """Fourier-crop a volume so that its projections keep their values.

    A projection sums voxels along a line, and after cropping a line has fewer.

    Parameters
    ----------
    volume : ndarray, shape (n, n, n)
        The map.
    size : int
        Voxels per axis, at most n.

    Returns
    -------
    ndarray, shape (size, size, size), float64
        The map in voxels of ``n / size`` of the old ones.
    """
    cropped = fourier_crop(np.asarray(volume, dtype=np.float64), size)
    return np.asarray(cropped * (len(volume) / size), dtype=np.float64)


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
    names = [field.name for field in fields(SimulationSettings)]
    for name in overrides:
        if name not in names:
            raise expected("settings", f"one of {', '.join(names)}", name)
    if settings is not None:
        return replace(settings, **overrides)
    for name in ("size", "pixels", "snr"):
        if name not in overrides:
            raise expected(name, "a value", "none")
    return SimulationSettings(**overrides)


def _prepare(folder: PathLike) -> None:
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in place.iterdir())
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror}"
        raise expected(folder, "a folder that can be written", found) from error
    for name in held:
        if name == RECORD or name.startswith("micrograph_"):
            what = "a folder without a simulation"
            raise expected(folder, what, f"{name} in it")


def _write(
    folder: PathLike,
    drawn: Iterator[SimulatedMicrograph],
    volume_true: Float,
    settings: SimulationSettings,
) -> None:
    place = Path(folder)
    names: list[str] = []
    coordinates, rotations, placed, lenses = [], [], [], []
    for number, one in enumerate(drawn, start=1):
        name = f"micrograph_{number:04d}.mrc"
        write_micrograph(place / name, one.micrograph, settings.pixel_size)
        names += [name] * len(one.rotations)
        coordinates.append(one.coordinates)
        rotations.append(one.rotations)
        placed.append(len(one.rotations))
        if one.lens is not None:
            lenses.append((name, one.lens))
    if lenses:
        listed, seen = zip(*lenses, strict=True)
        table = place / "micrographs.star"
        write_micrograph_table(table, listed, settings.pixel_size, seen)
    write_volume(place / "volume_true.mrc", volume_true, settings.pixel_size)
    write_particles(
        place / "truth.star",
        micrograph_names=names,
        coordinates=np.concatenate(coordinates),
        angles=relion_angles(np.concatenate(rotations)),
        pixel_size=settings.pixel_size,
        optics=optics_table(settings.pixel_size, VOLTAGE),
    )
    area = settings.pixels**2 / settings.size**2
    record = {
        # JSON has no infinity.
        "settings": asdict(settings)
        | {"snr": settings.snr if np.isfinite(settings.snr) else None}
        | {"noise_like": settings.noise_like and os.fspath(settings.noise_like)},
        "noise_variance": one.noise_variance,
        "requested": settings.requested,
        "placed": placed,
        "density_requested": settings.density,
        "density_placed": [count / area for count in placed],
    }
    with written_whole(place / RECORD) as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
