"""Algorithm 1: the volume from micrographs, by stochastic approximate EM."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .alignment import align
from .checkpoint import Iteration, Journal, RunState
from .expectation_step import Statistics, expectation
from .inputs import OnProgress, load_patches
from .io.mrc import write_volume
from .io.star import write_fsc
from .maximization_step import (
    expected_log_likelihood,
    noise_variance,
    normal_equations,
    shift_prior_table,
    solve,
    uniform_shift_prior,
)
from .metrics import fourier_shell_correlation
from .projection import ProjectionOperator
from .rotations import rotation_grid
from .schedule import minibatches
from .settings import Settings
from .volume_basis import VolumeBasis

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Iteration", "Result", "Settings", "reconstruct"]

OnIteration = Callable[[Iteration], None]

_RUNS = ("full", "half1", "half2")
_FIRST_EMPTY_PROBABILITY = 0.5


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
    fsc : float64, shape (L // 2 + 1,), or None
        Fourier shell correlation of the two half maps, no mask.
    pixel_size : float or None
        Angstrom per voxel.
    settings : Settings
        What was asked for.
    """

    volume: NDArray[np.float64]
    volume_coefficients: NDArray[np.float64]
    basis: VolumeBasis
    rotations: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    history: tuple[Iteration, ...]
    half_volumes: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    fsc: NDArray[np.float64] | None
    pixel_size: float | None
    settings: Settings


def reconstruct(
    micrographs: Sequence[NDArray[np.floating] | str | os.PathLike[str]],
    settings: Settings,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_iteration: OnIteration | None = None,
    on_progress: OnProgress | None = None,
) -> Result:
    """Reconstruct a volume from micrographs, from a random start.

    Parameters
    ----------
    micrographs : sequence of 2-D arrays or paths
        Micrographs, or MRC files of them (a stack is several).
    settings : Settings
        What to do.
    out : path-like, optional
        Folder for `volume.mrc`, half maps, `fsc.star` and `run.h5`; nothing is
        written if left out.
    resume : bool
        Go on with the run that `out` holds.
    on_iteration : callable, optional
        Called with each finished :class:`Iteration`.
    on_progress : callable, optional
        Called with what is being done and the share of it that is done, every
        second or so.

    Returns
    -------
    Result
        The volume and how it came about.

    Raises
    ------
    InputError
        If a micrograph cannot be used, `out` cannot be written or already holds a
        run (and `resume` is false), or the run to resume is of other data or
        settings.

    Notes
    -----
    Algorithm 1 with frequency marching; equations (23)-(37).
    """
    on_progress = on_progress or _silent
    data = load_patches(micrographs, settings, on_progress)
    journal = Journal(
        None if out is None else Path(out),
        resume,
        {
            "settings": settings.model_dump(mode="json", exclude={"threads"}),
            "sources": data.sources,
        },
    )
    members = [np.arange(len(data.patches))]
    if settings.halves:
        members += data.halves(settings.seed)
    rotations = rotation_grid(settings.rotations)
    for run, chosen in zip(_RUNS, members, strict=False):
        patches = data.patches if run == "full" else data.patches[chosen]
        if run not in journal.runs:
            journal.runs[run] = _random_start(run, patches, settings, rotations)
        for row in _iterations(
            run, patches, rotations, settings, journal, len(members), on_progress
        ):
            journal.save()
            if on_iteration is not None:
                on_iteration(row)
    on_progress("comparing half maps", 0.0)
    result = _result(journal.runs, rotations, data.pixel_size, settings)
    if out is not None:
        write_result(Path(out), result)
    return result


def _iterations(
    run: str,
    patches: NDArray[np.float32],
    rotations: NDArray[np.float64],
    settings: Settings,
    journal: Journal,
    n_runs: int,
    on_progress: OnProgress,
) -> Iterator[Iteration]:
    """Algorithm 1 on one set of patches, from the state in the journal on."""
    state, schedule = journal.runs[run], settings.schedule
    for number, stage in enumerate(schedule):
        if number < state.stage:
            continue
        if number > state.stage:
            _march(state, settings.size, schedule[state.stage].ell_max, stage.ell_max)
        operator = ProjectionOperator(
            VolumeBasis(settings.size, stage.ell_max), rotations
        )
        batches = minibatches(
            settings.batching,
            len(patches),
            settings.batch_fraction,
            np.random.default_rng([settings.seed, 3, _RUNS.index(run), number]),
        )
        if state.minibatches:
            batches.restore(state.minibatches)
        while state.iteration < stage.n_iterations and not _stalled(state, settings):
            started = time.perf_counter()
            fresh = expectation(
                patches[batches.choose(state.generator)],
                operator.project(state.volume_coefficients),
                state.shift_prior,
                state.noise_variance,
                threads=settings.threads,
                on_progress=lambda share: on_progress("expectation", share),
            )
            q = expected_log_likelihood(
                operator,
                state.volume_coefficients,
                state.shift_prior,
                state.noise_variance,
                fresh,
            )
            change = _maximize(
                operator, state, batches.combine(fresh), settings.noise_variance
            )
            state.minibatches = batches.state()
            state.iteration += 1
            row = Iteration(
                run=run,
                stage=number,
                n_stages=len(schedule),
                ell_max=stage.ell_max,
                iteration=state.iteration,
                n_iterations=stage.n_iterations,
                total_done=journal.n_done + 1,
                total=n_runs * sum(settings.iterations),
                log_likelihood_per_patch=fresh.log_likelihood / fresh.n_patches,
                q_per_patch=q / fresh.n_patches,
                noise_variance=state.noise_variance,
                empty_fraction=fresh.empty_mass / fresh.n_patches,
                volume_change=change,
                seconds=time.perf_counter() - started,
            )
            state.history.append(row)
            yield row


def _maximize(
    operator: ProjectionOperator,
    state: RunState,
    statistics: Statistics,
    known_variance: float | None,
) -> float:
    """M-step; returns the relative change of the volume's coefficients."""
    before = state.volume_coefficients
    after = solve(*normal_equations(operator, statistics))
    state.volume_coefficients = after
    state.shift_prior = shift_prior_table(statistics)
    state.noise_variance = known_variance or noise_variance(
        operator, after, statistics
    )
    return float(np.linalg.norm(after - before) / np.linalg.norm(after))


def _stalled(state: RunState, settings: Settings) -> bool:
    """Whether Q gained less than epsilon in the stage's last iteration."""
    if settings.stopping is None or state.iteration < 2:
        return False
    before, last = state.history[-2:]
    return last.q_per_patch - before.q_per_patch <= settings.stopping


def _march(state: RunState, size: int, ell_max: int, next_ell_max: int) -> None:
    """Begin the next stage with the volume of the last one."""
    state.volume_coefficients = VolumeBasis(size, ell_max).lift(
        state.volume_coefficients, next_ell_max
    )
    state.stage, state.iteration, state.minibatches = state.stage + 1, 0, {}


def _random_start(
    run: str,
    patches: NDArray[np.float32],
    settings: Settings,
    rotations: NDArray[np.float64],
) -> RunState:
    """Independent Gaussian voxels, scaled so that projections have SNR 1."""
    generator = np.random.default_rng([settings.seed, 1, _RUNS.index(run)])
    variance = settings.noise_variance or float(np.var(patches, dtype=np.float64))
    size = settings.size
    basis = VolumeBasis(size, settings.ell_max[0])
    start = basis.expand(generator.standard_normal((size, size, size)))
    power = np.mean(basis.project(start, rotations) ** 2)
    return RunState(
        volume_coefficients=start * np.sqrt(variance / power),
        shift_prior=uniform_shift_prior(size, _FIRST_EMPTY_PROBABILITY),
        noise_variance=variance,
        generator=generator,
        stage=0,
        iteration=0,
        minibatches={},
        history=[],
    )


def _result(
    runs: dict[str, RunState],
    rotations: NDArray[np.float64],
    pixel_size: float | None,
    settings: Settings,
) -> Result:
    """Volumes of all runs, half maps aligned to the full one and compared."""
    basis = VolumeBasis(settings.size, settings.ell_max[-1])
    volumes = [basis.evaluate(state.volume_coefficients) for state in runs.values()]
    halves = fsc = None
    if len(volumes) == len(_RUNS):
        first, second = (align(half, volumes[0]).volume for half in volumes[1:])
        halves, fsc = (first, second), fourier_shell_correlation(first, second)
    full = runs["full"]
    return Result(
        volume=volumes[0],
        volume_coefficients=full.volume_coefficients,
        basis=basis,
        rotations=rotations,
        shift_prior=full.shift_prior,
        noise_variance=full.noise_variance,
        history=tuple(row for state in runs.values() for row in state.history),
        half_volumes=halves,
        fsc=fsc,
        pixel_size=pixel_size,
        settings=settings,
    )


def write_result(folder: Path, result: Result) -> None:
    """Write the maps and the FSC of a reconstruction.

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
    if result.half_volumes is not None and result.fsc is not None:
        for number, half in enumerate(result.half_volumes, start=1):
            write_volume(folder / f"volume_half{number}.mrc", half, voxel_size)
        write_fsc(folder / "fsc.star", result.fsc, voxel_size, result.settings.size)


def _silent(what: str, share: float) -> None:
    """Report nothing."""
