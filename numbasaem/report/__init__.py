"""The report of a run: one HTML file to look at, and figures to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numbasaem.aliases import PathLike
from numbasaem.errors import expected
from numbasaem.io import written_whole

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"
"""Name of the page in the folder of a run."""
FIGURES = "figures"
"""Name of the folder of figures beside the page."""


def write_report(folder: PathLike) -> Path:
    """Write the report of a finished run from the files of its folder.

    `report.html` is one file that opens without a network: maps to turn with the
    mouse, slices, FSC, histories, shift prior, views, picks, settings and versions.
    `figures/` has the same as PNG and PDF for a printed page.

    Parameters
    ----------
    folder : path-like
        Output folder of :func:`numbasaem.reconstruct`; a report in it is replaced.

    Returns
    -------
    pathlib.Path
        The HTML file.

    Raises
    ------
    InputError
        If the folder holds no finished run, a file of it is damaged, or the report
        cannot be written.
    """
    # Imported here: they take a second, and many commands never need them.
    from . import figures, page
    from .record import read_record

    record = read_record(folder)
    drawings = record.folder / FIGURES
    try:
        drawings.mkdir(exist_ok=True)
    except OSError as error:
        raise expected(drawings, "a folder to write to", error.strerror) from error
    for name, figure in figures.draw(record):
        for suffix in ("png", "pdf"):
            with written_whole(drawings / f"{name}.{suffix}") as part:
                figure.savefig(part, format=suffix)
            figure.set_layout_engine("none")  # laid out already
    path = record.folder / REPORT
    with written_whole(path) as part:
        part.write_text(page.compose(record), encoding="utf-8")
    return path
