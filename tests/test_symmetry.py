"""Point groups: which volumes they leave as they are, and maps that have them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from numbasaem.assessment.alignment import evaluate_against
from numbasaem.errors import InputError
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.setting_checks import check_symmetry
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from numbasaem.volume.symmetry import (
    invariant_volumes,
    symmetry_rotations,
)

GROUPS = ("C1", "C2", "C7", "D2", "D5", "T", "O", "I")


@pytest.mark.parametrize("name", GROUPS)
def test_symmetry_rotations__are_a_group(name: str) -> None:
    rotations = symmetry_rotations(name)
    products = np.einsum("aij,bjk->abik", rotations, rotations)
    gaps = np.abs(products[:, :, None] - rotations).max(axis=(3, 4)).min(axis=2)
    assert gaps.max() < 1e-12


def test_symmetry_rotations__axes_are_where_they_are_said_to_be() -> None:
    def turns(name: str, axis: str, angle: float) -> bool:
        turn = Rotation.from_euler(axis, angle, degrees=True).as_matrix()
        return bool(np.isclose(symmetry_rotations(name), turn).all(axis=(1, 2)).any())

    assert turns("C3", "z", 120)
    assert turns("D3", "z", 120)
    assert turns("D3", "x", 180)
    assert all(turns("T", axis, 180) and turns("I", axis, 180) for axis in "xyz")
    assert all(turns("O", axis, 90) for axis in "xyz")


@pytest.mark.parametrize("name", GROUPS)
def test_invariant_volumes__as_many_as_characters_say(name: str) -> None:
    """Those of a degree: the mean over the group of sin((l + 1/2) a) / sin(a / 2)."""
    basis = VolumeBasis(11, 8)
    angle = Rotation.from_matrix(symmetry_rotations(name)).magnitude()
    angle = np.maximum(angle, 1e-7)
    wanted = 0
    for ell, n_radial in enumerate(basis.radial_counts):
        characters = np.sin((ell + 0.5) * angle) / np.sin(angle / 2)
        wanted += n_radial * round(characters.mean())
    assert invariant_volumes(basis, name).shape == (basis.n_coefficients, wanted)


@pytest.mark.parametrize("name", GROUPS)
def test_invariant_volumes__stay_as_they_are(name: str) -> None:
    basis = VolumeBasis(9, 6)
    volumes = invariant_volumes(basis, name)
    np.testing.assert_allclose(
        volumes.T @ volumes, np.eye(volumes.shape[1]), atol=1e-12
    )
    x = volumes @ np.random.default_rng(0).standard_normal(volumes.shape[1])
    for rotation in symmetry_rotations(name):
        np.testing.assert_allclose(basis.rotate(x, rotation), x, atol=1e-12)


def test_invariant_volumes__without_symmetry_are_all() -> None:
    basis = VolumeBasis(7, 4)
    everything = np.eye(basis.n_coefficients)
    np.testing.assert_array_equal(invariant_volumes(basis, "C1"), everything)


@pytest.mark.parametrize("name", ["", "C", "C0", "D", "Q", "I2", "C4 ", "T3", "C1000"])
def test_check_symmetry__refuses(name: str) -> None:
    with pytest.raises(InputError, match="symmetry: expected C1, Cn, Dn, T, O or I"):
        check_symmetry(name)
    with pytest.raises(ValueError, match="symmetry"):
        Settings(size=7, symmetry=name)


def test_reconstruct__has_the_symmetry_and_nears_the_truth() -> None:
    size = 7
    basis = VolumeBasis(size, 4)
    volumes = invariant_volumes(basis, "C4")
    chain = basis.expand(folded_chain(size))
    truth = basis.evaluate(volumes @ (volumes.T @ chain))
    sample = simulate(truth, size=size, pixels=350, snr=8, ell_max=4)
    settings = Settings(
        size=size,
        ell_max=(2, 4),
        iterations=(8, 8),
        rotations=100,
        batch_fraction=0.5,
        symmetry="c4",
        halves=False,
    )
    assert settings.symmetry == "C4"
    found = reconstruct(sample.micrographs, settings)
    x = found.volume_coefficients
    for rotation in symmetry_rotations("C4"):
        turned = basis.rotate(x, rotation)
        np.testing.assert_allclose(turned, x, atol=1e-9 * np.abs(x).max())
    assert evaluate_against(found.volume, truth).correlation > 0.9
