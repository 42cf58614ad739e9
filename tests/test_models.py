"""A third observation model runs through the driver as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp

from numbasaem import Settings, ViewGrid, VolumeBasis, align, rotation_grid
from numbasaem.errors import InputError
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.models import MODELS, observation_model
from numbasaem.observations.patch_data import PatchSet, load_patches
from numbasaem.observations.patch_model import PatchModel
from numbasaem.observations.protocol import DataSet
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.plan import Plan
from numbasaem.volume.phantom import folded_chain

SIZE, NOISE_VARIANCE = 7, 0.05


class CentredPatches:
    """Patches that hold a whole particle, its centre on theirs, or none."""

    patches_each = 1.0

    def __init__(self, patches: NDArray[np.float32]) -> None:
        self._patches = patches.astype(np.float64)
        self.variance = float(np.var(self._patches))

    def __len__(self) -> int:
        return len(self._patches)

    def projections(self, basis: VolumeBasis, views: ViewGrid) -> ProjectionOperator:
        return ProjectionOperator(basis, views.rotations)

    def compile(self, operator: Any) -> None:
        """There is nothing to compile."""

    def expectation(
        self,
        chosen: NDArray[np.intp],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None = None,
    ) -> ImageStatistics:
        images, shift_prior, noise_variance, _ = hypotheses.in_images
        patches = self._patches[chosen].reshape(len(chosen), -1)
        templates = images.reshape(len(images), -1)
        n_rotations, size = len(images), images.shape[1]
        views = np.full(n_rotations, 1 / n_rotations)
        occupied = shift_prior[0, 0]
        gains = patches @ templates.T - (templates**2).sum(axis=1) / 2
        log_weights = gains / noise_variance + np.log(occupied * views)
        table = np.column_stack(
            [np.full(len(patches), np.log1p(-occupied)), log_weights]
        )
        evidence = logsumexp(table, axis=1)
        posterior = np.exp(table - evidence[:, np.newaxis])
        empty, weights = posterior[:, 0].sum(), posterior[:, 1:]
        shift_mass = np.zeros((2 * size, 2 * size))
        shift_mass[0, 0], shift_mass[size, size] = weights.sum(), empty
        energy = float((patches**2).sum())
        constant = patches.size * math.log(2 * math.pi * noise_variance)
        mass = weights.sum(axis=0)
        return ImageStatistics(
            visible_weight=np.broadcast_to(mass[:, None, None], images.shape).copy(),
            weighted_patch=(weights.T @ patches).reshape(images.shape),
            shift_mass=shift_mass,
            rotation_mass=mass + empty * views,
            log_likelihood=float(
                evidence.sum() - (energy / noise_variance + constant) / 2
            ),
            patch_energy=energy,
            n_patches=len(patches),
        )


@dataclass(frozen=True)
class CentredSet(PatchSet):
    def part(  # type: ignore[override]
        self, chosen: NDArray[np.intp] | None, threads: int | None
    ) -> CentredPatches:
        return CentredPatches(self.patches[slice(None) if chosen is None else chosen])


class CentredModel(PatchModel):
    """Particles never overlap an edge."""

    fastest = 1.8
    held_iterations = 5
    brightest = 10.0

    def load(
        self, inputs: Sequence[Any], settings: Settings, *arguments: Any, **more: Any
    ) -> DataSet:
        return CentredSet(**vars(load_patches(inputs, settings, *arguments[:1])))


def micrograph_of_centred_particles() -> tuple[NDArray[np.float64], VolumeBasis]:
    """Patches side by side, every other one with a particle in its middle."""
    generator = np.random.default_rng(3)
    basis = VolumeBasis(SIZE, 3)
    n_side = 40
    images = basis.project(basis.expand(folded_chain(SIZE)), rotation_grid(n_side**2))
    images *= 1.0 / np.sqrt(np.mean(images**2))
    images *= generator.random(len(images))[:, None, None] < 0.5
    tiles = generator.permutation(images).reshape(n_side, n_side, SIZE, SIZE)
    pixels = tiles.swapaxes(1, 2).reshape(n_side * SIZE, n_side * SIZE)
    noise = generator.standard_normal(pixels.shape)
    return pixels + np.sqrt(NOISE_VARIANCE) * noise, basis


def test_third_model__runs_through_the_unchanged_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODELS, "centred", CentredModel())
    pixels, basis = micrograph_of_centred_particles()
    settings = Settings(
        size=SIZE,
        ell_max=(2, 3),
        iterations=(15, 15),
        rotations=150,
        starts=2,
        level=False,
    ).model_copy(update={"model": "centred"})
    plans: list[Plan] = []
    result = reconstruct([pixels], settings, on_plan=plans.append)
    truth = basis.evaluate(basis.expand(folded_chain(SIZE)))
    assert align(result.volume, truth).correlation > 0.9
    assert result.half_map_correlation is not None
    last = [row for row in result.history if row.run == "full"][-1]
    assert last.empty_fraction == pytest.approx(0.5, abs=0.05)
    (plan,) = plans
    assert plan.n_patches == 1600


def test_unknown_model__is_refused_by_name() -> None:
    with pytest.raises(
        InputError, match="model: expected patch or window, found 'cat'"
    ):
        observation_model("cat")
