"""Minibatches: what is chosen, what is kept, and that a run can go on later."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.reconstruction.minibatches import (
    IncrementalBatches,
    Minibatches,
    OnlineBatches,
    StochasticBatches,
    minibatches,
)
from numbasaem.settings import Batching, Settings
from tests.helpers import assert_same_statistics

SCHEMES: list[Batching] = ["stochastic", "incremental", "online", "full"]


def statistics(chosen: np.ndarray) -> ImageStatistics:
    """Statistics that are a plain sum of random ones of each patch."""
    total = np.zeros((2, 4, 4))
    for patch in chosen:
        total += np.random.default_rng(int(patch)).random((2, 4, 4))
    return ImageStatistics(
        visible_weight=total,
        weighted_patch=-total,
        shift_mass=np.full((8, 8), len(chosen) / 64),
        rotation_mass=np.full(2, len(chosen) / 2),
        log_likelihood=-float(total.sum()),
        patch_energy=2 * float(total.sum()),
        n_patches=len(chosen),
    )


def scheme(
    batching: Batching, n_patches: int, fraction: float, seed: int = 0
) -> Minibatches:
    """Scheme of minibatches of a share of the patches."""
    settings = Settings(size=5, batching=batching, batch_fraction=fraction, seed=seed)
    return minibatches(settings, n_patches)


assert_same = partial(assert_same_statistics, share=1e-12)


def test_stochastic__draws_without_replacement() -> None:
    batches = scheme("stochastic", 100, 0.3)
    generator = np.random.default_rng(1)
    seen = np.zeros(100, int)
    for _ in range(40):
        chosen = batches.choose(generator)
        assert len(chosen) == 30
        assert (np.diff(chosen) > 0).all()
        seen[chosen] += 1
    # each patch is drawn 12 times on average, with a spread of 2.9
    assert seen.min() >= 2
    assert seen.max() <= 26
    fresh = statistics(chosen)
    assert batches.combine(fresh) is fresh


def test_full__sees_every_patch_every_time() -> None:
    batches = scheme("full", 10, 0.05)
    for _ in range(2):
        chosen = batches.choose(np.random.default_rng(1))
        np.testing.assert_array_equal(chosen, np.arange(10))


@pytest.mark.parametrize("batching", SCHEMES)
def test_minibatches__never_empty(batching: Batching) -> None:
    batches = scheme(batching, 3, 0.01)
    assert len(batches.choose(np.random.default_rng(1))) >= 1


def test_minibatches__fraction_of_one_is_everything() -> None:
    for batching in SCHEMES:
        batches = scheme(batching, 7, 1.0)
        chosen = batches.choose(np.random.default_rng(1))
        np.testing.assert_array_equal(chosen, np.arange(7))


def test_incremental__one_sweep_is_a_full_pass() -> None:
    generator = np.random.default_rng(0)
    batches = IncrementalBatches(50, 12, generator)
    assert len(batches.blocks) == 4
    for _ in range(4):
        total = batches.combine(statistics(batches.choose(generator)))
    assert_same(total, statistics(np.arange(50)))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches.blocks)), range(50))


def test_incremental__replaces_a_block_when_it_comes_again() -> None:
    generator = np.random.default_rng(0)
    batches = IncrementalBatches(20, 10, generator)
    old = [statistics(batches.choose(generator))]
    batches.combine(old[0])
    old.append(statistics(batches.choose(generator)))
    batches.combine(old[1])
    again = replace(old[0], weighted_patch=3 * old[0].weighted_patch)
    np.testing.assert_array_equal(batches.choose(generator), batches.blocks[0])
    assert_same(batches.combine(again), again + old[1])


def test_online__average_by_hand() -> None:
    batches = OnlineBatches(30, 10)
    fresh = [statistics(np.arange(i, i + 10)) for i in range(3)]
    average = fresh[0].weighted_patch
    for step, one in enumerate(fresh):
        found = batches.combine(one)
        assert isinstance(found, ImageStatistics)
        if step > 0:
            share = (step + 2) ** -0.6
            average = (1 - share) * average + share * one.weighted_patch
        np.testing.assert_allclose(found.weighted_patch, average)
        assert found.n_patches == 10
        assert found.log_likelihood == one.log_likelihood
        assert found.shift_mass.sum() == pytest.approx(10)


def test_online__same_statistics_stay() -> None:
    batches = OnlineBatches(10, 10)
    fresh = statistics(np.arange(10))
    for _ in range(5):
        assert_same(batches.combine(fresh), fresh)


@pytest.mark.parametrize("batching", SCHEMES)
def test_state__a_restored_run_goes_on_alike(batching: Batching) -> None:
    generator = np.random.default_rng(2)
    uninterrupted = scheme(batching, 40, 0.25)
    for _ in range(3):
        uninterrupted.combine(statistics(uninterrupted.choose(generator)))
    resumed = scheme(batching, 40, 0.25, seed=1)
    resumed.restore(uninterrupted.state())
    draws = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(5):
        chosen, again = (
            batches.choose(draw)
            for batches, draw in zip((uninterrupted, resumed), draws, strict=True)
        )
        np.testing.assert_array_equal(chosen, again)
        fresh = statistics(chosen)
        assert_same(resumed.combine(fresh), uninterrupted.combine(fresh))


def test_incremental__seed_deals_the_patches() -> None:
    first, again, other = (
        scheme("incremental", 40, 0.25, seed).choose(np.random.default_rng(9))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_stochastic__keeps_nothing() -> None:
    assert StochasticBatches(10, 5).state() == {}
