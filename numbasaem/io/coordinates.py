"""Particle coordinates as other pickers write them: EMAN's boxes, Topaz's tables."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from . import written_whole

TOPAZ_COLUMNS = ("image_name", "x_coord", "y_coord", "score")


def write_boxes(path: PathLike, centres: NDArray[np.floating], side: int) -> None:
    """Write the particles of one micrograph as EMAN's ``.box``.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    centres : array, shape (n, 2)
        Centres (y, x) in pixels counted from 0, rounded to whole ones.
    side : int
        Side of the boxes, pixels.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    corners = np.rint(centres).astype(int).reshape(-1, 2) - side // 2
    lines = [f"{x}\t{y}\t{side}\t{side}\n" for y, x in corners]
    with written_whole(path) as part:
        part.write_text("".join(lines), encoding="utf-8")


def read_boxes(path: PathLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read EMAN's ``.box``.

    Parameters
    ----------
    path : path-like
        One line per particle: x and y of a corner, width, height.

    Returns
    -------
    centres : float64, shape (n, 2)
        (y, x) of the pixel at half the width and height, rounded down.
    sides : int64, shape (n, 2)
        Height and width, pixels.

    Raises
    ------
    InputError
        If the file is missing or a line does not begin with four whole numbers.
    """
    rows = []
    for where, words in _lines(path):
        try:
            rows.append([round(float(word)) for word in words[:4]])
        except (ValueError, OverflowError):
            rows.append([])
        if len(rows[-1]) < 4:
            raise expected(where, "x, y, width and height", " ".join(words))
    x, y, width, height = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    centres = np.stack([y + height // 2, x + width // 2], axis=1).astype(np.float64)
    return centres, np.stack([height, width], axis=1)


def write_topaz(
    path: PathLike,
    micrograph_names: Sequence[str],
    centres: NDArray[np.floating],
    scores: NDArray[np.floating],
) -> None:
    """Write particles as Topaz does.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    micrograph_names : sequence of str, length n
        The micrograph of each particle; its suffix is left out, as Topaz does.
    centres : array, shape (n, 2)
        Centres (y, x) in pixels counted from 0, rounded to whole ones.
    scores : array, shape (n,)
        How sure the picker is of each.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    places = np.rint(centres).astype(int).reshape(-1, 2)
    lines = ["\t".join(TOPAZ_COLUMNS) + "\n"]
    for name, (y, x), score in zip(micrograph_names, places, scores, strict=True):
        stem = os.path.splitext(name)[0]
        lines.append(f"{stem}\t{x}\t{y}\t{score:.9g}\n")
    with written_whole(path) as part:
        part.write_text("".join(lines), encoding="utf-8")


def read_topaz(
    path: PathLike,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Read a table of Topaz.

    Parameters
    ----------
    path : path-like
        Columns image_name, x_coord, y_coord and score, separated by tabs.

    Returns
    -------
    micrograph_names : list of str, length n
        Name of each particle's micrograph, without its suffix.
    centres : float64, shape (n, 2)
        (y, x) in pixels counted from 0.
    scores : float64, shape (n,)
        How sure the picker is of each.

    Raises
    ------
    InputError
        If the file is missing or of other columns, or a value is no number.
    """
    lines = list(_lines(path))
    header = tuple(lines[0][1]) if lines else ()
    if header != TOPAZ_COLUMNS:
        found = " ".join(header) or "an empty file"
        raise expected(path, f"columns {' '.join(TOPAZ_COLUMNS)}", found)
    names, numbers = [], []
    for where, words in lines[1:]:
        try:
            name, x, y, score = words
            numbers.append([float(y), float(x), float(score)])
        except ValueError as error:
            wanted = "a name and three numbers"
            raise expected(where, wanted, " ".join(words)) from error
        names.append(name)
    values = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return names, values[:, :2], values[:, 2]


def _lines(path: PathLike) -> list[tuple[str, list[str]]]:
    """Words of each line that is not blank, after the line's name for errors."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        found = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
        raise expected(path, "a text file of coordinates", found) from error
    return [
        (f"{path} line {number}", line.split())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
