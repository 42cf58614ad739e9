"""How many random starts reach the likelihood's summit, against a start at the truth.

    python tools/summit.py shepp-logan 1QLQ.pdb TRPV1_31.mrc random --snr 3.5,1,0.5

For each molecule and signal-to-noise ratio, one micrograph of separated particles. The
log-likelihood is per patch, of every second patch, less that of no particle anywhere;
a start arrives if it ends within 1 % of the run that begins at the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from numbasaem.assessment.alignment import evaluate_against
from numbasaem.io.atomic_models import load_volume
from numbasaem.micrographs.reading import load_patches
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_expectation import expectation
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.iterate import iterations, random_start
from numbasaem.settings import Settings
from numbasaem.simulation.scene import Simulation, SimulationSettings, simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.rotations import rotation_grid

SIZE = 11
ARRIVED = 0.01
"""Of the truth-start's log-likelihood, how far below it a start may end."""


@dataclass(frozen=True)
class Summit:
    """Where a run ended.

    Attributes
    ----------
    log_likelihood : float
        Per patch, less that of no particle anywhere.
    correlation : float
        With the truth, aligned.
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
        """Word it as a line's end."""
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

    def from_random(self, settings: Settings) -> Summit:
        """Climb from a random start."""
        began = time.perf_counter()
        result = reconstruct(self.simulation.micrographs, settings)
        seconds = time.perf_counter() - began
        return self._judged(
            result.basis, result.volume_coefficients, result.shift_prior, seconds
        )

    def from_truth(self, settings: Settings) -> Summit:
        """Climb from the truth, at the last stage's degree."""
        last = {"ell_max": settings.ell_max[-1:], "iterations": (20,)}
        plan = settings.changed(**last)
        basis = VolumeBasis(SIZE, plan.ell_max[0])
        data = load_patches(self.simulation.micrographs, plan, lambda *_: None)
        patches = data.part(None, None)
        state = random_start(patches, plan, 0, 0)
        state.volume_coefficients = basis.expand(self.simulation.volume_true)
        state.noise_variance = self.simulation.noise_variance
        began = time.perf_counter()
        for _ in iterations(state, patches, plan, 1, lambda *_: None):
            pass
        seconds = time.perf_counter() - began
        return self._judged(
            basis, state.volume_coefficients, state.shift_prior, seconds
        )

    def _judged(
        self,
        basis: VolumeBasis,
        coefficients: NDArray[np.float64],
        shift_prior: NDArray[np.float64],
        seconds: float,
    ) -> Summit:
        """Likelihood at the true noise variance, and likeness to the truth."""
        rotations = rotation_grid(Settings(size=SIZE).schedule[-1].n_rotations)
        images = ProjectionOperator(basis, rotations).project(coefficients)
        variance = self.simulation.noise_variance
        found = expectation(self._patches, images, shift_prior, variance)
        energy = np.mean(np.square(self._patches, dtype=np.float64)) * SIZE**2
        nothing = -(SIZE**2 * np.log(2 * np.pi * variance) + energy / variance) / 2
        like = evaluate_against(
            basis.evaluate(coefficients), self.simulation.volume_true
        )
        return Summit(
            log_likelihood=found.log_likelihood / found.n_patches - float(nothing),
            correlation=like.correlation,
            shells=like.fsc,
            seconds=seconds,
        )


def molecule(name: str) -> NDArray[np.floating]:
    """Load a volume by its name, or draw one of random coefficients."""
    if name != "random":
        return load_volume(name, SIZE)[0]
    basis = VolumeBasis(SIZE, 10)
    drawn = np.random.default_rng(0).standard_normal(basis.n_coefficients)
    return basis.evaluate(drawn)


def study(name: str, snr: float, chosen: argparse.Namespace) -> None:
    """Print what the starts of one molecule come to."""
    plan = SimulationSettings(size=SIZE, pixels=chosen.pixels, snr=snr)
    landscape = Landscape(simulate(molecule(name), plan))
    settings = Settings(
        size=SIZE,
        starts=chosen.starts,
        halves=False,
        **({"iterations": chosen.iterations} if chosen.iterations else {}),
        **({"batch_fraction": chosen.batch_fraction} if chosen.batch_fraction else {}),
    )
    truth = landscape.from_truth(settings)
    print(f"{name}  SNR {snr:g}  from the truth  {truth}", flush=True)
    arrived = 0
    for seed in range(chosen.seeds):
        found = landscape.from_random(settings.changed(seed=seed))
        arrived += found.log_likelihood >= truth.log_likelihood * (1 - ARRIVED)
        print(f"{name}  SNR {snr:g}  seed {seed}  {found}", flush=True)
    print(f"{name}  SNR {snr:g}  arrived {arrived} of {chosen.seeds}", flush=True)


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
    chosen = parser.parse_args(arguments)
    for name in chosen.volumes:
        for snr in chosen.snr.split(","):
            study(name, float(snr), chosen)


if __name__ == "__main__":
    main()
