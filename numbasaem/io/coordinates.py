"""Particle coordinates as other pickers write them: EMAN's boxes, Topaz's tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from . import written_whole
from .names import told_apart

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
    for where, line in _lines(path):
        words = line.split()
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
        The micrograph of each particle; its suffix is left out, as Topaz does, and its
        folders, where that leaves each name its own.
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
    shorten = told_apart(micrograph_names)
    # Python below 3.13 does not see that a carriage return needs quotes.
    has_returns = any("\r" in name for name in micrograph_names)
    with (
        written_whole(path) as part,
        part.open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as stream,
    ):
        table = csv.writer(
            stream,
            "excel-tab",
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL,
        )
        table.writerow(TOPAZ_COLUMNS)
        for name, (y, x), score in zip(micrograph_names, places, scores, strict=True):
            table.writerow([shorten(name), x, y, f"{score:.9g}"])


def read_topaz(
    path: PathLike,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Read a table of Topaz.

    Parameters
    ----------
    path : path-like
        Columns image_name, x_coord and y_coord, and score or others, separated by tabs;
        commas and blanks will do.

    Returns
    -------
    micrograph_names : list of str, length n
        Name of each particle's micrograph as it stands there.
    centres : float64, shape (n, 2)
        (y, x) in pixels counted from 0.
    scores : float64, shape (n,)
        How sure the picker is of each; nan in a table of labels, which has no scores.

    Raises
    ------
    InputError
        If the file is missing or of other columns, or a value is no number.
    """
    (_, titles), *rows = _topaz_rows(path)
    header = [title.strip() for title in titles]
    if not set(TOPAZ_COLUMNS[:3]) <= set(header):
        found = " ".join(header) or "an empty file"
        raise expected(path, f"columns {' '.join(TOPAZ_COLUMNS[:3])}", found)
    names, numbers = [], []
    for where, words in rows:
        value = dict(zip(header, words, strict=False))
        try:
            score = float(value["score"]) if "score" in header else np.nan
            numbers.append([float(value["y_coord"]), float(value["x_coord"]), score])
            names.append(value["image_name"])
        except (KeyError, ValueError) as error:
            wanted = f"a name and numbers under {' '.join(header)}"
            raise expected(where, wanted, " ".join(words)) from error
        if not np.isfinite(numbers[-1][:2]).all():
            raise expected(where, "finite coordinates", " ".join(words))
    values = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return names, values[:, :2], values[:, 2]


def _topaz_rows(path: PathLike) -> list[tuple[str, list[str]]]:
    """Header and rows of a table, each after its name for errors."""
    text = _text(path)
    header = text.lstrip().partition("\n")[0]
    delimiter = next((mark for mark in "\t," if mark in header), None)
    if delimiter is not None:
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
        rows = [(f"{path} line {reader.line_num}", row) for row in reader if any(row)]
    else:
        n_columns = len(header.split())
        rows = [
            (where, line.rsplit(maxsplit=n_columns - 1)) for where, line in _lines(path)
        ]
    return rows or [(str(path), [])]


def _lines(path: PathLike) -> list[tuple[str, str]]:
    """Each line that is not blank, after its name for errors."""
    return [
        (f"{path} line {number}", line)
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if line.strip()
    ]


def _text(path: PathLike) -> str:
    """Text of a file; bytes that are not UTF-8 are surrogates."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror}"
        raise expected(path, "a text file of coordinates", found) from error
    return content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
