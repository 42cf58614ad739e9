"""Numbers that go wrong: each is found, named, and survived or stopped."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from numbasaem.errors import InputError, NumericalError, RunWarning
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.io.mrc import write_volume
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_data import Patches
from numbasaem.observations.patch_expectation import expectation
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.normal_equations import (
    DenseEquations,
    NormalEquations,
    normal_equations,
)
from numbasaem.reconstruction.starts import random_start
from numbasaem.reconstruction.state import Iteration, RunState
from numbasaem.settings import Settings
from numbasaem.volume.basis import VolumeBasis
from tests.helpers import micrograph_of_chains

SIZE = 5
SETTINGS = Settings(
    size=SIZE,
    model="patch",
    ell_max=(2,),
    iterations=(4,),
    rotations=24,
    batching="full",
    starts=1,
    halves=False,
)


@pytest.fixture(scope="module")
def micrograph() -> np.ndarray:
    return micrograph_of_chains(SIZE, 90)


@pytest.fixture(scope="module")
def patches(micrograph: np.ndarray) -> np.ndarray:
    return cut_patches(micrograph, SIZE)


@pytest.fixture
def state(patches: np.ndarray) -> RunState:
    return random_start(Patches(patches), SETTINGS, 0, 0)


def steps(
    state: RunState, patches: np.ndarray, settings: Settings = SETTINGS
) -> Iterator[Iteration]:
    return iterations(state, Patches(patches), settings, 1, lambda *_: None)


def assert_finite(state: RunState) -> None:
    assert np.isfinite(state.volume_coefficients).all()
    assert np.isfinite(state.shift_prior).all()
    assert state.shift_prior.sum() == pytest.approx(1)
    assert 0 < state.noise_variance < np.inf
    for row in state.history:
        assert np.isfinite(row.log_likelihood_per_patch)
        assert np.isfinite(row.q_per_patch)
        assert np.isfinite(row.volume_change)


# --- overflow ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-10, 1e10, 1e30, 3e37])
def test_overflow__any_scale_of_the_pixels(
    micrograph: np.ndarray, tmp_path: Path, scale: float
) -> None:
    pixels = (micrograph / np.abs(micrograph).max() * scale).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        try:
            reconstruct([pixels], SETTINGS, out=tmp_path)
        except (InputError, NumericalError) as error:
            (line,) = str(error).splitlines()
            assert "expected" in line
            assert not 1e-15 < scale < 1e15
            assert not (tmp_path / "volume.mrc").exists()
            return
    with mrcfile.open(tmp_path / "volume.mrc") as file:
        assert np.isfinite(file.data).all()
        assert file.data.std() > 0


def test_overflow__of_the_sums_over_a_block() -> None:
    patches = np.full((600, SIZE, SIZE), 3e37, np.float32)
    images = np.full((2, SIZE, SIZE), 3e37)
    prior = np.zeros((2 * SIZE, 2 * SIZE))
    prior[0, 0] = 1
    with pytest.raises(NumericalError, match="overflow"):
        expectation(patches, images, prior, 1e74)


def test_overflow__leaves_the_checkpoint(
    micrograph: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_calls = 0

    class Overflowing(DenseEquations):
        def solve(self) -> np.ndarray:
            return super().solve() * np.inf

    def overflow_later(*given: Any) -> NormalEquations:
        nonlocal n_calls
        n_calls += 1
        equations = normal_equations(*given)
        assert isinstance(equations, DenseEquations)
        if n_calls != 3:
            return equations
        return Overflowing(equations.matrix, equations.right_side)

    monkeypatch.setattr(
        "numbasaem.reconstruction.update.normal_equations", overflow_later
    )
    with pytest.raises(NumericalError, match="M-step: expected a finite volume"):
        reconstruct([micrograph], SETTINGS, out=tmp_path)
    saved = load_checkpoint(tmp_path / "run.h5")[1]["full"]
    assert len(saved.history) == 2
    assert_finite(saved)
    found = reconstruct([micrograph], SETTINGS, out=tmp_path, resume=True)
    np.testing.assert_array_equal(
        found.volume, reconstruct([micrograph], SETTINGS).volume
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e60])
def test_overflow__never_in_a_file(tmp_path: Path, bad: float) -> None:
    volume = np.zeros((SIZE,) * 3)
    volume[1, 2, 3] = bad
    with pytest.raises(InputError, match=r"a\.mrc: expected finite values"):
        write_volume(tmp_path / "a.mrc", volume, 1.0)
    assert list(tmp_path.iterdir()) == []


# --- a singular normal matrix ------------------------------------------------------


@pytest.mark.parametrize("n_rotations", [1, 24])
def test_singular__rank_is_that_of_the_matrix(
    patches: np.ndarray, n_rotations: int
) -> None:
    basis = VolumeBasis(SIZE, 3)
    operator = ProjectionOperator(basis, rotation_grid(24)[:n_rotations])
    images = np.random.default_rng(0).standard_normal((n_rotations, SIZE, SIZE))
    seen = expectation(patches, images, uniform_shift_prior(SIZE, 0.5), 1.0)
    matrix = seen.normal_matrix(operator)
    wanted = len(matrix) - np.linalg.matrix_rank(matrix, tol=1e-8 * matrix.max())
    equations = DenseEquations(matrix, seen.right_side(operator))
    assert equations.n_unconstrained() == wanted
    assert (wanted > 0) == (n_rotations < 24)


def test_singular__of_nothing_seen() -> None:
    assert DenseEquations(np.zeros((4, 4)), np.zeros(4)).n_unconstrained() == 4


def test_singular__few_rotations_are_survived_and_reported(
    micrograph: np.ndarray,
) -> None:
    settings = SETTINGS.model_copy(update={"rotations": 8, "ell_max": (4,)})
    with pytest.warns(RunWarning, match="nothing seen of [0-9]+ of"):
        result = reconstruct([micrograph], settings)
    assert np.isfinite(result.volume).all()
    assert min(row.n_unconstrained for row in result.history) > 0
    assert np.abs(result.volume).max() < 1e3


# --- collapse ----------------------------------------------------------------------


def test_empty__minibatch_leaves_the_volume(state: RunState) -> None:
    generator = np.random.default_rng(0)
    blank = generator.standard_normal((40, SIZE, SIZE)).astype(np.float32)
    # Bright as it is, any sliver of this particle would show.
    state.volume_coefficients *= 1e4
    state.shift_prior[:] = 0
    state.shift_prior[SIZE - 2 : SIZE + 3, SIZE - 2 : SIZE + 3] = 1 / 25
    before, prior = state.volume_coefficients.copy(), state.shift_prior.copy()
    with pytest.warns(RunWarning, match="no particle in the patches of an iteration"):
        (row, *_) = steps(state, blank)
    np.testing.assert_array_equal(state.volume_coefficients, before)
    np.testing.assert_array_equal(state.shift_prior, prior)
    assert row.volume_change == 0
    assert_finite(state)


def _only_empty(prior: np.ndarray) -> None:
    prior[:] = 0
    prior[SIZE] = 1 / (2 * SIZE)


def _only_one_shift(prior: np.ndarray) -> None:
    prior[:] = 0
    prior[1, 2] = 1


def test_collapse__onto_empty_leaves_the_volume(
    state: RunState, patches: np.ndarray
) -> None:
    _only_empty(state.shift_prior)
    before = state.volume_coefficients.copy()
    with pytest.warns(RunWarning, match="no particle"):
        list(steps(state, patches))
    np.testing.assert_array_equal(state.volume_coefficients, before)
    assert_finite(state)


def test_collapse__onto_one_shift_is_undone(
    state: RunState, patches: np.ndarray
) -> None:
    _only_one_shift(state.shift_prior)
    with pytest.warns(RunWarning, match="collapsed onto one state"):
        next(steps(state, patches))
    assert (state.shift_prior > 0).all()
    assert state.shift_prior[1, 2] > 0.98
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        list(steps(state, patches))
    assert_finite(state)
    assert state.shift_prior[1, 2] < 0.9


def test_noise__that_vanishes_keeps_a_floor(state: RunState) -> None:
    """The same patch over and over is explained without a rest."""
    basis = VolumeBasis(SIZE, 2)
    image = ProjectionOperator(basis, rotation_grid(24)).project(
        state.volume_coefficients
    )
    same = np.repeat(image[:1], 50, axis=0).astype(np.float32)
    state.shift_prior[:] = 0
    state.shift_prior[0, 0] = 1
    state.noise_variance = 1e-4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(steps(state, same))
    assert any("lost in rounding" in str(warning.message) for warning in caught)
    assert_finite(state)


# --- a diverging likelihood --------------------------------------------------------


def test_divergence__is_told_and_met_with_a_plain_step(patches: np.ndarray) -> None:
    settings = SETTINGS.model_copy(
        update={"ell_max": (2, 2), "iterations": (3, 1), "over_relaxation": 1.9}
    )
    plain = settings.model_copy(update={"over_relaxation": 1.0})
    after: list[np.ndarray] = []
    for chosen, begun in ((settings, 0.0), (plain, 0.0), (settings, 1e4)):
        state = random_start(Patches(patches), settings, 0, 0)
        next(steps(state, patches, chosen))
        higher = state.history[0].log_likelihood_per_patch + begun
        state.history[0] = replace(state.history[0], log_likelihood_per_patch=higher)
        if begun == 0:
            next(steps(state, patches, chosen))
        else:
            with pytest.warns(RunWarning, match="log-likelihood per patch fell to"):
                next(steps(state, patches, chosen))
        after.append(state.volume_coefficients)
    long, _, told = after
    assert not np.array_equal(long, told)
    state = random_start(Patches(patches), settings, 0, 0)
    next(steps(state, patches, settings))
    next(steps(state, patches, plain))
    np.testing.assert_array_equal(told, state.volume_coefficients)
