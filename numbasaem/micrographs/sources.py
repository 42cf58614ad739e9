"""Lists of micrographs: files, patterns, and lists of RELION and cryoSPARC."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numbasaem.aliases import PathLike
from numbasaem.errors import InputError, expected
from numbasaem.io import cryosparc
from numbasaem.io.micrograph_tables import MicrographTable, read_micrograph_table
from numbasaem.io.mrc import Spacing, read_header, read_micrographs
from numbasaem.io.names import distinct_names
from numbasaem.io.sections import Sections
from numbasaem.io.tiff import SUFFIXES, read_tiff, read_tiff_shape

from .ctf import ContrastTransferFunction

if TYPE_CHECKING:
    import pandas as pd

WILDCARDS = "*?["
"""Signs that make a name a pattern."""
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF files of either byte order, and of large ones."""


@dataclass(frozen=True)
class MicrographFile:
    """A file of one micrograph, or of a stack of them.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        Name in tables; no other file of its list has it.
    listed_pixel_size : float or None
        Angstrom per pixel, where a list states it.
    listed_before_binning : bool
        Whether the list states it of the movie, which may have been binned since.
    optics_group : int
        Row of the list's optics table that holds for it; 1 without a list.
    ctf : ContrastTransferFunction or None
        Contrast transfer function, where a list states it.
    ctf_fault : str
        What a list has in place of one that can be used.
    uid : int or None
        Number by which cryoSPARC knows it.
    """

    path: Path
    name: str
    listed_pixel_size: float | None = None
    optics_group: int = 1
    ctf: ContrastTransferFunction | None = None
    ctf_fault: str = "none"
    listed_before_binning: bool = False
    uid: int | None = None

    def open(self) -> tuple[Sections, Spacing]:
        """Open the file.

        Returns
        -------
        micrographs : Sections
            Micrographs, each read when it is asked for.
        pixel_size : Spacing
            Angstrom per pixel as the header states it.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        if self._is_tiff:
            return read_tiff(self.path), None
        return read_micrographs(self.path)

    def header(self) -> tuple[tuple[int, int, int], Spacing]:
        """Read the header alone.

        Returns
        -------
        shape : (int, int, int)
            Micrographs, rows and columns.
        pixel_size : Spacing
            As of :meth:`open`.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        if self._is_tiff:
            return read_tiff_shape(self.path), None
        return read_header(self.path)

    @property
    def _is_tiff(self) -> bool:
        """Whether name or first bytes say so: a link may have any name."""
        if self.path.name.lower().endswith(SUFFIXES):
            return True
        try:
            with self.path.open("rb") as stream:
                return stream.read(4) in _TIFF_BEGINNINGS
        except OSError:
            return False


@dataclass(frozen=True)
class MicrographList:
    """Files of micrographs, and what is known of the microscope.

    Attributes
    ----------
    files : tuple of MicrographFile
        In the order given.
    optics : pandas.DataFrame or None
        RELION's table of optics groups, where a list brought one.
    """

    files: tuple[MicrographFile, ...]
    optics: pd.DataFrame | None = None


def list_micrographs(sources: Sequence[PathLike]) -> MicrographList:
    """Find the files that a user named.

    Parameters
    ----------
    sources : sequence of path-like
        Files (MRC, TIFF), patterns with ``*``, ``?`` or ``[...]``, one STAR file in
        which RELION lists micrographs, or the `.cs` files of one output of cryoSPARC.

    Returns
    -------
    MicrographList
        The files; those of a pattern in the order of their names.

    Raises
    ------
    InputError
        If a pattern matches nothing, a list is unusable, or a list is not alone.
    """
    suffixes = {Path(source).suffix.lower() for source in sources}
    if suffixes == {cryosparc.SUFFIX}:
        return _listed(sources[0], cryosparc.read_exposures(sources))
    paths: list[Path] = []
    for source in sources:
        if Path(source).suffix.lower() in (".star", cryosparc.SUFFIX):
            if len(sources) > 1:
                found = f"{len(sources) - 1} more"
                raise expected(source, "a list of micrographs on its own", found)
            return _listed(source, read_micrograph_table(source))
        paths += _matching(source)
    return MicrographList(tuple(map(MicrographFile, paths, distinct_names(paths))))


def _matching(source: PathLike) -> list[Path]:
    """Files that a path or pattern stands for; a file's own name is no pattern."""
    path, pattern = Path(source), os.fspath(source)
    if path.exists() or not any(sign in pattern for sign in WILDCARDS):
        return [path]
    names = sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise expected(source, "files of such names", "none")
    return [Path(name) for name in names]


def _listed(source: PathLike, table: MicrographTable) -> MicrographList:
    """Files of a list, sought from its folder, the working folder, those above.

    Names begin from a project's folder, in which the list is in that of a job.
    """
    rows = table.micrographs
    folder, *above = Path(source).absolute().parents
    folders = [folder, Path(), *above, *Path(source).resolve().parents]
    files = []
    for name, group, uid, pixel_size, before_binning, parameters in zip(
        rows["rlnMicrographName"],
        rows["rlnOpticsGroup"],
        rows["uid"] if "uid" in rows else [None] * len(rows),
        table.pixel_sizes,
        table.before_binning,
        table.ctf_parameters,
        strict=True,
    ):
        places = (folder / name for folder in folders)
        path = next((place for place in places if place.exists()), None)
        if path is None:
            wanted = "files of the names, from its folders or the working folder"
            raise expected(source, wanted, f"no {name}")
        ctf, fault = _contrast_transfer_function(parameters)
        files.append(
            MicrographFile(
                path,
                name,
                pixel_size,
                int(group),
                ctf,
                ctf_fault=fault,
                listed_before_binning=before_binning,
                uid=None if uid is None else int(uid),
            )
        )
    return MicrographList(tuple(files), table.optics)


def _contrast_transfer_function(
    parameters: dict[str, float] | str,
) -> tuple[ContrastTransferFunction | None, str]:
    """A micrograph's contrast transfer function, or what a list has in its place."""
    if isinstance(parameters, str):
        return None, parameters
    try:
        return ContrastTransferFunction(**parameters), "none"
    except InputError as error:
        return None, f"{error.where} {error.found}"
