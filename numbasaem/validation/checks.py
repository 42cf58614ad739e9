"""Questions to data and control, and what it takes to pass each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.assessment.alignment import align
from numbasaem.assessment.fsc import correlation, fourier_shell_correlation
from numbasaem.reconstruction.current_stage import basis_of
from numbasaem.reconstruction.result import HALVES, RUNS

from .evidence import Mean, evidence_of_groups, held_out_evidence, mean_of
from .memory_of_start import first_volumes, shape, shape_of_map
from .outcome import Check
from .strength import scatter_of_strength

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.observations.protocol import Observations
    from numbasaem.reconstruction.state import RunState
    from numbasaem.settings import Settings

_LEAST_LEAD = 5.0
"""Least lead of the data on noise, in standard deviations, that is no chance."""
_LEAST_CORRELATION = 0.5
"""Least correlation of half maps, and of maps from starts that are as likely."""
_LEAST_SCATTER = 0.5
"""Least scatter of strength, over what noise demands, of what was not selected."""
_NO_CHANCE = 1e-5
"""Probability below which a scatter as low is no chance."""
_STRIDE = 4
"""One observation of so many is asked first."""
_CLEAR = 2.0
"""Leads, in units of the least that is asked for, beyond which no more are asked."""
_NOTHING = Mean(0.0, 0.0)
"""Evidence of white noise, above which all evidence is counted."""


@dataclass(frozen=True)
class Sample:
    """Two halves of the data, or of the control, and the runs on them.

    Attributes
    ----------
    halves : tuple of Observations
        The halves.
    runs : mapping of str to RunState
        Last states of runs by name: "half1" at least.
    settings : Settings
        Settings of these runs.
    """

    halves: tuple[Observations, ...]
    runs: Mapping[str, RunState]
    settings: Settings

    @property
    def has_both_halves(self) -> bool:
        """Whether there is a run on each half."""
        return all(half in self.runs for half in HALVES)

    @cached_property
    def agreement_of_halves(self) -> tuple[float, NDArray[np.float64]]:
        """Correlation and FSC of both half maps, the second aligned to the first."""
        first, second = (self.runs[half] for half in HALVES)
        return _agreement(first, second, self.settings)


def checks_of(
    data: Sample,
    noise: Sample,
    other: RunState | None,
    on_progress: OnProgress,
    *,
    thorough: bool,
) -> tuple[Check, ...]:
    """Ask all questions.

    Parameters
    ----------
    data, noise : Sample
        Data with runs on both halves, and the control.
    other : RunState or None
        Another run on all data, from another start; it is asked about if it is there.
    on_progress : callable
        Called with what is being done and the share of it that is done.
    thorough : bool
        Ask all data and all of the control; else as much as it takes.

    Returns
    -------
    tuple of Check
        Questions and answers.
    """
    checks = [
        *_data_are_ahead(data, noise, on_progress, thorough),
        _halves_agree(data, noise),
        _strengths_differ(data, 1 if thorough else _STRIDE),
    ]
    if data.settings.start == "random":
        checks.append(_start_forgotten(data, noise))
    if other is not None:
        checks.append(_starts_agree(data, other))
    return tuple(checks)


def _data_are_ahead(
    data: Sample, noise: Sample, on_progress: OnProgress, thorough: bool
) -> list[Check]:
    """Checks of held-out evidence: beside the control, and under the very same maps.

    A part of the data will do where the outcome is beyond doubt. What is in doubt is
    for all data to decide.
    """
    checks: list[Check] = []
    for stride in (1,) if thorough else (_STRIDE, 1):
        on_progress("asking the data", 0.0)
        evidence = _held_out_evidence(data, data, stride)
        on_progress("asking the data", 0.3)
        of_noise = _held_out_evidence(noise, noise, stride)
        on_progress("asking the data", 0.6)
        by_chance = _held_out_evidence(data, noise, stride)
        checks = [
            _ahead("held-out evidence", evidence, of_noise),
            _ahead("picks above chance", evidence, by_chance),
        ]
        leads = [check.figures["lead_in_deviations"] for check in checks]
        if min(leads) > _CLEAR * _LEAST_LEAD:
            break
    return checks


def _held_out_evidence(maps: Sample, asked: Sample, stride: int) -> Mean:
    """Evidence of halves of a sample for the maps of the other halves of a sample."""
    return held_out_evidence(maps.runs, asked.halves, maps.settings, stride)


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


def _halves_agree(data: Sample, noise: Sample) -> Check:
    """Check that the half maps correlate; those of the control are for comparison."""
    in_data, _ = data.agreement_of_halves
    found, figures = f"{in_data:.3f}", {"correlation": in_data}
    if noise.has_both_halves:
        in_noise, _ = noise.agreement_of_halves
        found += f", in noise {in_noise:.3f}"
        figures["correlation_in_noise"] = in_noise
    return Check(
        "half maps, correlation after alignment",
        found,
        f"at least {_LEAST_CORRELATION:g}",
        in_data >= _LEAST_CORRELATION,
        figures | {"least_correlation": _LEAST_CORRELATION},
    )


def _strengths_differ(data: Sample, stride: int) -> Check:
    """Check that particles differ in strength, as in noise they must."""
    scatter = scatter_of_strength(data.runs, data.halves, data.settings, stride)
    return Check(
        "scatter of the particles' strength, over what noise demands",
        f"{scatter.ratio:.2f}, as low by chance {scatter.chance:.2g}",
        f"at least {_LEAST_SCATTER:g}, or no less by chance than {_NO_CHANCE:g}",
        scatter.ratio >= _LEAST_SCATTER or scatter.chance > _NO_CHANCE,
        {
            "ratio": scatter.ratio,
            "chance": scatter.chance,
            "least_ratio": _LEAST_SCATTER,
            "least_chance": _NO_CHANCE,
        },
    )


def _start_forgotten(data: Sample, noise: Sample) -> Check:
    """Check that maps agree with one another more than any with its own start."""
    agreement, memory = _agreement_and_memory(data)
    found = f"{agreement:.3f}, of a map with its own start up to {memory:.3f}"
    figures = {"correlation": agreement, "correlation_with_own_start": memory}
    if noise.has_both_halves:
        in_noise, memory_in_noise = _agreement_and_memory(noise)
        found += f"; in noise {in_noise:.3f} and {memory_in_noise:.3f}"
        figures["correlation_in_noise"] = in_noise
        figures["correlation_with_own_start_in_noise"] = memory_in_noise
    return Check(
        "memory of the start, least correlation of maps from different starts",
        found,
        "higher than that of any map with its own start",
        agreement > memory,
        figures,
    )


def _agreement_and_memory(sample: Sample) -> tuple[float, float]:
    """Least agreement of shapes from different starts; most of one with its start."""
    settings = sample.settings
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


def _starts_agree(data: Sample, other: RunState) -> Check:
    """Check that another start finds the same map, or one that is less likely."""
    settings = data.settings
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
