"""Volumes in the middle of their box."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from numbasaem import VolumeBasis
from numbasaem.geometry.grids import distances, offsets
from numbasaem.volume.centring import centre_of_energy, centred
from numbasaem.volume.phantom import folded_chain

SIZE = 13
BASIS = VolumeBasis(SIZE, 12)


def chain(shift: tuple[int, int, int]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.pad(folded_chain(7), 3), 0.8)
    return np.roll(smooth, shift, axis=(0, 1, 2))


def test_centred__brings_moved_volumes_to_one_place() -> None:
    middle = centre_of_energy(chain((0, 0, 0)))
    volumes = []
    for shift in ((2, 0, 0), (0, -2, 0), (2, 1, -1)):
        moved_by = centre_of_energy(chain(shift)) - middle
        np.testing.assert_allclose(moved_by, shift, atol=1e-12)
        moved = BASIS.expand(chain(shift))
        volumes.append(BASIS.evaluate(centred(BASIS, moved)))
        assert np.linalg.norm(centre_of_energy(volumes[-1])) < 0.1
    within = distances(offsets(SIZE)) < SIZE // 2
    agreement = np.corrcoef([volume[within] for volume in volumes])
    assert agreement.min() > 0.98


def test_centred__leaves_what_is_near_the_middle() -> None:
    coefficients = BASIS.expand(chain((0, 0, 0)))
    assert centred(BASIS, coefficients) is coefficients
    nothing = np.zeros_like(coefficients)
    assert centred(BASIS, nothing) is nothing
