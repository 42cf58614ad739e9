"""Data that no step sees, the ends of stages that they decide, and the prior tau."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from numbasaem import Settings, VolumeBasis, reconstruct, simulate
from numbasaem.micrographs.reading import list_inputs
from numbasaem.observations.models import observation_model
from numbasaem.observations.protocol import Observations
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.held_out import (
    held_out,
    march_is_over,
    still_rises,
)
from numbasaem.reconstruction.state import Iteration
from numbasaem.reconstruction.volume_prior import shells_of_frequency, tau_precision
from numbasaem.volume.phantom import folded_chain
from tests.helpers import Interruption, assert_same_result, interrupted_after

SIZE = 5
SETTINGS = Settings(size=SIZE, starts=2, halves=False, seed=2)


@pytest.fixture(scope="module")
def micrographs() -> list[np.ndarray]:
    sample = simulate(
        folded_chain(SIZE), size=SIZE, pixels=300, micrographs=2, snr=4, ell_max=4
    )
    return list(sample.micrographs)


def data_of(micrographs: list[np.ndarray], settings: Settings) -> Observations:
    model = observation_model(settings.model)
    inputs = list_inputs(micrographs)
    return model.load(inputs, settings, lambda *_: None).part(None, None)


def rows(
    values: Sequence[float | None], stage: int = 0, seen: float = 1.0
) -> list[Iteration]:
    return [
        Iteration(
            run="full",
            stage=stage,
            n_stages=3,
            ell_max=2,
            iteration=number,
            n_iterations=60,
            total_done=number,
            total=60,
            evidence_per_patch=seen,
            held_out_evidence_per_patch=value,
            log_likelihood_per_patch=0.0,
            q_per_patch=0.0,
            noise_variance=1.0,
            empty_fraction=0.5,
            volume_change=0.1,
            seconds=1.0,
        )
        for number, value in enumerate(values, start=1)
    ]


# --- which data, and what they decide ----------------------------------------------


def test_held_out__a_few_observations_that_no_step_sees(
    micrographs: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(micrographs, SETTINGS)
    kept_back = held_out(SETTINGS, data)
    assert 1 <= len(kept_back) <= 0.2 * len(data)
    np.testing.assert_array_equal(held_out(SETTINGS, data), kept_back)
    assert not len(held_out(SETTINGS.changed(iterations=(9,)), data))
    asked: list[set[int]] = []
    own = type(data).expectation

    def noted(self, chosen, hypotheses, on_progress=None):
        asked.append(set(chosen.tolist()))
        return own(self, chosen, hypotheses, on_progress)

    monkeypatch.setattr(type(data), "expectation", noted)
    reconstruct(micrographs, SETTINGS.changed(ell_max=(2,), iterations=None, starts=1))
    steps = [chosen for chosen in asked if chosen != set(kept_back.tolist())]
    assert len(steps) == len(asked) / 2
    assert not set.union(*steps) & set(kept_back.tolist())


def test_held_out__none_of_a_single_small_micrograph() -> None:
    pixels = np.random.default_rng(0).standard_normal((40, 40))
    assert not len(held_out(SETTINGS, data_of([pixels], SETTINGS)))


@pytest.mark.parametrize(
    ("values", "rises"),
    [
        ([1.0] * 9, True),
        ([1.0] * 10, False),
        ([0.1 * n for n in range(10)], True),
        ([2 - 0.1 * n for n in range(10)], False),
        ([0.9, 1.1] * 5, False),
        ([1 + 0.0001 * n for n in range(10)], False),
        ([*[5.0] * 10, *[1 + n for n in range(10)]], True),
    ],
)
def test_still_rises__beyond_scatter(
    values: Sequence[float | None], rises: bool
) -> None:
    assert still_rises(rows(values)) is rises


def test_still_rises__goes_by_what_is_seen_if_nothing_is_held_out() -> None:
    assert not still_rises(rows([None] * 10, seen=3.0))


def test_march__is_over_after_two_stages_without_gain() -> None:
    first, second, third = ([level] * 10 for level in (2.0, 1.9, 1.8))
    history = rows(first, 0) + rows(second, 1)
    assert not march_is_over(history)
    assert march_is_over(history + rows(third, 2))
    assert not march_is_over(history + rows([1.95] * 10, 2))
    assert not march_is_over(rows([None] * 40))


# --- runs ----------------------------------------------------------------------------


def test_open_march__ends_with_what_held_out_data_liked_best(
    micrographs: list[np.ndarray], tmp_path: Path
) -> None:
    result = reconstruct(micrographs, SETTINGS, out=tmp_path)
    _, runs = load_checkpoint(tmp_path / "run.h5")
    full = runs["full"]
    assert full.best is not None
    best = full.best.volume_coefficients
    np.testing.assert_array_equal(full.volume_coefficients, best)
    np.testing.assert_array_equal(result.volume_coefficients, best)
    assert result.noise_variance == full.best.noise_variance
    assert len(full.history) < sum(stage.n_iterations for stage in SETTINGS.march)
    assert all(row.held_out_evidence_per_patch is not None for row in full.history)
    report = {row.ell_max for row in full.history}
    assert report == {4}


def test_open_march__goes_on_to_the_same_bytes(
    micrographs: list[np.ndarray], tmp_path: Path
) -> None:
    settings = SETTINGS.changed(ell_max=(2, 3), prior="tau")
    unbroken = reconstruct(micrographs, settings)
    n_all = len(unbroken.history)
    for number, last in enumerate((31, n_all - 12, n_all)):
        folder = tmp_path / str(number)
        with pytest.raises(Interruption):
            reconstruct(
                micrographs, settings, out=folder, on_iteration=interrupted_after(last)
            )
        again = reconstruct(micrographs, settings, out=folder, resume=True)
        assert_same_result(again, unbroken)


def test_result__of_a_march_that_ended_early(
    micrographs: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "numbasaem.reconstruction.iterate.march_is_over", lambda history: True
    )
    result = reconstruct(micrographs, SETTINGS.changed(ell_max=(2, 4), starts=1))
    assert {row.ell_max for row in result.history} == {2}
    assert result.basis == VolumeBasis(SIZE, 2)
    assert result.volume.shape == (SIZE,) * 3


# --- the prior -----------------------------------------------------------------------


def test_tau__is_the_power_on_which_halves_agree() -> None:
    generator = np.random.default_rng(0)
    shells = np.repeat([0, 1, 2], 4000)
    signal = generator.standard_normal(12_000) * np.array([3.0, 1.0, 0.0])[shells]
    first, second = (signal + generator.standard_normal(12_000) for _ in range(2))
    precision = tau_precision(first, second, shells, 2.0)
    variances = 2.0 / precision[[0, 4000, 8000]]
    np.testing.assert_allclose(variances[:2], [9, 1], rtol=0.1)
    assert variances[2] < 0.1


@pytest.mark.parametrize("prior", ["tau", "wilson"])
def test_prior__damps_what_halves_do_not_agree_on(prior: str) -> None:
    """The first volume of noise is fainter with it."""
    noise = np.random.default_rng(1).standard_normal((300, 300))
    plain = SETTINGS.changed(ell_max=(4,), iterations=(1,), starts=1, prior="none")
    without, damped = (
        np.linalg.norm(reconstruct([noise], settings).volume)
        for settings in (plain, plain.changed(prior=prior))
    )
    assert damped < without


def test_shells__reach_from_nothing_to_nyquist() -> None:
    shells = shells_of_frequency(VolumeBasis(11, 10))
    assert shells.min() == 1
    assert shells.max() == 5
    lowest = VolumeBasis(11, 10).indices[shells == 1]
    assert set(lowest[:, 0]) == {0}
