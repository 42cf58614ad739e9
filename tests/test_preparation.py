"""Preparation of micrographs: each step alone, and what it leaves alone."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem.aliases import no_progress
from numbasaem.errors import InputError
from numbasaem.micrographs.ctf import ContrastTransferFunction
from numbasaem.micrographs.excluded_areas import contaminated, mended
from numbasaem.micrographs.preparation import (
    Preparation,
    background_level,
    preparation_of,
)
from numbasaem.observations.patch_cutting import untouched_patches
from numbasaem.observations.patch_data import load_patches
from numbasaem.observations.window_data import load_windows
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.volume.phantom import folded_chain, shepp_logan
from tests.helpers import noise

SIZE = 11
CTF = ContrastTransferFunction(15_000.0, 14_000.0, 30.0)


def prepared(pixels: np.ndarray, **steps: bool) -> NDArray[np.float32]:
    return Preparation(SIZE, **{"level": False, **steps})("m", pixels, None).pixels


# --- level -------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [3.5, 0.5])
@pytest.mark.parametrize(("density", "bound"), [(None, 0.02), (0.4, 0.045)])
def test_background_level__is_that_between_particles(
    snr: float, density: float | None, bound: float
) -> None:
    sample = simulate(
        shepp_logan(SIZE),
        size=SIZE,
        pixels=512,
        snr=snr,
        ell_max=6,
        spacing="separated" if density is None else "arbitrary",
        density=density,
    )
    pixels, deviation = sample.micrographs[0], np.sqrt(sample.noise_variance)
    assert abs(background_level(pixels, SIZE)) < bound * deviation
    # neither mean nor median would do
    assert min(pixels.mean(), np.median(pixels)) > 0.05 * deviation


def test_background_level__follows_gain_and_pedestal() -> None:
    pixels = noise(100, 120).astype(np.float64)
    level = background_level(pixels, SIZE)
    assert background_level(7 * pixels + 300, SIZE) == pytest.approx(
        7 * level + 300, abs=0.02
    )


def test_background_level__without_noise() -> None:
    sample = simulate(shepp_logan(SIZE), size=SIZE, pixels=200, snr=np.inf, ell_max=6)
    pixels = sample.micrographs[0]
    assert abs(background_level(pixels, SIZE)) < 0.02 * pixels.max()


def test_background_level__ignores_excluded_areas() -> None:
    pixels = noise(100, 100)
    excluded = np.zeros(pixels.shape, bool)
    excluded[:70] = True
    wanted = background_level(pixels, SIZE, excluded)
    pixels[:70] = -50
    assert background_level(pixels, SIZE, excluded) == pytest.approx(wanted, abs=1e-6)
    assert abs(wanted) < 0.2


# --- the other steps ---------------------------------------------------------------


def test_prepare__default_changes_the_level_alone() -> None:
    pixels = noise(100, 100)
    result = Preparation(SIZE)("m", pixels + 40, None)
    level = background_level(pixels + 40, SIZE)
    np.testing.assert_allclose(result.pixels, pixels + 40 - level, atol=1e-4)
    assert not result.excluded.any()
    assert result.pixels.dtype == np.float32


def test_prepare__off_leaves_the_pixels() -> None:
    pixels = noise(40, 50)
    np.testing.assert_array_equal(prepared(pixels), pixels)


def test_prepare__invert() -> None:
    pixels = noise(40, 50)
    np.testing.assert_array_equal(prepared(pixels, invert=True), -pixels)


def test_prepare__normalise_takes_the_gain_out() -> None:
    pixels = noise(200, 200)
    result = prepared(pixels, level=True, normalise=True)
    assert result.std() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(
        prepared(1000 * pixels + 5e4, level=True, normalise=True), result, atol=2e-2
    )


def test_prepare__flatten_takes_the_background_and_leaves_the_noise() -> None:
    pixels = noise(300, 300)
    y, x = np.mgrid[:300, :300] / 300
    background = 20 * x - 10 * y**2
    flat = prepared(pixels + background.astype(np.float32), flatten=True)
    inside = slice(30, -30)
    left = (flat - prepared(pixels, flatten=True))[inside, inside]
    assert np.abs(left).max() < 0.03
    assert flat[inside, inside].std() == pytest.approx(1, abs=0.02)


def test_prepare__flatten_leaves_most_of_a_particle() -> None:
    y, x = np.mgrid[:101, :101] - 50
    particle = (np.hypot(y, x) <= SIZE // 2).astype(np.float32)
    assert prepared(particle, flatten=True)[50, 50] > 0.8


def test_mended__hot_pixels_become_their_neighbours() -> None:
    pixels = noise(60, 60)
    hot = pixels.copy()
    hot[[10, 30], [20, 40]] = 500, -90
    result, constant = mended(hot)
    assert not constant.any()
    changed = np.argwhere(result != hot)
    np.testing.assert_array_equal(changed, [[10, 20], [30, 40]])
    assert np.abs(result).max() < 8


def test_mended__leaves_noise_and_particles_alone() -> None:
    sample = simulate(shepp_logan(SIZE), size=SIZE, pixels=200, snr=3.5, ell_max=6)
    pixels = sample.micrographs[0]
    result, constant = mended(pixels)
    np.testing.assert_array_equal(result, pixels)
    assert not constant.any()


def test_mended__few_counts_are_no_constant_area() -> None:
    counts = np.random.default_rng(0).poisson(0.3, (200, 200)).astype(np.float32)
    assert not mended(counts)[1].any()


def test_prepare__constant_areas() -> None:
    pixels = noise(60, 80) + 100
    pixels[:15, 20:45] = 0
    result = Preparation(10, level=True, mend=True)("m", pixels, None)
    np.testing.assert_array_equal(result.excluded, pixels == 0)
    wanted = np.ones((6, 8), bool)
    wanted[:2, 2:5] = False
    live = untouched_patches(result.excluded, 10)
    np.testing.assert_array_equal(live.reshape(6, 8), wanted)
    # what is left of them does not ring in the pixels beside
    assert np.abs(result.pixels).max() < 6


def test_prepare__nothing_but_constant_areas() -> None:
    pixels = np.zeros((60, 60), np.float32)
    pixels[30, 30] = 1
    with pytest.raises(InputError, match=r"m: expected .*`mend=False`"):
        Preparation(5, mend=True)("m", pixels, None)


ALL_CONSTANT = np.zeros((40, 40), np.float32)
ALL_CONSTANT[20, 20] = 1
MOSTLY_CONSTANT = noise(66, 120)
MOSTLY_CONSTANT[:, 20:] = 3
BARELY_FREE = noise(40, 40)
BARELY_FREE[:, 9:] = -1e14
STEPS = ("mend", "flatten", "clean", "level", "normalise", "ctf", "whiten")


@pytest.mark.parametrize("pixels", [ALL_CONSTANT, MOSTLY_CONSTANT, BARELY_FREE])
@pytest.mark.parametrize("chosen", list(product((False, True), repeat=len(STEPS))))
def test_prepare__any_steps_give_pixels_or_one_line(
    pixels: NDArray[np.float32], chosen: tuple[bool, ...]
) -> None:
    """Warnings are errors here: none may come before the line, or with the pixels."""
    preparation = Preparation(5, **dict(zip(STEPS, chosen, strict=True)))
    if preparation.mend and pixels is ALL_CONSTANT:
        with pytest.raises(InputError, match=r"^m: expected .*`mend=False`"):
            preparation("m", pixels, 4.0, CTF)
        return
    try:
        result = preparation("m", pixels, 4.0, CTF)
    except InputError:
        return
    assert np.isfinite(result.pixels).all()
    assert untouched_patches(result.excluded, 5).any()


def test_prepare__normalise_refuses_pixels_that_hardly_vary() -> None:
    with pytest.raises(
        InputError, match=r"m: expected pixels that .*`normalise=False`"
    ):
        Preparation(5, normalise=True)("m", ALL_CONSTANT, None)


def test_load_windows__nothing_but_constant_areas() -> None:
    raw = Settings(size=5, mend=True, normalise=True, whiten=True)
    for load in (load_patches, load_windows):
        with pytest.raises(
            InputError, match=r"micrographs\[1\]: expected .*`mend=False`"
        ):
            load([noise(60, 60), ALL_CONSTANT], raw, no_progress)


def test_contaminated__crystals_and_edges_but_no_particles() -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=400, snr=3.5, ell_max=6)
    clean = sample.micrographs[0]
    assert not contaminated(clean, SIZE).any()
    assert not contaminated(noise(300, 200), SIZE).any()
    spoilt = clean.copy()
    deviation = float(clean.std())
    spoilt[100:140, 200:230] += 6 * deviation * noise(40, 30)
    spoilt[:, 380:] += 8 * deviation
    found = contaminated(spoilt, SIZE)
    assert found[100:140, 200:230].all()
    assert found[:, 370:390].all()
    # a margin of less than two patches
    assert not found[:60, :350].any()
    assert not found[180:, :350].any()


def test_contaminated__is_excluded() -> None:
    pixels = noise(400, 400)
    pixels[100:140, 200:230] *= 9
    result = Preparation(SIZE, clean=True)("m", pixels, None)
    assert result.excluded[120, 215]
    assert 0.01 < result.excluded.mean() < 0.1
    assert abs(np.std(result.pixels[~result.excluded]) - 1) < 0.05


# --- downsampling ------------------------------------------------------------------


def test_preparation_of__a_particle_that_fits() -> None:
    plain = preparation_of(Settings(size=11))
    assert plain == Preparation(11)
    raw = preparation_of(Settings(size=11, particle_diameter=90.0, contrast="dark"))
    assert raw == Preparation(11, 10.0, True, True, True, True, True, True)
    some = Settings(size=11, particle_diameter=90, flatten=False, level=False)
    assert preparation_of(some) == Preparation(
        11, 10.0, mend=True, clean=True, level=False, normalise=True
    )
    assert preparation_of(Settings(size=11, normalise=True)).normalise


@pytest.mark.parametrize("shape", [(300, 420), (301, 419)])
def test_prepare__downsamples_and_finds_the_way_back(shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    spot = np.array([120, 260])
    pixels = np.exp(-((y - spot[0]) ** 2 + (x - spot[1]) ** 2) / (2 * 12.0**2))
    small = Preparation(5, pixel_size=6.0, level=False)("m", pixels, 1.5)
    assert small.pixels.shape == (75, 105)
    weight = small.pixels / small.pixels.sum()
    at = np.array([(weight * axis).sum() for axis in np.mgrid[:75, :105]])
    found = small.original_coordinates(at[np.newaxis])[0]
    np.testing.assert_allclose(found, spot, atol=0.02)


def test_prepare__constant_areas_of_a_downsampled_micrograph() -> None:
    pixels = noise(200, 200)
    pixels[:40] = 3
    result = Preparation(5, 4.0, mend=True)("m", pixels, 1.0)
    assert result.excluded[:10].all()
    assert not result.excluded[12:].any()


@pytest.mark.parametrize(
    ("shape", "pixel_size", "found"),
    [
        ((100, 100), None, "`pixel_size`"),
        ((100, 100), 9.0, "at most 8 A"),
        ((100, 60), 1.0, r"at least 10 pixels a side after downsampling.*\(12, 8\)"),
    ],
)
def test_prepare__cannot_downsample(
    shape: tuple[int, int], pixel_size: float | None, found: str
) -> None:
    with pytest.raises(InputError, match=rf"^m: expected .*{found}"):
        Preparation(5, pixel_size=8.0)("m", noise(*shape), pixel_size)
