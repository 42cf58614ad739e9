"""The M-step against the printed sums, and EM as a whole."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem.errors import InputError
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.patch_expectation import expectation
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.projection.printed_sums import patch_inner_product, shifted_gram
from numbasaem.reconstruction.maximization import (
    expected_log_likelihood,
    maximization,
    noise_variance,
    shift_prior_table,
)
from numbasaem.reconstruction.normal_equations import DenseEquations
from numbasaem.volume.basis import VolumeBasis
from tests import reference

Array = NDArray[np.float64]
SIZE, ELL_MAX = 5, 2
BASIS = VolumeBasis(SIZE, ELL_MAX)


@cache
def operator(n_rotations: int) -> ProjectionOperator:
    return ProjectionOperator(BASIS, rotation_grid(n_rotations))


def simulated(
    n_patches: int, n_rotations: int, spread: float = 0.5, seed: int = 0
) -> tuple[Array, Array, Array]:
    """True coefficients, patches with noise of that spread, and a shift prior."""
    generator = np.random.default_rng(seed)
    x = 40 * generator.standard_normal(BASIS.n_coefficients)
    images = operator(n_rotations).project(x)
    prior = generator.random((2 * SIZE, 2 * SIZE))
    prior /= prior.sum()
    shifts = generator.choice(prior.size, n_patches, p=prior.ravel())
    patches = np.array(
        [
            reference.shifted_view(image, divmod(int(shift), 2 * SIZE))
            for image, shift in zip(
                images[generator.integers(n_rotations, size=n_patches)],
                shifts,
                strict=True,
            )
        ]
    )
    noise = spread * generator.standard_normal(patches.shape)
    # as the E-step takes them, so that both sides see the same numbers
    return x, (patches + noise).astype(np.float32).astype(float), prior


def statistics_of(patches: Array, weight: Array) -> ImageStatistics:
    """Statistics of patches under any posterior (P, K, 2L, 2L)."""
    n_rotations = weight.shape[1]
    visible_weight, weighted_patch = np.zeros((2, n_rotations, SIZE, SIZE))
    for s_y, s_x in np.ndindex(2 * SIZE, 2 * SIZE):
        for i, j in np.ndindex(SIZE, SIZE):
            y, x = (i + s_y) % (2 * SIZE), (j + s_x) % (2 * SIZE)
            if y < SIZE and x < SIZE:
                share = weight[:, :, s_y, s_x]
                visible_weight[:, y, x] += share.sum(axis=0)
                weighted_patch[:, y, x] += share.T @ patches[:, i, j]
    shift_mass, rotation_mass = weight.sum(axis=(0, 1)), weight.sum(axis=(0, 2, 3))
    energy = float(np.sum(patches**2))
    return ImageStatistics(
        visible_weight=visible_weight,
        weighted_patch=weighted_patch,
        shift_mass=shift_mass,
        rotation_mass=rotation_mass,
        log_likelihood=0.0,
        patch_energy=energy,
        n_patches=len(patches),
    )


@cache
def small_problem() -> tuple[Array, Array, Array, ImageStatistics]:
    """Three patches, two rotations: posterior at one volume, joint at another."""
    x, patches, prior = simulated(3, 2)
    variance, uniform = 0.25, np.full(2, 0.5)
    projections = operator(2).project
    given = (prior, variance, uniform)
    joint = reference.joint_log_probabilities(patches, projections(x), *given)
    weight, _ = reference.posterior(joint)
    return x, patches, weight, statistics_of(patches, weight)


# --- the linear equations ---


def normal_equations(
    projections: ProjectionOperator, stats: ImageStatistics
) -> tuple[Array, Array]:
    """Matrix and right side."""
    return stats.normal_matrix(projections), stats.right_side(projections)


def test_normal_equations__match_the_printed_sums() -> None:
    _, patches, weight, stats = small_problem()
    matrices = operator(2).matrices()
    wanted = reference.normal_equations(patches, weight, matrices)
    for found, by_hand in zip(
        normal_equations(operator(2), stats), wanted, strict=True
    ):
        np.testing.assert_allclose(found, by_hand, atol=1e-12 * np.abs(by_hand).max())


def test_normal_equations__match_q_and_g() -> None:
    _, patches, weight, stats = small_problem()
    matrices = operator(2).matrices()
    matrix = np.zeros((BASIS.n_coefficients,) * 2)
    right_side = np.zeros(BASIS.n_coefficients)
    for k, phi in enumerate(matrices):
        for shift in np.ndindex(2 * SIZE, 2 * SIZE):
            share = weight[:, k, shift[0], shift[1]]
            matrix += share.sum() * shifted_gram(shift, phi)
            for p, patch in enumerate(patches):
                right_side += share[p] * patch_inner_product(patch, shift, phi)
    found_matrix, found_side = normal_equations(operator(2), stats)
    np.testing.assert_allclose(found_matrix, matrix, atol=1e-12 * matrix.max())
    np.testing.assert_allclose(found_side, right_side, atol=1e-10)


def test_normal_equations__symmetric_and_positive() -> None:
    *_, stats = small_problem()
    matrix, _ = normal_equations(operator(2), stats)
    np.testing.assert_array_equal(matrix, matrix.T)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues.min() > -1e-12 * eigenvalues.max()


def test_normal_equations__add_up_over_patches() -> None:
    _, patches, weight, stats = small_problem()
    parts = [
        normal_equations(operator(2), statistics_of(patches[part], weight[part]))
        for part in (slice(0, 1), slice(1, 3))
    ]
    for whole, *pieces in zip(
        normal_equations(operator(2), stats), *parts, strict=True
    ):
        np.testing.assert_allclose(sum(pieces), whole, atol=1e-12 * np.abs(whole).max())


def test_normal_equations__statistics_of_other_rotations() -> None:
    *_, stats = small_problem()
    with pytest.raises(InputError, match="statistics: expected images of shape"):
        maximization(BASIS, rotation_grid(3), stats)
    with pytest.raises(InputError, match="statistics: expected images of shape"):
        maximization(VolumeBasis(6, 2), rotation_grid(2), stats)


# --- the volume ---


def noiseless(n_rotations: int, seed: int = 0) -> tuple[Array, ImageStatistics]:
    """Statistics of noiseless images, each pixel seen a known number of times."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(BASIS.n_coefficients)
    images = operator(n_rotations).project(x)
    seen = generator.uniform(0.5, 20, images.shape)
    energy = float(np.sum(seen * images**2))
    n_patches = round(seen.sum() / SIZE**2)
    mass = np.full((2 * SIZE, 2 * SIZE), n_patches / (2 * SIZE) ** 2)
    uniform = np.full(n_rotations, n_patches / n_rotations)
    return x, ImageStatistics(
        visible_weight=seen,
        weighted_patch=seen * images,
        shift_mass=mass,
        rotation_mass=uniform,
        log_likelihood=0.0,
        patch_energy=energy,
        n_patches=n_patches,
    )


def test_maximization__recovers_the_volume_without_noise() -> None:
    x, stats = noiseless(24)
    found = maximization(BASIS, rotation_grid(24), stats)
    np.testing.assert_allclose(found, x, atol=1e-5 * np.abs(x).max())
    assert noise_variance(operator(24), found, stats) < 1e-10 * stats.patch_energy


def test_maximization__is_stationary() -> None:
    _, patches, prior = simulated(60, 8)
    stats = expectation(patches, operator(8).project(np.zeros(9)), prior, 1.0)
    x = maximization(BASIS, rotation_grid(8), stats)
    best = expected_log_likelihood(Hypotheses(operator(8), x, prior, 0.3), stats)
    for step in 0.1 * np.abs(x).max() * np.eye(9):
        for other in (x + step, x - step):
            hypotheses = Hypotheses(operator(8), other, prior, 0.3)
            assert expected_log_likelihood(hypotheses, stats) < best


def test_maximization__gaussian_prior() -> None:
    _, stats = noiseless(24)
    matrix, right_side = normal_equations(operator(24), stats)
    precision = np.linspace(0, 50, 9)
    found = maximization(BASIS, rotation_grid(24), stats, precision)
    wanted = np.linalg.solve(matrix + np.diag(precision), right_side)
    np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max())
    free = maximization(BASIS, rotation_grid(24), stats)
    np.testing.assert_array_equal(
        maximization(BASIS, rotation_grid(24), stats, np.zeros(9)), free
    )
    heavy = maximization(BASIS, rotation_grid(24), stats, np.full(9, 1e12))
    np.testing.assert_allclose(heavy, right_side / 1e12, rtol=1e-6)


@pytest.mark.parametrize(
    "precision", [np.ones(8), np.full(9, -1.0), np.full(9, np.nan)]
)
def test_maximization__unusable_precision(precision: Array) -> None:
    _, stats = noiseless(2)
    with pytest.raises(InputError, match="prior_precision: expected 9 values"):
        maximization(BASIS, rotation_grid(2), stats, precision)


def test_maximization__one_rotation_leaves_coefficients_unseen() -> None:
    x, stats = noiseless(1)
    found = maximization(BASIS, rotation_grid(1), stats)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found) <= np.linalg.norm(x)
    np.testing.assert_allclose(
        operator(1).project(found), operator(1).project(x), atol=1e-4
    )


def test_maximization__nothing_was_seen() -> None:
    *_, stats = small_problem()
    empty = statistics_of(np.zeros((0, SIZE, SIZE)), np.zeros((0, 2, 10, 10)))
    assert not maximization(BASIS, rotation_grid(2), empty).any()
    assert stats.n_patches == (stats + empty).n_patches


def test_solve__leaves_the_matrix_alone() -> None:
    matrix = np.diag([4.0, 2.0])
    equations = DenseEquations(matrix, np.array([4.0, 4.0]))
    np.testing.assert_allclose(equations.solve(), [1, 2])
    np.testing.assert_array_equal(matrix, np.diag([4.0, 2.0]))


# --- noise, shifts, Q ---


def test_noise_variance__is_the_mean_squared_residual() -> None:
    _, patches, weight, stats = small_problem()
    x = 30 * np.random.default_rng(5).standard_normal(BASIS.n_coefficients)
    images = operator(2).project(x)
    residual = 0.0
    for p, k, s_y, s_x in np.ndindex(weight.shape):
        seen = reference.shifted_view(images[k], (s_y, s_x))
        distance = np.sum((patches[p] - seen) ** 2)
        residual += float(weight[p, k, s_y, s_x] * distance)
    found = noise_variance(operator(2), x, stats)
    assert found == pytest.approx(residual / (3 * SIZE**2), rel=1e-10)
    matrix, right_side = normal_equations(operator(2), stats)
    quadratic = stats.patch_energy - 2 * x @ right_side + x @ matrix @ x
    assert found == pytest.approx(quadratic / (3 * SIZE**2), rel=1e-10)


def test_expected_log_likelihood__matches_the_printed_sum() -> None:
    _, patches, weight, stats = small_problem()
    generator = np.random.default_rng(5)
    x = 30 * generator.standard_normal(BASIS.n_coefficients)
    prior = uniform_shift_prior(SIZE, 0.4)
    joint = reference.joint_log_probabilities(
        patches, operator(2).project(x), prior, 0.7, np.full(2, 0.5)
    )
    found = expected_log_likelihood(Hypotheses(operator(2), x, prior, 0.7), stats)
    wanted = reference.expected_log_likelihood(weight, joint)
    assert found == pytest.approx(wanted, rel=1e-10)


def test_expected_log_likelihood__noise_variance_maximizes_it() -> None:
    x, _, _, stats = small_problem()
    prior = shift_prior_table(stats)
    best = noise_variance(operator(2), x, stats)
    at = [
        expected_log_likelihood(Hypotheses(operator(2), x, prior, factor * best), stats)
        for factor in (0.99, 1.0, 1.01)
    ]
    assert at[1] > max(at[0], at[2])


def test_expected_log_likelihood__shift_of_prior_zero() -> None:
    x, _, _, stats = small_problem()
    prior = uniform_shift_prior(SIZE, 0.0)
    hypotheses = Hypotheses(operator(2), x, prior, 1.0)
    assert expected_log_likelihood(hypotheses, stats) == -np.inf


def test_shift_prior_table__is_the_mean_posterior() -> None:
    _, _, weight, stats = small_problem()
    found = shift_prior_table(stats)
    np.testing.assert_allclose(found, reference.shift_prior_table(weight), atol=1e-15)
    assert found.sum() == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("empty", [0.0, 0.3, 1.0])
def test_uniform_shift_prior__two_probabilities(empty: float) -> None:
    prior = uniform_shift_prior(SIZE, empty)
    inside = np.delete(np.delete(prior, SIZE, 0), SIZE, 1)
    assert prior.shape == (10, 10)
    assert prior.sum() == pytest.approx(1)
    assert inside.sum() == pytest.approx(1 - empty)
    np.testing.assert_allclose(inside, inside[0, 0])
    np.testing.assert_allclose(prior[SIZE], empty / 19)
    np.testing.assert_allclose(prior[:, SIZE], empty / 19)


# --- EM ---


@pytest.mark.parametrize("learn_noise", [False, True])
def test_em__never_lowers_the_likelihood(learn_noise: bool) -> None:
    _, patches, _ = simulated(300, 6)
    rotations = rotation_grid(6)
    x = np.random.default_rng(3).standard_normal(BASIS.n_coefficients)
    prior, variance = uniform_shift_prior(SIZE, 0.3), 0.5
    likelihoods = []
    for _ in range(7):
        images = operator(6).project(x)
        stats = expectation(patches, images, prior, variance)
        likelihoods.append(stats.log_likelihood)
        before = expected_log_likelihood(
            Hypotheses(operator(6), x, prior, variance), stats
        )
        x, prior = maximization(BASIS, rotations, stats), shift_prior_table(stats)
        if learn_noise:
            variance = noise_variance(operator(6), x, stats)
        after = expected_log_likelihood(
            Hypotheses(operator(6), x, prior, variance), stats
        )
        assert after >= before
    rises = np.diff(likelihoods)
    assert (rises > -1e-6 * np.abs(likelihoods[0])).all()
    assert rises.sum() > 100


def test_em__the_truth_nearly_stays() -> None:
    x, patches, prior = simulated(2000, 6, spread=0.2)
    stats = expectation(patches, operator(6).project(x), prior, 0.04)
    found = maximization(BASIS, rotation_grid(6), stats)
    error = operator(6).project(found - x)
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(operator(6).project(x))
    assert noise_variance(operator(6), found, stats) == pytest.approx(0.04, rel=0.05)
    np.testing.assert_allclose(shift_prior_table(stats), prior, atol=0.01)
