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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from numbasaem.aliases import PathLike, no_progress
from numbasaem.assessment.alignment import align
from numbasaem.assessment.fsc import fourier_shell_correlation
from numbasaem.errors import expected
from numbasaem.io import written_whole
from numbasaem.micrographs.reading import file_of_source, load_patches, load_windows
from numbasaem.random_streams import Stream, random_stream
from numbasaem.reconstruction.checkpoint import (
    VALIDATION,
    Journal,
    load_checkpoint,
    refuse_other_sources,
)
from numbasaem.reconstruction.driver import HALVES, Watch, take_to_the_end
from numbasaem.reconstruction.iterate import projections_as_seen, rotation_prior
from numbasaem.settings import Settings
from numbasaem.volume.basis import VolumeBasis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.reading import PatchSet, WindowSet
    from numbasaem.observations.protocol import Observations
    from numbasaem.reconstruction.checkpoint import Iteration, RunState

_GROUPS = 20
"""Of patches, for the standard deviation of a mean over them."""
_ENVELOPE_REACH = 4
"""In patches, over which the power of a micrograph is taken to vary."""
_SURROGATE_ITERATIONS = 20
_SURE = 5.0
"""Standard deviations by which the data have to be ahead of noise."""
_LEAST_CORRELATION = 0.5
"""Of half maps, and of maps from starts that arrive at the same likelihood."""


@dataclass(frozen=True)
class Mean:
    """A mean over patches and its standard deviation."""

    value: float
    deviation: float

    def __str__(self) -> str:
        """Both in words."""
        return f"{self.value:.4f} +- {self.deviation:.4f}"

    def ahead_of(self, other: Mean) -> float:
        """Difference to another mean in standard deviations."""
        spread = float(np.hypot(self.deviation, other.deviation))
        return (self.value - other.value) / max(spread, np.finfo(float).tiny)


@dataclass(frozen=True)
class Check:
    """One question to the data.

    Attributes
    ----------
    question : str
        What was asked.
    found, wanted : str
        The answer, and what it takes to pass.
    passed : bool
        Whether it does.
    figures : dict of str to float
        The numbers in them, by name.
    """

    question: str
    found: str
    wanted: str
    passed: bool
    figures: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """Put question, outcome and figures as JSON can hold them."""
        figures = {name: _finite(value) for name, value in self.figures.items()}
        return {"question": self.question, "passed": self.passed, **figures}


@dataclass(frozen=True)
class Validation:
    """What the data say to a structure.

    Attributes
    ----------
    checks : tuple of Check
        All of them.
    fsc, control_fsc : float64, shape (L // 2 + 1,)
        Fourier shell correlation of the half maps, and of those of the control.

    Examples
    --------
    >>> check = Check("half maps, correlation", "0.41", "at least 0.5", passed=False)
    >>> Validation((check,), np.ones(4), np.zeros(4)).verdict
    'not supported'
    """

    checks: tuple[Check, ...]
    fsc: NDArray[np.float64]
    control_fsc: NDArray[np.float64]

    @property
    def verdict(self) -> str:
        """Verdict: "supported" if every check is passed, else "not supported"."""
        passed = all(check.passed for check in self.checks)
        return "supported" if passed else "not supported"

    def record(self) -> dict[str, object]:
        """Put verdict and figures as JSON can hold them."""
        return {
            "verdict": self.verdict,
            "checks": [check.record() for check in self.checks],
            "fsc": [_finite(value) for value in self.fsc],
            "control_fsc": [_finite(value) for value in self.control_fsc],
        }


@dataclass(frozen=True)
class _Sample:
    """Two halves of the data and the runs on them."""

    halves: tuple[Observations, ...]
    runs: Mapping[str, RunState]


def validate(
    folder: PathLike,
    *,
    threads: int | None = None,
    on_iteration: Callable[[Iteration], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Validation:
    """Ask the data whether they support the structure of a finished reconstruction.

    Reconstructs half maps if the run has none, half maps of the control, and the whole
    once more from other random numbers; then

    held-out evidence
        is the log-likelihood per patch of each half under the other half's map, above
        that of white noise, and it has to exceed zero and the control's;
    picks above chance
        is the same beside the control under the very same maps: the likelihood ratio
        that picks rest on has to be higher in the data than in noise like
        them. (How sure single picks look tells little: at high SNR such noise is
        picked with as much confidence.)
    half maps, starts
        are correlations after alignment.

    Parameters
    ----------
    folder : path-like
        Output folder of a reconstruction from files. `validation.json` is written
        there.
    threads : int, optional
        Threads to run on; as the reconstruction if left out.
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
        If the run has not ended, or its micrographs are gone or no longer the same.

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
    settings = Settings(**(description["settings"] | {"threads": threads}))
    if "full" not in runs or not (place / "volume.mrc").exists():
        raise expected(place, "a run that has ended", "no volume.mrc")
    data, control = _data_and_control(place, description["sources"], settings, progress)
    work = _Work(settings, on_iteration, progress)
    seen = data.halves(settings.seed)
    sample = _Sample(
        tuple(data.part(half, settings.threads) for half in seen),
        {name: runs[name] for name in ("full", *HALVES) if name in runs},
    )
    noise = _Sample(tuple(control.part(half, settings.threads) for half in seen), {})
    if not settings.halves:
        sample = replace(sample, runs={**sample.runs, **work.halves(sample, "")})
    noise = replace(noise, runs=work.halves(noise, "noise "))
    other = work.again(data.part(None, settings.threads))
    checks, fsc, control_fsc = _checks(sample, noise, other, settings, progress)
    result = Validation(checks, fsc, control_fsc)
    with written_whole(place / VALIDATION) as part:
        part.write_text(json.dumps(result.record(), indent=1) + "\n", encoding="utf-8")
    return result


def noise_like(
    pixels: NDArray[np.floating], reach: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Noise with spectrum, pixel values and unevenness of a micrograph.

    Even Gaussian noise of the same spectrum would be no control: noise that is stronger
    in some places, or has hot pixels, is better foretold than such noise, molecules or
    none. So the micrograph is evened, its spectrum and its pixel values are imposed in
    turn on its shuffled pixels (iterated amplitude-adjusted surrogates, Schreiber and
    Schmitz, Phys. Rev. Lett. 77, 635, 1996), and the result is made uneven again.

    Parameters
    ----------
    pixels : array, shape (rows, columns)
        Micrograph. What its particles add to spectrum and values stays.
    reach : float
        Standard deviation, pixels, of the Gaussian in which strength is averaged.
    generator : numpy.random.Generator
        Shuffles the pixels.

    Returns
    -------
    float32, shape (rows, columns)
        Noise around zero.
    """
    centred = pixels - pixels.mean(dtype=np.float64)
    strength = np.sqrt(gaussian_filter(centred**2, reach))
    strength = np.maximum(strength, np.finfo(np.float32).tiny)
    evened = centred / strength
    amplitudes = np.abs(fft.rfft2(evened))
    values = np.sort(evened, axis=None)
    noise = generator.permuted(evened.ravel()).reshape(evened.shape)
    for _ in range(_SURROGATE_ITERATIONS):
        spectrum = fft.rfft2(noise)
        spectrum *= amplitudes / np.maximum(np.abs(spectrum), np.finfo(float).tiny)
        filtered = fft.irfft2(spectrum, evened.shape)
        noise.ravel()[np.argsort(filtered, axis=None)] = values
    return (strength * noise).astype(np.float32)


class _Work:
    """Reconstructions that a validation needs, as the run would do them."""

    def __init__(
        self,
        settings: Settings,
        on_iteration: Callable[[Iteration], None] | None,
        on_progress: OnProgress,
    ) -> None:
        self._settings = settings
        self._on_iteration = on_iteration
        self._on_progress = on_progress
        n_runs = 3 if settings.halves else 5
        self._total = n_runs * settings.iterations_per_run
        self._done = 0

    def halves(self, sample: _Sample, prefix: str) -> dict[str, RunState]:
        """Both half runs on a sample."""
        parts = dict(zip(HALVES, sample.halves, strict=True))
        return self._run(parts, self._settings, prefix)

    def again(self, data: Observations) -> RunState:
        """Another run on all data, from other random numbers."""
        other = self._settings.changed(seed=self._settings.seed + 1)
        return self._run({"full": data}, other, "again ")["full"]

    def _run(
        self, parts: dict[str, Observations], settings: Settings, prefix: str
    ) -> dict[str, RunState]:
        def tell(row: Iteration) -> None:
            if self._on_iteration is not None:
                n_done, run = before + row.total_done, prefix + row.run
                told = replace(row, run=run, total_done=n_done, total=self._total)
                self._on_iteration(told)

        before = self._done
        journal = Journal(None, False, {})
        take_to_the_end(journal, parts, settings, Watch(tell, self._on_progress))
        self._done += len(parts) * settings.iterations_per_run
        return journal.runs


def _data_and_control(
    folder: Path,
    sources: list[dict[str, object]],
    settings: Settings,
    on_progress: OnProgress,
) -> tuple[PatchSet | WindowSet, PatchSet | WindowSet]:
    """Data of the run's micrographs, and of noise like them."""
    if settings.pixel_size is None and "pixel_size" in sources[0]:
        settings = settings.changed(pixel_size=sources[0]["pixel_size"])
    reach = _ENVELOPE_REACH * settings.size
    files = [file_of_source(source) for source in sources]
    load = load_windows if settings.model == "window" else load_patches
    data = load(files, settings, on_progress)
    refuse_other_sources(folder / "run.h5", sources, data.sources)
    generator = random_stream(settings.seed, Stream.CONTROL)
    control = load(
        files,
        settings,
        on_progress,
        lambda pixels: noise_like(pixels, reach, generator),
    )
    return data, control


def _checks(
    data: _Sample,
    noise: _Sample,
    other: RunState,
    settings: Settings,
    on_progress: OnProgress,
) -> tuple[tuple[Check, ...], NDArray[np.float64], NDArray[np.float64]]:
    """All checks, and the FSC of the half maps of data and control."""
    on_progress("asking the data", 0.0)
    evidence = _held_out_evidence(data.runs, data.halves, settings)
    of_noise = _held_out_evidence(noise.runs, noise.halves, settings)
    by_chance = _held_out_evidence(data.runs, noise.halves, settings)
    on_progress("asking the data", 0.6)
    halves, fsc = _agreement(data.runs["half1"], data.runs["half2"], settings)
    of_control, control_fsc = _agreement(
        noise.runs["half1"], noise.runs["half2"], settings
    )
    checks = (
        _ahead("held-out evidence", evidence, of_noise),
        _ahead("picks above chance", evidence, by_chance),
        Check(
            "half maps, correlation after alignment",
            f"{halves:.3f}, in noise {of_control:.3f}",
            f"at least {_LEAST_CORRELATION:g}",
            halves >= _LEAST_CORRELATION,
            {
                "correlation": halves,
                "correlation_in_noise": of_control,
                "least_correlation": _LEAST_CORRELATION,
            },
        ),
        _starts_agree(data, other, settings),
    )
    return checks, fsc, control_fsc


def _ahead(question: str, found: Mean, in_noise: Mean) -> Check:
    """Check that held-out data are ahead of white noise and of the control."""
    lead = min(found.ahead_of(in_noise), found.ahead_of(Mean(0.0, 0.0)))
    return Check(
        f"{question}, log-likelihood per patch above white noise",
        f"{found}, in noise {in_noise}, ahead by {lead:.1f} deviations",
        f"ahead of noise and of zero by {_SURE:g} deviations",
        lead > _SURE,
        {
            "evidence": found.value,
            "deviation": found.deviation,
            "evidence_in_noise": in_noise.value,
            "deviation_in_noise": in_noise.deviation,
            "lead_in_deviations": lead,
            "least_lead_in_deviations": _SURE,
        },
    )


def _starts_agree(data: _Sample, other: RunState, settings: Settings) -> Check:
    """Check that another start finds the same map, or one that is less likely."""
    full = data.runs["full"]
    correlation, _ = _agreement(full, other, settings)
    lead = _mean(
        np.concatenate(
            [
                _evidence(full, half, settings) - _evidence(other, half, settings)
                for half in data.halves
            ]
        )
    )
    less_likely = lead.ahead_of(Mean(0.0, 0.0)) > _SURE
    return Check(
        "another start, correlation after alignment",
        f"{correlation:.3f}, log-likelihood per patch lower by {lead}",
        f"at least {_LEAST_CORRELATION:g}, or less likely by {_SURE:g} deviations",
        correlation >= _LEAST_CORRELATION or less_likely,
        {
            "correlation": correlation,
            "least_correlation": _LEAST_CORRELATION,
            "lower_by": lead.value,
            "deviation": lead.deviation,
            "lead_in_deviations": lead.ahead_of(Mean(0.0, 0.0)),
            "least_lead_in_deviations": _SURE,
        },
    )


def _held_out_evidence(
    runs: Mapping[str, RunState],
    halves: tuple[Observations, ...],
    settings: Settings,
) -> Mean:
    """Evidence of each half of the data for the map of the other half."""
    return _mean(
        np.concatenate(
            [
                _evidence(runs[of_map], half, settings)
                for of_map, half in zip(HALVES, halves[::-1], strict=True)
            ]
        )
    )


def _finite(value: float) -> float | None:
    """Number as JSON can hold it; None if it is infinite or none at all."""
    return float(value) if np.isfinite(value) else None


def _mean(values: NDArray[np.float64]) -> Mean:
    return Mean(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def _evidence(
    state: RunState, data: Observations, settings: Settings
) -> NDArray[np.float64]:
    """Log-likelihood per patch above the likeliest white noise, of groups."""
    stage = settings.schedule[state.stage]
    basis = VolumeBasis(settings.size, stage.ell_max)
    operator = projections_as_seen(basis, stage.n_rotations, data)
    images = operator.project(state.volume_coefficients)
    hypotheses = images, state.shift_prior, state.noise_variance
    views = rotation_prior(state, settings)
    found = [
        data.expectation(group, *hypotheses, views)
        for group in np.array_split(np.arange(len(data)), min(_GROUPS, len(data)))
    ]
    n_pixels = np.array([one.n_patches for one in found]) * settings.size**2
    energy = np.array([one.patch_energy for one in found])
    variance = energy.sum() / n_pixels.sum()
    white = -(energy / variance + n_pixels * np.log(2 * np.pi * variance)) / 2
    evidence = np.array([one.log_likelihood for one in found]) - white
    return np.asarray(evidence * settings.size**2 / n_pixels)


def _agreement(
    one: RunState, other: RunState, settings: Settings
) -> tuple[float, NDArray[np.float64]]:
    """Correlation and FSC of the maps of two runs, the second aligned to the first."""
    basis = VolumeBasis(settings.size, settings.ell_max[-1])
    first, second = (basis.evaluate(s.volume_coefficients) for s in (one, other))
    found = align(second, first)
    return found.correlation, fourier_shell_correlation(first, found.volume)
