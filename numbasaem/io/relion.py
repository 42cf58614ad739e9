"""RELION's tables of particles and Fourier shell correlations.

The tables are those of RELION 3.1 and later; lists of micrographs are in
:mod:`numbasaem.io.micrograph_tables`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from .star import read_tables, require_column, require_numbers, write_tables

if TYPE_CHECKING:
    import pandas as pd

SPHERICAL_ABERRATION = 2.7
"""Usual spherical aberration, mm."""
AMPLITUDE_CONTRAST = 0.1
"""Usual share of amplitude contrast."""
NO_RESOLUTION = 999.0
"""Value that RELION states as the wavelength of frequency zero."""

COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")
"""Columns of a particle's centre."""
FIGURE_OF_MERIT = "rlnAutopickFigureOfMerit"
"""Column of how sure a picker is of a particle."""
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
"""Columns of a particle's rotation, degrees."""
PIXEL_SIZES = (
    "rlnMicrographPixelSize",
    "rlnMicrographOriginalPixelSize",
    "rlnImagePixelSize",
)
"""Columns of the pixel sizes of micrographs, movies and particles."""
FREQUENCY, CORRELATION = "rlnResolution", "rlnFourierShellCorrelation"
"""Columns of a shell: its frequency, 1/angstrom, and the correlation there."""
CORRELATIONS = (
    "rlnFourierShellCorrelationUnmaskedMaps",
    "rlnFourierShellCorrelationMaskedMaps",
    "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    "rlnFourierShellCorrelationCorrected",
)
"""Columns of half maps, as RELION's post-processing calls them."""


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
    coordinates : array, shape (n, 2)
        Centres (y, x) in pixels counted from 0; written as X and Y.
    pixel_size : float
        Angstrom per micrograph pixel.
    angles : array, shape (n, 3), optional
        RELION's rot, tilt and psi in degrees.
    figure_of_merit : array, shape (n,), optional
        How sure a picker is of each particle.
    optics : pandas.DataFrame, optional
        Table of optics groups; by default one group that states the pixel size alone.
        Its ``rlnMicrographPixelSize`` becomes `pixel_size`, in which coordinates are;
        other pixel sizes keep their ratio to it.
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
        columns[FIGURE_OF_MERIT] = np.asarray(figure_of_merit)
    groups = np.ones(count) if optics_groups is None else np.asarray(optics_groups)
    columns["rlnOpticsGroup"] = groups.astype(np.int64)
    for name, column in columns.items():
        if len(column) != count:
            raise expected(path, f"{count} values of {name}", len(column))
    particles = pd.DataFrame(columns)
    names = pd.Series(list(micrograph_names), dtype=object)  # any bytes
    particles["rlnMicrographName"] = names
    if optics is None:
        optics = optics_table(pixel_size)
    tables = {"optics": _of_pixel_size(optics, pixel_size), "particles": particles}
    write_tables(path, tables)


def _of_pixel_size(optics: pd.DataFrame, pixel_size: float) -> pd.DataFrame:
    """Optics groups whose micrographs have that pixel size, movies in proportion.

    A movie's that stands alone says nothing of the micrographs' and stays.
    """
    import pandas as pd

    sizes = {
        column: pd.to_numeric(optics[column], errors="coerce")
        for column in PIXEL_SIZES
        if column in optics
    }
    if PIXEL_SIZES[0] not in sizes:
        return optics.assign(**{PIXEL_SIZES[0]: pixel_size})
    stated = sizes[PIXEL_SIZES[0]]
    ratio = pixel_size / stated.where(stated > 0)
    sizes = {c: (values * ratio).fillna(pixel_size) for c, values in sizes.items()}
    return optics.assign(**sizes | {PIXEL_SIZES[0]: pixel_size})


def optics_table(pixel_size: float, voltage: float | None = None) -> pd.DataFrame:
    """Table of one optics group.

    Parameters
    ----------
    pixel_size : float
        Angstrom per micrograph pixel.
    voltage : float, optional
        Voltage of the microscope, kV; with it come the usual aberration and contrast.

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
    tables = read_tables(path)
    if "particles" not in tables and len(tables) != 1:
        raise expected(path, "a table data_particles", f"tables {list(tables)}")
    particles = tables.get("particles", next(iter(tables.values())))
    require_numbers(path, particles, COORDINATES)
    require_column(path, particles, "rlnMicrographName")
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
    fsc : array, shape (n_shells,)
        Correlation of the shells 0, 1, 2, ... (equation (38)), no mask.
    voxel_size : float
        Angstrom per voxel.
    size : int
        Length of the volumes in voxels.
    masked, randomized, corrected : array, shape (n_shells,), optional
        Correlation of the masked maps, of the masked maps with random phases, and the
        correlation corrected for the mask.

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
    write_tables(path, {"fsc": pd.DataFrame(table)})


def read_fsc(path: PathLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a Fourier shell correlation.

    Parameters
    ----------
    path : path-like
        A STAR file with a table ``data_fsc``.

    Returns
    -------
    frequency : float64, shape (n_shells,)
        Frequency of each shell, 1/angstrom.
    fsc : float64, shape (n_shells,)
        Correlation of each shell.

    Raises
    ------
    InputError
        If the file is missing or damaged or lacks the table or its columns.
    """
    tables = read_tables(path)
    if "fsc" not in tables:
        raise expected(path, "a table data_fsc", f"tables {list(tables)}")
    require_numbers(path, tables["fsc"], (FREQUENCY, CORRELATION))
    frequency, fsc = tables["fsc"][[FREQUENCY, CORRELATION]].to_numpy(np.float64).T
    return frequency, fsc
