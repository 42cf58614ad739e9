"""Whether a structure is supported by its data, or could have come from noise.

Half maps of a small box agree even where there is nothing to agree on: two halves of
pure noise correlated to between 0.48 and 0.69 once aligned, in ten trials at L = 7.
What noise cannot do is be foretold. So the judge here is data that the map has not
seen: each half of the patches under the map of the other half, against white noise; and
beside it a control that is noise with the spectrum, the pixel values and the unevenness
of the micrographs and without particles, taken through the same pipeline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.aliases import PathLike, no_progress
from numbasaem.assessment.alignment import align
from numbasaem.assessment.fsc import correlation, fourier_shell_correlation
from numbasaem.errors import expected
from numbasaem.io import written_whole
from numbasaem.micrographs.reading import file_of_source
from numbasaem.observations.models import observation_model
from numbasaem.random_streams import Stream, random_stream
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.current_stage import basis_of
from numbasaem.reconstruction.driver import Callbacks, run_all
from numbasaem.reconstruction.journal import VALIDATION, Journal, refuse_other_sources
from numbasaem.reconstruction.memory import limit_threads_to_memory
from numbasaem.reconstruction.result import HALVES, RUNS
from numbasaem.reconstruction.state import RunPlace
from numbasaem.settings import Settings
from numbasaem.settings_file import read_settings

from .control import noise_like
from .evidence import Mean, evidence_of_groups, held_out_evidence, mean_of
from .memory_of_start import first_volumes, shape, shape_of_map
from .omission import ITERATIONS, N_BALLS, omit_in_turn
from .outcome import Check, Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.reading import Input
    from numbasaem.micrographs.sources import MicrographFile
    from numbasaem.observations.protocol import DataSet, Observations
    from numbasaem.reconstruction.state import Iteration, RunState

    from .omission import Omission

_ENVELOPE_REACH = 4
"""Sides of a patch over which the power of a micrograph is taken to vary."""
_LEAST_LEAD = 5.0
"""Least lead of the data on noise, in standard deviations, that is no chance."""
_LEAST_CORRELATION = 0.5
"""Least correlation of half maps, and of maps from starts that are as likely."""
_NOTHING = Mean(0.0, 0.0)
"""Evidence of white noise, above which all evidence is counted."""


@dataclass(frozen=True)
class _Sample:
    """Two halves of the data, or of the control, and the runs on them by name."""

    halves: tuple[Observations, ...]
    runs: Mapping[str, RunState]


def validate(
    folder: PathLike,
    *,
    threads: int | None = None,
    max_memory: float | None = None,
    micrographs: PathLike | None = None,
    thorough: bool = False,
    omit: bool = False,
    client: Client | None = None,
    on_iteration: Callable[[Iteration], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Validation:
    """Ask the data whether they support the structure of a finished reconstruction.

    Reconstructs half maps if the run has none, half maps of the control and, if it is
    to be thorough, the whole once more from other random numbers; then

    held-out evidence
        is the log-likelihood per patch of each half under the other half's map, above
        that of white noise, and it has to exceed zero and the control's;
    picks above chance
        is the same beside the control under the very same maps: the likelihood ratio
        that picks rest on has to be higher in the data than in noise like
        them. (How sure single picks look tells little: at high SNR such noise is
        picked with as much confidence.)
    half maps, another start
        are correlations after alignment;
    memory of the start
        is the correlation of each map with the random volume that its run began from,
        as they lie. On noise EM keeps the phases of its start for ever, so maps from
        different starts have to agree with one another more than any does with its own.

    Parameters
    ----------
    folder : path-like
        Output folder of a reconstruction from files. `validation.json` is written
        there.
    threads : int, optional
        Threads to run on; as the reconstruction if left out.
    max_memory : float, optional
        Most memory to take, 10**9 bytes; as the reconstruction if left out.
    micrographs : path-like, optional
        Folder that the micrographs are in now; left out, they are sought beside the run
        as they lay when it began, and where they were.
    thorough : bool
        Also reconstruct the whole once more and ask about that start: twice the time.
    omit : bool
        Also leave out parts of the map of the first half and see, in the other half,
        how much of them comes back; see :func:`omit_in_turn`.
    client : distributed.Client, optional
        Workers of a Dask cluster, which do the E-step; same result.
    on_iteration : callable, optional
        Called with each finished :class:`Iteration`.
    on_progress : callable, optional
        Called with what is being done and the share of it that is done.

    Returns
    -------
    Validation
        Verdict and figures.

    Raises
    ------
    InputError
        If the run has not ended, its `settings.toml` cannot be read, its micrographs
        are gone or no longer the same, a value is out of range, or the memory allowed
        is too little.

    Examples
    --------
    >>> validate("no-such-run")
    Traceback (most recent call last):
        ...
    numbasaem.errors.InputError: no-such-run/run.h5: expected a checkpoint of a run, ...
    """
    place = Path(folder)
    progress = on_progress or no_progress
    description, runs = load_checkpoint(place / "run.h5")
    if "full" not in runs or not (place / "volume.mrc").exists():
        raise expected(place, "a run that has ended", "no volume.mrc")
    sources = description["sources"]
    inputs = _files_of_run(place, description, micrographs)
    wanted = _settings_of_run(place, description, threads, max_memory)
    # Workers hold the data but not the control, which is made here.
    n_copies = 2 if client is None else 1
    settings, _ = limit_threads_to_memory(wanted, inputs, n_copies=n_copies)
    data, control = _data_and_control(inputs, settings, progress, client)
    refuse_other_sources(place / "run.h5", sources, data.sources)
    work = _Work(settings, on_iteration, progress, thorough, omit)
    halves = data.halves(settings.seed)
    parts = tuple(data.part(half, settings.threads) for half in halves)
    sample = _Sample(parts, {name: runs[name] for name in RUNS if name in runs})
    noise = _Sample(tuple(control.part(half, settings.threads) for half in halves), {})
    if not settings.halves:
        sample = replace(sample, runs={**sample.runs, **work.halves(sample, "")})
    noise = replace(noise, runs=work.halves(noise, "noise "))
    other = work.again(data.part(None, settings.threads)) if thorough else None
    found = _checks(sample, noise, other, settings, progress)
    omissions = work.omissions(sample) if omit else ()
    validation = Validation(*found, omissions)
    with written_whole(place / VALIDATION) as part:
        record = json.dumps(validation.record(), indent=1)
        part.write_text(f"{record}\n", encoding="utf-8")
    return validation


def _files_of_run(
    place: Path, description: Mapping[str, Any], micrographs: PathLike | None
) -> list[MicrographFile]:
    """Micrographs of a run, which may have been moved with it or alone."""
    moved = (description["folder"], place) if "folder" in description else None
    folder = None if micrographs is None else Path(micrographs)
    files = [file_of_source(source, moved, folder) for source in description["sources"]]
    for file in files:
        if not file.path.exists():
            wanted = "a micrograph that is still there, or its folder, `micrographs`"
            raise expected(file.path, wanted, "no such file")
    return files


def _settings_of_run(
    place: Path,
    description: Mapping[str, Any],
    threads: int | None,
    max_memory: float | None,
) -> Settings:
    """Settings of a run, with its own threads and memory where none are given."""
    # What decides no result is not in the checkpoint, but beside the maps.
    beside = read_settings(place / "settings.toml")
    return Settings(**description["settings"]).changed(
        threads=beside.get("threads") if threads is None else threads,
        max_memory=beside.get("max_memory") if max_memory is None else max_memory,
        pixel_size=description["sources"][0].get("pixel_size"),
    )


class _Work:
    """Reconstructions that a validation needs, as the run would do them."""

    def __init__(
        self,
        settings: Settings,
        on_iteration: Callable[[Iteration], None] | None,
        on_progress: OnProgress,
        thorough: bool,
        omit: bool,
    ) -> None:
        self._settings = settings
        self._on_iteration = on_iteration
        self._on_progress = on_progress
        n_runs = (2 if settings.halves else 4) + thorough
        self._total = n_runs * settings.iterations_per_run
        self._total += N_BALLS * ITERATIONS if omit else 0
        self._done = 0

    def halves(self, sample: _Sample, prefix: str) -> dict[str, RunState]:
        """Both half runs on a sample; the prefix is what they are reported with."""
        parts = dict(zip(HALVES, sample.halves, strict=True))
        return self._run(parts, self._settings, prefix)

    def again(self, data: Observations) -> RunState:
        """Another run on all data, from other random numbers."""
        reseeded = self._settings.changed(seed=self._settings.seed + 1)
        return self._run({"full": data}, reseeded, "again ")["full"]

    def omissions(self, sample: _Sample) -> tuple[Omission, ...]:
        """Omit test of the map of the first half, on the data of the second."""
        first, _ = HALVES
        callbacks = Callbacks(self._on_iteration, self._on_progress)
        place = RunPlace("omitted ", self._done, self._total)
        return omit_in_turn(
            sample.runs[first], sample.halves[1], self._settings, callbacks, place
        )

    def _run(
        self, parts: dict[str, Observations], settings: Settings, prefix: str
    ) -> dict[str, RunState]:
        journal = Journal(None, False, {})
        callbacks = Callbacks(self._on_iteration, self._on_progress)
        place = RunPlace(prefix, self._done, self._total)
        run_all(journal, parts, settings, callbacks, place)
        self._done += len(parts) * settings.iterations_per_run
        return journal.runs


def _data_and_control(
    inputs: Sequence[Input],
    settings: Settings,
    on_progress: OnProgress,
    client: Client | None = None,
) -> tuple[DataSet, DataSet]:
    """Data of the run's micrographs, and of noise like them."""
    reach = _ENVELOPE_REACH * settings.size
    load = observation_model(settings.model).load
    data = load(inputs, settings, on_progress, client)
    generator = random_stream(settings.seed, Stream.CONTROL)
    control = load(
        inputs,
        settings,
        on_progress,
        client,
        change=lambda pixels: noise_like(pixels, reach, generator),
    )
    return data, control


def _checks(
    data: _Sample,
    noise: _Sample,
    other: RunState | None,
    settings: Settings,
    on_progress: OnProgress,
) -> tuple[tuple[Check, ...], NDArray[np.float64], NDArray[np.float64]]:
    """All checks, and the FSC of the half maps of data and control."""
    on_progress("asking the data", 0.0)
    evidence = held_out_evidence(data.runs, data.halves, settings)
    of_noise = held_out_evidence(noise.runs, noise.halves, settings)
    by_chance = held_out_evidence(data.runs, noise.halves, settings)
    on_progress("asking the data", 0.6)
    first, second = HALVES
    in_data, fsc = _agreement(data.runs[first], data.runs[second], settings)
    in_noise, control_fsc = _agreement(noise.runs[first], noise.runs[second], settings)
    checks = [
        _ahead("held-out evidence", evidence, of_noise),
        _ahead("picks above chance", evidence, by_chance),
        _halves_agree(in_data, in_noise),
        _start_forgotten(data, noise, settings),
    ]
    if other is not None:
        checks.append(_starts_agree(data, other, settings))
    return tuple(checks), fsc, control_fsc


def _ahead(question: str, evidence: Mean, in_noise: Mean) -> Check:
    """Check that held-out data are ahead of white noise and of the control."""
    lead = min(evidence.ahead_of(in_noise), evidence.ahead_of(_NOTHING))
    return Check(
        f"{question}, log-likelihood per patch above white noise",
        f"{evidence}, in noise {in_noise}, ahead by {lead:.1f} deviations",
        f"ahead of noise and of zero by {_LEAST_LEAD:g} deviations",
        lead > _LEAST_LEAD,
        {
            "evidence": evidence.value,
            "deviation": evidence.deviation,
            "evidence_in_noise": in_noise.value,
            "deviation_in_noise": in_noise.deviation,
            "lead_in_deviations": lead,
            "least_lead_in_deviations": _LEAST_LEAD,
        },
    )


def _halves_agree(in_data: float, in_noise: float) -> Check:
    """Check that the half maps correlate; those of the control are for comparison."""
    return Check(
        "half maps, correlation after alignment",
        f"{in_data:.3f}, in noise {in_noise:.3f}",
        f"at least {_LEAST_CORRELATION:g}",
        in_data >= _LEAST_CORRELATION,
        {
            "correlation": in_data,
            "correlation_in_noise": in_noise,
            "least_correlation": _LEAST_CORRELATION,
        },
    )


def _start_forgotten(data: _Sample, noise: _Sample, settings: Settings) -> Check:
    """Check that maps agree with one another more than any with its own start."""
    agreement, memory = _agreement_and_memory(data, settings)
    in_noise, memory_in_noise = _agreement_and_memory(noise, settings)
    return Check(
        "memory of the start, least correlation of maps from different starts",
        f"{agreement:.3f}, of a map with its own start up to {memory:.3f}; "
        f"in noise {in_noise:.3f} and {memory_in_noise:.3f}",
        "higher than that of any map with its own start",
        agreement > memory,
        {
            "correlation": agreement,
            "correlation_with_own_start": memory,
            "correlation_in_noise": in_noise,
            "correlation_with_own_start_in_noise": memory_in_noise,
        },
    )


def _agreement_and_memory(sample: _Sample, settings: Settings) -> tuple[float, float]:
    """Least agreement of shapes from different starts; most of one with its start."""
    names = [name for name in RUNS if name in sample.runs]
    shapes = {name: shape_of_map(sample.runs[name], settings) for name in names}
    agreement = min(
        align(shapes[second], shapes[first]).correlation
        for first, second in combinations(names, 2)
    )
    memory = max(
        correlation(shapes[name], shape(start, settings))
        for name in names
        for start in first_volumes(name, sample.halves[0], settings)
    )
    return agreement, memory


def _starts_agree(data: _Sample, other: RunState, settings: Settings) -> Check:
    """Check that another start finds the same map, or one that is less likely."""
    full = data.runs["full"]
    agreement, _ = _agreement(full, other, settings)
    lower_by = mean_of(
        np.concatenate(
            [
                evidence_of_groups(full, half, settings)
                - evidence_of_groups(other, half, settings)
                for half in data.halves
            ]
        )
    )
    lead = lower_by.ahead_of(_NOTHING)
    return Check(
        "another start, correlation after alignment",
        f"{agreement:.3f}, log-likelihood per patch lower by {lower_by}",
        f"at least {_LEAST_CORRELATION:g}, "
        f"or less likely by {_LEAST_LEAD:g} deviations",
        agreement >= _LEAST_CORRELATION or lead > _LEAST_LEAD,
        {
            "correlation": agreement,
            "least_correlation": _LEAST_CORRELATION,
            "lower_by": lower_by.value,
            "deviation": lower_by.deviation,
            "lead_in_deviations": lead,
            "least_lead_in_deviations": _LEAST_LEAD,
        },
    )


def _agreement(
    first: RunState, second: RunState, settings: Settings
) -> tuple[float, NDArray[np.float64]]:
    """Correlation and FSC of the maps of two runs, the second aligned to the first."""
    reference, moving = (
        basis_of(state, settings).evaluate(state.volume_coefficients)
        for state in (first, second)
    )
    aligned = align(moving, reference)
    return aligned.correlation, fourier_shell_correlation(reference, aligned.volume)
