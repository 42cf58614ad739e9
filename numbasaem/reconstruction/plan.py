"""What a reconstruction will do and how long it will take, before it begins."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.schedule import starts_in_search
from numbasaem.volume.basis import VolumeBasis

from .minibatches import n_chosen
from .normal_equations import normal_equations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numbasaem.observations.protocol import DataSet, Observations
    from numbasaem.settings import Settings

    from .memory import MemoryPlan

_TRIAL_PATCHES = 1024
"""Number of patches whose E-step is timed."""


@dataclass(frozen=True)
class Plan:
    """What a reconstruction will do.

    Attributes
    ----------
    n_micrographs, n_patches : int
        Number of micrographs, and of patches cut from them.
    size : int
        L, side of a patch, pixels.
    n_rotations : int
        K, rotations that the posterior runs over in the last stage.
    angle_step_degrees : float
        Step between them, degrees.
    n_runs : int
        1, or 3 with half maps.
    n_iterations : int
        Largest number of iterations that are left, over all runs.
    memory_bytes : int
        Peak memory of the program.
    seconds : float
        Expected wall time of those iterations, by a short trial.
    """

    n_micrographs: int
    n_patches: int
    size: int
    n_rotations: int
    angle_step_degrees: float
    n_runs: int
    n_iterations: int
    memory_bytes: int
    seconds: float

    def __str__(self) -> str:
        """Put the plan in one line."""
        plural = "" if self.n_micrographs == 1 else "s"
        runs = "" if self.n_runs == 1 else f" in {self.n_runs} runs"
        return (
            f"{self.n_micrographs} micrograph{plural}, {self.n_patches} patches of "
            f"{self.size} x {self.size} pixels, {self.n_rotations} rotations "
            f"{self.angle_step_degrees:.0f} degrees apart, "
            f"{self.n_iterations} iterations{runs} at most; "
            f"{self.memory_bytes / 1e9:.2f} GB at most, "
            f"about {timedelta(seconds=round(self.seconds))} by a trial"
        )


def make_plan(
    data: DataSet,
    parts: Mapping[str, Observations],
    settings: Settings,
    n_done: int,
    memory: MemoryPlan,
) -> Plan:
    """Count the work and time a little of it.

    Parameters
    ----------
    data : DataSet
        All patches.
    parts : mapping of str to Observations
        Data of each run.
    settings : Settings
        Settings of the reconstruction.
    n_done : int
        Iterations that an earlier call has done.
    memory : MemoryPlan
        Memory of the reconstruction.

    Returns
    -------
    Plan
        The plan. Making it takes a few seconds: those of an iteration or two.
    """
    n_total = len(parts) * settings.iterations_per_run
    trials = {
        kind: _trial(parts["full"], settings.size, *kind)
        for kind in {(stage.ell_max, stage.n_rotations) for stage in settings.schedule}
    }
    searched = starts_in_search(settings.starts, len(settings.search))
    runs_in_stage = (*searched, *[1] * len(settings.march))
    seconds = 0.0
    for n_runs, stage in zip(runs_in_stage, settings.schedule, strict=True):
        per_observation, per_iteration = trials[stage.ell_max, stage.n_rotations]
        for part in parts.values():
            n_seen = n_chosen(settings, len(part), part.patches_each)
            once = n_seen * per_observation + per_iteration
            seconds += n_runs * stage.n_iterations * once
    n_left = max(n_total - n_done, 0)
    views = ViewGrid(settings.schedule[-1].n_rotations)
    return Plan(
        n_micrographs=data.n_micrographs,
        n_patches=round(len(parts["full"]) * parts["full"].patches_each),
        size=settings.size,
        n_rotations=len(views),
        angle_step_degrees=views.angle_step_degrees,
        n_runs=len(parts),
        n_iterations=n_left,
        memory_bytes=memory.total,
        seconds=seconds * n_left / n_total,
    )


def _trial(
    data: Observations, size: int, ell_max: int, n_rotations: int
) -> tuple[float, float]:
    """Seconds that an iteration takes for each observation, and besides."""
    operator = data.projections(VolumeBasis(size, ell_max), ViewGrid(n_rotations))
    n_timed = min(len(data), math.ceil(_TRIAL_PATCHES / data.patches_each))
    coefficients = np.random.default_rng(0).standard_normal(
        operator.basis.n_coefficients
    )
    prior = uniform_shift_prior(size, 0.5)

    def seconds(n_observations: int) -> float:
        began = time.perf_counter()
        volume = coefficients * np.sqrt(
            data.variance / operator.mean_power(coefficients)
        )
        hypotheses = Hypotheses(operator, volume, prior, data.variance)
        statistics = data.expectation(np.arange(n_observations), hypotheses)
        equations = normal_equations(operator, statistics)
        # A prior of that strength: the solution is timed, and never ill conditioned.
        precision = equations.trace / coefficients.size
        equations.with_precision(np.full(coefficients.size, precision)).solve()
        return time.perf_counter() - began

    seconds(1)  # loads compiled code and the like, which is not timed
    least = seconds(1)
    per_observation = max(seconds(n_timed) - least, 0.0) / n_timed
    return per_observation, least
