"""Runs that begin with what autocorrelations fit."""

from __future__ import annotations

import numpy as np
import pytest

from numbasaem import InputError, Settings, reconstruct, simulate
from numbasaem.micrographs.reading import list_inputs
from numbasaem.observations.models import observation_model
from numbasaem.reconstruction.starts import moments_start
from numbasaem.simulation.scene import Simulation
from numbasaem.volume.phantom import folded_chain

SIZE = 5
SETTINGS = Settings(
    size=SIZE,
    start="moments",
    starts=1,
    ell_max=(2, 3),
    iterations=(2, 2),
    halves=False,
    level=False,
)


@pytest.fixture(scope="module")
def sample() -> Simulation:
    return simulate(
        folded_chain(SIZE), size=SIZE, pixels=400, micrographs=2, snr=8, ell_max=2
    )


def test_moments_start__has_volume_density_and_noise(sample: Simulation) -> None:
    inputs = list_inputs(sample.micrographs)
    model = observation_model(SETTINGS.model)
    data = model.load(inputs, SETTINGS, lambda *_: None).part(None, None)
    state = moments_start(data, SETTINGS, 0)
    assert state.noise_variance == pytest.approx(sample.noise_variance, rel=0.05)
    density = sum(sample.placed) / sum(pixels.size for pixels in sample.micrographs)
    visible = state.shift_prior.sum() - state.shift_prior[SIZE].sum()
    visible -= np.delete(state.shift_prior[:, SIZE], SIZE).sum()
    assert visible == pytest.approx(density * (2 * SIZE - 1) ** 2, rel=0.25)
    assert len(state.volume_coefficients) == len(
        reconstruct(
            sample.micrographs, SETTINGS.changed(ell_max=(2,), iterations=(1,))
        ).volume_coefficients
    )


def test_moments_start__is_gone_on_from(sample: Simulation) -> None:
    result = reconstruct(sample.micrographs, SETTINGS)
    assert [row.run for row in result.history] == ["full"] * 4
    again = reconstruct(sample.micrographs, SETTINGS)
    np.testing.assert_array_equal(again.volume, result.volume)
    evidence = [row.evidence_per_patch for row in result.history]
    assert min(evidence) > 0.2


@pytest.mark.parametrize(
    "more", [{"model": "patch"}, {"symmetry": "C4"}, {"symmetry": "O"}]
)
def test_moments_start__refused(more: dict[str, str]) -> None:
    with pytest.raises(InputError, match="start: expected random with"):
        SETTINGS.changed(**more)


def test_moments_start__of_too_few_pixels() -> None:
    pixels = np.random.default_rng(0).standard_normal((18, 60))
    with pytest.raises(InputError, match="at least 20 pixels a side"):
        reconstruct([pixels], SETTINGS)
