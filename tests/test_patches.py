"""The patch model: how micrographs are cut and what a patch shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbasaem.errors import InputError
from numbasaem.observations.patch_cutting import (
    check_patches,
    crop_shift_pad,
    cut_patches,
    patch_origins,
)
from tests import reference

sides = st.integers(2, 6)


@given(size=sides, rows=st.integers(0, 25), columns=st.integers(0, 25))
def test_cut_patches__agree_with_their_origins(
    size: int, rows: int, columns: int
) -> None:
    shape = (2 * size + rows, 2 * size + columns)
    micrograph = np.arange(shape[0] * shape[1], dtype=float).reshape(shape)
    patches = cut_patches(micrograph, size)
    origins = patch_origins(shape, size)
    assert len(patches) == len(origins) == (shape[0] // size) * (shape[1] // size)
    assert patches.dtype == np.float32
    assert patches.flags.c_contiguous
    for patch, (y, x) in zip(patches, origins, strict=True):
        np.testing.assert_array_equal(patch, micrograph[y : y + size, x : x + size])


def test_patch_origins__row_by_row() -> None:
    origins = patch_origins((11, 17), 5)
    wanted = [(0, 0), (0, 5), (0, 10), (5, 0), (5, 5), (5, 10)]
    np.testing.assert_array_equal(origins, wanted)


@pytest.mark.parametrize("shape", [(9, 20), (20, 9), (20,), (20, 20, 3)])
def test_cut_patches__unusable_micrograph(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="micrograph: expected at least 10 pixels"):
        cut_patches(np.zeros(shape), 5)


@pytest.mark.parametrize("size", [4, 5])
def test_crop_shift_pad__matches_the_index_formula(size: int) -> None:
    image = np.random.default_rng(0).standard_normal((size, size))
    for shift in np.ndindex(2 * size, 2 * size):
        wanted = reference.shifted_view(image, (shift[0], shift[1]))
        np.testing.assert_array_equal(crop_shift_pad(image, shift), wanted)


def test_crop_shift_pad__special_shifts() -> None:
    image = np.arange(1.0, 26.0).reshape(5, 5)
    np.testing.assert_array_equal(crop_shift_pad(image, (0, 0)), image)
    assert not crop_shift_pad(image, (5, 0)).any()
    assert not crop_shift_pad(image, (7, 5)).any()
    # one past the middle: the first row of the projection in the last of the patch
    np.testing.assert_array_equal(crop_shift_pad(image, (6, 0))[-1], image[0])
    np.testing.assert_array_equal(crop_shift_pad(image, (4, 0))[0], image[-1])


@pytest.mark.parametrize("shift", [(-1, 0), (0, 10)])
def test_crop_shift_pad__shift_out_of_range(shift: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"shift: expected values in 0\.\.9"):
        crop_shift_pad(np.zeros((5, 5)), shift)


@pytest.mark.parametrize("shape", [(5, 6), (5,)])
def test_crop_shift_pad__image_is_not_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="image: expected a square array"):
        crop_shift_pad(np.zeros(shape), (0, 0))


def test_check_patches__no_copy_where_none_is_needed() -> None:
    patches = np.zeros((2, 5, 5), np.float32)
    assert check_patches(patches, 5) is patches


def test_check_patches__counts_the_bad_ones() -> None:
    patches = np.zeros((4, 5, 5))
    patches[1, 0, :2] = np.nan
    patches[3, 0, 0] = 1e300
    with pytest.raises(InputError, match="found NaN or infinity in 2"):
        check_patches(patches, 5)
