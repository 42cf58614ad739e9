"""Statistics as the M-step asks them, and the evidence that compares minibatches."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from numbasaem import Settings, VolumeBasis, expectation, rotation_grid
from numbasaem.errors import InputError
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_data import Patches
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.driver import _score
from numbasaem.reconstruction.starts import random_start
from numbasaem.reconstruction.state import Iteration
from numbasaem.simulation.scene import simulate
from numbasaem.volume.phantom import folded_chain

SIZE, N_ROTATIONS = 7, 40


@pytest.fixture(scope="module")
def operator() -> ProjectionOperator:
    return ProjectionOperator(VolumeBasis(SIZE, 3), rotation_grid(N_ROTATIONS))


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=350, snr=2, ell_max=3)
    return cut_patches(sample.micrographs[0], SIZE)


def statistics_of(
    patches: np.ndarray, operator: ProjectionOperator, volume: np.ndarray
) -> ImageStatistics:
    prior = uniform_shift_prior(SIZE, 0.5)
    variance = float(np.var(patches))
    return expectation(patches, operator.project(volume), prior, variance)


def random_volume(operator: ProjectionOperator, patches: np.ndarray) -> np.ndarray:
    volume = np.random.default_rng(0).standard_normal(operator.basis.n_coefficients)
    power = np.mean(operator.project(volume) ** 2)
    return volume * np.sqrt(np.var(patches) / power)


def test_normal_product__is_that_of_the_matrix(
    operator: ProjectionOperator, patches: np.ndarray
) -> None:
    volume = random_volume(operator, patches)
    statistics = statistics_of(patches, operator, volume)
    matrix, right_side = (
        statistics.normal_matrix(operator),
        statistics.right_side(operator),
    )
    product = statistics.normal_product(operator, volume)
    np.testing.assert_allclose(product, matrix @ volume, rtol=1e-10)
    explained = 2 * volume @ right_side - volume @ matrix @ volume
    assert statistics.explained_energy(operator, volume) == pytest.approx(explained)


def test_statistics__of_other_rotations_are_refused(
    operator: ProjectionOperator, patches: np.ndarray
) -> None:
    volume = random_volume(operator, patches)
    statistics = statistics_of(patches[:10], operator, volume)
    other = ProjectionOperator(operator.basis, rotation_grid(N_ROTATIONS + 1))
    for ask in (
        statistics.normal_matrix,
        statistics.right_side,
        lambda projections: statistics.normal_product(projections, volume),
    ):
        with pytest.raises(InputError, match="statistics: expected images of shape"):
            ask(other)


def test_evidence__is_the_likelihood_above_the_likeliest_white_noise(
    operator: ProjectionOperator, patches: np.ndarray
) -> None:
    statistics = statistics_of(patches, operator, random_volume(operator, patches))
    variance = float(np.mean(patches.astype(np.float64) ** 2))
    white = -patches.size * (1 + math.log(2 * math.pi * variance)) / 2
    wanted = statistics.log_likelihood - white
    assert statistics.evidence == pytest.approx(wanted, rel=1e-6)
    assert ImageStatistics.of_nothing(N_ROTATIONS, SIZE).evidence == -math.inf


def test_evidence__does_not_fluctuate_with_the_energy_of_a_minibatch(
    operator: ProjectionOperator,
) -> None:
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((4000, SIZE, SIZE), dtype=np.float32)
    volume = 0.2 * random_volume(operator, noise)
    evidence, likelihood = [], []
    for minibatch in np.split(noise, 10):
        prior = uniform_shift_prior(SIZE, 0.5)
        statistics = expectation(minibatch, operator.project(volume), prior, 1.0)
        evidence.append(statistics.evidence / statistics.n_patches)
        likelihood.append(statistics.log_likelihood / statistics.n_patches)
    assert np.std(evidence) < np.std(likelihood) / 20


def test_starts__are_ranked_by_evidence(patches: np.ndarray) -> None:
    settings = Settings(
        size=SIZE, model="patch", ell_max=(2,), iterations=(1,), rotations=12
    )
    row = Iteration(
        run="full-start0",
        stage=0,
        n_stages=1,
        ell_max=2,
        iteration=1,
        n_iterations=1,
        total_done=1,
        total=1,
        evidence_per_patch=3.0,
        held_out_evidence_per_patch=None,
        log_likelihood_per_patch=-50.0,
        q_per_patch=0.0,
        noise_variance=1.0,
        empty_fraction=0.5,
        volume_change=0.1,
        seconds=1.0,
    )
    state = random_start(Patches(patches), settings, 0, 0)
    state.history.append(row)
    assert _score(state, 0) == row.evidence_per_patch


def test_light_types__import_no_numba() -> None:
    modules = (
        "numbasaem.settings",
        "numbasaem.observations.statistics",
        "numbasaem.observations.exact_sums",
        "numbasaem.reconstruction.state",
    )
    code = f"import sys, {', '.join(modules)}; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
