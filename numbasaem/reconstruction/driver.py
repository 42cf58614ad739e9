"""Algorithm 1: the volume from micrographs, by stochastic approximate EM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import OnProgress, PathLike, no_progress
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.micrographs.preparation import preparation_of
from numbasaem.micrographs.reading import list_inputs, with_size
from numbasaem.schedule import starts_in_search
from numbasaem.volume.basis import VolumeBasis

from .contrast import Contrast, in_contrast, load_in_contrast
from .iterate import iterations
from .journal import Journal
from .memory import limit_threads_to_memory
from .plan import Plan, make_plan
from .result import HALVES, RUNS, Result, result_of_runs, write_result
from .starts import moments_start, random_start
from .state import Iteration, RunPlace, RunState

if TYPE_CHECKING:
    from distributed import Client

    from numbasaem.micrographs.reading import Micrographs
    from numbasaem.observations.protocol import Observations
    from numbasaem.settings import Settings

OnIteration = Callable[[Iteration], None]
OnPlan = Callable[[Plan], None]
OnContrast = Callable[[Contrast], None]

_SCORED_ITERATIONS = 5


def reconstruct(
    micrographs: Micrographs,
    settings: Settings,
    *,
    out: PathLike | None = None,
    resume: bool = False,
    flip_hand: bool = False,
    on_contrast: OnContrast | None = None,
    on_plan: OnPlan | None = None,
    on_iteration: OnIteration | None = None,
    on_progress: OnProgress | None = None,
    client: Client | None = None,
) -> Result:
    """Reconstruct a volume from micrographs, from a random start.

    Parameters
    ----------
    micrographs : sequence of array, shape (rows, columns), or of paths
        Micrographs, files of them (MRC or TIFF; a stack is several), patterns of file
        names, or one STAR list.
    settings : Settings
        Settings of the reconstruction.
    out : path-like, optional
        Folder for `volume.mrc`, half maps, `fsc.star`, `volume.cxc`, `run.h5` and
        `settings.toml`; nothing is written if left out.
    resume : bool
        Go on with the run that `out` holds.
    flip_hand : bool
        Return and write the mirror images of the maps; micrographs cannot tell which
        of the two is right.
    on_contrast : callable, optional
        Called with the :class:`Contrast` that is found, where it is to be found.
    on_plan : callable, optional
        Called with the :class:`Plan` before the first iteration; without it no time is
        spent on a trial.
    on_iteration : callable, optional
        Called with each finished :class:`Iteration`.
    on_progress : callable, optional
        Called with what is being done and the share of it that is done, every
        second or so.
    client : distributed.Client, optional
        Workers of a Dask cluster, which read the files and do the E-step; same result.

    Returns
    -------
    Result
        The volume and how it came about.

    Raises
    ------
    InputError
        If a micrograph cannot be used, if it cannot show the molecule in the resolution
        asked for, if the run needs more than `max_memory`, if `out` cannot be written
        or already holds a run (and `resume` is false), or if the run to resume is of
        other data or settings.

    Notes
    -----
    Algorithm 1 with frequency marching; equations (23)-(37).

    Examples
    --------
    >>> from numbasaem import Settings, simulate
    >>> from numbasaem.volume.phantom import folded_chain
    >>> sample = simulate(folded_chain(7), size=7, pixels=96, snr=10, ell_max=4)
    >>> plan = Settings(size=7, ell_max=(2,), iterations=(3,), rotations=24, starts=1)
    >>> result = reconstruct(sample.micrographs, plan)
    >>> result.volume.shape, [half.shape for half in result.half_volumes or ()]
    ((7, 7, 7), [(7, 7, 7), (7, 7, 7)])
    """
    on_progress = on_progress or no_progress
    folder = None if out is None else Path(out)
    inputs = list_inputs(micrographs)
    settings = with_size(settings, inputs)
    with Journal(folder, resume, settings.settings_that_decide_the_result) as journal:
        elsewhere = client is not None and not any(
            isinstance(item, np.ndarray) for item in inputs
        )
        planned, memory = limit_threads_to_memory(settings, inputs, elsewhere)
        data, contrast = load_in_contrast(
            journal.contrast, inputs, planned, on_contrast, on_progress, client
        )
        settings, planned = (in_contrast(s, contrast) for s in (settings, planned))
        journal.keep_contrast(contrast)
        journal.begin(data.sources, asdict(preparation_of(settings)))
        parts = {"full": data.part(None, planned.threads)}
        if settings.halves:
            halves = zip(HALVES, data.halves(settings.seed), strict=True)
            parts |= {half: data.part(which, planned.threads) for half, which in halves}
        on_progress("compiling kernels", 0.0)
        _compile(parts["full"], settings)
        if on_plan is not None:
            on_progress("measuring the speed", 0.0)
            on_plan(make_plan(data, parts, planned, journal.n_done, memory))
        run_all(journal, parts, planned, Callbacks(on_iteration, on_progress))
        result = result_of_runs(
            journal.runs, data.pixel_size, settings, flip_hand, on_progress
        )
        if folder is not None:
            write_result(folder, result)
    return result


def _compile(data: Observations, settings: Settings) -> None:
    """Compile what the E-step of every stage runs."""
    for stage in {stage.ell_max: stage for stage in settings.schedule}.values():
        basis = VolumeBasis(settings.size, stage.ell_max)
        data.compile(data.projections(basis, ViewGrid(stage.n_rotations)))


@dataclass(frozen=True)
class Callbacks:
    """Functions that are told what happens; see :func:`reconstruct`."""

    on_iteration: OnIteration | None
    on_progress: OnProgress


def run_all(
    journal: Journal,
    parts: Mapping[str, Observations],
    settings: Settings,
    callbacks: Callbacks,
    place: RunPlace | None = None,
) -> None:
    """Do all iterations of all runs that the journal does not hold yet.

    Parameters
    ----------
    journal : Journal
        In/out: the state of every run.
    parts : mapping of str to Observations
        Data of "full", "half1", "half2" or some of them.
    settings : Settings
        Settings of the reconstruction.
    callbacks : Callbacks
        Functions that are told what happens.
    place : RunPlace, optional
        Where these runs stand among others: what their names begin with, and the
        number of iterations before them and in all. Left out if there are no others.
    """
    if place is None:
        place = RunPlace("", 0, len(parts) * settings.iterations_per_run)

    def advance(name: str, state: RunState, n_stages: int) -> None:
        """Take a run to the end of its first stages, recording each iteration."""
        journal.runs[name] = state
        own_place = RunPlace(
            run=place.run + name,
            n_before=place.n_before + journal.n_done - len(state.history),
            total=place.total,
        )
        data = parts[name.partition("-")[0]]
        for row in iterations(
            state, data, settings, n_stages, callbacks.on_progress, own_place
        ):
            journal.save()
            if callbacks.on_iteration is not None:
                callbacks.on_iteration(row)
        state.minibatches = {}  # used up; incremental ones are large

    def first_state(run: str, number: int) -> RunState:
        """First state of a run: random, the likeliest of several, or fitted."""
        if settings.start == "moments":
            callbacks.on_progress("fitting autocorrelations", 0.0)
            return moments_start(parts[run], settings, number)
        if settings.starts == 1:
            return random_start(parts[run], settings, number, 0)
        left = list(range(settings.starts))
        searched = starts_in_search(settings.starts, len(settings.search))
        for stage, n_starts in enumerate(searched):
            if stage > 0:
                left = likeliest(run, left, stage - 1)[:n_starts]
            for start in left:
                name = _name_of_start(run, start)
                state = journal.runs.get(name)
                if state is None:
                    state = random_start(parts[run], settings, number, start)
                advance(name, state, n_stages=stage + 1)
        best, *_ = likeliest(run, left, len(searched) - 1)
        # The search is done, even if this start stopped early.
        n_searched = settings.search[-1].n_iterations
        best_state = journal.runs[_name_of_start(run, best)]
        return replace(best_state, iteration=n_searched, history=[])

    def likeliest(run: str, starts: list[int], stage: int) -> list[int]:
        """Starts in the order of their evidence at the end of a stage."""

        def score(start: int) -> float:
            return _score(journal.runs[_name_of_start(run, start)], stage)

        return sorted(starts, key=score, reverse=True)

    for run in parts:
        state = journal.runs.get(run) or first_state(run, RUNS.index(run))
        advance(run, state, n_stages=len(settings.schedule))


def _name_of_start(run: str, start: int) -> str:
    return f"{run}-start{start}"


def _score(state: RunState, stage: int) -> float:
    """Evidence per patch over the last iterations of a stage."""
    rows = [row for row in state.history if row.stage == stage]
    last = rows[-_SCORED_ITERATIONS:]
    return float(np.mean([row.evidence_per_patch for row in last]))
