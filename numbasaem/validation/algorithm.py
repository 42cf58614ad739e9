"""Reconstructions that tell whether a structure is supported, and what they say.

Half maps of a small box agree even where there is nothing to agree on: two halves of
pure noise correlated to between 0.48 and 0.69 once aligned, in ten trials at L = 7.
What noise cannot do is be foretold. So the judge here is data that the map has not
seen: each half of the patches under the map of the other half, against white noise; and
beside it a control that is noise with the spectrum, the pixel values and the unevenness
of the micrographs and without particles, taken through the same pipeline.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numbasaem.aliases import PathLike, no_progress
from numbasaem.errors import expected
from numbasaem.io import written_whole
from numbasaem.micrographs.reading import file_of_source
from numbasaem.observations.models import observation_model
from numbasaem.random_streams import Stream, random_stream
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.driver import Callbacks, run_all
from numbasaem.reconstruction.journal import VALIDATION, Journal, refuse_other_sources
from numbasaem.reconstruction.memory import limit_threads_to_memory
from numbasaem.reconstruction.result import HALVES, RUNS
from numbasaem.reconstruction.state import RunPlace
from numbasaem.settings import Settings
from numbasaem.settings_file import read_settings

from .checks import Sample, checks_of
from .control import noise_like
from .omission import ITERATIONS, N_BALLS, omit_in_turn
from .outcome import Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Client

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.reading import Input
    from numbasaem.micrographs.sources import MicrographFile
    from numbasaem.observations.protocol import DataSet, Observations
    from numbasaem.reconstruction.state import Iteration, RunState

    from .omission import Omission

_ENVELOPE_REACH = 4
"""Sides of a patch over which the power of a micrograph is taken to vary."""
_BRIEF = 10
"""Most iterations of a stage on the control, unless all is to be thorough."""


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

    Reconstructs half maps if the run has none, and a half map of the control, in no
    more than ten iterations a stage; if it is to be thorough, both half maps of the
    control and the whole once more from other random numbers. Then

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
    scatter of strength
        is how much particles differ in strength. In noise they have to; windows that a
        template picked from noise are all as strong as the choice demands. It takes
        many observations, and a few cannot fail;
    memory of the start
        is the correlation of each map with the random volume that its run began from,
        as they lie. On noise EM keeps the phases of its start for ever, so maps from
        different starts have to agree with one another more than any does with its own.

    It does not ask whether all particles are of one molecule: the average of a mixture
    foretells others of the mixture.

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
        Reconstruct both half maps of the control as the data's, ask all data, and
        reconstruct the whole once more and ask about that start: three times as long.
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
    of_noise = tuple(control.part(half, settings.threads) for half in halves)
    known = {name: runs[name] for name in RUNS if name in runs}
    sample = Sample(parts, known, settings)
    if not settings.halves:
        sample = replace(sample, runs={**known, **work.halves(parts)})
    noise = work.control(of_noise, sample)
    other = work.again(data.part(None, settings.threads)) if thorough else None
    checks = checks_of(sample, noise, other, progress, thorough=thorough)
    _, fsc = sample.agreement_of_halves
    control_fsc = noise.agreement_of_halves[1] if thorough else None
    omissions = work.omissions(sample) if omit else ()
    validation = Validation(checks, fsc, control_fsc, omissions)
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
        self._thorough = thorough
        n_runs = (0 if settings.halves else 2) + (3 if thorough else 1)
        self._total = n_runs * settings.iterations_per_run
        self._total += N_BALLS * ITERATIONS if omit else 0
        self._done = 0

    def halves(self, halves: tuple[Observations, ...]) -> dict[str, RunState]:
        """Both half runs on the data."""
        return self._run(dict(zip(HALVES, halves, strict=True)), self._settings, "")

    def control(self, halves: tuple[Observations, ...], data: Sample) -> Sample:
        """Run on the first half of the control; a thorough validation has both.

        A brief one takes it through the stages of the data's run, but not to the end of
        each: noise gains a little for long. It always begins at random, since noise
        around zero has no autocorrelations to begin with.
        """
        parts = dict(zip(HALVES, halves, strict=True))
        settings = self._settings.changed(start="random")
        if not self._thorough:
            first, _ = HALVES
            parts = {first: parts[first]}
            n_searched = len(self._settings.search)
            march = self._settings.schedule[n_searched : data.runs[first].stage + 1]
            settings = settings.changed(
                ell_max=tuple(stage.ell_max for stage in march),
                iterations=tuple(min(stage.n_iterations, _BRIEF) for stage in march),
                rotations=tuple(stage.n_rotations for stage in march),
            )
        return Sample(halves, self._run(parts, settings, "noise "), settings)

    def again(self, data: Observations) -> RunState:
        """Another run on all data, from other random numbers."""
        reseeded = self._settings.changed(seed=self._settings.seed + 1)
        return self._run({"full": data}, reseeded, "again ")["full"]

    def omissions(self, sample: Sample) -> tuple[Omission, ...]:
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
