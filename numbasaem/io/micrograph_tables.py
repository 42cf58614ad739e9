"""Lists of micrographs as RELION writes them, of any version.

Parameters of a microscope are plain numbers under the names of
:class:`numbasaem.micrographs.ctf.ContrastTransferFunction`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.aliases import PathLike
from numbasaem.errors import expected, warn

from .relion import PIXEL_SIZES, optics_table
from .star import read_tables, require_column, require_numbers, write_tables

if TYPE_CHECKING:
    import pandas as pd

MICROGRAPH_PIXEL_SIZES = PIXEL_SIZES[:2]
"""Columns that may state the pixel size of micrographs, the best first."""
DETECTOR_PIXEL, MAGNIFICATION = "rlnDetectorPixelSize", "rlnMagnification"
"""Columns that state it in RELION 3.0: micrometres of a pixel of the detector, and how
many times larger than the molecule its image is there."""
CTF_OF_MICROGRAPH = {
    "rlnDefocusU": "defocus_u",
    "rlnDefocusV": "defocus_v",
    "rlnDefocusAngle": "defocus_angle",
    "rlnPhaseShift": "phase_shift",
    "rlnCtfBfactor": "b_factor",
}
"""Columns of a micrograph's contrast transfer function, and our names for them."""
CTF_OF_OPTICS = {
    "rlnVoltage": "voltage",
    "rlnSphericalAberration": "spherical_aberration",
    "rlnAmplitudeContrast": "amplitude_contrast",
}
"""Columns of the part that all micrographs of a group share, and our names for them."""

NEEDED_FOR_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnVoltage")
"""Columns that a contrast transfer function cannot do without."""
OF_PARTICLES = ("rlnCoordinateX", "rlnImageName")
"""Columns that tell a table of particles from one of micrographs."""


@dataclass(frozen=True)
class MicrographTable:
    """Micrographs that a program lists.

    Attributes
    ----------
    micrographs : pandas.DataFrame
        One row per micrograph, under RELION's names; ``rlnMicrographName`` and
        ``rlnOpticsGroup`` are always there.
    optics : pandas.DataFrame or None
        One row per optics group; None where nothing is known of the microscope.
    pixel_sizes : sequence of float or None
        Angstrom per pixel of each micrograph; None where the list does not say.
    before_binning : sequence of bool
        Whether that is the movie's, as the list does not state the micrograph's.
    ctf_parameters : sequence of dict or str
        Parameters of each micrograph's contrast transfer function, by our names; where
        they cannot be used, what the list has in their place.
    """

    micrographs: pd.DataFrame
    optics: pd.DataFrame | None
    pixel_sizes: Sequence[float | None]
    before_binning: Sequence[bool]
    ctf_parameters: Sequence[dict[str, float] | str]


def read_micrograph_table(path: PathLike) -> MicrographTable:
    """Read a list of micrographs.

    RELION 3.1 and later state the microscope in a table of optics groups, older
    versions in the row of each micrograph. A column may be in either.

    Parameters
    ----------
    path : path-like
        A ``micrographs.star``.

    Returns
    -------
    MicrographTable
        Every column of the micrographs and of the optics groups.

    Raises
    ------
    InputError
        If the file is missing or damaged, holds no list of micrographs or more than
        one, has a column twice, or a micrograph's optics group is unknown.

    Warns
    -----
    RunWarning
        If the list has a pixel size that is no positive number.
    """
    tables = read_tables(path)
    optics = tables.pop("optics", None)
    micrographs = _table_of_micrographs(path, tables).copy()
    rows = micrographs
    if optics is not None:
        optics = optics.copy()
        _require_groups(path, micrographs, optics)
        others = [c for c in optics if c not in rows or c == "rlnOpticsGroup"]
        of_group = optics[others].drop_duplicates("rlnOpticsGroup")
        rows = rows.merge(of_group, on="rlnOpticsGroup", how="left")
    return table_of_rows(path, micrographs, rows, optics)


def table_of_rows(
    path: PathLike,
    micrographs: pd.DataFrame,
    rows: pd.DataFrame,
    optics: pd.DataFrame | None,
) -> MicrographTable:
    """Tell pixel sizes and microscopes from all that is known of each micrograph.

    Parameters
    ----------
    path : path-like
        The file, as warnings name it.
    micrographs : pandas.DataFrame
        One row per micrograph.
    rows : pandas.DataFrame
        The same rows with what their optics groups say.
    optics : pandas.DataFrame or None
        Optics groups; None to make them of equal microscopes.

    Returns
    -------
    MicrographTable
        The list.

    Raises
    ------
    InputError
        If there is no micrograph.

    Warns
    -----
    RunWarning
        If a pixel size is no positive number.
    """
    if rows.empty:
        raise expected(path, "at least one micrograph", "none")
    pixel_sizes, before_binning = _pixel_sizes(path, rows)
    parameters = [
        _ctf_parameters(number, row)
        for number, row in enumerate(rows.to_dict("records"), start=1)
    ]
    if optics is None:
        optics, groups = _groups_of_equal_optics(rows, pixel_sizes, before_binning)
        micrographs = micrographs.assign(rlnOpticsGroup=groups)
    return MicrographTable(micrographs, optics, pixel_sizes, before_binning, parameters)


def _table_of_micrographs(
    path: PathLike, tables: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """The one table that lists micrographs, whatever its name."""
    if "micrographs" in tables:
        require_column(path, tables["micrographs"], "rlnMicrographName")
        return tables["micrographs"]
    lists = {n: t for n, t in tables.items() if "rlnMicrographName" in t}
    names = ", ".join(f"data_{name}" for name in (lists or tables)) or "none"
    if len(lists) != 1:
        wanted = "one table of micrographs, with a column rlnMicrographName"
        raise expected(path, wanted, f"tables {names}")
    ((_, table),) = lists.items()
    if any(column in table for column in OF_PARTICLES):
        wanted = "a table of micrographs, data_micrographs"
        raise expected(path, wanted, f"particles in {names}")
    return table


def _require_groups(
    path: PathLike, micrographs: pd.DataFrame, optics: pd.DataFrame
) -> None:
    """See that each micrograph has an optics group; the only one needs no number."""
    for table in (micrographs, optics):
        if "rlnOpticsGroup" not in table and len(optics) == 1:
            table["rlnOpticsGroup"] = optics.get("rlnOpticsGroup", [1])[0]
        require_numbers(path, table, ("rlnOpticsGroup",))
    known = set(optics["rlnOpticsGroup"])
    for group in micrographs["rlnOpticsGroup"]:
        if group not in known:
            raise expected(path, "each rlnOpticsGroup in data_optics", f"no {group}")


def _pixel_sizes(
    path: PathLike, rows: pd.DataFrame
) -> tuple[list[float | None], list[bool]]:
    """Pixel size of each row, and whether it is the movie's.

    That of the micrograph comes first, then that of the detector, then the movie's.
    """
    of_micrograph, of_movie = MICROGRAPH_PIXEL_SIZES
    stated = {c: _numbers(rows[c]) for c in MICROGRAPH_PIXEL_SIZES if c in rows}
    if DETECTOR_PIXEL in rows and MAGNIFICATION in rows:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = _numbers(rows[DETECTOR_PIXEL]) / _numbers(rows[MAGNIFICATION])
        stated[DETECTOR_PIXEL] = 1e4 * ratio
    sizes: list[float | None] = [None] * len(rows)
    before_binning = [False] * len(rows)
    for column in (of_micrograph, DETECTOR_PIXEL, of_movie):
        for row, value in enumerate(stated.get(column, ())):
            if sizes[row] is None and np.isfinite(value) and value > 0:
                sizes[row] = float(value)
                before_binning[row] = column == of_movie
    if stated and None in sizes:
        warn(
            f"{path}: no pixel size above 0 in row {sizes.index(None) + 1}; "
            "the header's holds, or `pixel_size`"
        )
    return sizes, before_binning


def _numbers(column: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column as numbers, NaN where it holds none."""
    import pandas as pd

    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)


def _ctf_parameters(number: int, row: Mapping[Hashable, Any]) -> dict[str, float] | str:
    """A micrograph's contrast transfer function, or what is in its place."""
    for column in NEEDED_FOR_CTF:
        if column not in row:
            return f"no column {column}"
    parameters = {}
    for column, name in (CTF_OF_MICROGRAPH | CTF_OF_OPTICS).items():
        if column in row:
            try:
                parameters[name] = float(row[column])
            except (TypeError, ValueError):
                parameters[name] = np.nan
            if not np.isfinite(parameters[name]):
                return f"{column} {row[column]} in row {number}"
    return parameters


def _groups_of_equal_optics(
    rows: pd.DataFrame,
    pixel_sizes: Sequence[float | None],
    before_binning: Sequence[bool],
) -> tuple[pd.DataFrame | None, list[int]]:
    """Optics groups of a list without any, and the number of each row's."""
    import pandas as pd

    shared = rows[[column for column in CTF_OF_OPTICS if column in rows]].copy()
    if None not in pixel_sizes:
        for column in MICROGRAPH_PIXEL_SIZES[any(before_binning) :]:
            shared[column] = list(pixel_sizes)
    if shared.columns.empty:
        return None, [1] * len(rows)
    keys = list(shared.columns)
    groups = shared.groupby(keys, dropna=False, sort=False).ngroup() + 1
    optics = shared.drop_duplicates().reset_index(drop=True)
    numbers = range(1, len(optics) + 1)
    names = [f"opticsGroup{number}" for number in numbers]
    named = pd.DataFrame({"rlnOpticsGroupName": names, "rlnOpticsGroup": list(numbers)})
    return pd.concat([named, optics], axis=1), groups.tolist()


def write_micrograph_table(
    path: PathLike,
    names: Sequence[str],
    pixel_size: float,
    ctf_parameters: Sequence[Mapping[str, float]] = (),
) -> None:
    """Write a list of micrographs as RELION 3.1 does.

    Parameters
    ----------
    path : path-like
        Where to write it.
    names : sequence of str
        Files of the micrographs.
    pixel_size : float
        Angstrom per pixel.
    ctf_parameters : sequence of mapping, optional
        Parameters of each micrograph's contrast transfer function, by our names, all of
        one microscope.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import pandas as pd

    rows = pd.DataFrame({"rlnMicrographName": pd.Series(list(names), dtype=object)})
    rows["rlnOpticsGroup"] = 1
    optics = optics_table(pixel_size)
    if ctf_parameters:
        for column, name in CTF_OF_MICROGRAPH.items():
            rows[column] = [parameters[name] for parameters in ctf_parameters]
        for column, name in CTF_OF_OPTICS.items():
            optics[column] = ctf_parameters[0][name]
    write_tables(path, {"optics": optics, "micrographs": rows})
