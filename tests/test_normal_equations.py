"""Equations of the M-step solved without their matrix, against those with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from numbasaem import Settings, VolumeBasis, maximization, reconstruct
from numbasaem.errors import InputError, RunWarning
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.feature_statistics import FeatureStatistics
from numbasaem.projection.view_projections import ViewProjections
from numbasaem.reconstruction import normal_equations as equations_module
from numbasaem.reconstruction.normal_equations import (
    DenseEquations,
    IterativeEquations,
    normal_equations,
)
from numbasaem.simulation.scene import simulate
from numbasaem.volume.phantom import folded_chain
from numbasaem.volume.symmetry import invariant_volumes

SIZE, ELL_MAX = 9, 6
BASIS = VolumeBasis(SIZE, ELL_MAX)
VIEWS = ViewGrid(600)


def spreads() -> np.ndarray:
    """Point spreads of two optics groups."""
    both = np.zeros((2, 2 * SIZE - 1, 2 * SIZE - 1))
    both[:, SIZE - 1, SIZE - 1] = 0.8, 0.5
    both[1, SIZE - 1, SIZE - 2 : SIZE + 1] += 0.2
    return both


def statistics_of(operator: ViewProjections, share: float = 1.0) -> FeatureStatistics:
    """Random statistics of a volume, seen in a share of the views."""
    generator = np.random.default_rng(0)
    empty = FeatureStatistics.of_nothing(operator)
    weight = generator.gamma(0.5, size=empty.view_weight.shape)
    n_seen = round(share * len(weight))
    weight[n_seen:] = 0
    volume = generator.standard_normal(operator.basis.n_coefficients)
    sums = operator.gram_product(weight, operator.coefficients(volume))
    noise = 0.1 * np.abs(sums).max() * generator.standard_normal(sums.shape)
    seen = np.any(weight.reshape(len(sums), -1), axis=1, keepdims=True)
    return replace(empty, view_weight=weight, feature_sums=sums + seen * noise)


@pytest.fixture(scope="module", params=["one group", "two groups"])
def operator(request: pytest.FixtureRequest) -> ViewProjections:
    lenses = spreads() if request.param == "two groups" else None
    return ViewProjections(BASIS, VIEWS, lenses)


def both_ways(
    operator: ViewProjections, share: float = 1.0
) -> tuple[DenseEquations, IterativeEquations]:
    statistics = statistics_of(operator, share)
    matrix = statistics.normal_matrix(operator)
    return (
        DenseEquations(matrix, statistics.right_side(operator)),
        IterativeEquations.of_statistics(operator, statistics),
    )


def assert_near(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("prior", [0.0, 0.01, 3.0])
def test_solution__is_that_with_the_matrix(
    operator: ViewProjections, prior: float
) -> None:
    dense, iterative = both_ways(operator)
    weakest = prior * dense.trace / BASIS.n_coefficients
    precision = weakest * np.linspace(1, 2, BASIS.n_coefficients)
    wanted = np.linalg.solve(dense.matrix + np.diag(precision), dense.right_side)
    found = iterative.with_precision(precision).solve()
    assert_near(found, wanted, 1e-6)
    assert_near(dense.with_precision(precision).solve(), wanted, 1e-6)


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "O"])
def test_solution__of_symmetric_volumes(
    operator: ViewProjections, symmetry: str
) -> None:
    volumes = invariant_volumes(BASIS, symmetry)
    dense, iterative = both_ways(operator)
    matrix = volumes.T @ dense.matrix @ volumes
    wanted = np.linalg.solve(matrix, volumes.T @ dense.right_side)
    found = iterative.restricted(volumes)
    assert found.n_unknowns == volumes.shape[1]
    assert_near(found.solve(), wanted, 1e-6)
    assert_near(found.products(np.eye(len(matrix))), matrix, 1e-9)


def test_trace_and_products__are_those_of_the_matrix(operator: ViewProjections) -> None:
    dense, iterative = both_ways(operator)
    precision = np.linspace(0, dense.trace, BASIS.n_coefficients)
    for one, other in (
        (dense, iterative),
        (dense.with_precision(precision), iterative.with_precision(precision)),
    ):
        assert other.trace == pytest.approx(one.trace, rel=1e-9)
        vectors = np.random.default_rng(1).standard_normal((2, BASIS.n_coefficients))
        assert_near(other.products(vectors), one.products(vectors), 1e-9)


def test_mean__is_that_over_many_rotations() -> None:
    """Even weights on many views make A nearly its average."""
    operator = ViewProjections(BASIS, ViewGrid(8000))
    weight = np.ones((operator.views.n_views, operator.views.n_angles))
    statistics = replace(FeatureStatistics.of_nothing(operator), view_weight=weight)
    matrix = statistics.normal_matrix(operator)
    means = operator.mean_gram(np.array([weight.sum()]))
    wanted = np.zeros_like(matrix)
    start = 0
    for ell, mean in enumerate(means):
        for _ in range(2 * ell + 1):
            rows = slice(start, start + len(mean))
            wanted[rows, rows] = mean
            start += len(mean)
    assert_near(matrix, wanted, 0.02)


def test_few_views__leave_the_rest_near_zero() -> None:
    dense, iterative = both_ways(ViewProjections(BASIS, VIEWS), share=0.04)
    assert 0 < iterative.n_unconstrained() <= dense.n_unconstrained()
    found = iterative.solve()
    assert np.isfinite(found).all()
    assert np.linalg.norm(found) < 1.2 * np.linalg.norm(dense.solve())


@pytest.mark.parametrize("share", [0.04, 0.08, 0.2])
def test_few_views__with_a_weak_prior(share: float) -> None:
    dense, iterative = both_ways(ViewProjections(BASIS, VIEWS), share)
    precision = np.full(BASIS.n_coefficients, 1e-4 * dense.trace / BASIS.n_coefficients)
    found = iterative.with_precision(precision)
    assert found.n_unconstrained() == 0
    assert_near(found.solve(), dense.with_precision(precision).solve(), 1e-4)


def test_one_pair_of_views__constrains_no_more_than_its_features() -> None:
    operator = ViewProjections(BASIS, VIEWS)
    dense, iterative = both_ways(operator, share=2 / VIEWS.n_views)
    least = BASIS.n_coefficients - operator.n_features
    assert 0 < least == iterative.n_unconstrained() <= dense.n_unconstrained()
    assert np.isfinite(iterative.solve()).all()


def test_nothing_seen__is_zero() -> None:
    operator = ViewProjections(BASIS, VIEWS)
    nothing = FeatureStatistics.of_nothing(operator)
    iterative = IterativeEquations.of_statistics(operator, nothing)
    assert not iterative.solve().any()
    assert iterative.n_unconstrained() == BASIS.n_coefficients


def test_too_few_iterations__are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equations_module, "_MOST_ITERATIONS", 2)
    _, iterative = both_ways(ViewProjections(BASIS, VIEWS))
    with pytest.warns(RunWarning, match="not solved to 1e-08 after 2 iterations"):
        iterative.solve()


def test_maximization__is_the_same_above_the_largest_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statistics = statistics_of(ViewProjections(BASIS, VIEWS))
    precision = np.linspace(0, 3, BASIS.n_coefficients)
    wanted = maximization(BASIS, VIEWS, statistics, precision)
    monkeypatch.setattr(equations_module, "LARGEST_MATRIX", 10)
    operator = ViewProjections(BASIS, VIEWS)
    assert isinstance(normal_equations(operator, statistics), IterativeEquations)
    found = maximization(BASIS, VIEWS, statistics, precision)
    assert_near(found, wanted, 1e-6)
    np.testing.assert_array_equal(
        found, maximization(BASIS, VIEWS, statistics, precision)
    )
    with pytest.raises(InputError, match="prior_precision: expected"):
        maximization(BASIS, VIEWS, statistics, precision[1:])


@pytest.mark.parametrize("symmetry", ["C1", "C3"])
def test_run__is_nearly_the_same_without_the_matrix(
    monkeypatch: pytest.MonkeyPatch, symmetry: str
) -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=120, snr=2, ell_max=4)
    settings = Settings(
        size=SIZE,
        model="window",
        symmetry=symmetry,
        ell_max=(4,),
        iterations=(3,),
        rotations=(200,),
        halves=False,
        starts=1,
        threads=1,
    )
    wanted = reconstruct(sample.micrographs, settings).volume
    monkeypatch.setattr(equations_module, "LARGEST_MATRIX", 10)
    found = reconstruct(sample.micrographs, settings).volume
    assert (found != wanted).any()
    assert_near(found, wanted, 1e-4)


def test_energies_and_products__are_those_of_each_pair(
    operator: ViewProjections,
) -> None:
    """Against the Gram matrix of each pair, turned back."""
    statistics = statistics_of(operator)
    weight = statistics.view_weight
    volume = np.random.default_rng(2).standard_normal(BASIS.n_coefficients)
    both = operator.coefficients(volume)
    of_pairs = weight.reshape(len(both), 2, -1)
    wanted = np.array(
        [
            operator.weighted_gram(of_pair) @ vector
            for of_pair, vector in zip(of_pairs, both, strict=True)
        ]
    )
    assert_near(operator.gram_product(weight, both), wanted, 1e-10)
    energy = np.vdot(weight, operator.energies(both))
    assert energy == pytest.approx(np.vdot(both, wanted), rel=1e-10)
