"""The Shepp-Logan phantom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from numbasaem.io.mrc import read_volume
from numbasaem.volume.phantom import ELLIPSOIDS, shepp_logan


def test_shepp_logan__matches_the_paper(data_folder: Path) -> None:
    stored, _ = read_volume(data_folder / "shepp_logan_11.mrc")
    np.testing.assert_allclose(shepp_logan(11), stored, atol=1e-6)


@pytest.mark.parametrize("size", [11, 12, 31, 64])
def test_shepp_logan__lies_in_the_ball(size: int) -> None:
    volume = shepp_logan(size)
    places = np.argwhere(volume) - size // 2
    assert np.linalg.norm(places, axis=1).max() <= size // 2
    assert volume.min() == 0
    assert volume.max() == 1


def test_shepp_logan__integral_tends_to_that_of_the_ellipsoids() -> None:
    size = 96
    value, *axes = np.array(ELLIPSOIDS).T[:4]
    expected = 4 / 3 * np.pi * np.sum(value * np.prod(axes, axis=0))
    integral = shepp_logan(size).sum() / (size // 2) ** 3
    # Voxel sampling of the surfaces: about one part in size of the shell's area.
    assert integral == pytest.approx(expected, rel=2e-2)


def test_shepp_logan__central_values() -> None:
    volume = shepp_logan(101)
    assert volume[50, 50, 50] == pytest.approx(0.2)
    # Inside the skull only, and the ventricle on the +y side.
    assert volume[50, 50, 50 + 44] == pytest.approx(1.0)
    assert volume[50, 50 + 11, 50] == pytest.approx(0.0)
