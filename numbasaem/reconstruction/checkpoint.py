"""The file `run.h5`: settings, inputs and the state of every run, after each iteration.

The file is replaced whole, so that it is always that of a finished iteration; the one
before stays as `run.previous.h5`. It begins with a block of 512 bytes, which readers of
HDF5 skip, with the SHA-256 of the rest: a damaged byte is found out, never read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from dataclasses import dataclass, fields
from importlib.metadata import version
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from numbasaem.errors import InputError, expected, warn
from numbasaem.io import written_whole
from numbasaem.observations.patch_expectation import Statistics

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import h5py
    from numpy.typing import NDArray

VALIDATION = "validation.json"
"""Beside the checkpoint: the verdict on the run."""
_FORMAT = b"numbasaem run, format 4, SHA-256 "
_SEAL_LENGTH = 512
_ALIEN = (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What reading HDF5 that this program did not write may raise."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration of a run, as it is recorded and reported.

    Attributes
    ----------
    run : str
        "full", "half1" or "half2"; with "-start0" and so on for the random starts
        that are tried first.
    stage, n_stages : int
        Stage of frequency marching, from 0, and how many there are.
    ell_max : int
        Highest degree of the stage.
    iteration, n_iterations : int
        Iteration within the stage, from 1, and how many it has.
    total_done, total : int
        Iterations done and planned, over all runs and stages.
    log_likelihood_per_patch : float
        Of the patches seen, under the estimate before the iteration.
    q_per_patch : float
        Q of equation (25) per patch, at the estimate before the iteration.
    noise_variance : float
        After the iteration.
    empty_fraction : float
        Share of patches without a particle.
    volume_change : float
        Relative change of the volume's coefficients.
    seconds : float
        Wall time of the iteration.
    n_unseen : int
        Dimensions of the volume that no patch of the iteration told anything of.
    """

    run: str
    stage: int
    n_stages: int
    ell_max: int
    iteration: int
    n_iterations: int
    total_done: int
    total: int
    log_likelihood_per_patch: float
    q_per_patch: float
    noise_variance: float
    empty_fraction: float
    volume_change: float
    seconds: float
    n_unseen: int = 0


_COLUMNS = {field.name: str(field.type) for field in fields(Iteration)[1:]}
"""Of the table of iterations; the run gives the table its place."""
_ROW = np.dtype(
    [(name, {"int": "<i8", "float": "<f8"}[kind]) for name, kind in _COLUMNS.items()]
)
_numbers = attrgetter(*_COLUMNS)


@dataclass
class RunState:
    """Everything a run needs to go on exactly as if it had never stopped.

    Attributes
    ----------
    volume_coefficients : float64, shape (M,)
        Current estimate, in the basis of the current stage.
    shift_prior : float64, shape (2L, 2L)
        Current rho.
    noise_variance : float
        Current sigma**2.
    rotation_mass : float64, shape (K,)
        Posterior of each rotation, summed over the particles that the patches of the
        current stage's iterations showed.
    view_weights : float64, shape (K,)
        Current prior of view directions, as weights of the columns of
        :func:`numbasaem.volume.rotations.view_kernel`.
    generator : numpy.random.Generator
        Draws the minibatches.
    stage, iteration : int
        Iterations done in the current stage.
    step : float
        Of the volume, where it is adapted, in units of the step of EM.
    em_step : float64, shape (M,)
        Last step of EM in the current stage; zero before the first.
    minibatches : dict
        State of the batching scheme.
    history : list of Iteration
        What happened so far.
    """

    volume_coefficients: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    rotation_mass: NDArray[np.float64]
    view_weights: NDArray[np.float64]
    generator: np.random.Generator
    stage: int
    iteration: int
    step: float
    em_step: NDArray[np.float64]
    minibatches: dict[str, object]
    history: list[Iteration]


def save_checkpoint(
    path: Path, description: dict[str, Any], runs: dict[str, RunState]
) -> None:
    """Replace the checkpoint file by one of the current state; keep the one before.

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
        If the file cannot be written; those that were there stay.
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
            group["shift_prior"] = state.shift_prior
            group["rotation_mass"] = state.rotation_mass
            group["view_weights"] = state.view_weights
            group["history"] = np.array([_numbers(row) for row in state.history], _ROW)
            _write(group.create_group("minibatches"), state.minibatches)
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
        If it is the one before that was read.
    """
    _, description, runs = _newest(path)
    return description, runs


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one in `path` is.

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


def _newest(path: Path) -> tuple[Path, dict[str, Any], dict[str, RunState]]:
    """Newest checkpoint that is whole: its file and what it holds."""
    try:
        return path, *_load(path)
    except InputError as damage:
        previous = previous_of(path)
        try:
            found = previous, *_load(previous)
        except InputError:
            raise damage from None
        warn(f"{damage}; {previous.name} is used instead")
        return found


def _load(path: Path) -> tuple[dict[str, Any], dict[str, RunState]]:
    """Read one checkpoint file, if it is whole."""
    import h5py

    try:
        data = path.read_bytes()
    except OSError as error:
        raise expected(path, "a checkpoint of a run", error.strerror) from error
    seal, content = data[:_SEAL_LENGTH], data[_SEAL_LENGTH:]
    if not seal.startswith(_FORMAT):
        raise expected(path, "a checkpoint of a run", "a file of another kind")
    if seal != _seal(content):
        raise expected(path, "a checkpoint of a run", "damaged bytes")
    try:
        with h5py.File.in_memory(content) as file:
            _refuse_references(file)
            description = json.loads(file.attrs["description"])
            runs = {name: _run_state(run) for name, run in file["runs"].items()}
    except _ALIEN as error:
        raise expected(path, "a checkpoint of a run", error) from error
    return description, runs


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


def versions() -> dict[str, str]:
    """Versions of all that the bits of a result depend on.

    Returns
    -------
    dict of str to str
        Of this package, Python and the packages that compute.
    """
    packages = ("numbasaem", "numba", "llvmlite", "numpy", "scipy")
    return {"python": platform.python_version()} | {
        name: version(name) for name in packages
    }


def _run_state(group: h5py.Group) -> RunState:
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
        rotation_mass=group["rotation_mass"][()],
        view_weights=group["view_weights"][()],
        generator=generator,
        stage=stage,
        iteration=iteration,
        step=float(group.attrs["step"]),
        em_step=group["em_step"][()],
        minibatches=_read(group["minibatches"]),
        history=[Iteration(run, *row) for row in history.tolist()],
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


def _read(group: h5py.Group) -> dict[str, Any]:
    """Read a tree back; inverse of :func:`_write`."""
    import h5py

    values: dict[str, Any] = {}
    for name, item in group.items():
        if not isinstance(item, h5py.Group):
            values[name] = item[()]
            continue
        inside = _read(item)
        kind = item.attrs["kind"]
        if kind == "statistics":
            values[name] = Statistics(**inside)
        elif kind == "list":
            values[name] = [inside[str(i)] for i in range(len(inside))]
        else:
            values[name] = {int(key): entry for key, entry in inside.items()}
    return values


class Journal:
    """Record of all runs, in memory and, if there is a folder, in its `run.h5`.

    A context manager: no other process can write to the folder meanwhile.

    Parameters
    ----------
    folder : Path or None
        Output folder.
    resume : bool
        Take up the run that the folder holds.
    settings : dict
        What a run has to agree with to be resumed, as JSON can hold it.

    Raises
    ------
    InputError
        If the folder holds a run that is not to be resumed, or one of other settings.

    Warns
    -----
    RunWarning
        If the newest checkpoint is damaged, or was written by other versions.
    """

    def __init__(
        self, folder: Path | None, resume: bool, settings: dict[str, Any]
    ) -> None:
        self.path = None if folder is None else folder / "run.h5"
        self.description: dict[str, Any] = {
            "settings": settings,
            "versions": versions(),
        }
        self.runs: dict[str, RunState] = {}
        self._whole: Path | None = None
        self._begun: dict[str, Any] = {}
        self._lock: int | None = None
        if self.path is None:
            return
        held = [p.name for p in (self.path, previous_of(self.path)) if p.exists()]
        if held and not resume:
            raise expected(folder, "a folder without a run, or `resume=True`", held[0])
        if held:
            self._whole, self._begun, self.runs = _newest(self.path)
            self._refuse_other_settings()
            self._tell_other_versions()

    def __enter__(self) -> Self:
        """Do nothing; the folder is taken by :meth:`begin`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)

    def begin(self, sources: list[dict[str, Any]], preparation: dict[str, Any]) -> None:
        """Take the folder, made if it does not exist, for a run on these inputs.

        Parameters
        ----------
        sources : list of dict
            Name, size and SHA-256 of each input.
        preparation : dict
            What was done to them, for the record: the settings decide it.

        Raises
        ------
        InputError
            If the run to resume is of other inputs, or the folder cannot be written or
            is in use by another process.
        """
        self.description["sources"] = sources
        self.description["preparation"] = preparation
        if self.path is None:
            return
        if self._whole is not None:
            refuse_other_sources(self._whole, self._begun["sources"], sources)
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise expected(folder, "a folder to write to", error.strerror) from error
        if not _locked(self._lock):
            raise expected(folder, "a folder for one process", "a run under way")
        if self._whole is None:
            # A verdict left here is on another run.
            try:
                (folder / VALIDATION).unlink(missing_ok=True)
            except OSError as error:
                wanted = "a folder to write to"
                raise expected(folder, wanted, error.strerror) from error
            self.save()
        elif self._whole != self.path:  # Before what is damaged can take its place.
            self._whole.replace(self.path)

    def save(self) -> None:
        """Write the file anew."""
        if self.path is not None:
            save_checkpoint(self.path, self.description, self.runs)

    @property
    def n_done(self) -> int:
        """Iterations done, over all runs."""
        return sum(len(state.history) for state in self.runs.values())

    def _refuse_other_settings(self) -> None:
        before = self._begun["settings"]
        for name, asked in self.description["settings"].items():
            if asked != before.get(name):
                where = f"{self._whole}: {name}"
                raise expected(where, f"{before.get(name)}, as begun", asked)

    def _tell_other_versions(self) -> None:
        before = self._begun["versions"]
        now = self.description["versions"]
        for name in before.keys() & now.keys():
            if before[name] != now[name]:
                warn(
                    f"{self._whole}: begun with {name} {before[name]}, goes on with "
                    f"{now[name]}; the result may differ in its last digits"
                )


def refuse_other_sources(
    run: Path, begun: list[dict[str, Any]], given: list[dict[str, Any]]
) -> None:
    """Refuse inputs that are not those a run began with.

    Parameters
    ----------
    run : Path
        Checkpoint of the run, as errors name it.
    begun, given : list of dict
        Name, size and SHA-256 of each input, then and now.

    Raises
    ------
    InputError
        If their number or the content of one differs.
    """
    if len(begun) != len(given):
        wanted = f"{len(begun)} micrographs, as begun"
        raise expected(run, wanted, len(given))
    for before, now in zip(begun, given, strict=True):
        wanted = f"{before['name']} as it was when the run began"
        if before["size"] != now["size"]:
            found = f"{now['size']} bytes, not {before['size']}, in {now['name']}"
            raise expected(run, wanted, found)
        if before["sha256"] != now["sha256"]:
            raise expected(run, wanted, f"other data in {now['name']}")
        if before.get("lens") != now.get("lens"):
            what = f"the contrast transfer function that {now['name']} began with"
            raise expected(run, what, "another")


def _locked(folder: int) -> bool:
    """Lock an open folder until it is closed, where the file system can do that."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
