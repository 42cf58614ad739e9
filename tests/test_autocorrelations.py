"""Autocorrelations of micrographs: against plain sums, and what adds up to them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from numbasaem import Autocorrelations, Settings, autocorrelations
from numbasaem.autocorrelation.lags import lags_within
from numbasaem.autocorrelation.moments import autocorrelations_of_pixels
from numbasaem.autocorrelation.second_order import first_two_orders
from numbasaem.errors import InputError
from numbasaem.kernels.autocorrelation import autocorrelation_sums
from tests import reference
from tests.helpers import assert_close, noise

SIZE = 5


def plain_moments(pixels: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Mean products of all shifted copies of a micrograph."""
    lags, wide = lags_within(size), pixels.astype(float)
    rows, columns = wide.shape[0] - size + 1, wide.shape[1] - 2 * size + 2
    shifted = np.array(
        [
            wide[y : y + rows, x + size - 1 : x + size - 1 + columns].ravel()
            for y, x in lags.single
        ]
    )
    second = shifted @ shifted[0]
    third = (shifted * shifted[0]) @ shifted.T
    pairs = third[lags.first, lags.second]
    sums = np.concatenate([[shifted[0].sum()], second, pairs])
    return sums / (rows * columns)


def test_autocorrelation_sums__match_plain_loops(
    generator: np.random.Generator,
) -> None:
    pixels = noise(17, 31)
    lags = lags_within(SIZE).single[:10]
    counted = np.zeros(pixels.shape, bool)
    counted[:13, 4:-4] = generator.random((13, 23)) < 0.7
    tiles = np.array([[0, 0], [0, 2], [1, 1], [2, 1], [2, 2]])
    sums, block_pixels = np.full((2, 2, 3, 81), np.nan), np.empty((2, 9), np.int64)
    arguments = pixels, counted, (6, 11), lags, tiles
    autocorrelation_sums(*arguments, sums[0], block_pixels[0])
    reference.autocorrelation_sums(*arguments, sums[1], block_pixels[1])
    np.testing.assert_array_equal(*block_pixels)
    for power in range(3):
        assert_close(sums[0, :, power], sums[1, :, power])


@pytest.mark.parametrize("size", [5, 6, 11])
def test_autocorrelations__match_shifted_copies(size: int) -> None:
    pixels = noise(4 * size + 3, 9 * size) + np.float32(0.3)
    moments = autocorrelations([pixels], size)
    assert_close(moments.values, plain_moments(pixels, size), 1e-6)
    assert moments.values[0] == moments.first
    split = np.concatenate([[moments.first], moments.second, moments.third])
    np.testing.assert_array_equal(split, moments.values)


def test_autocorrelations__same_bytes_on_any_number_of_threads() -> None:
    pixels = noise(150, 200)
    one, two = (autocorrelations([pixels], SIZE, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.sums, two.sums)
    np.testing.assert_array_equal(one.scatter, two.scatter)


def test_autocorrelations__of_micrographs_add_up() -> None:
    images = [noise(40, 60), noise(50, 45, seed=1)]
    both = autocorrelations(images, SIZE)
    first, second = (autocorrelations([image], SIZE) for image in images)
    total = first + second
    assert both.n_pixels == total.n_pixels == first.n_pixels + second.n_pixels
    np.testing.assert_array_equal(both.sums, total.sums)
    np.testing.assert_array_equal(both.scatter, total.scatter)


def test_autocorrelations__leave_out_what_touches_excluded_pixels() -> None:
    pixels = noise(60, 90)
    excluded = np.zeros(pixels.shape, bool)
    excluded[20:23, 30:37] = True
    spoiled = np.where(excluded, np.float32(1e4), pixels)
    parts = [
        autocorrelations_of_pixels("it", image, excluded, SIZE)
        for image in (pixels, spoiled)
    ]
    np.testing.assert_array_equal(parts[0].sums, parts[1].sums)
    whole = autocorrelations([pixels], SIZE)
    # Centres in and above the area, and to either side of it.
    assert whole.n_pixels - parts[0].n_pixels == (3 + 4) * (7 + 8)


def test_autocorrelations__of_prepared_micrographs() -> None:
    pixels = noise(60, 80)
    settings = Settings(size=SIZE, level=False, normalise=True)
    scaled = autocorrelations([pixels], SIZE, settings=settings)
    plain = autocorrelations([pixels], SIZE)
    scale = scaled.first / plain.first
    assert_close(scaled.second, scale**2 * plain.second)
    assert scale != 1


def test_autocorrelations__errors_are_those_of_white_noise() -> None:
    moments = autocorrelations([noise(400, 400)], SIZE)
    lags, scaled = moments.lags, moments.errors * np.sqrt(moments.n_pixels)
    first, second, third = moments.by_order(scaled)
    assert first[0] == pytest.approx(1, rel=0.3)
    assert np.mean(second[1:] ** 2) == pytest.approx(1, rel=0.1)
    distinct = lags.repeated == 0
    assert np.mean(third[distinct] ** 2) == pytest.approx(1, rel=0.1)
    in_errors = (moments.by_order(moments.values / moments.errors))[2][distinct]
    assert np.mean(in_errors**2) == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(("size", "n_rows"), [(5, 520), (6, 70), (11, 300)])
def test_first_two_orders__are_those_of_the_kernel(size: int, n_rows: int) -> None:
    pixels = noise(n_rows, 120) + np.float32(0.3)
    excluded = np.zeros(pixels.shape, bool)
    excluded[30:33, 50:57] = excluded[250:270, 10:20] = True
    pixels[excluded] = 1e4
    both = first_two_orders(pixels, excluded, size)
    all_three = autocorrelations_of_pixels("it", pixels, excluded, size)
    assert both.n_pixels == all_three.n_pixels
    first, second, _ = all_three.by_order(all_three.values)
    wanted = first, second
    for order, values in zip(both.by_order(both.values), wanted, strict=True):
        assert_close(order, values, 1e-5)
    total = both + both
    assert total.n_pixels == 2 * both.n_pixels
    np.testing.assert_array_equal(total.values, both.values)


def test_first_two_orders__scatter_as_blocks_do() -> None:
    pixels = ndimage.uniform_filter(noise(800, 800), 2)
    nothing = np.zeros(pixels.shape, bool)
    scatter = first_two_orders(pixels, nothing, SIZE).scatter
    ratio = autocorrelations([pixels], SIZE).scatter[: scatter.size] / scatter
    assert ratio[0] == pytest.approx(1, abs=0.5)
    assert np.mean(ratio) == pytest.approx(1, abs=0.2)


def test_first_two_orders__of_no_pixels() -> None:
    nothing = first_two_orders(noise(30, 30), np.ones((30, 30), bool), SIZE)
    assert nothing.n_pixels == 0
    assert not nothing.sums.any()
    small = first_two_orders(noise(4, 30), np.zeros((4, 30), bool), SIZE)
    assert small.n_pixels == 0


def test_lags__have_each_triple_of_pixels_once() -> None:
    lags = lags_within(SIZE)
    kept = set()
    for u, v in zip(lags.single[lags.first], lags.single[lags.second], strict=True):
        assert (0, 0) <= tuple(u) <= tuple(v)
        kept.add((tuple(u), tuple(v)))
    assert len(kept) == len(lags.first)
    near = [
        (y, x)
        for y in range(1 - SIZE, SIZE)
        for x in range(1 - SIZE, SIZE)
        if y**2 + x**2 < SIZE**2
    ]
    for u in near:
        for v in near:
            if (u[0] - v[0]) ** 2 + (u[1] - v[1]) ** 2 < SIZE**2:
                (y, x), second, third = sorted([(0, 0), u, v])
                moved = (second[0] - y, second[1] - x), (third[0] - y, third[1] - x)
                assert moved in kept


def test_autocorrelations__refuse_what_they_cannot_use() -> None:
    with pytest.raises(InputError, match="at least 20 pixels a side"):
        autocorrelations([noise(19, 80)], SIZE)
    with pytest.raises(InputError, match="size: expected a whole number"):
        autocorrelations([noise(80, 80)], 4)
    excluded = np.ones((80, 80), bool)
    with pytest.raises(InputError, match="at least 2 blocks"):
        autocorrelations_of_pixels("it", noise(80, 80), excluded, SIZE)
    with pytest.raises(InputError, match="settings: expected the size 5, found 6"):
        autocorrelations([noise(80, 80)], SIZE, settings=Settings(size=6))
    moments = autocorrelations([noise(80, 80)], SIZE)
    other = Autocorrelations(6, 1, moments.sums, moments.scatter)
    with pytest.raises(InputError, match="size: expected 5 of both, found 6"):
        moments + other
