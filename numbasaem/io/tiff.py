"""Micrographs in TIFF files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from .sections import Sections

SUFFIXES = (".tif", ".tiff")
"""Suffixes of the names of TIFF files."""
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
"""Values of the tag PhotometricInterpretation that stand for grey values."""
PREVIEW = 4
"""Ratio of the largest page's area to a page's from which this one is a preview."""


def read_tiff(path: PathLike) -> Sections:
    """Open the micrographs of a TIFF file: one for each page that is no preview.

    Rows are counted from the bottom, as IMOD does: TIFF stores the top row first, MRC
    the bottom one, and the hand of a molecule must not depend on the format. Bright
    pixels become large numbers, whichever the file has as 0. TIFF has no trustworthy
    field for the pixel size.

    Parameters
    ----------
    path : path-like
        A ``.tif`` or ``.tiff`` file of grey values.

    Returns
    -------
    Sections
        The pages, ``image[y, x]`` in float32, each read when it is asked for.

    Raises
    ------
    InputError
        If the file is missing, is not TIFF, is damaged or holds colours; when a page is
        read, if it is damaged or constant or has a pixel that is not finite.
    """
    import tifffile

    indices, _ = _micrographs(path)

    def page(number: int) -> NDArray[Any]:
        try:
            with _errors_raised(), tifffile.TiffFile(path) as file:
                stored: Any = file.pages[indices[number]]
                image: NDArray[Any] = stored.asarray()
                photometric = _photometric(stored)
                bits = stored.bitspersample
        except Exception as error:  # The parser raises whatever a damaged tag leads to.
            found = f"{type(error).__name__}: {error}"
            raise expected(path, "whole TIFF pages", found) from error
        if image.ndim != 2 or image.dtype.kind not in "iuf":
            found = f"{image.dtype} of shape {image.shape}"
            raise expected(path, "an image of real numbers", found)
        if photometric == WHITE_IS_ZERO:
            image = _turned(image, bits)
        return image[::-1]

    return Sections(path, len(indices), page)


def read_tiff_shape(path: PathLike) -> tuple[int, int, int]:
    """Read number and shape of the micrographs of a TIFF file, not their pixels.

    Parameters
    ----------
    path : path-like
        As in :func:`read_tiff`.

    Returns
    -------
    (int, int, int)
        Number of micrographs, and rows and columns of the first.

    Raises
    ------
    InputError
        If the file is missing, is not TIFF, is damaged or holds colours.
    """
    indices, shape = _micrographs(path)
    return len(indices), *shape


def _micrographs(path: PathLike) -> tuple[list[int], tuple[int, int]]:
    """Indices of the pages that hold micrographs, and the first one's shape."""
    import tifffile

    place = Path(path)
    if place.is_dir() or not place.exists():
        found = "a folder" if place.is_dir() else "no such file"
        raise expected(path, "a TIFF file", found)
    try:
        with _errors_raised(), tifffile.TiffFile(place) as file:
            pages: list[Any] = list(file.pages)
            shapes = [(int(page.imagelength), int(page.imagewidth)) for page in pages]
            aside = [bool(page.is_reduced or page.is_mask) for page in pages]
            samples = [int(page.samplesperpixel) for page in pages]
            photometric = [_photometric(page) for page in pages]
    except Exception as error:  # As above.
        found = f"{type(error).__name__}: {error}"
        raise expected(path, "a TIFF file", found) from error
    whole = [n for n in range(len(shapes)) if not aside[n]] or list(range(len(shapes)))
    if not whole:
        raise expected(path, "a TIFF file", "one without pages")
    # Not every program marks its previews as such.
    largest = max(prod(shapes[n]) for n in whole)
    indices = [n for n in whole if prod(shapes[n]) * PREVIEW > largest]
    for n in indices:
        wanted = "one grey value a pixel; convert it to greyscale"
        if samples[n] != 1:
            found = f"SamplesPerPixel {samples[n]}, a colour image"
            raise expected(path, wanted, found)
        if photometric[n] not in (WHITE_IS_ZERO, BLACK_IS_ZERO):
            found = f"PhotometricInterpretation {photometric[n]}"
            raise expected(path, wanted, found)
    return indices, shapes[indices[0]]


def _photometric(page: Any) -> int:
    """What the numbers of a page mean; black is 0 where it does not say."""
    tag = page.tags.get("PhotometricInterpretation")
    return BLACK_IS_ZERO if tag is None else int(tag.value)


def _turned(image: NDArray[Any], bits: int) -> NDArray[Any]:
    """Numbers of a page that has white as 0, turned so that it is the largest."""
    largest = (1 << bits) - 1 if image.dtype.kind == "u" else 0
    turned: NDArray[Any] = np.subtract(largest, image, dtype=np.float64)
    return turned


class _Raiser(logging.Handler):
    """Turns what is logged into exceptions."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise the message."""
        raise ValueError(record.getMessage())


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Have the library fail where it only logs: at pages that are cut off."""
    handler = _Raiser(logging.ERROR)
    log = logging.getLogger("tifffile")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
