"""Rotations: grids, draws, RELION's angles and Wigner matrices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from numbasaem.errors import InputError
from numbasaem.geometry.rotations import (
    check_rotations,
    random_rotations,
    relion_angles,
    rotation_grid,
    rotations_from_relion,
)
from numbasaem.geometry.special_functions import real_spherical_harmonics
from numbasaem.geometry.wigner import real_wigner

Array = NDArray[np.float64]


def some_rotations(n: int, seed: int = 0) -> Array:
    return random_rotations(n, np.random.default_rng(seed))


def about(axis: str, *degrees: float) -> Array:
    angles = np.reshape(degrees, (-1, 1))
    return Rotation.from_euler(axis, angles, degrees=True).as_matrix()


SPECIAL = np.concatenate(
    [about("z", 0, 90, -40), about("x", 180, 90, -90), about("y", 180, 90, 1e-7)]
)
"""Axes that coincide, nearly or exactly."""


@pytest.mark.parametrize("n", [1, 2, 299, 552])
def test_rotation_grid__are_that_many_rotations(n: int) -> None:
    grid = rotation_grid(n)
    assert grid.shape == (n, 3, 3)
    np.testing.assert_allclose(
        grid @ grid.transpose(0, 2, 1),
        np.broadcast_to(np.eye(3), grid.shape),
        atol=1e-14,
    )
    np.testing.assert_allclose(np.linalg.det(grid), 1)
    np.testing.assert_array_equal(grid, rotation_grid(n))


def test_rotation_grid__covers_evenly() -> None:
    # the mean of D over all of SO(3) is zero for every degree but 0
    by_grid, by_chance = (
        [np.linalg.norm(d.mean(axis=0)) for d in real_wigner(rotations, 6)[1:]]
        for rotations in (rotation_grid(552), some_rotations(552))
    )
    assert (np.array(by_grid[:4]) < 0.2 * np.array(by_chance[:4])).all()
    assert np.mean(by_grid) < 0.5 * np.mean(by_chance)


def test_rotation_grid__leaves_no_hole() -> None:
    grid = Rotation.from_matrix(rotation_grid(552)).as_quat()
    anywhere = Rotation.from_matrix(some_rotations(500)).as_quat()
    nearest = 2 * np.arccos(np.minimum(np.abs(anywhere @ grid.T).max(axis=1), 1))
    # 552 equal balls that fill SO(3) have a radius of 18 degrees
    assert np.degrees(nearest.max()) < 40
    apart = np.abs(grid @ grid.T) - 2 * np.eye(552)
    assert np.degrees(2 * np.arccos(apart.max())) > 10


@pytest.mark.parametrize("n", [0, -3, 2.5, "ten"])
def test_rotation_grid__unusable_number(n: int) -> None:
    with pytest.raises(InputError, match="rotations: expected a whole number"):
        rotation_grid(n)


def test_random_rotations__uniform() -> None:
    rotations = some_rotations(4000)
    check_rotations(rotations)
    np.testing.assert_array_equal(rotations, some_rotations(4000))
    assert np.abs(rotations.mean(axis=0)).max() < 5 / np.sqrt(3 * 4000)
    # angle t has density (1 - cos t) / pi
    angle = Rotation.from_matrix(rotations).magnitude()
    assert angle.mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.05)


@pytest.mark.parametrize(
    ("rotations", "complaint"),
    [
        (np.eye(3), r"shape \(K, 3, 3\)"),
        (np.zeros((0, 3, 3)), r"shape \(K, 3, 3\)"),
        (np.full((1, 3, 3), np.nan), "rotations"),
        (2 * np.eye(3)[np.newaxis], "orthonormal"),
        (-np.eye(3)[np.newaxis], "determinant 1"),
    ],
)
def test_check_rotations__refuses_others(rotations: Array, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        check_rotations(rotations)
    assert len(str(error.value).splitlines()) == 1


# --- RELION ------------------------------------------------------------------------


def test_relion__matrix_is_the_inverse_of_zyz() -> None:
    angles = np.array([[20.0, 50.0, -70.0]])
    rot, tilt, psi = np.radians(angles[0])

    def turn_z(angle: float) -> Array:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])

    def turn_y(angle: float) -> Array:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    wanted = (turn_z(rot) @ turn_y(tilt) @ turn_z(psi)).T
    np.testing.assert_allclose(rotations_from_relion(angles)[0], wanted, atol=1e-15)


def test_relion__round_trip() -> None:
    rotations = np.concatenate([some_rotations(200), SPECIAL])
    angles = relion_angles(rotations)
    found = rotations_from_relion(angles)
    np.testing.assert_allclose(found, rotations, atol=1e-7)
    theirs = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    np.testing.assert_array_equal(found, theirs)


def test_relion__angles_come_back() -> None:
    angles = np.array([[10.0, 30.0, -100.0], [-170.0, 150.0, 5.0]])
    np.testing.assert_allclose(relion_angles(rotations_from_relion(angles)), angles)


def test_relion__of_no_rotation() -> None:
    angles = relion_angles(np.empty((0, 3, 3)))
    assert angles.shape == (0, 3)
    assert rotations_from_relion(angles).shape == (0, 3, 3)


@pytest.mark.parametrize("angles", [[1.0, 2.0, 3.0], [[1.0, 2.0]], [[0, np.nan, 0]]])
def test_relion__unusable_angles(angles: list[float]) -> None:
    with pytest.raises(InputError, match="angles: expected"):
        rotations_from_relion(angles)


# --- Wigner matrices ---------------------------------------------------------------


def test_real_wigner__degree_one_is_the_rotation() -> None:
    rotations = np.concatenate([some_rotations(20), SPECIAL])
    y_z_x = [1, 2, 0]
    wanted = rotations[:, y_z_x][:, :, y_z_x]
    np.testing.assert_allclose(real_wigner(rotations, 1)[1], wanted, atol=1e-13)


def test_real_wigner__product_of_rotations() -> None:
    first = np.concatenate([some_rotations(4), SPECIAL])
    second = np.concatenate([some_rotations(len(first) - 3, 1), SPECIAL[:3]])
    both = (real_wigner(r, 40) for r in (first, second, first @ second))
    for a, b, product in zip(*both, strict=True):
        np.testing.assert_allclose(a @ b, product, atol=2e-12)


def test_real_wigner__orthogonal_and_inverse() -> None:
    rotations = np.concatenate([some_rotations(4), SPECIAL])
    back = real_wigner(rotations.transpose(0, 2, 1), 40)
    for ell, matrices in enumerate(real_wigner(rotations, 40)):
        transposed = matrices.transpose(0, 2, 1)
        identity = np.broadcast_to(np.eye(2 * ell + 1), matrices.shape)
        np.testing.assert_allclose(matrices @ transposed, identity, atol=1e-12)
        np.testing.assert_allclose(back[ell], transposed, atol=2e-12)


@pytest.mark.parametrize("ell", [0, 1, 2, 7])
def test_real_wigner__rotates_functions(ell: int) -> None:
    generator = np.random.default_rng(ell)
    x = generator.standard_normal(2 * ell + 1)
    points = generator.standard_normal((30, 3))
    for rotation in np.concatenate([some_rotations(3), SPECIAL]):
        matrix = real_wigner(rotation[np.newaxis], ell)[ell][0]
        # f(R^T r), with r as rows
        wanted = x @ real_spherical_harmonics(ell, points @ rotation)[ell]
        found = (matrix @ x) @ real_spherical_harmonics(ell, points)[ell]
        np.testing.assert_allclose(found, wanted, atol=1e-12)
