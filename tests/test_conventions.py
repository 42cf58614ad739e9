"""Axes, hand and angles of what is written, as other programs understand them."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from numbasaem.assessment.fsc import correlation
from numbasaem.geometry.rotations import random_rotations, relion_angles
from numbasaem.io.mrc import read_volume, write_volume
from numbasaem.io.relion import read_particles, write_particles
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.result import Result
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from tests.helpers import gaussians

Array = NDArray[np.float64]

SIZE = 21
BLOBS = ((3, 1, -2, 1.0), (-2, 4, 0, 0.6), (0, -3, 4, 0.8), (1, 0, 1, 1.2))


def lopsided(size: int) -> Array:
    """Blobs at places (x, y, z) that no rotation or reflection maps onto themselves."""
    *offsets, heights = np.transpose(BLOBS)
    return gaussians(size, np.transpose(offsets), heights, 1.6)


@pytest.mark.oracle
def test_map_and_angles__project_as_in_aspire(tmp_path: Path) -> None:
    aspire_volume = pytest.importorskip("aspire.volume")
    aspire_utils = pytest.importorskip("aspire.utils")
    volume = lopsided(SIZE)
    rotations = random_rotations(6, np.random.default_rng(0))
    basis = VolumeBasis(SIZE, 10)
    ours = basis.project(basis.expand(volume), rotations)

    # Nothing passes to the other program but the two files.
    write_volume(tmp_path / "map.mrc", volume, 2.5)
    write_particles(
        tmp_path / "truth.star",
        micrograph_names=["m.mrc"] * 6,
        coordinates=np.zeros((6, 2)),
        pixel_size=2.5,
        angles=relion_angles(rotations),
    )
    table = read_particles(tmp_path / "truth.star").particles
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    theirs = aspire_volume.Volume.load(tmp_path / "map.mrc").project(
        aspire_utils.Rotation.from_euler(np.deg2rad(angles), dtype=np.float32)
    )
    assert theirs.pixel_size == pytest.approx(2.5)
    for image, other in zip(ours, theirs.asnumpy(), strict=True):
        assert np.corrcoef(image.ravel(), other.ravel())[0, 1] > 0.999
        assert np.corrcoef(image.T.ravel(), other.ravel())[0, 1] < 0.98


def test_angles__are_relions(tmp_path: Path) -> None:
    rotations = random_rotations(20, np.random.default_rng(1))
    angles = relion_angles(rotations)
    back = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    np.testing.assert_allclose(back, rotations, atol=1e-12)


def test_map__header_says_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "map.mrc"
    write_volume(path, lopsided(SIZE), 2.5)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        header = file.header
        assert [int(header[name]) for name in ("mapc", "mapr", "maps")] == [1, 2, 3]
        for axis in "xyz":
            assert header.origin[axis] == 0
            assert header[f"n{axis}start"] == 0
            assert header.cella[axis] == pytest.approx(2.5 * SIZE)
            assert file.voxel_size[axis] == pytest.approx(2.5)
        assert file.is_volume()
        # [z, y, x]: the highest blob stands at x = 1, y = 0, z = 1 from the centre
        highest = np.unravel_index(file.data.argmax(), file.data.shape)
        assert tuple(np.array(highest) - SIZE // 2) == (1, 0, 1)


@pytest.fixture(scope="module")
def both_hands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    micrographs = simulate(
        lopsided(7), size=7, pixels=90, micrographs=2, snr=10, ell_max=3
    ).micrographs
    settings = Settings(
        size=7, ell_max=(3,), iterations=(4,), rotations=96, starts=1, pixel_size=3.0
    )
    plain, flipped = (tmp_path_factory.mktemp(name) for name in ("plain", "flipped"))
    reconstruct(micrographs, settings, out=plain)
    result = reconstruct(micrographs, settings, out=flipped, flip_hand=True)
    return plain, flipped, result


def test_flip_hand__writes_the_mirror_image(
    both_hands: tuple[Path, Path, Result],
) -> None:
    plain, flipped, result = both_hands
    volume, _ = read_volume(plain / "volume.mrc")
    mirrored, _ = read_volume(flipped / "volume.mrc")
    # through the centre: the three axes reversed
    np.testing.assert_allclose(
        mirrored, volume[::-1, ::-1, ::-1], atol=1e-5 * np.abs(volume).max()
    )
    assert correlation(mirrored, volume) < 0.99
    np.testing.assert_allclose(
        result.volume, result.basis.evaluate(result.volume_coefficients)
    )


def test_flip_hand__of_a_finished_run(
    both_hands: tuple[Path, Path, Result], tmp_path: Path
) -> None:
    plain, flipped, result = both_hands
    assert result.half_volumes is not None
    first, second = (
        read_volume(flipped / f"volume_half{half}.mrc")[0] for half in (1, 2)
    )
    np.testing.assert_allclose(first, result.half_volumes[0], atol=1e-4)
    np.testing.assert_allclose(second, result.half_volumes[1], atol=1e-4)
    for folder in (plain, flipped):
        for path in folder.glob("*.mrc"):
            assert mrcfile.validate(path)
