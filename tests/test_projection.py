"""Projections against two routes that share nothing with the PSWFs."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import jv, roots_legendre, sph_harm_y, spherical_jn

from numbasaem.errors import InputError
from numbasaem.projection.coupling import coupling_coefficients
from numbasaem.projection.disc_basis import DiscBasis
from numbasaem.projection.operator import (
    ProjectionOperator,
    image_basis,
    operator_bytes,
    project,
    projection_matrices,
)
from numbasaem.projection.printed_sums import patch_inner_product, shifted_gram
from numbasaem.volume.basis import VolumeBasis
from tests import reference
from tests.helpers import random_coefficients

Array = NDArray[np.float64]
SIZES = [(5, 2), (8, 4), (11, 10)]


def some_rotations(count: int, seed: int = 0) -> Array:
    return Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix()


def disc_pixels(
    size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Offsets x, y of all pixels and the mask of the disc."""
    offset = np.arange(size) - size // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    return x, y, x**2 + y**2 <= (size // 2) ** 2


def real_harmonic(ell: int, m: int, colatitude: Any, longitude: Any) -> Any:
    value = sph_harm_y(ell, abs(m), colatitude, longitude)
    if m == 0:
        return value.real
    return np.sqrt(2) * (-1.0) ** m * (value.real if m > 0 else value.imag)


def volume_at(basis: VolumeBasis, x: Array, points: Array) -> Array:
    """The real-space volume at points (n, 3) by the closed radial transform."""
    distance = np.maximum(np.linalg.norm(points, axis=1), 1e-9)
    colatitude = np.arccos(np.clip(points[:, 2] / distance, -1, 1))
    longitude = np.arctan2(points[:, 1], points[:, 0])
    total = np.zeros(len(points))
    argument = np.pi * distance
    for ell in range(basis.ell_max + 1):
        zeros = basis.radial_zeros(ell)[:, np.newaxis]
        derivative = spherical_jn(ell + 1, zeros)
        # The zeros of degree 0 fall on whole pixels: there the limit is meant.
        limit = np.abs(zeros - argument) < 1e-7
        gap = np.where(limit, 1.0, zeros**2 - argument**2)
        integral = zeros * derivative * spherical_jn(ell, argument) / gap
        integral = np.where(limit, derivative**2 / 2, integral)
        radial = 4 / np.abs(derivative) * integral
        for m in range(-ell, ell + 1):
            mine = (basis.indices[:, 0] == ell) & (basis.indices[:, 1] == m)
            angular = real_harmonic(ell, m, colatitude, longitude)
            total += 4 * np.pi / 8 * angular * (x[mine] @ radial)
    return total


def hankel_projection(basis: VolumeBasis) -> Array:
    """Pixels of every basis function seen along z, by Hankel transforms alone."""
    dx, dy, inside = disc_pixels(basis.size)
    radius, angle = np.hypot(dx, dy)[inside], np.arctan2(dy, dx)[inside]
    nodes, weights = roots_legendre(120)
    nodes, weights = (nodes + 1) / 2, weights / 2
    columns = np.zeros((basis.size**2, basis.n_coefficients))
    for column, (ell, m, s) in enumerate(basis.indices):
        u = basis.radial_zeros(ell)[s - 1]
        bessel = 4 / abs(spherical_jn(ell + 1, u)) * spherical_jn(ell, u * nodes)
        kernel = jv(abs(m), np.pi * np.outer(radius, nodes))
        transform = kernel @ (bessel * nodes * weights)
        image = (
            (-1j) ** ell
            * 1j ** abs(m)
            * real_harmonic(ell, m, np.pi / 2, angle)
            * 2
            * np.pi
            / 4
            * transform
        )
        assert np.abs(image.imag).max() < 1e-12
        columns[inside.ravel(), column] = image.real
    return columns


@pytest.mark.parametrize(("size", "ell_max"), SIZES)
def test_image_basis__equals_the_exact_hankel_transform(
    size: int, ell_max: int
) -> None:
    basis = VolumeBasis(size, ell_max)
    exact = hankel_projection(basis)
    np.testing.assert_allclose(
        image_basis(basis), exact, atol=1e-12 * np.abs(exact).max()
    )


@pytest.mark.parametrize(("size", "ell_max"), SIZES)
def test_project__equals_line_integrals_of_the_rotated_volume(
    size: int, ell_max: int
) -> None:
    basis = VolumeBasis(size, ell_max)
    x = random_coefficients(basis)
    rotations = some_rotations(2)
    images = project(basis, x, rotations)
    dx, dy, inside = disc_pixels(size)
    chosen = np.random.default_rng(2).choice(np.flatnonzero(inside), 5, replace=False)
    # The volume holds no frequency above Nyquist: the sum over integers is the
    # integral, and the alternating terms let a sum of modest depth stand for it.
    depth = 400
    z = np.arange(-depth, depth + 1)
    weight = np.ones(len(z))
    weight[[0, -1]] = 0.5
    for rotation, image in zip(rotations, images, strict=True):
        for pixel in chosen:
            position = np.full((len(z), 3), 0.0)
            position[:, 0] = dx.ravel()[pixel]
            position[:, 1] = dy.ravel()[pixel]
            position[:, 2] = z
            line = volume_at(basis, x, position @ rotation)
            assert image.ravel()[pixel] == pytest.approx(
                weight @ line, abs=1e-9 * np.abs(image).max()
            )


@pytest.mark.parametrize(("size", "ell_max"), SIZES)
def test_project__is_zero_outside_the_disc_and_real(size: int, ell_max: int) -> None:
    basis = VolumeBasis(size, ell_max)
    images = project(basis, random_coefficients(basis), some_rotations(3))
    assert images.dtype == np.float64
    assert images.shape == (3, size, size)
    assert not images[:, ~disc_pixels(size)[2]].any()
    assert images[:, size // 2, size // 2].all()


def test_image_basis__odd_columns_are_zero_and_the_array_is_read_only() -> None:
    basis = VolumeBasis(8, 5)
    matrix = image_basis(basis)
    odd = (basis.indices[:, 0] + basis.indices[:, 1]) % 2 == 1
    assert not matrix[:, odd].any()
    assert matrix[:, ~odd].any(axis=0).all()
    assert not matrix.flags.writeable


@pytest.mark.parametrize("size", [5, 11])
def test_project__quarter_turn_in_plane_is_rot90(size: int) -> None:
    basis = VolumeBasis(size, 6)
    x = random_coefficients(basis)
    rotation = some_rotations(1)[0]
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    image, turned = project(basis, x, np.stack([rotation, quarter @ rotation]))
    # Counterclockwise in (x, y) is clockwise on rows that grow downwards.
    np.testing.assert_allclose(turned, np.rot90(image, -1), atol=1e-12)


@pytest.mark.parametrize(("size", "ell_max"), SIZES)
def test_project__rotated_volume_equals_composed_rotation(
    size: int, ell_max: int
) -> None:
    basis = VolumeBasis(size, ell_max)
    x = random_coefficients(basis)
    first, second = some_rotations(2)
    rotated = rotate_by_quadrature(basis, x, first)
    np.testing.assert_allclose(
        project(basis, rotated, second[np.newaxis]),
        project(basis, x, (second @ first)[np.newaxis]),
        atol=1e-10,
    )


def rotate_by_quadrature(basis: VolumeBasis, x: Array, rotation: Array) -> Array:
    """Coefficients of the rotated volume, by integrals over the sphere."""
    result = np.zeros_like(x)
    points, area = sphere_rule(2 * basis.ell_max + 2)
    back = points @ rotation
    for ell in range(basis.ell_max + 1):
        turned = np.stack([harmonic_at(ell, m, back) for m in range(-ell, ell + 1)])
        fixed = np.stack([harmonic_at(ell, m, points) for m in range(-ell, ell + 1)])
        wigner = (fixed * area) @ turned.T
        mine = basis.indices[:, 0] == ell
        result[mine] = (wigner @ x[mine].reshape(2 * ell + 1, -1)).ravel()
    return result


def sphere_rule(degree: int) -> tuple[Array, Array]:
    """Unit vectors (n, 3) and weights, exact for harmonics up to a degree."""
    cosine, weights = roots_legendre(degree)
    longitude = 2 * np.pi * np.arange(2 * degree) / (2 * degree)
    sine = np.sqrt(1 - cosine**2)
    points = np.stack(
        [
            np.outer(sine, np.cos(longitude)).ravel(),
            np.outer(sine, np.sin(longitude)).ravel(),
            np.repeat(cosine, len(longitude)),
        ],
        axis=1,
    )
    return points, np.repeat(weights, len(longitude)) * np.pi / degree


def harmonic_at(
    ell: int, m: int, points: Array, harmonic: Callable[..., Any] = real_harmonic
) -> Any:
    return harmonic(
        ell,
        m,
        np.arccos(np.clip(points[:, 2], -1, 1)),
        np.arctan2(points[:, 1], points[:, 0]),
    )


@pytest.mark.parametrize(("size", "ell_max"), [(5, 3), (8, 4)])
def test_operator__matrices_project_and_adjoint_agree(size: int, ell_max: int) -> None:
    basis = VolumeBasis(size, ell_max)
    x = random_coefficients(basis)
    rotations = some_rotations(7)
    operator = ProjectionOperator(basis, rotations)
    matrices = projection_matrices(basis, rotations)
    images = operator.project(x)
    np.testing.assert_allclose(matrices @ x, images.reshape(7, -1), atol=1e-12)
    np.testing.assert_allclose(operator.matrices(2, 5), matrices[2:5], atol=1e-12)
    weights = np.random.default_rng(3).standard_normal(images.shape)
    np.testing.assert_allclose(
        operator.adjoint(weights),
        np.einsum("kpm,kp->m", matrices, weights.reshape(7, -1)),
        atol=1e-12,
    )


def test_project__does_not_depend_on_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    basis = VolumeBasis(5, 3)
    x = random_coefficients(basis)
    rotations = some_rotations(11)
    whole = project(basis, x, rotations)
    monkeypatch.setattr("numbasaem.projection.operator._CHUNK_BYTES", 8 * 4 * 200)
    np.testing.assert_allclose(project(basis, x, rotations), whole, atol=1e-13)


@pytest.mark.parametrize(
    ("size", "ell_max", "n_rotations", "n_groups"),
    [(11, 8, 500, 1), (11, 8, 50, 4), (21, 12, 20, 6)],
)
def test_operator__takes_the_bytes_that_are_stated(
    size: int, ell_max: int, n_rotations: int, n_groups: int
) -> None:
    basis = VolumeBasis(size, ell_max)
    rotations = some_rotations(n_rotations)
    shape = (n_groups, 2 * size - 1, 2 * size - 1)
    spreads = None if n_groups == 1 else np.ones(shape)
    x = random_coefficients(basis)
    image_basis(basis)  # shared by operators, hence traced apart
    project(basis, x, rotations[:1])  # tables of every degree
    tracemalloc.start()
    try:
        operator = ProjectionOperator(basis, rotations, spreads)
        images = operator.project(x)
        operator.adjoint(images)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held = peak + image_basis(basis).nbytes
    stated = operator_bytes(basis, n_rotations, n_groups)
    assert stated / 3 < held < stated + 2 * images.nbytes


def test_operator__552_orientations_take_milliseconds() -> None:
    basis = VolumeBasis(11, 10)
    operator = ProjectionOperator(basis, some_rotations(552))
    x = random_coefficients(basis)
    elapsed = []
    for _ in range(5):
        start = time.perf_counter()
        operator.project(x)
        elapsed.append(time.perf_counter() - start)
    assert min(elapsed) < 0.05


def test_operator__names_what_does_not_fit() -> None:
    basis = VolumeBasis(5, 2)
    operator = ProjectionOperator(basis, some_rotations(2))
    with pytest.raises(InputError, match="coefficients"):
        operator.project(np.zeros(3))
    with pytest.raises(InputError, match="images"):
        operator.adjoint(np.zeros((1, 5, 5)))
    with pytest.raises(InputError, match="rotations"):
        project(basis, random_coefficients(basis), np.ones((2, 3, 3)))


class PaperModel:
    """The paper's complex coefficients and functions for one basis and rotation."""

    def __init__(self, basis: VolumeBasis, rotation: Array) -> None:
        self.indices = [(ell, m, s) for ell, m, s in basis.indices.tolist()]
        disc = DiscBasis(basis.size)
        dx, dy, inside = disc_pixels(basis.size)
        radius, angle = np.hypot(dx, dy) / disc.radius, np.arctan2(dy, dx)
        zeros = [basis.radial_zeros(ell) for ell in range(basis.ell_max + 1)]
        coupling = coupling_coefficients(zeros, disc)
        orders = range(-basis.ell_max, basis.ell_max + 1)
        self.psi: dict[int, NDArray[np.complex128]] = {}
        for order in orders:
            modes = disc.radial_modes(abs(order))
            images = np.zeros((len(modes.eigenvalues), *inside.shape), dtype=complex)
            images[:, inside] = modes.evaluate(radius[inside]) / np.sqrt(2 * np.pi)
            self.psi[order] = images * np.exp(1j * order * angle)
        self.beta_hat: dict[tuple[int, int], dict[int, NDArray[np.complex128]]] = {}
        rows = [(ell, s + 1) for ell, u in enumerate(zeros) for s in range(len(u))]
        for row, (ell, s) in enumerate(rows):
            self.beta_hat[ell, s] = {
                order: 0.25
                * disc.radial_modes(abs(order)).eigenvalues
                * coupling[abs(order)][row]
                * ((-1) ** order if order < 0 else 1)
                for order in orders
            }
        points, area = sphere_rule(2 * basis.ell_max + 2)
        self.wigner: dict[int, NDArray[np.complex128]] = {}
        self.to_complex = np.zeros((basis.n_coefficients,) * 2, dtype=complex)
        for ell in range(basis.ell_max + 1):
            fixed, turned, real = (
                np.stack(
                    [harmonic_at(ell, m, where, family) for m in range(-ell, ell + 1)]
                )
                for where, family in (
                    (points, sph_harm_y),
                    (points @ rotation, sph_harm_y),
                    (points, real_harmonic),
                )
            )
            self.wigner[ell] = (fixed.conj() * area) @ turned.T
            change = (-1j) ** ell * (fixed.conj() * area) @ real.T
            for a, (degree, m, s) in enumerate(self.indices):
                for b, (other, m_real, s_real) in enumerate(self.indices):
                    if degree == other == ell and s == s_real:
                        self.to_complex[a, b] = change[m + ell, m_real + ell]


@pytest.fixture(scope="module")
def tiny() -> tuple[PaperModel, Array]:
    basis = VolumeBasis(5, 2)
    rotation = some_rotations(1, seed=5)[0]
    matrix = projection_matrices(basis, rotation[np.newaxis])[0]
    return PaperModel(basis, rotation), matrix


@pytest.mark.parametrize("shift", [(0, 0), (2, 1), (0, 9), (7, 3), (5, 2), (8, 8)])
def test_patch_inner_product__equals_the_complex_q(
    tiny: tuple[PaperModel, Array], shift: tuple[int, int]
) -> None:
    paper, matrix = tiny
    patch = np.random.default_rng(6).standard_normal((5, 5))
    q = reference.complex_patch_inner_product(
        patch, shift, paper.beta_hat, paper.wigner, paper.psi, paper.indices
    )
    # Real and complex coefficients describe one image: x_complex = C x_real.
    expected = paper.to_complex.T @ q
    np.testing.assert_allclose(
        patch_inner_product(patch, shift, matrix), expected, atol=1e-12
    )


@pytest.mark.parametrize("shift", [(0, 0), (2, 1), (0, 9), (7, 3), (5, 2), (8, 8)])
def test_shifted_gram__equals_the_complex_g(
    tiny: tuple[PaperModel, Array], shift: tuple[int, int]
) -> None:
    paper, matrix = tiny
    g = reference.complex_shifted_gram(
        shift, 5, paper.beta_hat, paper.wigner, paper.psi, paper.indices
    )
    expected = paper.to_complex.T @ g @ paper.to_complex
    np.testing.assert_allclose(shifted_gram(shift, matrix), expected, atol=1e-12)
