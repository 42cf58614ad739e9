"""Whole particles in steerable features: against slow twins, pixels and each other."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from numbasaem import VolumeBasis, maximization
from numbasaem.errors import InputError
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.kernels.llvm import LANES
from numbasaem.kernels.windows import steerable
from numbasaem.kernels.windows import steerable_statistics as kernels
from numbasaem.observations.window_expectation import window_expectation
from numbasaem.observations.window_operands import images_in_groups
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.projection.steerable_basis import SteerableBasis
from numbasaem.projection.view_projections import ViewProjections
from numbasaem.simulation.scene import simulate
from numbasaem.volume.phantom import folded_chain
from tests import reference
from tests.helpers import (
    assert_close,
    noise,
    random_coefficients,
    windows_in_pixels,
)

SIZE, ELL_MAX = 7, 4


@pytest.fixture(scope="module")
def basis() -> VolumeBasis:
    return VolumeBasis(SIZE, ELL_MAX)


@pytest.fixture(scope="module")
def views() -> ViewGrid:
    return ViewGrid(60)


@pytest.fixture(scope="module")
def operator(basis: VolumeBasis, views: ViewGrid) -> ViewProjections:
    return ViewProjections(basis, views)


# --- rotations ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 60, 552, 4608])
def test_view_grid__about_as_many_in_opposite_views_and_fours(n: int) -> None:
    views = ViewGrid(n)
    assert len(views) == views.n_views * views.n_angles == len(views.rotations)
    assert len(views) == pytest.approx(n, rel=0.2)
    assert views.n_angles % 4 == 0
    assert views.n_views % 2 == 0
    directions = views.view_rotations[:, 2]
    np.testing.assert_allclose(directions[::2], -directions[1::2], atol=1e-12)
    identity = views.rotations @ views.rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(identity - np.eye(3), 0, atol=1e-12)


def test_view_grid__is_even() -> None:
    """Degree-2 averages of the view directions vanish as those over the sphere do."""
    directions = ViewGrid(4608).view_rotations[:, 2]
    np.testing.assert_allclose(
        directions.T @ directions / len(directions), np.eye(3) / 3, atol=0.01
    )


@pytest.mark.parametrize("n", [7, 3.5, True])
def test_view_grid__refuses(n: object) -> None:
    with pytest.raises(InputError, match="rotations: expected a whole number"):
        ViewGrid(n)  # type: ignore[arg-type]


# --- features ----------------------------------------------------------------------


@pytest.mark.parametrize(("size", "ell_max"), [(7, 4), (7, 10), (8, 5), (11, 10)])
def test_features__make_up_the_projections(size: int, ell_max: int) -> None:
    basis, views = VolumeBasis(size, ell_max), ViewGrid(24)
    x = random_coefficients(basis)
    features = SteerableBasis(basis)
    images = basis.project(x, views.view_rotations[::2]).reshape(-1, size**2)
    coefficients = ViewProjections(basis, views).coefficients(x)
    found = coefficients @ features.images
    np.testing.assert_allclose(found, images, atol=2e-5 * np.abs(images).max())
    assert list(features.counts) == sorted(features.counts, reverse=True)


def test_features__energies_are_those_of_the_images(
    basis: VolumeBasis, views: ViewGrid, operator: ViewProjections
) -> None:
    x = random_coefficients(basis)
    energies = operator.energies(operator.coefficients(x))
    images = basis.project(x, views.rotations)
    wanted = (images**2).sum(axis=(1, 2)).reshape(energies.shape)
    np.testing.assert_allclose(energies, wanted, rtol=1e-4)


def test_features__adjoint_and_matrices(
    basis: VolumeBasis, operator: ViewProjections, generator: np.random.Generator
) -> None:
    x = random_coefficients(basis)
    both = operator.coefficients(x)
    other = generator.standard_normal(both.shape)
    assert np.vdot(both, other) == pytest.approx(x @ operator.adjoint(other))
    matrices = operator.matrices(slice(None))
    np.testing.assert_allclose(matrices @ x, both, atol=1e-10)


# --- kernels -----------------------------------------------------------------------


class Case:
    """A region of a block and a half of windows, and a few pairs of views."""

    def __init__(self, seed: int, strength: float) -> None:
        generator = np.random.default_rng(seed)
        counts, n_pixels = (3, 2, 2, 1), 9
        self.orders = np.repeat(np.arange(4), counts)
        n_half = len(self.orders)
        images = generator.standard_normal((2 * n_half, 3, 3)) / 3
        images[n_half : n_half + counts[0]] = 0  # sines of order 0
        pairs = strength * generator.standard_normal((3, 2 * n_half))
        pairs[:, n_half : n_half + counts[0]] = 0
        self.coefficients = pairs.astype(np.float32)
        self.angles = (np.arange(8) + 0.5) * np.pi / 4
        self.bias = generator.standard_normal((3, 2, 8)).astype(np.float32)
        phases = self.angles[:2, None] * np.arange(4)
        waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
        self.fours = np.array([[0, 7, 3, 4], [1, 6, 2, 5]])
        self.n_rows, self.n_columns = 2, 96
        pixels = np.zeros((4, 2 * steerable.BLOCK + 3), np.float32)
        pixels[:, : self.n_columns + 2] = generator.standard_normal(
            (4, self.n_columns + 2), dtype=np.float32
        )
        self.groups = images_in_groups(images.reshape(-1, n_pixels))
        self.pixels, self.images = pixels, images
        rows, columns = np.divmod(np.arange(n_pixels), 3)
        self.offsets = rows * pixels.shape[1] + columns
        self.types = steerable.counts_in_types(counts), (0,) * LANES
        self.of_views = (
            self.coefficients,
            waves.astype(np.float32),
            np.ascontiguousarray(self.bias[:, :, self.fours]),
        )
        whole = pixels[:, : self.n_columns + 2].astype(np.float64)
        features = reference.window_features(images, whole)
        self.windows = features.reshape(-1, 2 * n_half)

    def log2_evidence(self) -> np.ndarray:
        shape = (2, self.n_rows, 2, steerable.BLOCK)
        level, total = np.empty(shape, np.float32)
        kernels.steered_evidence(
            *self.types,
            self.groups,
            self.offsets,
            self.pixels,
            *self.of_views,
            level,
            total,
        )
        log2 = level + np.log2(np.maximum(total, np.float32(1e-30)))
        return log2.reshape(self.n_rows, -1)[:, : self.n_columns].ravel()

    def corners(self) -> np.ndarray:
        """Where all windows begin, in blocks."""
        y, x = np.divmod(np.arange(3 * steerable.BLOCK), self.n_columns)
        return (y * self.pixels.shape[1] + x).reshape(3, -1)


@pytest.mark.parametrize("strength", [0.1, 1.0, 20.0])
def test_evidence__matches_reference(strength: float) -> None:
    case = Case(0, strength)
    wanted = np.log2(
        reference.steered_evidence(
            case.windows,
            case.coefficients.astype(np.float64),
            case.orders,
            case.angles,
            case.bias.astype(np.float64),
        )
    )
    found = case.log2_evidence()
    near = wanted > -30  # below that nothing is kept beside one
    assert near.any()
    bound = 1e-5 * max(1.0, strength)
    np.testing.assert_allclose(found[near], wanted[near], rtol=1e-6, atol=bound)


def features_of_block(case: Case, corners: np.ndarray) -> np.ndarray:
    """Features of the windows of a block, one window after the other."""
    features = np.empty(
        len(case.groups) * steerable.GROUP * steerable.BLOCK, np.float32
    )
    windows = np.empty(len(case.offsets) * steerable.BLOCK, np.float32)
    kernels.window_features(
        case.types[1],
        case.groups,
        case.pixels.ravel(),
        corners,
        case.offsets,
        windows,
        features,
    )
    return features.reshape(-1, steerable.BLOCK).T[:, : case.windows.shape[1]]


def test_features__match_reference() -> None:
    case = Case(2, 1.0)
    found = np.concatenate([features_of_block(case, c) for c in case.corners()])
    np.testing.assert_allclose(found, case.windows, atol=1e-5)
    products = reference.add_window_products(case.images, case.pixels, 1, 5)
    np.testing.assert_allclose(found[case.n_columns + 5], products, atol=1e-5)


def test_weighing__matches_reference() -> None:
    case = Case(1, 0.5)
    divisor = (case.log2_evidence() + 0.5).astype(np.float32)
    mass = np.empty((1, 3, 2, 2, 4))
    sums = np.empty((1, *case.coefficients.shape))
    windows = case.groups, case.offsets, case.pixels.ravel(), case.corners()
    blocks = divisor.reshape(3, steerable.BLOCK)
    given = (*case.types, *windows, *case.of_views, blocks)
    kernels.accumulate_steered(*given, 3, 0, mass, sums)
    wanted_mass, wanted_sums = reference.accumulate_steered(
        case.windows,
        case.coefficients.astype(np.float64),
        case.orders,
        case.angles,
        case.bias.astype(np.float64),
        divisor.astype(np.float64),
    )
    largest = np.abs(wanted_sums).max()
    np.testing.assert_allclose(mass[0], wanted_mass[:, :, case.fours], rtol=1e-4)
    np.testing.assert_allclose(sums[0], wanted_sums, atol=1e-5 * largest)


# --- the E-step --------------------------------------------------------------------


@pytest.mark.parametrize("snr", [0.05, 0.5, 5.0, 100.0])
def test_statistics__agree_with_sums_over_rotations_in_pixels(
    basis: VolumeBasis, views: ViewGrid, operator: ViewProjections, snr: float
) -> None:
    volume = folded_chain(SIZE)
    x = basis.expand(volume)
    sample = simulate(volume, size=SIZE, pixels=70, snr=snr, ell_max=ELL_MAX)
    pixels, variance = sample.micrographs[0], sample.noise_variance
    in_pixels = ProjectionOperator(basis, views.rotations)
    wanted, wanted_positions = windows_in_pixels(
        pixels, in_pixels.project(x), variance, 0.4
    )
    found, positions = window_expectation(pixels, basis, x, views, variance, 0.4)
    np.testing.assert_allclose(positions, wanted_positions, atol=2e-4)
    for name, operators in (
        ("right_side", (operator, in_pixels)),
        ("normal_matrix", (operator, in_pixels)),
    ):
        mine, theirs = (
            getattr(statistics, name)(projections)
            for statistics, projections in zip((found, wanted), operators, strict=True)
        )
        largest = np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * largest)
    product = found.normal_product(operator, x)
    np.testing.assert_allclose(product, found.normal_matrix(operator) @ x, rtol=1e-8)
    explained = wanted.explained_energy(in_pixels, x)
    assert found.explained_energy(operator, x) == pytest.approx(explained, rel=1e-3)
    assert found.empty_mass == pytest.approx(wanted.empty_mass, rel=1e-3)
    assert_close(found.rotation_mass, wanted.rotation_mass, 1e-3)
    likelihood = pytest.approx(wanted.log_likelihood, rel=1e-4)
    assert found.log_likelihood == likelihood
    assert found.patch_energy == pytest.approx(wanted.patch_energy, rel=1e-6)
    assert found.n_weighed < (positions.size if snr > 1 else positions.size + 1)


def test_statistics__same_bytes_on_any_number_of_threads(
    basis: VolumeBasis, views: ViewGrid
) -> None:
    pixels, x = noise(120, 90), random_coefficients(basis)
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    (one, _), (two, _) = (
        window_expectation(pixels, basis, x, views, 2.0, 0.5, threads=threads)
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(one.feature_sums, two.feature_sums)
    np.testing.assert_array_equal(one.view_weight, two.view_weight)
    assert one.evidence == two.evidence


def test_statistics__of_two_micrographs_add_up(
    basis: VolumeBasis, views: ViewGrid
) -> None:
    x = random_coefficients(basis)
    first, second = (
        window_expectation(noise(60, 70, seed=seed), basis, x, views, 2.0, 0.5)[0]
        for seed in (1, 2)
    )
    both = first + second
    assert both.n_patches == first.n_patches + second.n_patches
    np.testing.assert_array_equal(
        both.feature_sums, first.feature_sums + second.feature_sums
    )


def test_mask__no_window_in_it(basis: VolumeBasis, views: ViewGrid) -> None:
    pixels, x = noise(60, 70), random_coefficients(basis)
    mask = np.ones(pixels.shape, bool)
    mask[20:25] = False
    statistics, positions = window_expectation(
        pixels, basis, x, views, 2.0, 0.5, mask=mask
    )
    assert not positions[14:25].any()
    n_windows = statistics.n_patches * SIZE**2
    assert n_windows == pytest.approx(positions.size - 11 * positions.shape[1])


def test_least_distance__closer_particles_share_what_is_there(
    basis: VolumeBasis, views: ViewGrid
) -> None:
    pixels, x = noise(60, 70), 0.3 * random_coefficients(basis)
    _, near = window_expectation(pixels, basis, x, views, 1.0, 0.5, least_distance=3.0)
    _, far = window_expectation(
        pixels, basis, x, views, 1.0, 0.5, least_distance=2 * SIZE - 1
    )
    assert near.sum() > far.sum()


@pytest.mark.parametrize("distance", [0.5, 200.0])
def test_least_distance__is_refused(
    basis: VolumeBasis, views: ViewGrid, distance: float
) -> None:
    x = random_coefficients(basis)
    with pytest.raises(InputError, match="least_distance: expected 1 to 70 pixels"):
        window_expectation(
            noise(60, 70), basis, x, views, 1.0, 0.5, least_distance=distance
        )


# --- what the posterior is worth ---------------------------------------------------


def total_weights(
    snr: float, distance: int, side: int, corners: tuple[tuple[int, int], ...]
) -> tuple[float, float]:
    """Weight of all positions of four micrographs: found, over all configurations."""
    basis, views = VolumeBasis(5, 1), ViewGrid(8)
    prior, odds = np.full(len(views), 1 / len(views)), 1 / (2 * distance - 1) ** 2
    found = exact = 0.0
    for seed in range(4):
        generator = np.random.default_rng(seed)
        x = generator.standard_normal(basis.n_coefficients)
        images = basis.project(x, views.rotations)
        scale = np.sqrt(snr / np.mean(images**2))
        x, images = scale * x, scale * images
        micrograph = generator.standard_normal((side, side)).astype(np.float32)
        for row, column in corners:
            image = images[generator.integers(len(images))]
            micrograph[row : row + 5, column : column + 5] += image
        _, positions = window_expectation(
            micrograph, basis, x, views, 1.0, 0.5, least_distance=distance
        )
        log_evidence = reference.window_log_evidence(
            micrograph.astype(float), images, 1.0, prior
        )
        posterior = reference.configuration_posterior(
            np.exp(log_evidence).sum(axis=2), odds, distance
        )
        found, exact = found + positions.sum(), exact + posterior.sum()
    return found, exact


@pytest.mark.parametrize("snr", [0.05, 0.2, 1, 3, 6])
@pytest.mark.parametrize(
    ("distance", "side", "corners", "error"),
    [
        pytest.param(9, 15, ((0, 0), (0, 10), (9, 1), (10, 10)), 0.05, id="separated"),
        pytest.param(5, 13, ((0, 0), (0, 5), (6, 1), (7, 7)), 0.09, id="touching"),
    ],
)
def test_posterior__weighs_as_all_configurations_do(
    snr: float,
    distance: int,
    side: int,
    corners: tuple[tuple[int, int], ...],
    error: float,
) -> None:
    found, exact = total_weights(snr, distance, side, corners)
    assert found == pytest.approx(exact, rel=error)


# --- the M-step --------------------------------------------------------------------


def test_maximization__is_that_of_sums_in_pixels(
    basis: VolumeBasis, views: ViewGrid
) -> None:
    volume = folded_chain(SIZE)
    sample = simulate(volume, size=SIZE, pixels=80, snr=2, ell_max=ELL_MAX)
    pixels, variance = sample.micrographs[0], sample.noise_variance
    x = basis.expand(volume)
    images = basis.project(x, views.rotations)
    found = maximization(
        basis, views, window_expectation(pixels, basis, x, views, variance, 0.4)[0]
    )
    wanted = maximization(
        basis, views.rotations, windows_in_pixels(pixels, images, variance, 0.4)[0]
    )
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_maximization__of_windows_takes_a_view_grid(
    basis: VolumeBasis, views: ViewGrid
) -> None:
    x = random_coefficients(basis)
    statistics, _ = window_expectation(noise(60, 70), basis, x, views, 2.0, 0.5)
    with pytest.raises(InputError, match="rotations: expected a ViewGrid"):
        maximization(basis, views.rotations, statistics)
    with pytest.raises(InputError, match="statistics: expected sums of features"):
        maximization(basis, ViewGrid(200), statistics)
