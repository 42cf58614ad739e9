"""Alignment recovers a pose it does not know."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from numbasaem.assessment.alignment import align, evaluate_against, moved
from numbasaem.errors import InputError
from numbasaem.geometry.rotations import random_rotations
from numbasaem.volume.basis import VolumeBasis
from tests.helpers import gaussians

Array = NDArray[np.float64]
NOWHERE = np.zeros(3)


def blobs(size: int, centres: Array, width: float = 1.2) -> Array:
    """Gaussians of growing height at (x, y, z) offsets from the centre."""
    return gaussians(size, centres, 1 + 0.3 * np.arange(len(centres)), width)


CHIRAL = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2.0], [-1.5, -1, 0.5], [0.5, -2, -1]])


def rotation(seed: int) -> Array:
    return random_rotations(1, np.random.default_rng(seed))[0]


def degrees_off(found: Array, wanted: Array) -> float:
    return float(np.degrees(Rotation.from_matrix(found @ wanted.T).magnitude()))


# --- moving ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 11])
def test_moved__agrees_with_moved_centres(size: int) -> None:
    turn, shift = rotation(0), np.array([0.3, -0.8, 0.5])  # (z, y, x)
    centres = 0.6 * CHIRAL
    wanted = blobs(size, centres @ turn.T + shift[::-1])
    found = moved(blobs(size, centres), turn, shift)
    inside = found != 0
    assert inside.mean() > 0.6
    np.testing.assert_allclose(found[inside], wanted[inside], atol=0.02)


def test_moved__whole_voxels_and_quarter_turns() -> None:
    volume = np.random.default_rng(0).standard_normal((9, 9, 9))
    np.testing.assert_allclose(moved(volume, np.eye(3), NOWHERE), volume, atol=1e-6)
    by_one = moved(volume, np.eye(3), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(by_one[:, :, 1:], volume[:, :, :-1], atol=1e-6)
    assert not by_one[:, :, 0].any()
    about_z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    wanted = np.rot90(volume, -1, axes=(1, 2))
    np.testing.assert_allclose(moved(volume, about_z, NOWHERE), wanted, atol=1e-6)


def test_moved__agrees_with_rotated_coefficients() -> None:
    basis = VolumeBasis(11, 6)
    x = basis.expand(blobs(11, CHIRAL))
    turn = rotation(1)
    found = moved(basis.evaluate(x), turn, NOWHERE)
    offset = np.arange(11) - 5
    ball = sum(np.meshgrid(*[offset**2] * 3, indexing="ij")) <= 16
    wanted = basis.evaluate(basis.rotate(x, turn))
    np.testing.assert_allclose(found[ball], wanted[ball], atol=0.05 * wanted.max())


# --- aligning ----------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True])
def test_evaluate_against__recovers_the_pose(mirrored: bool) -> None:
    basis = VolumeBasis(11, 6)
    x = basis.expand(blobs(11, CHIRAL))
    reference = basis.evaluate(x)
    turn, shift = rotation(2), np.array([0.4, -1.0, 0.7])
    volume = moved(basis.evaluate(basis.rotate(x, turn)), np.eye(3), shift)
    if mirrored:
        volume = volume[:, :, ::-1]
    kept = volume.copy()
    found = evaluate_against(volume, reference, voxel_size=2.0)
    pose = found.alignment
    assert found.hand == ("mirrored" if mirrored else "same")
    assert pose.mirrored is mirrored
    assert degrees_off(pose.rotation, turn.T) < 1
    np.testing.assert_allclose(pose.shift[::-1], -turn.T @ shift[::-1], atol=0.05)
    assert pose.correlation > 0.99
    assert found.correlation == pose.correlation
    assert found.fsc[:4].min() > 0.95
    assert found.resolution_half.angstrom >= found.resolution_0143.angstrom
    np.testing.assert_array_equal(volume, kept)
    again = volume[:, :, ::-1] if mirrored else volume
    np.testing.assert_allclose(
        moved(again, pose.rotation, pose.shift), pose.volume, atol=1e-12
    )


def test_align__band_limited_volume_to_a_tenth_of_a_degree() -> None:
    generator = np.random.default_rng(5)
    basis = VolumeBasis(11, 10)
    x = generator.standard_normal(basis.n_coefficients)
    turn = rotation(6)
    volume, reference = basis.evaluate(x), basis.evaluate(basis.rotate(x, turn))
    offset = np.arange(11) - 5
    ball = sum(np.meshgrid(*[offset**2] * 3, indexing="ij")) <= 25
    for mirrored in (False, True):
        found = align(volume[:, :, ::-1] if mirrored else volume, reference)
        assert found.mirrored is mirrored
        assert degrees_off(found.rotation, turn) < 0.1
        np.testing.assert_allclose(found.shift, 0, atol=0.01)
        # corners come from outside the cube, where nothing is known
        assert found.correlation > 0.99
        assert np.corrcoef(found.volume[ball], reference[ball])[0, 1] > 0.999


@pytest.mark.parametrize(("size", "mirrored"), [(18, True), (19, False)])
def test_align__larger_than_the_coarse_search(size: int, mirrored: bool) -> None:
    turn, shift = rotation(7), np.array([0.9, -1.6, 0.4])  # (z, y, x)
    hand = np.array([-1.0 if mirrored else 1.0, 1, 1])
    width = 0.1 * size
    volume = blobs(size, hand * 1.5 * CHIRAL, width)
    reference = blobs(size, 1.5 * CHIRAL @ turn.T + shift[::-1], width)
    found = align(volume, reference)
    assert found.mirrored is mirrored
    assert degrees_off(found.rotation, turn) < 0.1
    np.testing.assert_allclose(found.shift, shift, atol=0.01)
    assert found.correlation > 0.999


def test_align__onto_itself() -> None:
    volume = blobs(9, 0.8 * CHIRAL)
    found = align(volume, volume)
    assert not found.mirrored
    assert degrees_off(found.rotation, np.eye(3)) < 0.01
    np.testing.assert_allclose(found.shift, 0, atol=1e-3)
    assert found.correlation == pytest.approx(1, abs=1e-6)


def test_align__under_noise() -> None:
    basis = VolumeBasis(11, 6)
    generator = np.random.default_rng(8)
    x, turn = generator.standard_normal(basis.n_coefficients), rotation(9)
    clean = basis.evaluate(x), basis.evaluate(basis.rotate(x, turn))
    volume, reference = (
        v + 0.7 * v.std() * generator.standard_normal(v.shape) for v in clean
    )
    found = align(volume, reference)
    assert not found.mirrored
    assert degrees_off(found.rotation, turn) < 5  # 12 other draws: 0.9 to 3.6


def test_align__one_hand_only() -> None:
    volume = blobs(7, 0.6 * CHIRAL, width=0.9)
    assert not align(volume[:, :, ::-1], volume, mirror=False).mirrored


def test_align__deterministic() -> None:
    reference = blobs(7, 0.6 * CHIRAL, width=0.9)
    volume = blobs(7, 0.6 * CHIRAL @ rotation(3).T, width=0.9)
    first, second = (align(volume, reference, mirror=False) for _ in range(2))
    np.testing.assert_array_equal(first.rotation, second.rotation)
    np.testing.assert_array_equal(first.shift, second.shift)
    np.testing.assert_array_equal(first.volume, second.volume)
    assert first.correlation == second.correlation > 0.95


def test_align__even_size() -> None:
    reference = blobs(8, 0.6 * CHIRAL, width=0.9)
    turn = rotation(4)
    mirror = np.array([-1.0, 1, 1])
    volume = blobs(8, mirror * (0.6 * CHIRAL @ turn.T), width=0.9)
    found = align(volume, reference)
    assert found.mirrored
    assert degrees_off(found.rotation, turn.T) < 2
    assert found.correlation > 0.98


def test_align__symmetric_volume() -> None:
    ball = blobs(7, np.zeros((1, 3)))
    found = align(ball, ball, mirror=False)
    assert found.correlation > 0.99
    np.testing.assert_allclose(found.shift, 0, atol=0.01)


def test_align__nothing_to_align() -> None:
    found = align(np.zeros((5, 5, 5)), blobs(5, np.zeros((1, 3))), mirror=False)
    assert found.correlation == 0
    assert np.isfinite(found.rotation).all()


def test_align__unusable_volumes() -> None:
    with pytest.raises(InputError, match="reference: expected shape"):
        align(np.zeros((5, 5, 5)), np.zeros((6, 6, 6)))
