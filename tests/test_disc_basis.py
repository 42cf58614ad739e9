"""PSWFs against their definition, independent quadrature and another program."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import roots_legendre

from numbasaem.errors import InputError
from numbasaem.projection.disc_basis import DiscBasis

Array = NDArray[np.float64]


def polar_rule(n_radial: int, n_angular: int) -> tuple[Array, Array, Array]:
    """Polar points of the unit disc and their areas, Gauss times trapezoid rule."""
    nodes, weights = roots_legendre(n_radial)
    radius, weights = (nodes + 1) / 2, weights / 2
    angle = 2 * np.pi * np.arange(n_angular) / n_angular
    grid_radius, grid_angle = np.meshgrid(radius, angle, indexing="ij")
    area = np.repeat(radius * weights, n_angular) * 2 * np.pi / n_angular
    return grid_radius.ravel(), grid_angle.ravel(), area


def pswf(
    disc: DiscBasis, order: int, radius: Array, angle: Array
) -> NDArray[np.complex128]:
    """The functions (order, n) at polar points, order of either sign."""
    radial = disc.radial_modes(abs(order)).evaluate(radius)
    values: NDArray[np.complex128] = radial * np.exp(1j * order * angle)
    return values / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("size", [5, 8, 11])
def test_pswf__orthonormal_on_the_disc(size: int) -> None:
    disc = DiscBasis(size)
    radius, angle, area = polar_rule(90, 64)
    orders = [-3, -1, 0, 1, 2, 7, 10]
    functions = np.concatenate([pswf(disc, n, radius, angle) for n in orders])
    gram = (functions.conj() * area) @ functions.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


@pytest.mark.parametrize("size", [5, 8, 11])
@pytest.mark.parametrize("order", [-3, 0, 1, 4, 10])
def test_pswf__eigenvalue_equation(size: int, order: int) -> None:
    disc = DiscBasis(size)
    radius, angle, area = polar_rule(70, 96)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)])
    test_radius = np.array([0.1, 0.37, 0.8, 1.0])
    test_angle = np.array([0.3, 2.0, 4.0, 5.5])
    frequency = np.stack(
        [test_radius * np.cos(test_angle), test_radius * np.sin(test_angle)]
    )
    kernel = np.exp(1j * disc.bandlimit * points.T @ frequency)
    integral = (pswf(disc, order, radius, angle) * area) @ kernel
    alpha = disc.radial_modes(abs(order)).eigenvalues
    expected = alpha[:, np.newaxis] * pswf(disc, order, test_radius, test_angle)
    np.testing.assert_allclose(integral, expected, atol=1e-12)


def test_radial_modes__orthonormal_for_every_kept_order() -> None:
    disc = DiscBasis(11)
    order = 0
    while len(modes := disc.radial_modes(order).evaluate(disc.nodes)):
        gram = (modes * disc.node_weights) @ modes.T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)
        order += 1
    assert order > 20


def test_radial_modes__last_term_is_negligible() -> None:
    disc = DiscBasis(31)
    for order in (0, 1, 10, 40):
        assert np.abs(disc.radial_modes(order).coefficients[:, -1]).max() < 1e-14


@pytest.mark.parametrize("truncation", [1e-8, 1e-3, 1.0])
def test_truncation__keeps_exactly_the_concentrated(truncation: float) -> None:
    full, cut = DiscBasis(11, 1e-8), DiscBasis(11, truncation)
    for order in range(12):
        eigenvalues = full.radial_modes(order).eigenvalues
        concentration = (full.bandlimit / (2 * np.pi) * np.abs(eigenvalues)) ** 2
        spill = np.maximum(1 - concentration, 1e-16)
        kept = np.sqrt(concentration / spill) > truncation
        np.testing.assert_array_equal(
            np.arange(len(kept)) < len(cut.radial_modes(order).eigenvalues), kept
        )


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [8, 11])
def test_pswf__matches_aspire(size: int) -> None:
    aspire = pytest.importorskip("aspire.basis")
    theirs = aspire.PSWFBasis2D(size, gamma_trunc=1e-3, dtype=np.float64)
    ours = DiscBasis(size, 1e-3)
    radius = np.linspace(0.02, 0.98, 25)
    angle = np.zeros_like(radius)
    for order, n_modes in enumerate(theirs.max_ns[:11]):
        alpha = ours.radial_modes(order).eigenvalues
        assert len(alpha) == n_modes
        # ASPIRE's tridiagonal matrix is in single precision: hence the tolerances.
        alpha_aspire = np.abs(theirs.alpha_all[order][:n_modes])
        np.testing.assert_allclose(np.abs(alpha), alpha_aspire, rtol=1e-4)
        only_this_order = [0] * order + [n_modes]
        known = theirs._evaluate_pswf2d_all(radius, angle, only_this_order).real
        values = pswf(ours, order, radius, angle).real
        signs = np.sign(np.sum(known * values, axis=1, keepdims=True))
        np.testing.assert_allclose(values * signs, known, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((1,), "size"), ((11, 0.0), "truncation"), ((11, math.nan), "truncation")],
)
def test_disc_basis__names_the_bad_argument(
    arguments: tuple[Any, ...], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        DiscBasis(*arguments)


def test_radial_modes__refuses_a_negative_index() -> None:
    with pytest.raises(InputError, match="angular_index"):
        DiscBasis(11).radial_modes(-1)
