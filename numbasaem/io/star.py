"""Tables in STAR files, as RELION 3.1 and later write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import InputError, expected
from numbasaem.micrographs.ctf import ContrastTransfer

from . import written_whole

if TYPE_CHECKING:
    import pandas as pd

# What RELION asks of a microscope besides its voltage: millimetres, and a share.
SPHERICAL_ABERRATION = 2.7
AMPLITUDE_CONTRAST = 0.1
# RELION's value for the wavelength of frequency zero.
NO_RESOLUTION = 999.0

COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
NAMES = (
    "rlnMicrographName",
    "rlnImageName",
    "rlnOpticsGroupName",
    "rlnMtfFileName",
)
MICROGRAPH_PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
# Columns of a contrast transfer function, and our names of what they hold.
LENS_OF_MICROGRAPH = {
    "rlnDefocusU": "defocus_u",
    "rlnDefocusV": "defocus_v",
    "rlnDefocusAngle": "defocus_angle",
    "rlnPhaseShift": "phase_shift",
    "rlnCtfBfactor": "b_factor",
}
LENS_OF_OPTICS = {
    "rlnVoltage": "voltage",
    "rlnSphericalAberration": "spherical_aberration",
    "rlnAmplitudeContrast": "amplitude_contrast",
}
FREQUENCY, CORRELATION = "rlnResolution", "rlnFourierShellCorrelation"
# Of half maps, as RELION's post-processing calls them.
CORRELATIONS = (
    "rlnFourierShellCorrelationUnmaskedMaps",
    "rlnFourierShellCorrelationMaskedMaps",
    "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    "rlnFourierShellCorrelationCorrected",
)


@dataclass(frozen=True)
class ParticleTables:
    """The tables of a particle STAR file, every column kept.

    Attributes
    ----------
    particles : pandas.DataFrame
        One row per particle. ``rlnCoordinateX`` and ``rlnCoordinateY`` are the pixel
        position of its centre, counted from 0 at the centre of the first pixel.
    optics : pandas.DataFrame or None
        One row per optics group; None in files older than RELION 3.1.
    """

    particles: pd.DataFrame
    optics: pd.DataFrame | None


@dataclass(frozen=True)
class MicrographTable:
    """Micrographs that RELION lists.

    Attributes
    ----------
    micrographs : pandas.DataFrame
        One row per micrograph.
    optics : pandas.DataFrame
        One row per optics group.
    pixel_size : float
        Angstrom per pixel of the micrographs.
    lenses : list of ContrastTransfer or None
        Of each micrograph; None where the list has no defocus.
    """

    micrographs: pd.DataFrame
    optics: pd.DataFrame
    pixel_size: float
    lenses: Sequence[ContrastTransfer | None]


def read_micrograph_table(path: PathLike) -> MicrographTable:
    """Read a list of micrographs that RELION 3.1 or later wrote.

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
        If the file is missing or damaged, lacks the optics table or a column, its
        groups differ in pixel size, or a value of the microscope is impossible.
    """
    tables = _read(path)
    for name in ("optics", "micrographs"):
        if name not in tables:
            what = f"a table data_{name}, as RELION 3.1 or later writes it"
            raise expected(path, what, f"tables {', '.join(tables)}")
    micrographs, optics = tables["micrographs"], tables["optics"]
    _require(path, micrographs, "rlnMicrographName")
    for table in (micrographs, optics):
        _require_numbers(path, table, ("rlnOpticsGroup",))
    known = set(optics["rlnOpticsGroup"])
    for group in micrographs["rlnOpticsGroup"]:
        if group not in known:
            raise expected(path, "each rlnOpticsGroup in data_optics", f"no {group}")
    column = next((c for c in MICROGRAPH_PIXEL_SIZES if c in optics), None)
    if column is None:
        found = f"columns {', '.join(map(str, optics.columns))} in data_optics"
        raise expected(path, f"a column {' or '.join(MICROGRAPH_PIXEL_SIZES)}", found)
    _require_numbers(path, optics, (column,))
    used = optics["rlnOpticsGroup"].isin(micrographs["rlnOpticsGroup"])
    sizes = sorted({float(size) for size in optics[column][used]})
    if len(sizes) != 1 or sizes[0] <= 0:
        found = " and ".join(f"{size:g} A" for size in sizes) or "no micrograph"
        what = f"one positive {column} for all; run its groups one by one"
        raise expected(path, what, found)
    lenses = _lenses(path, micrographs, optics)
    return MicrographTable(micrographs, optics, sizes[0], lenses)


def _lenses(
    path: PathLike, micrographs: pd.DataFrame, optics: pd.DataFrame
) -> list[ContrastTransfer | None]:
    """Contrast transfer functions, if the list has the defocus of its micrographs."""
    if not {"rlnDefocusU", "rlnDefocusV"} <= set(micrographs):
        return [None] * len(micrographs)
    of_group = optics[
        ["rlnOpticsGroup", *(c for c in LENS_OF_OPTICS if c in optics)]
    ].drop_duplicates("rlnOpticsGroup")
    own = micrographs[
        ["rlnOpticsGroup", *(c for c in LENS_OF_MICROGRAPH if c in micrographs)]
    ]
    table = own.merge(of_group, on="rlnOpticsGroup", how="left")
    _require(path, table, "rlnVoltage")
    names = LENS_OF_MICROGRAPH | LENS_OF_OPTICS
    columns = [column for column in table if column in names]
    _require_numbers(path, table, columns)
    lenses: list[ContrastTransfer | None] = []
    for values in table[columns].to_numpy(np.float64):
        named = zip(columns, values, strict=True)
        try:
            lens = ContrastTransfer(**{names[c]: float(value) for c, value in named})
        except InputError as error:
            where = f"{path}: {error.where}"
            raise expected(where, error.wanted, error.found) from None
        lenses.append(lens)
    return lenses


def write_micrograph_table(
    path: PathLike,
    names: Sequence[str],
    pixel_size: float,
    lenses: Sequence[ContrastTransfer] = (),
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
    lenses : sequence of ContrastTransfer, optional
        Of each, all of one microscope.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import pandas as pd

    rows = pd.DataFrame({"rlnMicrographName": list(names)})
    rows["rlnOpticsGroup"] = 1
    optics = optics_table(pixel_size)
    if lenses:
        for column, field in LENS_OF_MICROGRAPH.items():
            rows[column] = [getattr(lens, field) for lens in lenses]
        for column, field in LENS_OF_OPTICS.items():
            optics[column] = getattr(lenses[0], field)
    _write(path, {"optics": optics, "micrographs": rows})


def write_particles(
    path: PathLike,
    *,
    micrograph_names: Sequence[str],
    coordinates: NDArray[np.floating],
    pixel_size: float,
    angles: NDArray[np.floating] | None = None,
    figure_of_merit: NDArray[np.floating] | None = None,
    optics: pd.DataFrame | None = None,
    optics_groups: Sequence[int] | None = None,
) -> None:
    """Write particles with an optics table.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    micrograph_names : sequence of str, length n
        The micrograph each particle lies in.
    coordinates : ndarray, shape (n, 2)
        Centres (y, x) in pixels counted from 0; written as X and Y.
    pixel_size : float
        Angstrom per micrograph pixel.
    angles : ndarray, shape (n, 3), optional
        RELION's rot, tilt and psi in degrees.
    figure_of_merit : ndarray, shape (n,), optional
        How sure a picker is of each particle.
    optics : pandas.DataFrame, optional
        Table of optics groups; by default one group that states the pixel size alone.
    optics_groups : sequence of int, length n, optional
        Group of each particle; 1 by default.

    Raises
    ------
    InputError
        If the columns differ in length or the file cannot be written.
    """
    import pandas as pd

    count = len(micrograph_names)
    centres = np.asarray(coordinates, dtype=np.float64).reshape(-1, 2)
    columns = dict(zip(COORDINATES, centres.T[::-1], strict=True))
    if angles is not None:
        columns |= zip(ANGLES, np.reshape(angles, (-1, 3)).T, strict=True)
    if figure_of_merit is not None:
        columns["rlnAutopickFigureOfMerit"] = np.asarray(figure_of_merit)
    groups = np.ones(count) if optics_groups is None else np.asarray(optics_groups)
    columns["rlnOpticsGroup"] = groups.astype(np.int64)
    for name, column in columns.items():
        if len(column) != count:
            raise expected(path, f"{count} values of {name}", len(column))
    particles = pd.DataFrame(columns)
    particles["rlnMicrographName"] = list(micrograph_names)
    if optics is None:
        optics = optics_table(pixel_size)
    _write(path, {"optics": optics, "particles": particles})


def optics_table(pixel_size: float, voltage: float | None = None) -> pd.DataFrame:
    """Table of one optics group.

    Parameters
    ----------
    pixel_size : float
        Angstrom per micrograph pixel.
    voltage : float, optional
        Of the microscope, kV; with it come the usual aberration and contrast.

    Returns
    -------
    pandas.DataFrame
        One row, under RELION's names.
    """
    import pandas as pd

    row: dict[str, str | float] = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnMicrographOriginalPixelSize": pixel_size,
        "rlnMicrographPixelSize": pixel_size,
        "rlnImagePixelSize": pixel_size,
    }
    if voltage is not None:
        row |= {
            "rlnVoltage": voltage,
            "rlnSphericalAberration": SPHERICAL_ABERRATION,
            "rlnAmplitudeContrast": AMPLITUDE_CONTRAST,
        }
    return pd.DataFrame([row])


def read_particles(path: PathLike) -> ParticleTables:
    """Read particles that any program wrote.

    Parameters
    ----------
    path : path-like
        A STAR file with a ``data_particles`` table, or one table alone.

    Returns
    -------
    ParticleTables
        Every column of the particles and of the optics groups.

    Raises
    ------
    InputError
        If the file is missing or damaged, or has no finite coordinates or no
        micrograph names.
    """
    tables = _read(path)
    if "particles" not in tables and len(tables) != 1:
        raise expected(path, "a table data_particles", f"tables {list(tables)}")
    particles = tables.get("particles", next(iter(tables.values())))
    _require_numbers(path, particles, COORDINATES)
    _require(path, particles, "rlnMicrographName")
    return ParticleTables(particles, tables.get("optics"))


def write_fsc(
    path: PathLike,
    fsc: NDArray[np.floating],
    voxel_size: float,
    size: int,
    *,
    masked: NDArray[np.floating] | None = None,
    randomized: NDArray[np.floating] | None = None,
    corrected: NDArray[np.floating] | None = None,
) -> None:
    """Write a Fourier shell correlation under RELION's names.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    fsc : ndarray, shape (n_shells,)
        Correlation of the shells 0, 1, 2, ... (equation (38)), no mask.
    voxel_size : float
        Angstrom per voxel.
    size : int
        Length of the volumes in voxels.
    masked, randomized, corrected : ndarray, shape (n_shells,), optional
        Of the masked maps, of those with random phases, and corrected for the mask.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import pandas as pd

    shells = np.arange(len(fsc))
    frequency = shells / (size * voxel_size)
    wavelength = np.full(len(fsc), NO_RESOLUTION)
    wavelength[1:] = 1 / frequency[1:]
    table = {
        "rlnSpectralIndex": shells,
        FREQUENCY: frequency,
        "rlnAngstromResolution": wavelength,
        CORRELATION: np.asarray(fsc, dtype=np.float64),
    }
    for name, curve in zip(
        CORRELATIONS, (fsc, masked, randomized, corrected), strict=True
    ):
        if curve is not None:
            table[name] = np.asarray(curve, dtype=np.float64)
    _write(path, {"fsc": pd.DataFrame(table)})


def read_fsc(path: PathLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a Fourier shell correlation.

    Parameters
    ----------
    path : path-like
        A STAR file with a table ``data_fsc``.

    Returns
    -------
    frequency : ndarray, shape (n_shells,)
        In 1/angstrom.
    fsc : ndarray, shape (n_shells,)
        Correlation per shell.

    Raises
    ------
    InputError
        If the file is missing or damaged or lacks the table or its columns.
    """
    tables = _read(path)
    if "fsc" not in tables:
        raise expected(path, "a table data_fsc", f"tables {list(tables)}")
    _require_numbers(path, tables["fsc"], (FREQUENCY, CORRELATION))
    frequency, fsc = tables["fsc"][[FREQUENCY, CORRELATION]].to_numpy(np.float64).T
    return frequency, fsc


def _write(path: PathLike, tables: dict[str, pd.DataFrame]) -> None:
    import starfile

    with written_whole(path) as part:
        starfile.write(tables, part, float_format="%.9g")


def _read(path: PathLike) -> dict[str, pd.DataFrame]:
    import pandas as pd
    import starfile

    place = Path(path)
    if place.is_dir() or not place.exists():
        found = "a folder" if place.is_dir() else "no such file"
        raise expected(path, "a STAR file", found)
    try:
        blocks = starfile.read(place, always_dict=True, parse_as_string=list(NAMES))
    except Exception as error:  # The parser raises whatever its own steps raise.
        found = f"{type(error).__name__}: {error}"
        raise expected(path, "a STAR file", found) from error
    tables = {
        name: pd.DataFrame([block]) if isinstance(block, dict) else block
        for name, block in blocks.items()
    }
    if not tables:
        raise expected(path, "a STAR file", "no table")
    return tables


def _require(path: PathLike, table: pd.DataFrame, column: str) -> None:
    if column not in table:
        found = ", ".join(map(str, table.columns)) or "none"
        raise expected(path, f"a column {column}", f"columns {found}")


def _require_numbers(
    path: PathLike, table: pd.DataFrame, columns: Sequence[str]
) -> None:
    for column in columns:
        _require(path, table, column)
        try:
            values = table[column].to_numpy(np.float64)
        except (TypeError, ValueError) as error:
            raise expected(path, f"numbers in {column}", error) from error
        if not np.isfinite(values).all():
            raise expected(path, f"finite {column}", "values that are not")
