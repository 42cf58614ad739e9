"""The volume basis against quadrature, SciPy's harmonics and its own round trips."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import roots_legendre, sph_harm_y, spherical_jn

from numbasaem.errors import InputError
from numbasaem.geometry.ball_functions import BallFunctions
from numbasaem.geometry.rotations import random_rotations
from numbasaem.geometry.special_functions import (
    radial_functions,
    real_spherical_harmonics,
    spherical_bessel_zeros,
)
from numbasaem.volume.basis import VolumeBasis
from tests.helpers import random_coefficients

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def radial_bessel(ell: int, zero: float, k: Array) -> Array:
    """Equation (7)."""
    scale = 4 / abs(spherical_jn(ell + 1, zero))
    return np.asarray(scale * spherical_jn(ell, zero * k))


def frequencies(n: int) -> tuple[Array, Array, Array, Array]:
    """Quadrature of the unit ball: k, colatitude, longitude and weight, flat."""
    k, k_weight = roots_legendre(n)
    k, k_weight = (k + 1) / 2, k_weight / 2
    height, height_weight = roots_legendre(n)
    longitude = 2 * np.pi * np.arange(2 * n) / (2 * n)
    grids = np.meshgrid(k, np.arccos(height), longitude, indexing="ij")
    shares = np.meshgrid(
        k**2 * k_weight, height_weight, np.full(2 * n, np.pi / n), indexing="ij"
    )
    weight = shares[0] * shares[1] * shares[2]
    return grids[0].ravel(), grids[1].ravel(), grids[2].ravel(), weight.ravel()


def spectrum(basis: VolumeBasis, x: Complex, at: tuple[Array, Array, Array]) -> Complex:
    """Equation (6) by its plain triple sum."""
    k, colatitude, longitude = at
    values = np.zeros(k.shape, complex)
    for value, (ell, m, s) in zip(x, basis.indices, strict=True):
        zero = basis.radial_zeros(int(ell))[s - 1]
        harmonic = sph_harm_y(ell, m, colatitude, longitude)
        values += value * harmonic * radial_bessel(ell, zero, k)
    return values


# --- sizes and order ---------------------------------------------------------------


@pytest.mark.parametrize(("size", "ell_max"), [(5, 0), (11, 6), (7, 14)])
def test_blocks__hold_one_degree_each_and_are_views(size: int, ell_max: int) -> None:
    functions = BallFunctions(size, ell_max)
    stack = np.zeros((2, 3, functions.n_coefficients))
    blocks = functions.blocks(stack)
    shapes = [(2, 3, 2 * k + 1, n) for k, n in enumerate(functions.radial_counts)]
    assert [block.shape for block in blocks] == shapes
    for ell, block in enumerate(blocks):
        m = np.arange(-ell, ell + 1)[:, np.newaxis]
        block[1, 2] = 100 * ell + m + np.arange(1, block.shape[-1] + 1) / 100
    ell, m, s = functions.indices.T
    np.testing.assert_array_equal(stack[1, 2], 100 * ell + m + s / 100)
    assert not stack[0].any()


def test_basis__is_its_functions_and_more() -> None:
    basis, functions = VolumeBasis(11, 6), BallFunctions(11, 6)
    assert basis.radial_counts == functions.radial_counts
    assert basis.n_coefficients == functions.n_coefficients
    assert repr(basis) == "VolumeBasis(size=11, ell_max=6)"
    assert basis == VolumeBasis(11, 6)
    assert hash(basis) == hash(VolumeBasis(11, 6))
    assert basis not in (functions, VolumeBasis(11, 5))


@pytest.mark.parametrize(("ell_max", "m"), [(4, 84), (6, 132), (8, 179), (10, 219)])
def test_n_coefficients__at_size_11(ell_max: int, m: int) -> None:
    basis = VolumeBasis(11, ell_max)
    assert basis.n_coefficients == m
    assert basis.indices.shape == (m, 3)


def test_indices__by_degree_order_and_zero() -> None:
    basis = VolumeBasis(8, 5)
    rows = basis.indices.tolist()
    assert rows == sorted(rows)
    ell, m, s = basis.indices.T
    assert (np.abs(m) <= ell).all()
    for degree, count in enumerate(basis.radial_counts):
        assert s[ell == degree].max(initial=0) == count
        assert (ell == degree).sum() == (2 * degree + 1) * count


@pytest.mark.parametrize("ell", [0, 1, 5, 20, 60])
def test_bessel_zeros__all_of_them(ell: int) -> None:
    zeros = spherical_bessel_zeros(ell, 100.0)
    np.testing.assert_allclose(spherical_jn(ell, zeros), 0, atol=1e-14)
    fine = spherical_jn(ell, np.linspace(1e-3, 100.0, 20_001))
    visible = np.abs(fine) > 1e-280
    signs = np.sign(fine[visible])
    assert len(zeros) == np.count_nonzero(np.diff(signs))


def test_bessel_zeros__the_bound_is_left_out() -> None:
    np.testing.assert_allclose(
        spherical_bessel_zeros(0, 5 * np.pi), np.pi * np.arange(1, 5)
    )


# --- the functions -----------------------------------------------------------------


def test_radial_bessel__orthonormal() -> None:
    basis = VolumeBasis(11, 10)
    k, weight = roots_legendre(80)
    k, weight = (k + 1) / 2, weight / 2
    for ell in range(11):
        zeros = basis.radial_zeros(ell)
        values = np.array([radial_bessel(ell, zero, k) for zero in zeros])
        # at frequencies c k the volume element is c^3 k^2 dk, c = 1/2
        gram = (values * weight * k**2 / 8) @ values.T
        np.testing.assert_allclose(gram, np.eye(len(zeros)), atol=1e-12)


@pytest.mark.parametrize("ell", [0, 1, 4, 9])
def test_radial_functions__match_quadrature(ell: int) -> None:
    zeros = spherical_bessel_zeros(ell, 9 * np.pi)
    near = zeros[0] / np.pi + np.array([-1e-5, -1e-6, 0.0, 1e-6, 1e-3])
    radius = np.concatenate([[0.0, 0.3, 1.0, 5.0, 12.1], zeros / np.pi, near])
    k, weight = roots_legendre(120)
    k, weight = (k + 1) / 2, weight / 2
    found = radial_functions(ell, zeros, radius)
    for row, zero in zip(found, zeros, strict=True):
        kernel = spherical_jn(ell, np.pi * np.outer(radius, k))
        values = kernel @ (weight * k**2 * radial_bessel(ell, zero, k))
        np.testing.assert_allclose(row, 4 * np.pi / 8 * values, atol=1e-12)


def test_real_spherical_harmonics__match_scipy() -> None:
    points = np.random.default_rng(0).standard_normal((40, 3))
    points[:5] = [[0.0, 0, 2], [0.0, 0, -1], [3.0, 0, 0], [0.0, -1, 0], [1e-9, 0, -1]]
    x, y, z = points.T
    colatitude, longitude = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    for ell, table in enumerate(real_spherical_harmonics(30, points)):
        for m in range(-ell, ell + 1):
            value = sph_harm_y(ell, abs(m), colatitude, longitude)
            wanted = value.real if m >= 0 else value.imag
            if m != 0:
                wanted = np.sqrt(2) * (-1.0) ** m * wanted
            np.testing.assert_allclose(table[ell + m], wanted, atol=1e-12)


def test_real_spherical_harmonics__zero_vector_is_the_z_axis() -> None:
    for table in real_spherical_harmonics(4, [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]):
        np.testing.assert_array_equal(table[:, 0], table[:, 1])


@pytest.mark.parametrize(("size", "ell_max"), [(7, 4), (8, 5)])
def test_evaluate__matches_the_fourier_transform(size: int, ell_max: int) -> None:
    basis = VolumeBasis(size, ell_max)
    x = random_coefficients(basis)
    volume = basis.evaluate(x)
    k, colatitude, longitude, weight = frequencies(40)
    values = spectrum(basis, basis.to_complex(x), (k, colatitude, longitude))
    ring = np.sin(colatitude)
    xi = (
        0.5
        * k
        * np.array(
            [ring * np.cos(longitude), ring * np.sin(longitude), np.cos(colatitude)]
        )
    )
    for z, row, column in [(0, 0, 0), (3, 3, 3), (1, 4, 2), (4, 4, 4), (6, 0, 5)]:
        r = np.array([column, row, z]) - size // 2
        wave = np.exp(2j * np.pi * (r @ xi))
        # c^3 = 1/8 is the volume element in cycles per pixel
        wanted = np.sum(values * wave * weight) / 8
        assert abs(wanted.imag) < 1e-10
        assert volume[z, row, column] == pytest.approx(wanted.real, abs=1e-10)


def test_evaluate__orthonormal_over_all_of_space() -> None:
    # band-limited at Nyquist, so the norm is the sum over the voxels of all space
    basis = VolumeBasis(7, 2)
    x = random_coefficients(basis)
    offset = np.arange(41) - 20
    grid = np.stack(np.meshgrid(offset, offset, offset, indexing="ij"), -1)
    points = grid.reshape(-1, 3)[:, ::-1]
    radius, inverse = np.unique(np.linalg.norm(points, axis=1), return_inverse=True)
    values = np.zeros(len(points))
    start = 0
    for ell, harmonics in enumerate(real_spherical_harmonics(2, points)):
        zeros = basis.radial_zeros(ell)
        radial = radial_functions(ell, zeros, radius)[:, inverse]
        stop = start + (2 * ell + 1) * len(zeros)
        block = x[start:stop].reshape(2 * ell + 1, -1)
        values += np.einsum("ms,mv,sv->v", block, harmonics, radial)
        start = stop
    assert np.sum(values**2) == pytest.approx(x @ x, rel=0.02)
    cube = values.reshape(41, 41, 41)[17:24, 17:24, 17:24]
    np.testing.assert_allclose(cube, basis.evaluate(x), atol=1e-12)


# --- round trips -------------------------------------------------------------------


@pytest.mark.parametrize(("size", "ell_max"), [(5, 2), (8, 6), (11, 10), (12, 40)])
def test_expand__inverts_evaluate(size: int, ell_max: int) -> None:
    basis = VolumeBasis(size, ell_max)
    x = random_coefficients(basis)
    np.testing.assert_allclose(basis.expand(basis.evaluate(x)), x, atol=1e-9)


def test_expand__is_the_least_squares_fit_on_the_ball() -> None:
    basis = VolumeBasis(7, 3)
    volume = np.random.default_rng(0).standard_normal((7, 7, 7))
    columns = np.array([basis.evaluate(e) for e in np.eye(basis.n_coefficients)])
    offset = np.arange(7) - 3
    squares = sum(np.meshgrid(*[offset**2] * 3, indexing="ij"))
    ball = squares <= 9
    wanted = np.linalg.lstsq(columns[:, ball].T, volume[ball])[0]
    np.testing.assert_allclose(basis.expand(volume), wanted, atol=1e-10)
    outside = np.where(ball, volume, 1e6)
    np.testing.assert_array_equal(basis.expand(outside), basis.expand(volume))


def test_to_complex__symmetry_of_a_real_volume() -> None:
    basis = VolumeBasis(9, 5)
    z = basis.to_complex(random_coefficients(basis))
    place = {tuple(row): i for i, row in enumerate(basis.indices.tolist())}
    for (ell, m, s), i in place.items():
        mirrored = (-1) ** (ell + m) * z[place[ell, -m, s]].conj()
        np.testing.assert_allclose(z[i], mirrored, atol=1e-15)
    assert np.linalg.norm(z) == pytest.approx(np.linalg.norm(basis.from_complex(z)))


def test_from_complex__inverts_to_complex() -> None:
    basis = VolumeBasis(8, 6)
    x = random_coefficients(basis)
    np.testing.assert_allclose(basis.from_complex(basis.to_complex(x)), x, atol=1e-14)
    assert not basis.from_complex(np.zeros(basis.n_coefficients)).any()


def test_from_complex__volume_is_not_real() -> None:
    basis = VolumeBasis(8, 2)
    with pytest.raises(InputError, match="coefficients: expected x") as error:
        basis.from_complex(1j * basis.to_complex(random_coefficients(basis)))
    assert len(str(error.value).splitlines()) == 1


def test_restrict_and_lift__are_inverse() -> None:
    high, low = VolumeBasis(11, 8), VolumeBasis(11, 5)
    x = random_coefficients(low)
    lifted = low.lift(x, 8)
    assert lifted.shape == (high.n_coefficients,)
    np.testing.assert_array_equal(high.restrict(lifted, 5), x)
    np.testing.assert_allclose(high.evaluate(lifted), low.evaluate(x), atol=1e-13)
    np.testing.assert_array_equal(low.lift(x, 5), x)
    assert np.shares_memory(low.restrict(x, 5), x) is False


def test_degrees_without_radial_functions__contribute_nothing() -> None:
    low, high = VolumeBasis(5, 2), VolumeBasis(5, 30)
    last = max(ell for ell, count in enumerate(high.radial_counts) if count)
    assert high.n_coefficients == VolumeBasis(5, last).n_coefficients
    x = low.lift(random_coefficients(low), 30)
    rotation = random_rotations(1, np.random.default_rng(0))[0]
    assert np.isfinite(high.rotate(x, rotation)).all()


# --- rotation ----------------------------------------------------------------------


def test_rotate__by_a_quarter_turn_about_each_axis() -> None:
    basis = VolumeBasis(7, 4)
    x = random_coefficients(basis)
    volume = basis.evaluate(x)  # [z, y, x]
    about_z = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    np.testing.assert_allclose(
        basis.evaluate(basis.rotate(x, about_z)),
        np.rot90(volume, -1, axes=(1, 2)),
        atol=1e-12,
    )
    np.testing.assert_allclose(
        basis.evaluate(basis.rotate(x, about_x)),
        np.rot90(volume, -1, axes=(0, 1)),
        atol=1e-12,
    )


def test_rotate__keeps_the_norm_and_composes() -> None:
    basis = VolumeBasis(9, 6)
    x = random_coefficients(basis)
    first, second = random_rotations(2, np.random.default_rng(1))
    once = basis.rotate(x, first)
    assert np.linalg.norm(once) == pytest.approx(np.linalg.norm(x), rel=1e-13)
    np.testing.assert_allclose(
        basis.rotate(once, second), basis.rotate(x, second @ first), atol=1e-12
    )
    np.testing.assert_allclose(basis.rotate(once, first.T), x, atol=1e-12)


# --- what is refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "ell_max", "named"),
    [(4, 2, "size"), (7.5, 2, "size"), (7, -1, "ell_max"), (7, True, "ell_max")],
)
def test_volume_basis__unusable_size(size: int, ell_max: int, named: str) -> None:
    with pytest.raises(InputError, match=f"{named}: expected a whole number"):
        VolumeBasis(size, ell_max)


@pytest.mark.parametrize(
    "volume", [np.zeros((7, 7)), np.zeros((7, 7, 8)), np.full((7, 7, 7), np.nan)]
)
def test_expand__unusable_volume(volume: Array) -> None:
    with pytest.raises(InputError, match="volume: expected"):
        VolumeBasis(7, 2).expand(volume)


def test_coefficients__wrong_number_or_not_finite() -> None:
    basis = VolumeBasis(7, 2)
    x = random_coefficients(basis)
    for bad in (x[:-1], np.append(x[1:], np.nan)):
        for use in (
            basis.evaluate,
            basis.to_complex,
            basis.from_complex,
            lambda bad: basis.rotate(bad, np.eye(3)),
            lambda bad: basis.restrict(bad, 1),
            lambda bad: basis.lift(bad, 3),
            lambda bad: basis.project(bad, np.eye(3)[np.newaxis]),
        ):
            with pytest.raises(InputError, match="coefficients: expected"):
                use(bad)
    with pytest.raises(InputError, match=r"rotation.*: expected"):
        basis.rotate(x, np.zeros((3, 3)))
    with pytest.raises(InputError, match="ell_max: expected at most 2"):
        basis.restrict(x, 3)
    with pytest.raises(InputError, match="ell_max: expected at least 2"):
        basis.lift(x, 1)
