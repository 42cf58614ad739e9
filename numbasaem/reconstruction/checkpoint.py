"""The file `run.h5`: settings, inputs and the state of every run, after each iteration.

The file is replaced whole, so that it always holds a finished iteration; the file
before it stays as `run.previous.h5`. The first 512 bytes, which readers of HDF5 skip,
hold the SHA-256 of the rest, so that a damaged file is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.errors import InputError, expected, warn
from numbasaem.io import written_whole
from numbasaem.observations.models import observation_model
from numbasaem.observations.statistics import Statistics

from .state import Estimate, Iteration, RunState

if TYPE_CHECKING:
    from pathlib import Path

    import h5py

_KIND = b"numbasaem run, format "
_FORMAT = _KIND + b"7, SHA-256 "
_SEAL_LENGTH = 512
COPIES_OF_STATE = 3
"""Number of copies of what is kept: in use, in the file being made, and its image."""
_FOREIGN = (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""Errors that may come of reading HDF5 that this program did not write."""


_COLUMNS = {field.name: str(field.type) for field in fields(Iteration)[1:]}
"""Columns of the table of iterations of a run, and their types."""
_KINDS = {"int": "<i8", "float": "<f8", "float | None": "<f8"}
"""Types of columns in the file; NaN stands for None."""
_ROW = np.dtype([(name, _KINDS[kind]) for name, kind in _COLUMNS.items()])
_numbers = attrgetter(*_COLUMNS)


def save_checkpoint(
    path: Path, description: dict[str, Any], runs: dict[str, RunState]
) -> None:
    """Write the checkpoint of the current state, and keep the one before.

    Parameters
    ----------
    path : Path
        `run.h5` of the output folder.
    description : dict
        Settings, inputs and versions, as JSON can hold them.
    runs : dict of str to RunState
        Every run that has begun.

    Raises
    ------
    InputError
        If the file cannot be written; the files that are there stay.
    """
    import h5py

    # In memory first: the library does not recover from a disk that fills up.
    with h5py.File.in_memory() as file:
        file.attrs["description"] = json.dumps(description)
        file.create_group("runs")
        for name, state in runs.items():
            group = file.create_group(f"runs/{name}")
            group.attrs["position"] = [state.stage, state.iteration]
            group.attrs["noise_variance"] = state.noise_variance
            group.attrs["step"] = state.step
            group.attrs["generator"] = json.dumps(state.generator.bit_generator.state)
            group["volume_coefficients"] = state.volume_coefficients
            group["em_step"] = state.em_step
            group["last_move"] = state.last_move
            group["mean_volume"] = state.mean_volume
            group["shift_prior"] = state.shift_prior
            group["view_mass"] = state.view_mass
            group["view_weights"] = state.view_weights
            group["history"] = np.array([_numbers(row) for row in state.history], _ROW)
            _write(group.create_group("minibatches"), state.minibatches)
            if state.best is not None:
                _write(group.create_group("best"), vars(state.best))
        file.flush()
        content = file.id.get_file_image()
    with written_whole(path, previous_of(path)) as part, open(part, "wb") as stream:
        stream.write(_seal(content))
        stream.write(content)


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, RunState]]:
    """Read a checkpoint file, or the one before if it is damaged.

    Parameters
    ----------
    path : Path
        `run.h5` of an output folder.

    Returns
    -------
    description : dict
        As given to :func:`save_checkpoint`.
    runs : dict of str to RunState
        As given to :func:`save_checkpoint`.

    Raises
    ------
    InputError
        If the file and the one before are missing, damaged or of another format.

    Warns
    -----
    RunWarning
        If the newest one is damaged and the one before was read.
    """
    _, description, runs = newest_checkpoint(path)
    return description, runs


def previous_of(path: Path) -> Path:
    """Name of the file that holds the checkpoint before the newest one.

    Parameters
    ----------
    path : Path
        `run.h5` of an output folder.

    Returns
    -------
    Path
        `run.previous.h5` of the same folder.
    """
    return path.with_stem(f"{path.stem}.previous")


def newest_checkpoint(path: Path) -> tuple[Path, dict[str, Any], dict[str, RunState]]:
    """Read the newest checkpoint that is whole.

    Parameters
    ----------
    path : Path
        `run.h5` of an output folder.

    Returns
    -------
    path : Path
        The file that was read: this one or the one before.
    description : dict
        As given to :func:`save_checkpoint`.
    runs : dict of str to RunState
        As given to :func:`save_checkpoint`.

    Raises
    ------
    InputError
        If the file and the one before are missing, damaged or of another format.

    Warns
    -----
    RunWarning
        If the newest one is damaged and the one before was read.
    """
    try:
        return path, *_load(path)
    except InputError as damage:
        previous = previous_of(path)
        try:
            checkpoint = previous, *_load(previous)
        except InputError:
            raise damage from None
        warn(f"{damage}; {previous.name} is used instead")
        return checkpoint


def _load(path: Path) -> tuple[dict[str, Any], dict[str, RunState]]:
    """Read one checkpoint file, if it is whole."""
    import h5py

    try:
        data = path.read_bytes()
    except OSError as error:
        raise expected(path, "a checkpoint of a run", error.strerror) from error
    seal, content = data[:_SEAL_LENGTH], data[_SEAL_LENGTH:]
    if not seal.startswith(_FORMAT):
        raise expected(path, "a checkpoint of a run", _other_format(seal))
    if seal != _seal(content):
        raise expected(path, "a checkpoint of a run", "damaged bytes")
    try:
        with h5py.File.in_memory(content) as file:
            _refuse_references(file)
            description = json.loads(file.attrs["description"])
            statistics = observation_model(
                description["settings"].get("model", "patch")
            ).statistics
            runs = {
                name: _run_state(run, statistics) for name, run in file["runs"].items()
            }
    except _FOREIGN as error:
        raise expected(path, "a checkpoint of a run", error) from error
    return description, runs


def _other_format(seal: bytes) -> str:
    """Word what a file is that does not begin with the format of this version."""
    if not seal.startswith(_KIND):
        return "a file of another kind"
    number = seal.removeprefix(_KIND).partition(b",")[0].decode("ascii", "replace")
    return f"format {number} of another version of this program"


def _seal(content: bytes) -> bytes:
    """First block of a file: its format and the fingerprint of the rest."""
    digest = hashlib.sha256(content).hexdigest().encode()
    return (_FORMAT + digest + b"\n").ljust(_SEAL_LENGTH, b"\0")


def _refuse_references(group: h5py.Group) -> None:
    """Refuse links and data sets that lead out of the file."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"a link in {group.name}")
        item = group[name]
        if isinstance(item, h5py.Group):
            _refuse_references(item)
        elif item.external or item.is_virtual:
            raise ValueError(f"{item.name} outside of the file")


def _run_state(group: h5py.Group, statistics: type[Statistics]) -> RunState:
    history = group["history"][()]
    if history.dtype != _ROW:
        raise TypeError(f"columns {history.dtype} of the history")
    run = group.name.rpartition("/")[-1]
    stage, iteration = (int(n) for n in group.attrs["position"])
    generator = np.random.default_rng()
    generator.bit_generator.state = json.loads(group.attrs["generator"])
    return RunState(
        volume_coefficients=group["volume_coefficients"][()],
        shift_prior=group["shift_prior"][()],
        noise_variance=float(group.attrs["noise_variance"]),
        view_mass=group["view_mass"][()],
        view_weights=group["view_weights"][()],
        generator=generator,
        stage=stage,
        iteration=iteration,
        step=float(group.attrs["step"]),
        em_step=group["em_step"][()],
        last_move=group["last_move"][()],
        mean_volume=group["mean_volume"][()],
        best=_estimate(group["best"]) if "best" in group else None,
        minibatches=_read(group["minibatches"], statistics),
        history=[_iteration(run, row) for row in history.tolist()],
    )


def _iteration(run: str, row: tuple[Any, ...]) -> Iteration:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name, kind in _COLUMNS.items():
        if kind == "float | None" and np.isnan(values[name]):
            values[name] = None
    return Iteration(run, **values)


def _estimate(group: h5py.Group) -> Estimate:
    return Estimate(
        volume_coefficients=group["volume_coefficients"][()],
        shift_prior=group["shift_prior"][()],
        noise_variance=float(group["noise_variance"][()]),
    )


def _write(group: h5py.Group, values: dict[str, Any]) -> None:
    """Store a tree of dictionaries, lists, statistics, arrays and numbers."""
    for name, value in values.items():
        if isinstance(value, Statistics):
            child = group.create_group(name)
            child.attrs["kind"] = "statistics"
            _write(child, {f.name: getattr(value, f.name) for f in fields(value)})
        elif isinstance(value, dict | list):
            items = value if isinstance(value, dict) else dict(enumerate(value))
            child = group.create_group(name)
            child.attrs["kind"] = type(value).__name__
            _write(child, {str(key): item for key, item in items.items()})
        elif value is not None:
            group[name] = value


def _read(group: h5py.Group, statistics: type[Statistics]) -> dict[str, Any]:
    """Read a tree back; inverse of :func:`_write`."""
    import h5py

    values: dict[str, Any] = {}
    for name, item in group.items():
        if not isinstance(item, h5py.Group):
            values[name] = item[()]
            continue
        inside = _read(item, statistics)
        kind = item.attrs["kind"]
        if kind == "statistics":
            values[name] = statistics(**inside)
        elif kind == "list":
            values[name] = [inside[str(i)] for i in range(len(inside))]
        else:
            values[name] = {int(key): entry for key, entry in inside.items()}
    return values
