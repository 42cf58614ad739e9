"""Grids of pixels and voxels, against loops over their places."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem.geometry.grids import ball, disc, distances, lattice, offsets


def lengths(size: int, n_axes: int) -> NDArray[np.float64]:
    places = product(range(size), repeat=n_axes)
    values = [np.hypot.reduce([float(i - size // 2) for i in at]) for at in places]
    return np.reshape(values, (size,) * n_axes)


@pytest.mark.parametrize("size", [5, 8, 11])
def test_disc_and_ball__hold_what_lies_within_their_radius(size: int) -> None:
    rounding = 1e-9
    radius = size // 2 + rounding
    np.testing.assert_array_equal(disc(size), lengths(size, 2) <= radius)
    np.testing.assert_array_equal(ball(size), lengths(size, 3) <= radius)
    np.testing.assert_array_equal(ball(size, 1.5), lengths(size, 3) <= 1.5)
    assert disc(size)[0, size // 2]


@pytest.mark.parametrize("size", [5, 8])
def test_distances__are_lengths_of_the_lattice(size: int) -> None:
    axis = offsets(size)
    assert axis[size // 2] == 0
    np.testing.assert_allclose(distances(axis), lengths(size, 3), rtol=1e-15)
    positions = lattice(axis, 3)
    assert positions.dtype == axis.dtype
    np.testing.assert_array_equal(positions[:, 1, 0, 2], axis[[1, 0, 2]])
    frequencies = np.fft.fftfreq(size).astype(np.float64)
    expected = np.linalg.norm(lattice(frequencies, 3), axis=0)
    np.testing.assert_allclose(distances(frequencies), expected, rtol=1e-15)
