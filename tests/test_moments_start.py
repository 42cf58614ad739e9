"""Runs that begin with what autocorrelations fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numbasaem import InputError, Settings, reconstruct, simulate, validate
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.reading import Micrographs, list_inputs
from numbasaem.observations.models import observation_model
from numbasaem.observations.protocol import Observations
from numbasaem.observations.shift_prior import visible_shifts
from numbasaem.reconstruction.starts import (
    FIRST_EMPTY_PROBABILITY,
    moments_start,
    random_start,
)
from numbasaem.simulation.scene import Simulation
from numbasaem.volume.phantom import folded_chain
from tests.helpers import noise

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


def data_of(micrographs: Micrographs, settings: Settings = SETTINGS) -> Observations:
    """All data of a run."""
    model = observation_model(settings.model)
    inputs = list_inputs(micrographs)
    return model.load(inputs, settings, lambda *_: None).part(None, None)


def occupied_share(sample: Simulation) -> float:
    """Particles in as many pixels as there are shifts that show something."""
    n_pixels = sum(pixels.size for pixels in sample.micrographs)
    return sum(sample.placed) / n_pixels * (2 * SIZE - 1) ** 2


def test_moments_start__has_volume_density_and_noise(sample: Simulation) -> None:
    state = moments_start(data_of(sample.micrographs), SETTINGS, 0)
    assert state.noise_variance == pytest.approx(sample.noise_variance, rel=0.05)
    visible = visible_shifts(state.shift_prior).sum()
    assert visible == pytest.approx(occupied_share(sample), rel=0.25)
    assert len(state.volume_coefficients) == len(
        reconstruct(
            sample.micrographs, SETTINGS.changed(ell_max=(2,), iterations=(1,))
        ).volume_coefficients
    )


@pytest.fixture(scope="module")
def faint() -> Simulation:
    return simulate(folded_chain(SIZE), size=SIZE, pixels=500, snr=1, ell_max=2)


def test_random_start__has_density(faint: Simulation) -> None:
    data = data_of(faint.micrographs)
    states = [random_start(data, SETTINGS, 0, start) for start in range(2)]
    for state in states:
        assert state.noise_variance == pytest.approx(data.variance)
        visible = visible_shifts(state.shift_prior).sum()
        assert visible == pytest.approx(occupied_share(faint), rel=0.1)
    assert (states[0].volume_coefficients != states[1].volume_coefficients).any()
    known = SETTINGS.changed(noise_variance=2.0)
    assert random_start(data, known, 0, 0).noise_variance == 2.0


@pytest.mark.parametrize("what", ["patches", "noise", "dark", "too small"])
def test_random_start__where_the_data_do_not_tell(faint: Simulation, what: str) -> None:
    (pixels,) = faint.micrographs
    settings = SETTINGS.changed(start="random")
    if what == "patches":
        settings = settings.changed(model="patch")
    elif what == "noise":
        pixels = noise(200, 200)
    elif what == "dark":
        pixels = -pixels
    else:
        pixels = pixels[:10, :10]
    data = data_of([pixels], settings)
    assert observation_model(settings.model).first_fit(data) is None
    state = random_start(data, settings, 0, 0)
    assert state.noise_variance == data.variance
    visible = visible_shifts(state.shift_prior).sum()
    assert 1 - visible == pytest.approx(FIRST_EMPTY_PROBABILITY)


def test_moments_start__allows_for_particles_that_touch() -> None:
    sample = simulate(
        folded_chain(SIZE),
        size=SIZE,
        pixels=500,
        snr=8,
        ell_max=2,
        spacing="arbitrary",
        density=0.4,
    )
    state = moments_start(data_of(sample.micrographs), SETTINGS, 0)
    assert state.noise_variance == pytest.approx(sample.noise_variance, rel=0.05)


def test_moments_start__is_gone_on_from(sample: Simulation) -> None:
    result = reconstruct(sample.micrographs, SETTINGS)
    assert [row.run for row in result.history] == ["full"] * 4
    again = reconstruct(sample.micrographs, SETTINGS)
    np.testing.assert_array_equal(again.volume, result.volume)
    evidence = [row.evidence_per_patch for row in result.history]
    assert min(evidence) > 0.2


def test_moments_start__is_validated(sample: Simulation, tmp_path: Path) -> None:
    """Beside noise that begins at random, and without a question on memory."""
    paths = [tmp_path / f"{number}.mrc" for number in range(2)]
    for path, pixels in zip(paths, sample.micrographs, strict=True):
        write_micrograph(path, pixels, 1.0)
    reconstruct(paths, SETTINGS.changed(halves=True), out=tmp_path / "run")
    found = validate(tmp_path / "run")
    questions = [check.question.split()[0] for check in found.checks]
    assert questions == ["held-out", "picks", "half", "scatter"]
    assert found.verdict == "supported"


@pytest.mark.parametrize(
    "more", [{"model": "patch"}, {"symmetry": "C4"}, {"symmetry": "O"}, {"ctf": True}]
)
def test_moments_start__refused(more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="start: expected random with"):
        SETTINGS.changed(**more)


def test_moments_start__of_too_few_pixels() -> None:
    pixels = np.random.default_rng(0).standard_normal((18, 60))
    with pytest.raises(InputError, match="at least 20 pixels a side"):
        reconstruct([pixels], SETTINGS)
