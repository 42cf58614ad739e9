"""cryoSPARC's `.cs` files: exposures in, locations of particles in and out.

A `.cs` file is an array of NumPy with named fields. What a job adds is in one file,
what it passes on from jobs before in another, ``..._passthrough_...``; ``uid`` joins
them.
Positions are shares of the micrograph's columns and rows, counted from its first pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from . import written_whole
from .micrograph_tables import MicrographTable, table_of_rows

SUFFIX = ".cs"
"""Suffix of cryoSPARC's files."""
PASSTHROUGH = "passthrough"
"""What is in the name of a file of fields from jobs before."""
MICROGRAPH = "micrograph_blob/path"
"""Field of an exposure's file."""
COLUMNS_OF_FIELDS = {
    "micrograph_blob/psize_A": "rlnMicrographPixelSize",
    "ctf/df1_A": "rlnDefocusU",
    "ctf/df2_A": "rlnDefocusV",
    "ctf/df_angle_rad": "rlnDefocusAngle",
    "ctf/phase_shift_rad": "rlnPhaseShift",
    "ctf/bfactor": "rlnCtfBfactor",
    "ctf/accel_kv": "rlnVoltage",
    "ctf/cs_mm": "rlnSphericalAberration",
    "ctf/amp_contrast": "rlnAmplitudeContrast",
}
"""Fields of an exposure, and RELION's columns of the same."""
MICROSCOPE = {
    "mscope_params/accel_kv": "ctf/accel_kv",
    "mscope_params/cs_mm": "ctf/cs_mm",
}
"""Fields from the import of exposures that stand in for those of CTF estimation."""
_SCORE = "pick_stats/ncc_score"
"""Field of how sure a picker is of a particle."""
PARTICLE = [
    ("uid", "<u8"),
    ("location/micrograph_uid", "<u8"),
    ("location/exp_group_id", "<u4"),
    ("location/micrograph_shape", "<u4", (2,)),
    ("location/micrograph_psize_A", "<f4"),
    ("location/center_x_frac", "<f4"),
    ("location/center_y_frac", "<f4"),
    (_SCORE, "<f4"),
    ("pick_stats/power", "<f4"),
    ("pick_stats/template_idx", "<u4"),
    ("pick_stats/angle_rad", "<f4"),
]
"""Fields of a particle that a picker found, but for its micrograph's path."""

_Fields = dict[str, NDArray[Any]]


def read_exposures(paths: Sequence[PathLike]) -> MicrographTable:
    """Read a list of micrographs that cryoSPARC wrote.

    Parameters
    ----------
    paths : sequence of path-like
        Files of one output of a job. Fields that the first lacks are taken from the
        others, then from files of passthrough fields beside it.

    Returns
    -------
    MicrographTable
        The micrographs under RELION's names, with their ``uid``.

    Raises
    ------
    InputError
        If a file is missing or damaged, another does not know all exposures of the
        first, or none says where micrographs are.
    """
    import pandas as pd

    first = paths[0]
    exposures = _read(first)
    for other in paths[1:]:
        if not _add(exposures, _read(other)):
            raise expected(other, f"all exposures of {first}", "not all of them")
    for beside in _passed_through(first):
        if MICROGRAPH not in exposures or "ctf/df1_A" not in exposures:
            _add(exposures, _read(beside))
    if MICROGRAPH not in exposures:
        fields = ", ".join(sorted(exposures)) or "none"
        wanted = f"a field {MICROGRAPH}, here or in a passthrough file"
        raise expected(first, wanted, f"fields {fields}")
    for stand_in, field in MICROSCOPE.items():
        if stand_in in exposures:
            exposures.setdefault(field, exposures[stand_in])
    names = [_path(name) for name in exposures[MICROGRAPH]]
    columns: dict[str, Any] = {"rlnMicrographName": pd.Series(names, dtype=object)}
    for field, column in COLUMNS_OF_FIELDS.items():
        if field in exposures:
            values = _numbers(first, field, exposures[field])
            columns[column] = np.degrees(values) if field.endswith("_rad") else values
    rows = pd.DataFrame(columns)
    micrographs = rows.assign(uid=exposures["uid"])
    return table_of_rows(first, micrographs, rows, None)


def write_locations(
    path: PathLike,
    *,
    micrograph_names: Sequence[str],
    micrograph_uids: Sequence[int | None],
    micrograph_shapes: NDArray[np.integer],
    coordinates: NDArray[np.floating],
    pixel_size: float,
    figure_of_merit: NDArray[np.floating],
) -> None:
    """Write particles as a picking job of cryoSPARC does.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    micrograph_names : sequence of str, length n
        Path of each particle's micrograph, as cryoSPARC lists it.
    micrograph_uids : sequence of int or None, length n
        Its ``uid``; None to make one of its name.
    micrograph_shapes : array, shape (n, 2)
        Its rows and columns.
    coordinates : array, shape (n, 2)
        Centres (y, x) in pixels counted from 0.
    pixel_size : float
        Angstrom per micrograph pixel.
    figure_of_merit : array, shape (n,)
        How sure a picker is of each particle.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    names = np.array(
        [name.encode("utf-8", "surrogateescape") for name in micrograph_names],
        dtype=np.bytes_,
    )
    text = ("location/micrograph_path", names.dtype if len(names) else "S1")
    particles = np.zeros(len(names), [*PARTICLE, text])
    shapes = np.reshape(micrograph_shapes, (-1, 2))
    share_y, share_x = (np.reshape(coordinates, (-1, 2)) / shapes).T
    particles["location/center_y_frac"] = share_y
    particles["location/center_x_frac"] = share_x
    particles["location/micrograph_shape"] = shapes
    particles["location/micrograph_psize_A"] = pixel_size
    particles["location/micrograph_path"] = names
    particles[_SCORE] = figure_of_merit
    particles["pick_stats/power"] = figure_of_merit
    particles["location/micrograph_uid"] = [
        _number_of(name) if uid is None else uid
        for name, uid in zip(micrograph_names, micrograph_uids, strict=True)
    ]
    particles["uid"] = [
        _number_of(f"{number} {name}") for number, name in enumerate(micrograph_names)
    ]
    with written_whole(path) as part, part.open("wb") as stream:
        np.save(stream, particles)


def read_locations(
    path: PathLike,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Read where particles are, and how sure a picker is of each.

    Parameters
    ----------
    path : path-like
        A `.cs` file of particles.

    Returns
    -------
    names : list of str, length n
        Path of each particle's micrograph.
    coordinates : float64, shape (n, 2)
        Centres (y, x) in pixels counted from 0.
    figure_of_merit : float64, shape (n,)
        The picker's score of each; nan in a file without scores.

    Raises
    ------
    InputError
        If the file is missing or damaged, lacks a field or has positions that are no
        finite numbers.
    """
    particles = _read(path)
    fields = [f"location/{name}" for name in ("center_y_frac", "center_x_frac")]
    for field in (*fields, "location/micrograph_path", "location/micrograph_shape"):
        if field not in particles:
            found = f"fields {', '.join(sorted(particles))}"
            raise expected(path, f"a field {field}", found)
    shares = np.stack([_numbers(path, f, particles[f]) for f in fields], axis=1)
    if not np.isfinite(shares).all():
        raise expected(path, "finite positions", "values that are not")
    names = [_path(name) for name in particles["location/micrograph_path"]]
    merit = np.full(len(names), np.nan)
    if _SCORE in particles:
        merit = _numbers(path, _SCORE, particles[_SCORE])
    return names, shares * particles["location/micrograph_shape"], merit


def _read(path: PathLike) -> _Fields:
    """Fields of a file, ``uid`` among them."""
    try:
        with open(path, "rb") as stream:
            rows = np.load(stream, allow_pickle=False)
    except OSError as error:
        raise expected(path, "a file of cryoSPARC", error.strerror or error) from error
    except (ValueError, EOFError) as error:
        raise expected(path, "a file of cryoSPARC, an array of NumPy", error) from error
    fields = rows.dtype.names if isinstance(rows, np.ndarray) else None
    if fields is None or rows.ndim != 1 or "uid" not in fields:
        raise expected(path, "rows with a uid, as cryoSPARC writes them", "others")
    return {field: rows[field] for field in fields}


def _add(exposures: _Fields, others: _Fields) -> bool:
    """Add fields of the same exposures in another file, if it knows all of them."""
    order = np.argsort(others["uid"])
    known = others["uid"][order]
    place = np.searchsorted(known, exposures["uid"])
    if not len(known) or not (known[place % len(known)] == exposures["uid"]).all():
        return False
    for field, values in others.items():
        exposures.setdefault(field, values[order][place])
    return True


def _passed_through(path: PathLike) -> list[Path]:
    """Files of passthrough fields beside a file."""
    place = Path(path)
    found = place.parent.glob(f"*{PASSTHROUGH}*{SUFFIX}")
    return sorted(other for other in found if other != place)


def _path(name: bytes | str) -> str:
    """Path in a field; those of an imported result begin with a sign."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    return text.removeprefix(">")


def _numbers(path: PathLike, field: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers as they were meant before they were put into single precision."""
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        raise expected(path, f"numbers in {field}", f"values of {values.dtype}")
    return np.array([float(str(value)) for value in values], dtype=np.float64)


def _number_of(text: str) -> int:
    """The same 64 bits for the same text, as a ``uid``."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
