"""The model of autocorrelations against sums over placements, and fits of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from numbasaem import VolumeBasis, align, autocorrelations, simulate
from numbasaem.autocorrelation.fit import (
    autocorrelations_of_volume,
    fit_autocorrelations,
    fit_two_orders,
)
from numbasaem.autocorrelation.lags import lags_within
from numbasaem.autocorrelation.model import AutocorrelationModel, view_rule
from numbasaem.autocorrelation.residuals import Residuals, noise_in_orders
from numbasaem.autocorrelation.second_order import first_two_orders
from numbasaem.errors import InputError, RunWarning
from numbasaem.io.atomic_models import load_volume
from numbasaem.micrographs.fourier_crop import fourier_crop
from numbasaem.volume.phantom import folded_chain
from tests.helpers import (
    Array,
    all_rotations,
    assert_close,
    noise,
    random_coefficients,
)


def placement_sums(image: Array, size: int) -> Array:
    """Sums over all pixels of a micrograph that shows one particle without noise."""
    micrograph = np.pad(image, 2 * size)
    lags = lags_within(size)
    shifted = np.array(
        [np.roll(micrograph, (-y, -x), (0, 1)).ravel() for y, x in lags.single]
    )
    third = (shifted * shifted[0]) @ shifted.T
    pairs = third[lags.first, lags.second]
    return np.concatenate([[shifted[0].sum()], shifted @ shifted[0], pairs])


@pytest.mark.parametrize(("size", "ell_max"), [(5, 2), (6, 3)])
def test_model__matches_sums_over_all_placements(size: int, ell_max: int) -> None:
    basis = VolumeBasis(size, ell_max)
    x = random_coefficients(basis)
    rotations, weights = all_rotations(3 * ell_max)
    sums = [placement_sums(image, size) for image in basis.project(x, rotations)]
    mean = weights @ np.array(sums)
    for order, values in zip(
        np.split(mean, [1, 1 + len(lags_within(size).single)]),
        AutocorrelationModel(basis).values(x),
        strict=True,
    ):
        assert_close(values, order, 1e-10)


def test_model__noise_adds_where_pixels_coincide() -> None:
    moments = autocorrelations([2 * noise(500, 500) + np.float32(0.5)], 5)
    constant = np.concatenate(
        [
            np.full(part.size, 0.5**order)
            for order, part in enumerate(moments.by_order(moments.values), start=1)
        ]
    )
    expected = constant + 4 * np.concatenate(noise_in_orders(5, 0.5))
    in_errors = (moments.values - expected) / moments.errors
    assert np.mean(in_errors**2) == pytest.approx(1, abs=0.5)
    assert np.abs(in_errors).max() < 5


@pytest.mark.parametrize("degree", [6, 9])
def test_view_rule__is_exact_for_even_polynomials(degree: int) -> None:
    rotations, weights = view_rule(degree)
    x, y, z = rotations[:, 2].T
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    for power in range(2, degree + 1, 2):
        for component in (x, y, z, (x + 2 * y - 2 * z) / 3):
            mean = weights @ component**power
            assert mean == pytest.approx(1 / (power + 1), abs=1e-12)


@pytest.mark.parametrize("n_orders", [2, 3])
@pytest.mark.parametrize("around", [(), (0.7, -0.2, 1.3, 0.1, -0.4, 0.3)])
def test_jacobian__matches_differences(
    n_orders: int, around: tuple[float, ...]
) -> None:
    basis = VolumeBasis(6, 3)
    x = random_coefficients(basis)
    x[0] = 5
    moments = autocorrelations_of_volume(basis, x, 0.004, 0.3)
    problem = Residuals(moments, AutocorrelationModel(basis), bool(around))
    degree_2 = VolumeBasis(6, 2).n_coefficients
    unknowns = np.append(0.9 * x[:degree_2], [*around, np.log(0.005), 0.4])
    jacobian = problem.jacobian(unknowns, n_orders)
    step = 1e-5
    differences = [
        problem.residuals(unknowns + step * unit, n_orders)
        - problem.residuals(unknowns - step * unit, n_orders)
        for unit in np.eye(unknowns.size)
    ]
    assert_close(jacobian, np.transpose(differences) / (2 * step), 1e-7)


def test_fit__finds_volume_density_and_noise_of_exact_values() -> None:
    basis = VolumeBasis(7, 2)
    x = basis.expand(folded_chain(7))
    moments = autocorrelations_of_volume(basis, x, 0.003, 0.2)
    fit = fit_autocorrelations(moments, basis, n_starts=2)
    assert not fit.stalled
    assert fit.misfit == min(fit.misfits) < 0.1
    assert fit.density == pytest.approx(0.003, rel=1e-3)
    assert fit.noise_variance == pytest.approx(0.2, rel=1e-3)
    volume = basis.evaluate(fit.volume_coefficients)
    assert align(volume, basis.evaluate(x)).correlation > 0.95
    again = fit_autocorrelations(moments, basis, n_starts=1)
    assert again.misfit == fit.misfits[0]


def test_fit__finds_density_and_noise_of_a_micrograph() -> None:
    sample = simulate(folded_chain(7), size=7, pixels=700, snr=2, ell_max=2)
    moments = autocorrelations(sample.micrographs, 7)
    fit = fit_autocorrelations(moments, VolumeBasis(7, 2), n_starts=2)
    assert not fit.stalled
    n_particles = len(sample.coordinates[0])
    assert fit.density == pytest.approx(n_particles / 700**2, rel=0.1)
    assert fit.noise_variance == pytest.approx(sample.noise_variance, rel=0.02)


@pytest.mark.parametrize("snr", [3.5, 0.25])
def test_fit_two_orders__finds_density_and_noise(snr: float) -> None:
    sample = simulate(folded_chain(7), size=7, pixels=700, snr=snr, seed=1)
    (pixels,) = sample.micrographs
    moments = first_two_orders(pixels, np.zeros(pixels.shape, bool), 7)
    fit = fit_two_orders(moments)
    assert not fit.stalled
    density = len(sample.coordinates[0]) / pixels.size
    assert fit.density == pytest.approx(density, rel=0.1)
    assert fit.noise_variance == pytest.approx(sample.noise_variance, rel=0.02)


def test_model__of_two_orders_is_that_of_three() -> None:
    basis = VolumeBasis(6, 2)
    x = random_coefficients(basis)
    two = AutocorrelationModel(basis, n_orders=2).values(x)
    for order, wanted in zip(two, AutocorrelationModel(basis).values(x), strict=False):
        assert_close(order, wanted, 1e-12)
    assert len(two) == 2


def test_fit__says_that_it_stalled_and_how_far_off() -> None:
    basis = VolumeBasis(5, 2)
    moments = autocorrelations_of_volume(basis, random_coefficients(basis) + 2, 0.005)
    sums = moments.sums.copy()
    sums[1:] *= np.where(np.arange(sums.size - 1) % 2, 1, -1)
    with pytest.warns(RunWarning, match=r"stalled .* standard deviations"):
        fit = fit_autocorrelations(replace(moments, sums=sums), basis, n_starts=2)
    assert fit.stalled
    assert fit.misfit > 2


def test_fit__refuses_what_tells_too_little() -> None:
    basis = VolumeBasis(5, 2)
    moments = autocorrelations_of_volume(basis, random_coefficients(basis) + 2, 0.005)
    with pytest.raises(InputError, match=r"at least 503 pixels.*found 380"):
        fit_autocorrelations(replace(moments, n_pixels=380), basis)
    with pytest.raises(InputError, match="brighter than their background"):
        fit_autocorrelations(replace(moments, sums=-moments.sums), basis)
    with pytest.raises(InputError, match="the size 5 of the moments"):
        fit_autocorrelations(moments, VolumeBasis(6, 2))
    with pytest.raises(InputError, match="n_starts: expected at least 1"):
        fit_autocorrelations(moments, basis, n_starts=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TRPV1_31.mrc", "1QLQ.pdb"])
def test_fit__finds_a_molecule_from_exact_values(name: str, data_folder: Path) -> None:
    density, _ = load_volume(data_folder / name, 11)
    basis = VolumeBasis(11, 4)
    x = basis.expand(fourier_crop(density, 11))
    moments = autocorrelations_of_volume(basis, x, 0.001)
    fit = fit_autocorrelations(moments, basis, n_starts=1)
    volume = basis.evaluate(fit.volume_coefficients)
    assert align(volume, basis.evaluate(x)).correlation > 0.9
