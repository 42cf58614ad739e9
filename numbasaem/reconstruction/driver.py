"""Algorithm 1: the volume from micrographs, by stochastic approximate EM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import OnProgress, PathLike, no_progress
from numbasaem.assessment.alignment import align
from numbasaem.assessment.fsc import HalfMapCorrelation, half_map_correlation
from numbasaem.errors import expected
from numbasaem.io import written_whole
from numbasaem.io.chimerax import write_chimerax_script
from numbasaem.io.mrc import write_volume
from numbasaem.io.star import write_fsc
from numbasaem.micrographs.preparation import preparation_of
from numbasaem.micrographs.reading import load_patches, load_windows
from numbasaem.observations.patch_expectation import compile_kernels
from numbasaem.observations.window_expectation import compile_window_kernels
from numbasaem.settings import Settings
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.rotations import rotation_grid

from .checkpoint import Iteration, Journal, RunState
from .iterate import iterations, random_start
from .memory import within_memory
from .plan import Plan, make_plan

if TYPE_CHECKING:
    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.micrographs.reading import Micrographs, PatchSet, WindowSet
    from numbasaem.observations.dask import RemotePatchSet
    from numbasaem.observations.protocol import Observations

__all__ = ["Iteration", "Plan", "Result", "Settings", "reconstruct"]

OnIteration = Callable[[Iteration], None]
OnPlan = Callable[[Plan], None]

HALVES = ("half1", "half2")
_RUNS = ("full", *HALVES)
_SCORED_ITERATIONS = 3


@dataclass(frozen=True)
class Result:
    """A reconstruction.

    Attributes
    ----------
    volume : float64, shape (L, L, L)
        The map, indexed [z, y, x].
    volume_coefficients : float64, shape (M,)
        Its real coefficients.
    basis : VolumeBasis
        The basis they belong to.
    rotations : float64, shape (K, 3, 3)
        Rotations that the posterior ran over.
    shift_prior : float64, shape (2L, 2L)
        Final rho.
    noise_variance : float
        Final sigma**2.
    history : tuple of Iteration
        Every iteration of every run.
    half_volumes : tuple of two float64 arrays, shape (L, L, L), or None
        Maps of two independent halves of the data, aligned to `volume`.
    half_map_correlation : HalfMapCorrelation or None
        Fourier shell correlation of the two half maps, unmasked and corrected.
    pixel_size : float or None
        Angstrom per voxel.
    settings : Settings
        What was asked for.

    Examples
    --------
    >>> pixels = np.random.default_rng(0).random((40, 40))
    >>> plan = Settings(size=5, ell_max=(2,), iterations=(2,), rotations=8, starts=1)
    >>> result = reconstruct([pixels], plan.model_copy(update={"halves": False}))
    >>> result.volume.shape, len(result.history), result.fsc
    ((5, 5, 5), 2, None)
    """

    volume: NDArray[np.float64]
    volume_coefficients: NDArray[np.float64]
    basis: VolumeBasis
    rotations: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    history: tuple[Iteration, ...]
    half_volumes: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    half_map_correlation: HalfMapCorrelation | None
    pixel_size: float | None
    settings: Settings

    @property
    def fsc(self) -> NDArray[np.float64] | None:
        """Fourier shell correlation of the half maps, no mask; shape (L // 2 + 1,)."""
        found = self.half_map_correlation
        return None if found is None else found.unmasked


def reconstruct(
    micrographs: Sequence[NDArray[np.floating] | PathLike],
    settings: Settings,
    *,
    out: PathLike | None = None,
    resume: bool = False,
    flip_hand: bool = False,
    on_plan: OnPlan | None = None,
    on_iteration: OnIteration | None = None,
    on_progress: OnProgress | None = None,
    client: Client | None = None,
) -> Result:
    """Reconstruct a volume from micrographs, from a random start.

    Parameters
    ----------
    micrographs : sequence of 2-D arrays or paths
        Micrographs, files of them (MRC or TIFF; a stack is several), patterns of file
        names, or one STAR list.
    settings : Settings
        What to do.
    out : path-like, optional
        Folder for `volume.mrc`, half maps, `fsc.star`, `volume.cxc`, `run.h5` and
        `settings.toml`; nothing is written if left out.
    resume : bool
        Go on with the run that `out` holds.
    flip_hand : bool
        Return and write the mirror images of the maps, which the micrographs cannot
        tell from them.
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
        If a micrograph cannot be used, the run cannot do with the memory allowed, `out`
        cannot be written or already holds a run (and `resume` is false), or the run to
        resume is of other data or settings.

    Notes
    -----
    Algorithm 1 with frequency marching; equations (23)-(37).

    Examples
    --------
    >>> from numbasaem import simulate
    >>> from numbasaem.phantom import folded_chain
    >>> sample = simulate(folded_chain(7), size=7, pixels=96, snr=10, ell_max=4)
    >>> plan = Settings(size=7, ell_max=(2,), iterations=(3,), rotations=24, starts=1)
    >>> result = reconstruct(sample.micrographs, plan)
    >>> result.volume.shape, [half.shape for half in result.half_volumes or ()]
    ((7, 7, 7), [(7, 7, 7), (7, 7, 7)])
    """
    on_progress = on_progress or no_progress
    folder = None if out is None else Path(out)
    with Journal(folder, resume, settings.deciding) as journal:
        elsewhere = client is not None and not any(
            isinstance(item, np.ndarray) for item in micrographs
        )
        planned, memory = within_memory(settings, micrographs, elsewhere)
        data = _load(client, micrographs, settings, on_progress)
        journal.begin(data.sources, asdict(preparation_of(settings)))
        parts = {"full": data.part(None, planned.threads)}
        if settings.halves:
            halves = zip(HALVES, data.halves(settings.seed), strict=True)
            parts |= {half: data.part(which, planned.threads) for half, which in halves}
        if on_plan is not None:
            on_progress("measuring the speed", 0.0)
            on_plan(make_plan(data, parts, planned, journal.n_done, memory))
        watch = Watch(on_iteration, on_progress)
        take_to_the_end(journal, parts, planned, watch)
        pixel_size = data.pixel_size
        result = _result(journal.runs, pixel_size, settings, flip_hand, on_progress)
        if folder is not None:
            write_result(folder, result)
    return result


def _load(
    client: Client | None,
    micrographs: Micrographs,
    settings: Settings,
    on_progress: OnProgress,
) -> PatchSet | WindowSet | RemotePatchSet:
    """Data of the model here, or on the workers of a cluster."""
    if settings.model == "window":
        if client is not None:
            raise expected("model", "patch on a cluster", settings.model)
        return load_windows(micrographs, settings, on_progress)
    if client is None:
        return load_patches(micrographs, settings, on_progress)
    from numbasaem.observations.dask import load_remotely  # Dask is optional.

    return load_remotely(client, micrographs, settings, on_progress)


@dataclass(frozen=True)
class Watch:
    """Who is told what, as it happens; see :func:`reconstruct`."""

    on_iteration: OnIteration | None
    on_progress: OnProgress


def take_to_the_end(
    journal: Journal,
    parts: Mapping[str, Observations],
    settings: Settings,
    watch: Watch,
) -> None:
    """Do all iterations of all runs that the journal does not hold yet.

    Parameters
    ----------
    journal : Journal
        In/out: the state of every run.
    parts : mapping of str to Observations
        Data of "full", "half1", "half2" or some of them.
    settings : Settings
        What to do.
    watch : Watch
        Who is told.
    """
    total = len(parts) * settings.iterations_per_run
    watch.on_progress("compiling kernels", 0.0)
    spread = any(part.optics is not None for part in parts.values())
    if settings.model == "window":
        compile_window_kernels(settings.size, whole_square=spread)
    else:
        compile_kernels(settings.size, whole_square=spread)

    def advance(run: str, state: RunState, n_stages: int) -> None:
        """Take a run to the end of its first stages, recording each iteration."""
        journal.runs[run] = state
        part = run.partition("-")[0]
        before = journal.n_done - len(state.history)
        for row in iterations(
            state, parts[part], settings, n_stages, watch.on_progress
        ):
            counted = replace(
                row, run=run, total_done=before + len(state.history), total=total
            )
            state.history[-1] = counted
            journal.save()
            if watch.on_iteration is not None:
                watch.on_iteration(counted)
        state.minibatches = {}  # used up; incremental ones are large

    def first_state(run: str, number: int) -> RunState:
        """Random start of a run, or the likeliest of several after their search."""
        if settings.starts == 1:
            return random_start(parts[run], settings, number, 0)
        starts = [f"{run}-start{i}" for i in range(settings.starts)]
        for i, start in enumerate(starts):
            state = random_start(parts[run], settings, number, i)
            advance(start, journal.runs.get(start, state), n_stages=1)
        likeliest = max(starts, key=lambda name: _score(journal.runs[name]))
        # Its search is over, however early it stopped.
        n_searched = settings.schedule[0].n_iterations
        return replace(journal.runs[likeliest], iteration=n_searched, history=[])

    for run in parts:
        state = journal.runs.get(run) or first_state(run, _RUNS.index(run))
        advance(run, state, n_stages=len(settings.schedule))


def _score(state: RunState) -> float:
    """Log-likelihood per patch over the last iterations."""
    last = state.history[-_SCORED_ITERATIONS:]
    return float(np.mean([row.log_likelihood_per_patch for row in last]))


def _result(
    runs: dict[str, RunState],
    pixel_size: float | None,
    settings: Settings,
    flip_hand: bool,
    on_progress: OnProgress,
) -> Result:
    """Volumes of all runs, half maps aligned to the full one and compared."""
    basis = VolumeBasis(settings.size, settings.ell_max[-1])
    # Inversion through the centre: the mirror image, in another pose.
    parity = (-1.0) ** basis.indices[:, 0] if flip_hand else 1.0
    coefficients = [
        parity * runs[run].volume_coefficients for run in _RUNS if run in runs
    ]
    volumes = [basis.evaluate(each) for each in coefficients]
    halves = correlation = None
    if len(volumes) == len(_RUNS):
        on_progress("aligning half maps", 0.0)
        first = align(volumes[1], volumes[0]).volume
        on_progress("aligning half maps", 0.5)
        second = align(volumes[2], volumes[0]).volume
        halves, correlation = (first, second), half_map_correlation(first, second)
    full = runs["full"]
    history = [row for state in runs.values() for row in state.history]
    return Result(
        volume=volumes[0],
        volume_coefficients=coefficients[0],
        basis=basis,
        rotations=rotation_grid(settings.schedule[-1].n_rotations),
        shift_prior=full.shift_prior,
        noise_variance=full.noise_variance,
        history=tuple(sorted(history, key=lambda row: row.total_done)),
        half_volumes=halves,
        half_map_correlation=correlation,
        pixel_size=pixel_size,
        settings=settings,
    )


def write_result(folder: Path, result: Result) -> None:
    """Write the maps of a reconstruction, their FSC, settings and a viewer's script.

    Parameters
    ----------
    folder : Path
        Output folder.
    result : Result
        The reconstruction.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    voxel_size = result.pixel_size or 1.0
    write_volume(folder / "volume.mrc", result.volume, voxel_size)
    halves = []
    for number, half in enumerate(result.half_volumes or (), start=1):
        halves.append(f"volume_half{number}.mrc")
        write_volume(folder / halves[-1], half, voxel_size)
    found = result.half_map_correlation
    if found is not None:
        write_fsc(
            folder / "fsc.star",
            found.unmasked,
            voxel_size,
            result.settings.size,
            masked=found.masked,
            randomized=found.randomized,
            corrected=found.corrected,
        )
    script = folder / "volume.cxc"
    write_chimerax_script(script, result.volume, "volume.mrc", halves)
    with written_whole(folder / "settings.toml") as part:
        part.write_text(result.settings.to_toml(), encoding="utf-8")
