"""Coupling coefficients against adaptive quadrature and the plain reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import sph_harm_y, spherical_jn

from numbasaem.kernels.coupling import bessel_to_pswf
from numbasaem.projection.coupling import coupling_coefficients
from numbasaem.projection.disc_basis import DiscBasis, RadialModes
from tests import reference


def bessel_zeros(ell: int, limit: float) -> NDArray[np.float64]:
    """Positive zeros of the spherical Bessel function below a limit."""
    grid = np.linspace(0.5, limit, 2000)
    values = spherical_jn(ell, grid)
    return np.array(
        [
            brentq(lambda u: spherical_jn(ell, u), *grid[i : i + 2])
            for i in np.flatnonzero(values[:-1] * values[1:] < 0)
        ]
    )


def adaptive_overlap(ell: int, zero: float, modes: RadialModes, n: int) -> float:
    """Overlap of one spherical Bessel function with one radial PSWF."""
    scale = 4 / abs(spherical_jn(ell + 1, zero))

    def integrand(k: float) -> float:
        pswf = modes.evaluate(np.array([k]))[n, 0]
        return float(scale * spherical_jn(ell, zero * k) * pswf * k)

    return float(quad(integrand, 0, 1, epsabs=1e-12)[0])


@pytest.mark.parametrize("size", [5, 8, 11])
def test_coupling_coefficients__match_adaptive_quadrature(size: int) -> None:
    disc = DiscBasis(size)
    zeros = [bessel_zeros(ell, disc.bandlimit) for ell in range(7)]
    coupling = coupling_coefficients(zeros, disc)
    for ell, s, order, n in [(0, 0, 0, 0), (2, 0, 0, 1), (3, 0, 1, 2), (4, 0, 4, 0)]:
        if s >= len(zeros[ell]):
            continue
        integral = adaptive_overlap(ell, zeros[ell][s], disc.radial_modes(order), n)
        value = (
            np.sqrt(2 * np.pi) * sph_harm_y(ell, order, np.pi / 2, 0).real * integral
        )
        row = sum(len(zeros[lower]) for lower in range(ell)) + s
        assert coupling[order][row, n] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("n_radial", "n_modes"), [(1, 1), (7, 13), (16, 3)])
def test_bessel_to_pswf__matches_reference(n_radial: int, n_modes: int) -> None:
    rng = np.random.default_rng(n_radial)
    n_nodes, ell_max = 29, 5
    arguments = (
        rng.standard_normal((n_radial, n_nodes)),
        rng.integers(0, ell_max + 1, n_radial),
        rng.standard_normal((n_modes, n_nodes)),
        rng.integers(0, ell_max + 1, n_modes),
        rng.standard_normal((ell_max + 1, ell_max + 1)),
        rng.random(n_nodes),
    )
    coupling = np.full((n_radial, n_modes), np.nan)
    plain = np.full((n_radial, n_modes), np.nan)
    bessel_to_pswf(*arguments, coupling)
    reference.bessel_to_pswf(*arguments, plain)
    np.testing.assert_allclose(coupling, plain, atol=1e-12)


def test_coupling_coefficients__vanish_by_parity_and_degree() -> None:
    disc = DiscBasis(8)
    zeros = [bessel_zeros(ell, disc.bandlimit) for ell in range(5)]
    degree = np.repeat(np.arange(5), [len(block) for block in zeros])
    for order, block in enumerate(coupling_coefficients(zeros, disc)):
        absent = (degree < order) | ((degree + order) % 2 == 1)
        assert not block[absent].any()
        assert block[~absent].any(axis=1).all()


def test_coupling_coefficients__no_radial_function_of_a_degree() -> None:
    disc = DiscBasis(5)
    zeros = [bessel_zeros(ell, disc.bandlimit) for ell in range(9)]
    assert len(zeros[8]) == 0
    coupling = coupling_coefficients(zeros, disc)
    assert all(len(block) == sum(map(len, zeros)) for block in coupling)
