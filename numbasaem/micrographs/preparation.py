"""From a camera's pixels to those that the model describes: white noise around 0.

The model knows particles and white noise, nothing else. What else a micrograph holds
is taken out here, in this order, each step on request:

mend
    Hot pixels become the median of their neighbours; areas that are constant, such as
    the borders that motion correction leaves, are masked.
downsample
    Fourier cropping to the pixel size at which the particle fits the patch.
invert
    Particles darker than ice become bright.
flatten
    A Gaussian mean about each pixel is subtracted, as wide at half its height as twice
    the patch: what varies more slowly than particles is background.
clean
    Areas that are neither ice nor particles, such as crystals, carbon and the edges of
    holes, are masked: there the variance in boxes of four patches a side stands out.
level
    The background's level becomes 0. Neither mean nor median serves: particles are
    positive and lift them, by 0.11 and 0.04 of the noise's deviation for a folded chain
    at SNR 3.5 that covers 16 % of the area, by 0.18 and 0.16 for the Shepp-Logan
    phantom at SNR 0.5 and 40 %. The peak of the histogram of means over boxes half a
    patch wide, fitted on the side that has no particles, is off by 0.002 and 0.03, give
    or take 0.004, in 512 x 512 pixels.
normalise
    Divided by the standard deviation, told from the median of absolute values, so that
    the camera's gain drops out.
ctf, whiten
    Phases that the lens has turned are turned back, and noise is made white; see
    :mod:`numbasaem.micrographs.correction`.

Simulated micrographs have no background and their own units: for them only the level is
found, and the noise stays as it is. Flattening takes a ninth of a particle's height
along with the background, and is for raw micrographs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage, optimize, special

from numbasaem.errors import expected

from .copies import noise_sample
from .correction import flip_phases_and_whiten
from .excluded_areas import (
    contaminated,
    cropped_mask,
    free_squares,
    mended,
    spread_of_noise,
)
from .fourier_crop import fourier_crop
from .sizes import molecule_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from numbasaem.settings import Settings

    from .copies import Identity
    from .ctf import ContrastTransferFunction
    from .optics_groups import PointSpread

_FAINTEST = 1e-15
"""Least brightness of the brightest pixel, whose square float32 still holds.

The largest is the inverse of it.
"""
_WIDTH_IN_DEVIATIONS = 2 * np.sqrt(2 * np.log(2))
"""Width of a Gaussian at half its height."""
_CTF_BYTES, _WHITENING_BYTES, _BOX_MEANS_BYTES = 32, 16, 12
"""Bytes of a pixel, measured: its transform and what is computed from it."""
_LEVEL_ROUNDS = 10
"""Number of fits of the lower flank, each below the peak that the last one found."""
_PAST_PEAK = 0.5
"""Deviations beyond the peak up to which values are fitted too: they steady the fit."""


@dataclass(frozen=True)
class Preparation:
    """What is done to every micrograph of a run.

    Attributes
    ----------
    size : int
        L, side of a patch in prepared pixels.
    pixel_size : float or None
        Angstrom per prepared pixel; None leaves the pixels as they are.
    mend, invert, flatten, clean, level, normalise, ctf, whiten : bool
        Whether to take these steps.
    """

    size: int
    pixel_size: float | None = None
    mend: bool = False
    invert: bool = False
    flatten: bool = False
    clean: bool = False
    level: bool = True
    normalise: bool = False
    ctf: bool = False
    whiten: bool = False

    def __call__(
        self,
        where: str,
        micrograph: ArrayLike,
        pixel_size: float | None,
        ctf: ContrastTransferFunction | None = None,
    ) -> Prepared:
        """Prepare one micrograph.

        Parameters
        ----------
        where : str
            The micrograph, as errors name it.
        micrograph : array, shape (rows, columns)
            Its pixels; left as they are.
        pixel_size : float or None
            Angstrom per pixel.
        ctf : ContrastTransferFunction, optional
            Its contrast transfer function.

        Returns
        -------
        Prepared
            The prepared micrograph.

        Raises
        ------
        InputError
            If the micrograph is too small, constant or not finite, if all of it is
            excluded, if its pixels are larger than those wanted or of unknown size, or
            if its contrast transfer function is wanted and unknown.
        """
        pixels = _checked(where, micrograph)
        shape = self.prepared_shape(where, pixels.shape, pixel_size)
        sample = noise_sample(pixels)
        constant = np.zeros(pixels.shape, bool)
        if self.mend:
            pixels, constant = mended(pixels)
        prepared = np.asarray(fourier_crop(pixels, shape), dtype=np.float32)
        excluded = cropped_mask(constant, shape)
        if self.invert:
            prepared = -prepared
        if self.flatten:
            deviation = 2 * self.size / _WIDTH_IN_DEVIATIONS
            background = np.empty_like(prepared)
            ndimage.gaussian_filter(prepared, deviation, output=background)
            prepared = prepared - background
        if self.clean:
            excluded |= contaminated(prepared, self.size)
        if not free_squares(excluded, self.size).any():
            wanted = "patches without excluded areas, or `mend=False` or `clean=False`"
            raise expected(where, wanted, "none")
        if self.level:
            prepared = prepared - np.float32(
                background_level(prepared, self.size, excluded)
            )
        if self.normalise:
            prepared = prepared / self._spread(where, prepared[~excluded])
        identity = where, pixels.shape, sample
        result = Prepared(prepared, excluded, pixels.shape, identity=identity)
        if self.ctf or self.whiten:
            known = self._known_ctf(where, ctf, pixel_size) if self.ctf else None
            white, spread = flip_phases_and_whiten(
                prepared, excluded, self.size, known, self.whiten
            )
            result = replace(result, pixels=white, point_spread=spread)
        return result

    def _spread(self, where: str, pixels: NDArray[np.float32]) -> np.float32:
        """Standard deviation of the noise in pixels, above 0."""
        spread = np.float32(spread_of_noise(pixels))
        if not spread > 0:
            wanted = "pixels that vary over half of the area, or `normalise=False`"
            raise expected(where, wanted, "one value in most of them")
        return spread

    def _known_ctf(
        self,
        where: str,
        ctf: ContrastTransferFunction | None,
        pixel_size: float | None,
    ) -> tuple[ContrastTransferFunction, float]:
        """Contrast transfer function and the size of the pixels it is taken over."""
        prepared_size = self.pixel_size or pixel_size
        if ctf is None:
            wanted = "its defocus in a list of micrographs, or `ctf=False`"
            raise expected(where, wanted, "none")
        if prepared_size is None:
            raise expected(where, "a pixel size, or `pixel_size`", "none")
        return ctf, prepared_size

    def prepared_shape(
        self, where: str, shape: tuple[int, ...], pixel_size: float | None
    ) -> tuple[int, ...]:
        """Rows and columns after downsampling.

        Parameters
        ----------
        where : str
            The micrograph, as errors name it.
        shape : tuple of int
            Its rows and columns.
        pixel_size : float or None
            Angstrom per pixel.

        Returns
        -------
        tuple of int
            Rows and columns, each at least twice the patch's side.

        Raises
        ------
        InputError
            If the micrograph is too small, or its pixels are larger than those wanted
            or of unknown size.
        """
        result = shape
        if self.pixel_size is not None:
            if pixel_size is None:
                raise expected(where, "a pixel size, or `pixel_size`", "none")
            if pixel_size > self.pixel_size * (1 + 1e-6):
                wanted = (
                    f"pixels of at most {self.pixel_size:.4g} A, to downsample from"
                )
                raise expected(where, wanted, f"{pixel_size:.4g} A")
            result = tuple(round(n * pixel_size / self.pixel_size) for n in shape)
        if min(result) < 2 * self.size:
            after = "" if result == shape else " after downsampling"
            wanted = f"at least {2 * self.size} pixels a side{after}"
            raise expected(where, wanted, result)
        return result


@dataclass(frozen=True)
class Prepared:
    """A prepared micrograph.

    Attributes
    ----------
    pixels : float32, shape (rows, columns)
        Pixels that the model describes.
    excluded : bool, shape (rows, columns)
        Pixels where the camera saw nothing, or that are neither ice nor particles.
    original_shape : tuple of int
        Rows and columns before downsampling.
    point_spread : PointSpread or None
        What particles in `pixels` have been through, if that is known.
    identity : Identity or None
        What the micrograph is recognised by.
    """

    pixels: NDArray[np.float32]
    excluded: NDArray[np.bool_]
    original_shape: tuple[int, ...]
    point_spread: PointSpread | None = None
    identity: Identity | None = None

    @property
    def excluded_share(self) -> float:
        """Share of the area that is excluded."""
        return float(self.excluded.mean())

    def original_coordinates(
        self, centres: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Coordinates in the original micrograph of places in the prepared one.

        Parameters
        ----------
        centres : array, shape (n, 2)
            (y, x) in prepared pixels.

        Returns
        -------
        float64, shape (n, 2)
            (y, x) in pixels of the micrograph as it was given: Fourier cropping keeps
            pixel ``n // 2`` in place and scales around it.
        """
        large, small = np.array(self.original_shape), np.array(self.pixels.shape)
        places = (centres - small // 2) * (large / small) + large // 2
        return np.asarray(places, dtype=np.float64)


def preparation_of(settings: Settings) -> Preparation:
    """Build the preparation that settings ask for.

    Parameters
    ----------
    settings : Settings
        Settings of a reconstruction, with a size.

    Returns
    -------
    Preparation
        Preparation with every step decided. The particle's diameter becomes
        :func:`~numbasaem.micrographs.sizes.molecule_pixels` prepared pixels.
    """
    diameter = settings.particle_diameter
    raw = diameter is not None
    pixels = molecule_pixels(settings.size)
    return Preparation(
        size=settings.size,
        pixel_size=None if diameter is None else diameter / pixels,
        mend=raw if settings.mend is None else settings.mend,
        invert=settings.contrast == "dark",
        flatten=raw if settings.flatten is None else settings.flatten,
        clean=raw if settings.clean is None else settings.clean,
        level=settings.level,
        normalise=raw if settings.normalise is None else settings.normalise,
        ctf=settings.ctf,
        whiten=settings.whiten,
    )


def background_level(
    pixels: NDArray[np.floating],
    size: int,
    excluded: NDArray[np.bool_] | None = None,
) -> float:
    """Level of the empty background under positive particles.

    Parameters
    ----------
    pixels : array, shape (rows, columns)
        Micrograph, particles bright.
    size : int
        L, side of a patch, pixels.
    excluded : bool, shape (rows, columns), optional
        Pixels that do not count.

    Returns
    -------
    float
        Mean of the Gaussian that describes the lower flank of the histogram of means
        over boxes of half a patch, up to just beyond its peak. In such boxes the noise
        is low enough to tell particles from their absence.
    """
    side = size // 2
    # Boxes that lie whole on the micrograph; neighbours overlap by two thirds or so.
    whole = slice(side // 2 + 1, -(side // 2) - 1, max(side // 3, 1))
    means = ndimage.uniform_filter(pixels, side, output=np.float64)[whole, whole]
    if excluded is not None:
        free = ~ndimage.maximum_filter(excluded, side)[whole, whole]
        means = means[free] if free.any() else means
    level = float(np.median(means))
    for _ in range(_LEVEL_ROUNDS):
        below = level - means[means <= level]
        limit = level + _PAST_PEAK * float(np.sqrt(np.mean(below**2)))
        level = _mean_of_lower_flank(means[means <= limit], limit)
    return level


def _mean_of_lower_flank(values: NDArray[np.float64], limit: float) -> float:
    """Mean of the likeliest Gaussian for values, all those up to `limit`."""
    depth = np.sqrt(np.mean((limit - values) ** 2))
    if not depth > 0:
        return limit
    scaled = (values - limit) / depth
    first, second = float(scaled.mean()), float(np.mean(scaled**2))

    def minus_log_likelihood(parameters: NDArray[np.float64]) -> float:
        mean, log_deviation = parameters
        deviation = np.exp(log_deviation)
        squares = (second - 2 * mean * first + mean**2) / deviation**2
        inside = float(special.log_ndtr(-mean / deviation))
        return float(squares / 2 + log_deviation) + inside

    fit = optimize.minimize(
        minus_log_likelihood, np.zeros(2), method="L-BFGS-B", bounds=[(-1, 1)] * 2
    )
    return limit + float(depth) * float(fit.x[0])


def _checked(where: str, micrograph: ArrayLike) -> NDArray[np.float32]:
    """Refuse what is no micrograph."""
    image = np.asarray(micrograph)
    if image.ndim != 2 or image.dtype.kind not in "iuf":
        found = f"{image.dtype} of shape {image.shape}"
        raise expected(where, "an image of real numbers", found)
    with np.errstate(over="ignore"):
        pixels = np.asarray(image, dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise expected(where, "finite pixels", "NaN, infinity or beyond float32")
    if pixels.size == 0 or pixels.min() == pixels.max():
        raise expected(where, "pixels that vary", "a constant image")
    brightest = max(float(pixels.max()), -float(pixels.min()))
    if not _FAINTEST < brightest < 1 / _FAINTEST:
        wanted = f"pixels between {_FAINTEST:g} and {1 / _FAINTEST:g}"
        raise expected(where, wanted, f"up to {brightest:.3g}")
    return pixels


@dataclass(frozen=True)
class InputShape:
    """Shape of one input.

    Attributes
    ----------
    n_micrographs : int
        Number of micrographs that it holds.
    given : tuple of int
        Rows and columns as they are given.
    prepared : tuple of int
        Rows and columns after downsampling.
    """

    n_micrographs: int
    given: tuple[int, ...]
    prepared: tuple[int, ...]


def preparation_bytes(settings: Settings, shapes: Sequence[InputShape]) -> int:
    """Memory of reading a file and preparing one micrograph of it, with all copies.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    shapes : sequence of InputShape
        Shapes of the files.

    Returns
    -------
    int
        Bytes for the file that takes most.
    """
    work = _WHITENING_BYTES if settings.whiten else _BOX_MEANS_BYTES
    image, mask = 4, 1
    per_pixel = image + mask + (_CTF_BYTES if settings.ctf else work)

    def of_file(shape: InputShape) -> int:
        stored = 4 * shape.n_micrographs * prod(shape.given)
        # Copy, mask and comparisons, or the transform.
        raw = 32 * prod(shape.given) if shape.given != shape.prepared else 0
        return stored + raw + per_pixel * prod(shape.prepared)

    return max(of_file(shape) for shape in shapes)
