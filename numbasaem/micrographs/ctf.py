"""Between a molecule and the pixels: the lens, and the colour of the noise.

Both are filters, and so is what undoes them. A micrograph is taken through a filter
that leaves its noise white; projections are taken through the filter that particles
have then been through, cropped to their box. For the lens the first is the sign of its
contrast transfer function, which changes no noise and brings a particle's fringes back
to it, and the second its absolute value; for coloured noise both are one over the root
of its spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from numbasaem.errors import expected
from numbasaem.geometry.grids import disc
from numbasaem.projection.point_spread import image_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_TILE = 64
"""Pixels a side of the squares whose spectra are averaged."""
_LEAST_POWER = 0.1
"""Of the median: what preparation took out of a micrograph is not blown up."""
_FINEST_GRID = 256
_ALIKE = 0.05
"""Relative difference of point spreads that are as good as one."""
LARGEST_COUNT = 16
"""Of optics groups: an M-step costs as many times as much."""


@dataclass(frozen=True)
class ContrastTransfer:
    """Contrast transfer function of a micrograph, by RELION's conventions.

    Attributes
    ----------
    defocus_u, defocus_v : float
        Along the principal axes, angstrom; underfocus is positive.
    defocus_angle : float
        From x towards y to the axis of `defocus_u`, degrees.
    voltage : float
        kV.
    spherical_aberration : float
        mm.
    amplitude_contrast : float
        Share, 0 to 1.
    phase_shift : float
        Of a phase plate, degrees.
    b_factor : float
        Square angstrom; the envelope is exp(-b_factor / 4 * frequency**2).

    Raises
    ------
    InputError
        If a value is not finite or out of its range.

    Examples
    --------
    >>> lens = ContrastTransfer(defocus_u=15_000, defocus_v=15_000)
    >>> round(float(lens(0.0, 0.0)), 3), round(float(lens(0.0, 0.04)), 3)
    (0.1, 1.0)
    """

    defocus_u: float
    defocus_v: float
    defocus_angle: float = 0.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift: float = 0.0
    b_factor: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no microscope has."""
        for name, value in vars(self).items():
            if not np.isfinite(value):
                raise expected(name, "a finite number", value)
        if not self.voltage > 0:
            raise expected("voltage", "a number of kV above 0", self.voltage)
        if not 0 <= self.amplitude_contrast <= 1:
            what = "a share from 0 to 1"
            raise expected("amplitude_contrast", what, self.amplitude_contrast)

    @property
    def wavelength(self) -> float:
        """De Broglie wavelength of the electrons, angstrom."""
        volts = 1000 * self.voltage
        return float(12.2642596 / np.sqrt(volts * (1 + 0.978475598e-6 * volts)))

    def __call__(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Evaluate it.

        Parameters
        ----------
        y, x : array, shapes that broadcast
            Frequencies along the axes, cycles per angstrom.

        Returns
        -------
        float64
            Between -1 and 1; positive at low frequencies under focus: a bright particle
            stays bright.
        """
        rows, columns = np.asarray(y, np.float64), np.asarray(x, np.float64)
        square = rows**2 + columns**2
        angle = np.arctan2(rows, columns) - np.radians(self.defocus_angle)
        mean = (self.defocus_u + self.defocus_v) / 2
        defocus = mean + (self.defocus_u - self.defocus_v) / 2 * np.cos(2 * angle)
        aberration = 1e7 * self.spherical_aberration * self.wavelength**2 / 2
        phase = np.pi * self.wavelength * square * (defocus - aberration * square)
        constant = np.radians(self.phase_shift) + np.arcsin(self.amplitude_contrast)
        envelope = np.exp(-self.b_factor / 4 * square)
        return np.asarray(np.sin(phase + constant) * envelope, dtype=np.float64)


@dataclass(frozen=True)
class PointSpread:
    """What a projection is convolved with before it is cropped to its box.

    Attributes
    ----------
    values : float64, shape (2L - 1, 2L - 1)
        Displacement (0, 0) in the middle.
    share_outside : float
        Share of a particle's energy that leaves its box, for one that fills the disc in
        it and has all frequencies alike.
    """

    values: NDArray[np.float64]
    share_outside: float


def corrected(
    pixels: NDArray[np.float32],
    dead: NDArray[np.bool_],
    size: int,
    lens: tuple[ContrastTransfer, float] | None = None,
    whiten: bool = False,
) -> tuple[NDArray[np.float32], PointSpread]:
    """Flip the phases that the lens has turned, and make noise white.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        Micrograph.
    dead : bool, shape (rows, columns)
        Pixels that tell nothing of the noise.
    size : int
        L, side of a particle's box.
    lens : (ContrastTransfer, float), optional
        The lens and angstrom per pixel.
    whiten : bool
        Whether to divide by the root of the micrograph's radial power spectrum. What
        particles add to the spectrum counts as noise.

    Returns
    -------
    pixels : float32, shape (rows, columns)
        Of the same standard deviation if made white.
    PointSpread
        What particles in them have been through.
    """
    spectrum = fft.rfft2(pixels)
    rows, columns = pixels.shape
    frequencies = fft.fftfreq(rows)[:, None], fft.rfftfreq(columns)[None]
    n = max(_FINEST_GRID, 8 * size)
    fine = fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None]
    response = np.ones((n, n // 2 + 1))
    if lens is not None:
        transfer, pixel_size = lens
        y, x = (f / pixel_size for f in frequencies)
        seen = transfer(y, x)
        if columns % 2 == 0:  # Nyquist stands for both of its signs.
            seen[:, -1] += transfer(-y[:, 0], x[:, -1])
        spectrum[seen < 0] *= -1
        response *= np.abs(transfer(*(f / pixel_size for f in fine)))
    if whiten:
        power = RadialSpectrum(pixels, dead)
        spectrum *= power(*frequencies).astype(np.float32) ** -0.5
        response *= power(*fine) ** -0.5
    result = fft.irfft2(spectrum, pixels.shape)
    if whiten:
        scale = float(np.std(pixels, dtype=np.float64))
        scale /= max(float(np.std(result, dtype=np.float64)), np.finfo(float).tiny)
        result *= np.float32(scale)
        response *= scale
    near = np.arange(1 - size, size)
    whole = fft.irfft2(response, (n, n))
    values = whole[np.ix_(near, near)]
    share = _share_outside(values, float(np.vdot(whole, whole)))
    return result, PointSpread(values, share)


class RadialSpectrum:
    """Radial power spectrum of a micrograph.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        Micrograph.
    dead : bool, shape (rows, columns)
        Pixels that do not count.
    """

    def __init__(self, pixels: NDArray[np.float32], dead: NDArray[np.bool_]) -> None:
        side = min(_TILE, *pixels.shape)
        window = np.hanning(side)
        power = np.zeros((side, side // 2 + 1))
        n_tiles = 0
        starts = [range(0, n - side + 1, side // 2) for n in pixels.shape]
        corners = [(y, x) for y in starts[0] for x in starts[1]]
        living = [
            (y, x) for y, x in corners if not dead[y : y + side, x : x + side].any()
        ]
        for y, x in living or corners:
            tile = pixels[y : y + side, x : x + side].astype(np.float64)
            windowed = (tile - tile.mean()) * np.outer(window, window)
            power += np.abs(fft.rfft2(windowed)) ** 2
            n_tiles += 1
        radius = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None]) * side
        shells = np.rint(radius).astype(np.intp)
        counts = np.bincount(shells.ravel())
        mean = np.bincount(shells.ravel(), power.ravel()) / counts / n_tiles
        mean[0] = mean[1]  # without its mean a tile tells nothing of frequency zero
        self._power = np.maximum(mean, _LEAST_POWER * np.median(mean))
        self._side = side

    def __call__(
        self, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Evaluate it.

        Parameters
        ----------
        y, x : float64, shapes that broadcast
            Frequencies along the axes, cycles per pixel.

        Returns
        -------
        float64
            Power, no less than a tenth of the median.
        """
        shells = np.arange(len(self._power)) / self._side
        return np.asarray(np.interp(np.hypot(y, x), shells, self._power))


@dataclass(frozen=True)
class OpticsGroups:
    """Micrographs in groups that show particles alike.

    Attributes
    ----------
    point_spreads : float64, shape (n_groups, 2L - 1, 2L - 1)
        Of each group.
    group : intp, shape (n,)
        Group of each micrograph, or of each of their pieces.
    """

    point_spreads: NDArray[np.float64]
    group: NDArray[np.intp]

    def take(self, micrograph: NDArray[np.intp]) -> OpticsGroups:
        """Groups of pieces of micrographs.

        Parameters
        ----------
        micrograph : intp, shape (n,)
            Number of each piece's micrograph.

        Returns
        -------
        OpticsGroups
            The same groups, with those of the pieces.
        """
        return OpticsGroups(self.point_spreads, self.group[micrograph])


def group_point_spreads(
    point_spreads: Sequence[NDArray[np.float64]],
) -> OpticsGroups:
    """Put micrographs of nearly the same point spread into one group.

    Parameters
    ----------
    point_spreads : sequence of float64 arrays, shape (2L - 1, 2L - 1)
        Of each micrograph.

    Returns
    -------
    OpticsGroups
        With the mean of its micrographs as each group's point spread; as many groups as
        keep them within 5 % of each other, but no more than 16.
    """
    alike = _ALIKE
    while True:
        leaders: list[NDArray[np.float64]] = []
        group = np.empty(len(point_spreads), np.intp)
        for number, one in enumerate(point_spreads):
            away = [np.linalg.norm(one - leader) for leader in leaders]
            nearest = int(np.argmin(away)) if away else -1
            if not away or away[nearest] > alike * np.linalg.norm(leaders[nearest]):
                leaders.append(one)
                nearest = len(leaders) - 1
            group[number] = nearest
        if len(leaders) <= LARGEST_COUNT:
            break
        alike *= 1.5
    means = [
        np.mean([s for s, own in zip(point_spreads, group, strict=True) if own == g], 0)
        for g in range(len(leaders))
    ]
    return OpticsGroups(np.array(means), group)


def _share_outside(point_spread: NDArray[np.float64], energy: float) -> float:
    """See :class:`PointSpread`; `energy` is that of all displacements."""
    size = (len(point_spread) + 1) // 2
    in_disc = disc(size).ravel()
    inside = np.square(image_filter(point_spread))[:, in_disc].sum()
    return float(1 - inside / (in_disc.sum() * energy))
