"""The file `run.h5`: settings, inputs and the state of every run, after each iteration.

The file is replaced whole, so that it is always that of a finished iteration.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import expected
from .expectation_step import Statistics
from .io import written_whole

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

_FORMAT = 1
_DAMAGE = (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a file that is damaged, or not of this program, may raise."""


@dataclass(frozen=True)
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
    generator : numpy.random.Generator
        Draws the minibatches.
    stage, iteration : int
        Iterations done in the current stage.
    minibatches : dict
        State of the batching scheme.
    history : list of Iteration
        What happened so far.
    """

    volume_coefficients: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    rotation_mass: NDArray[np.float64]
    generator: np.random.Generator
    stage: int
    iteration: int
    minibatches: dict[str, object]
    history: list[Iteration]


def save_checkpoint(
    path: Path, description: dict[str, Any], runs: dict[str, RunState]
) -> None:
    """Replace the checkpoint file by one of the current state.

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
        If the file cannot be written; the one that was there stays.
    """
    import h5py

    with written_whole(path) as part, h5py.File(part, "w") as file:
        file.attrs["format"] = _FORMAT
        file.attrs["description"] = json.dumps(description)
        file.create_group("runs")
        for name, state in runs.items():
            group = file.create_group(f"runs/{name}")
            group.attrs["position"] = [state.stage, state.iteration]
            group.attrs["noise_variance"] = state.noise_variance
            group.attrs["generator"] = json.dumps(state.generator.bit_generator.state)
            group["volume_coefficients"] = state.volume_coefficients
            group["shift_prior"] = state.shift_prior
            group["rotation_mass"] = state.rotation_mass
            group["history"] = json.dumps([asdict(row) for row in state.history])
            _write(group.create_group("minibatches"), state.minibatches)


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, RunState]]:
    """Read a checkpoint file.

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
        If the file is missing, damaged or of another format.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            written_as = int(file.attrs["format"])
            if written_as == _FORMAT:
                description = json.loads(file.attrs["description"])
                runs = {name: _run_state(run) for name, run in file["runs"].items()}
    except _DAMAGE as error:
        raise expected(path, "a checkpoint of a run", error) from error
    if written_as != _FORMAT:
        raise expected(path, f"checkpoint format {_FORMAT}", written_as)
    return description, runs


def _run_state(group: h5py.Group) -> RunState:
    stage, iteration = (int(n) for n in group.attrs["position"])
    generator = np.random.default_rng()
    generator.bit_generator.state = json.loads(group.attrs["generator"])
    return RunState(
        volume_coefficients=group["volume_coefficients"][()],
        shift_prior=group["shift_prior"][()],
        noise_variance=float(group.attrs["noise_variance"]),
        rotation_mass=group["rotation_mass"][()],
        generator=generator,
        stage=stage,
        iteration=iteration,
        minibatches=_read(group["minibatches"]),
        history=[Iteration(**row) for row in json.loads(group["history"][()])],
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

    Parameters
    ----------
    folder : Path or None
        Output folder; made if it does not exist.
    resume : bool
        Take up the run that the folder holds.
    description : dict
        What a run has to agree with to be resumed: settings and inputs.

    Raises
    ------
    InputError
        If the folder cannot be written, holds a run that is not to be resumed, or
        holds one of other settings or inputs.
    """

    def __init__(
        self, folder: Path | None, resume: bool, description: dict[str, Any]
    ) -> None:
        self.path = None if folder is None else folder / "run.h5"
        self.description = description
        self.runs: dict[str, RunState] = {}
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise expected(folder, "a folder to write to", error.strerror) from error
        if not self.path.exists():
            self.save()
        elif resume:
            known, self.runs = load_checkpoint(self.path)
            self._refuse_differences(known)
        else:
            raise expected(folder, "a folder without a run, or --resume", "run.h5")

    def save(self) -> None:
        """Write the file anew."""
        if self.path is not None:
            save_checkpoint(self.path, self.description, self.runs)

    @property
    def n_done(self) -> int:
        """Iterations done, over all runs."""
        return sum(len(state.history) for state in self.runs.values())

    def _refuse_differences(self, known: dict[str, Any]) -> None:
        for name, asked in self.description["settings"].items():
            before = known["settings"].get(name)
            if asked != before:
                raise expected(f"{self.path}: {name}", f"{before}, as begun", asked)
        begun, given = known["sources"], self.description["sources"]
        if len(begun) != len(given):
            wanted = f"{len(begun)} micrographs, as begun"
            raise expected(self.path, wanted, len(given))
        for before, now in zip(begun, given, strict=True):
            if before["sha256"] != now["sha256"]:
                wanted = f"{before['name']} as it was when the run began"
                raise expected(self.path, wanted, f"other data in {now['name']}")
