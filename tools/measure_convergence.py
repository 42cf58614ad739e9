"""Count the random starts that arrive where a start at the truth does.

    python tools/measure_convergence.py shepp-logan 1QLQ.pdb random --snr 3.5,1

For each molecule and signal-to-noise ratio, one micrograph of separated particles. The
log-likelihood is per patch, of every second patch, less that of no particle anywhere;
a start arrives if it ends within 1 % of the run that begins at the truth.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from problems import timed

from numbasaem.aliases import no_progress
from numbasaem.assessment.alignment import evaluate_against
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.io.atomic_models import load_volume
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_data import load_patches
from numbasaem.observations.patch_expectation import expectation
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.starts import random_start
from numbasaem.settings import Settings
from numbasaem.simulation.scene import Simulation, simulate
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.basis import VolumeBasis

SIZE = 11
ARRIVED = 0.01
"""Largest share of the truth's log-likelihood that a start may lack to have arrived."""


@dataclass(frozen=True)
class Arrival:
    """End of a run.

    Attributes
    ----------
    log_likelihood : float
        Log-likelihood per patch, less that of no particle anywhere.
    correlation : float
        Correlation with the truth, aligned.
    shells : float64, shape (L // 2 + 1,)
        FSC with the truth.
    seconds : float
        Wall time of the run.
    """

    log_likelihood: float
    correlation: float
    shells: NDArray[np.float64]
    seconds: float

    def __str__(self) -> str:
        """Word the end of a line."""
        shells = " ".join(f"{value:.2f}" for value in self.shells)
        return (
            f"log-likelihood {self.log_likelihood:.4f}  "
            f"correlation {self.correlation:.3f}  FSC {shells}  {self.seconds:.0f} s"
        )


class Landscape:
    """A simulated micrograph whose likelihood runs climb.

    Parameters
    ----------
    simulation : Simulation
        The micrograph and what is in it.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        patches = cut_patches(simulation.micrographs[0], SIZE)[::2]
        self._patches = np.ascontiguousarray(patches, np.float32)

    def from_random(self, settings: Settings) -> Arrival:
        """Climb from a random start."""
        result, seconds = timed(
            lambda: reconstruct(self.simulation.micrographs, settings)
        )
        return self._judged(
            result.basis, result.volume_coefficients, result.shift_prior, seconds
        )

    def from_truth(self, settings: Settings) -> Arrival:
        """Climb from the truth, at the last stage's degree."""
        last = {"ell_max": settings.degrees[-1:], "iterations": (20,)}
        plan = settings.changed(**last)
        basis = VolumeBasis(SIZE, plan.degrees[0])
        data = load_patches(self.simulation.micrographs, plan, no_progress)
        patches = data.part(None, None)
        state = random_start(patches, plan, 0, 0)
        state.volume_coefficients = basis.expand(self.simulation.volume_true)
        state.noise_variance = self.simulation.noise_variance
        march = iterations(state, patches, plan, 1, no_progress)
        _, seconds = timed(lambda: deque(march, maxlen=0))
        return self._judged(
            basis, state.volume_coefficients, state.shift_prior, seconds
        )

    def _judged(
        self,
        basis: VolumeBasis,
        coefficients: NDArray[np.float64],
        shift_prior: NDArray[np.float64],
        seconds: float,
    ) -> Arrival:
        """Likelihood at the true noise variance, and likeness to the truth."""
        rotations = rotation_grid(Settings(size=SIZE).schedule[-1].n_rotations)
        images = ProjectionOperator(basis, rotations).project(coefficients)
        variance = self.simulation.noise_variance
        statistics = expectation(self._patches, images, shift_prior, variance)
        energy = np.mean(np.square(self._patches, dtype=np.float64)) * SIZE**2
        empty = -(SIZE**2 * np.log(2 * np.pi * variance) + energy / variance) / 2
        comparison = evaluate_against(
            basis.evaluate(coefficients), self.simulation.volume_true
        )
        return Arrival(
            log_likelihood=statistics.log_likelihood / statistics.n_patches
            - float(empty),
            correlation=comparison.correlation,
            shells=comparison.fsc,
            seconds=seconds,
        )


def molecule(name: str) -> NDArray[np.floating]:
    """Load a volume by its name, or draw one of random coefficients."""
    if name != "random":
        return load_volume(name, SIZE)[0]
    basis = VolumeBasis(SIZE, 10)
    coefficients = np.random.default_rng(0).standard_normal(basis.n_coefficients)
    return basis.evaluate(coefficients)


def study(name: str, snr: float, options: argparse.Namespace) -> None:
    """Print the results of the starts of one molecule."""
    plan = SimulationSettings(size=SIZE, pixels=options.pixels, snr=snr)
    landscape = Landscape(simulate(molecule(name), plan))
    asked = {
        "iterations": options.iterations,
        "batch_fraction": options.batch_fraction,
    }
    settings = Settings(
        size=SIZE,
        starts=options.starts,
        halves=False,
        **{name: value for name, value in asked.items() if value is not None},
    )
    truth = landscape.from_truth(settings)
    print(f"{name}  SNR {snr:g}  from the truth  {truth}", flush=True)
    arrived = 0
    for seed in range(options.seeds):
        arrival = landscape.from_random(settings.model_copy(update={"seed": seed}))
        arrived += arrival.log_likelihood >= truth.log_likelihood * (1 - ARRIVED)
        print(f"{name}  SNR {snr:g}  seed {seed}  {arrival}", flush=True)
    print(f"{name}  SNR {snr:g}  arrived {arrived} of {options.seeds}", flush=True)


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers that commas separate."""
    return tuple(int(word) for word in text.split(","))


def main(arguments: Sequence[str] | None = None) -> None:
    """Study every molecule at every signal-to-noise ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "volumes", nargs="+", help="maps, structures, shepp-logan or random"
    )
    parser.add_argument("--snr", default="3.5,1,0.5,0.25")
    parser.add_argument("--seeds", type=int, default=10, help="random starts each")
    parser.add_argument("--starts", type=int, default=4, help="tried within each")
    parser.add_argument("--pixels", type=int, default=2992)
    parser.add_argument("--iterations", type=numbers)
    parser.add_argument("--batch-fraction", type=float)
    options = parser.parse_args(arguments)
    for name in options.volumes:
        for snr in options.snr.split(","):
            study(name, float(snr), options)


if __name__ == "__main__":
    main()
