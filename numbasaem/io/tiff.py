"""Micrographs in TIFF files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from .sections import Sections

SUFFIXES = (".tif", ".tiff")
"""Suffixes of the names of TIFF files."""


def read_tiff(path: PathLike) -> Sections:
    """Open the micrographs of a TIFF file: one for each page.

    Rows are counted from the bottom, as IMOD does: TIFF stores the top row first, MRC
    the bottom one, and the hand of a molecule must not depend on the format. TIFF has
    no trustworthy field for the pixel size.

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

    count, _, _ = read_tiff_shape(path)

    def page(number: int) -> NDArray[Any]:
        try:
            with _errors_raised():
                image = tifffile.imread(path, key=number)
        except Exception as error:  # The parser raises whatever a damaged tag leads to.
            found = f"{type(error).__name__}: {error}"
            raise expected(path, "whole TIFF pages", found) from error
        if image.ndim != 2 or image.dtype.kind not in "iuf":
            found = f"{image.dtype} of shape {image.shape}"
            raise expected(path, "an image of real numbers", found)
        return image[::-1]

    return Sections(path, count, page)


def read_tiff_shape(path: PathLike) -> tuple[int, int, int]:
    """Read number and shape of the pages of a TIFF file, not their pixels.

    Parameters
    ----------
    path : path-like
        As in :func:`read_tiff`.

    Returns
    -------
    (int, int, int)
        Number of pages, and rows and columns of the first.

    Raises
    ------
    InputError
        If the file is missing, is not TIFF, is damaged or holds colours.
    """
    import tifffile

    place = Path(path)
    if place.is_dir() or not place.exists():
        found = "a folder" if place.is_dir() else "no such file"
        raise expected(path, "a TIFF file", found)
    try:
        with _errors_raised(), tifffile.TiffFile(place) as file:
            first = file.pages.first
            shape = len(file.pages), int(first.imagelength), int(first.imagewidth)
            samples = first.samplesperpixel
    except Exception as error:  # As above.
        found = f"{type(error).__name__}: {error}"
        raise expected(path, "a TIFF file", found) from error
    if samples != 1:
        wanted = "one grey value a pixel; convert it to greyscale"
        raise expected(path, wanted, f"SamplesPerPixel {samples}, a colour image")
    return shape


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
