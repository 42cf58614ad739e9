"""How much particles differ in strength: slopes by differences, and selection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.patch_data import Patches
from numbasaem.reconstruction.current_stage import basis_of, grid_of
from numbasaem.reconstruction.iterate import hypotheses_of
from numbasaem.reconstruction.result import HALVES
from numbasaem.reconstruction.starts import random_start
from numbasaem.reconstruction.state import RunState
from numbasaem.settings import Settings
from numbasaem.validation.strength import _slopes, scatter_of_strength
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain

SIZE = 7
SETTINGS = Settings(
    size=SIZE, model="patch", ell_max=(3,), iterations=(1,), rotations=60, starts=1
)
N_PATCHES = 1200


def state_of_truth() -> RunState:
    """State of a run that has found the molecule, of strength 6, and the noise."""
    basis, views = VolumeBasis(SIZE, 3), ViewGrid(60)
    volume = basis.expand(folded_chain(SIZE))
    images = basis.project(volume, views.rotations)
    volume *= 6 / np.sqrt(np.mean(np.sum(images**2, axis=(1, 2))))
    start = random_start(Patches(np.ones((4, SIZE, SIZE), np.float32)), SETTINGS, 0, 0)
    in_the_middle = np.zeros_like(start.shift_prior)
    in_the_middle[0, 0] = 1.0
    return replace(
        start,
        volume_coefficients=volume,
        shift_prior=in_the_middle,
        noise_variance=1.0,
    )


def patches_of(state: RunState, *, selected: bool) -> NDArray[np.float32]:
    """Particles in noise, as it is, or such that all of them are equally strong."""
    generator = np.random.default_rng(0)
    basis = VolumeBasis(SIZE, 3)
    images = basis.project(state.volume_coefficients, ViewGrid(60).rotations)
    images = images[generator.integers(len(images), size=N_PATCHES)]
    noise = generator.standard_normal(images.shape)
    if selected:
        along = np.sum(noise * images, axis=(1, 2)) / np.sum(images**2, axis=(1, 2))
        noise -= along[:, np.newaxis, np.newaxis] * images
    return (images + noise).astype(np.float32)


def ratio(pixels: NDArray[np.float32], state: RunState) -> float:
    halves: Any = (Patches(pixels[::2]), Patches(pixels[1::2]))
    runs = dict.fromkeys(HALVES, state)
    scatter = scatter_of_strength(runs, halves, SETTINGS)
    assert scatter.n_free == 38
    return scatter.ratio


def test_slopes__are_those_of_the_log_likelihood() -> None:
    state = state_of_truth()
    data: Any = Patches(patches_of(state, selected=False)[:40])
    views = grid_of(state, SETTINGS)
    operator = data.projections(basis_of(state, SETTINGS), views)
    hypotheses = hypotheses_of(state, operator, views, SETTINGS)

    def log_likelihood(strength: float) -> float:
        x = strength * state.volume_coefficients
        scaled = replace(hypotheses, volume_coefficients=x)
        statistics = data.expectation(np.arange(len(data)), scaled)
        return float(statistics.log_likelihood)

    slopes = _slopes(state, data, SETTINGS, 1).sum(axis=1)
    for strength, slope in zip((0.95, 1.05), slopes, strict=True):
        values = [log_likelihood(strength + step) for step in (-0.01, 0.01)]
        assert slope == pytest.approx((values[1] - values[0]) / 0.02, rel=0.01)


def test_scatter__is_that_of_noise() -> None:
    state = state_of_truth()
    assert ratio(patches_of(state, selected=False), state) == pytest.approx(1, abs=0.5)


def test_scatter__is_little_where_all_are_equally_strong() -> None:
    state = state_of_truth()
    assert ratio(patches_of(state, selected=True), state) < 0.2


def test_scatter__asks_each_half_about_the_map_of_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, Any]] = []

    def slopes(state: Any, data: Any, *_: object) -> NDArray[np.float64]:
        asked.append((state, data))
        return np.array([[3.0, 1.0, 2.0], [1.0, -1.0, 0.0]])

    monkeypatch.setattr("numbasaem.validation.strength._slopes", slopes)
    runs: Any = {"half1": "map 1", "half2": "map 2"}
    halves: Any = ("data 1", "data 2")
    scatter = scatter_of_strength(runs, halves, SETTINGS)
    assert asked == [("map 1", "data 2"), ("map 2", "data 1")]
    # l' has variance 1 among groups, and falls by 2 over a tenth of the strength
    assert scatter.ratio == pytest.approx(1 / 20)
    assert scatter.n_free == 4
