"""Fourier shell correlation, resolution and correlation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem.assessment.fsc import (
    Resolution,
    _random_phases,
    check_pair,
    correlation,
    fourier_shell_correlation,
    half_map_correlation,
    is_mostly_negative,
    resolution,
    soft_ball,
)
from numbasaem.errors import InputError

Array = NDArray[np.float64]


def volumes(size: int, seed: int = 0) -> tuple[Array, Array]:
    a, b = np.random.default_rng(seed).standard_normal((2, size, size, size))
    return a, a + b


def low_pass(volume: Array, highest: float) -> Array:
    frequency = np.fft.fftfreq(len(volume), 1 / len(volume)) ** 2
    squares = sum(np.meshgrid(frequency, frequency, frequency, indexing="ij"))
    return np.fft.ifftn(np.where(squares <= highest**2, np.fft.fftn(volume), 0)).real


@pytest.mark.oracle
def test_fsc__matches_aspire() -> None:
    # odd only: its shells of even sizes are centred half a sample from zero frequency
    aspire = pytest.importorskip("aspire.utils.resolution_estimation")
    a, b = volumes(11)
    theirs = aspire.FourierShellCorrelation(a, b).correlations.ravel()
    # theirs starts at shell 1
    np.testing.assert_allclose(fourier_shell_correlation(a, b)[1:], theirs, atol=1e-10)


@pytest.mark.parametrize("size", [11, 12])
def test_fsc__by_plain_loops(size: int) -> None:
    a, b = volumes(size)
    f, g = np.fft.fftn(a), np.fft.fftn(b)
    sums = np.zeros((3, size // 2 + 1))
    for at in np.ndindex(a.shape):
        frequency = [i if i <= size // 2 else i - size for i in at]
        shell = round(np.linalg.norm(frequency))
        if shell <= size // 2:
            cross = (f[at] * g[at].conjugate()).real
            sums[:, shell] += cross, abs(f[at]) ** 2, abs(g[at]) ** 2
    wanted = sums[0] / np.sqrt(sums[1] * sums[2])
    np.testing.assert_allclose(fourier_shell_correlation(a, b), wanted, atol=1e-12)


@pytest.mark.parametrize("size", [7, 8])
def test_fsc__identities(size: int) -> None:
    a, b = volumes(size)
    found = fourier_shell_correlation(a, b)
    assert found.shape == (size // 2 + 1,)
    assert np.abs(found).max() <= 1 + 1e-12
    np.testing.assert_allclose(fourier_shell_correlation(a, a), 1)
    np.testing.assert_allclose(fourier_shell_correlation(a, -2 * a), -1)
    np.testing.assert_allclose(fourier_shell_correlation(b, a), found)
    np.testing.assert_allclose(fourier_shell_correlation(5 * a, 0.1 * b), found)
    np.testing.assert_allclose(fourier_shell_correlation(a.T, b.T), found)
    moved = [np.roll(v, (1, 3, -2), (0, 1, 2)) for v in (a, b)]
    np.testing.assert_allclose(fourier_shell_correlation(*moved), found)
    np.testing.assert_allclose(fourier_shell_correlation(a, b + 7)[1:], found[1:])


def test_fsc__known_signal_and_noise() -> None:
    signal, first, second = np.random.default_rng(0).standard_normal((3, 40, 40, 40))
    found = fourier_shell_correlation(signal + first, signal + second)
    np.testing.assert_allclose(found[10:], 0.5, atol=0.05)


def test_fsc__zero_where_there_is_no_power() -> None:
    a, _ = volumes(11)
    constant = np.full(a.shape, 2.0)
    found = fourier_shell_correlation(constant, constant)
    np.testing.assert_allclose(found[0], 1)
    assert not fourier_shell_correlation(a, np.zeros(a.shape)).any()
    assert fourier_shell_correlation(a, low_pass(a, 2.5))[:3] == pytest.approx(1)


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        (np.zeros((5, 5)), np.zeros((5, 5)), "volume: expected a cube"),
        (np.zeros((5, 5, 6)), np.zeros((5, 5, 6)), "volume: expected a cube"),
        (np.zeros((5, 5, 5)), np.zeros((6, 6, 6)), "reference: expected shape"),
        (np.zeros((5, 5, 5)), np.full((5, 5, 5), np.nan), "expected finite voxels"),
    ],
)
def test_check_pair__unusable_volumes(a: Array, b: Array, named: str) -> None:
    for use in (check_pair, fourier_shell_correlation, correlation):
        with pytest.raises(InputError, match=named) as error:
            use(a, b)
        assert len(str(error.value).splitlines()) == 1


def test_resolution__interpolates_the_first_crossing() -> None:
    found = resolution([1, 0.9, 0.7, 0.3, 0.6, 0.1], 0.5, voxel_size=2.0, size=11)
    assert found.crossed
    assert found.shell == pytest.approx(2.5)
    assert found.angstrom == pytest.approx(2.0 * 11 / 2.5)
    assert str(found) == "8.80 A (FSC = 0.5, no mask)"


def test_resolution__never_falls_below() -> None:
    found = resolution(np.ones(6), 0.143, voxel_size=3.0, size=11)
    assert found == Resolution(0.143, 5.0, 3.0 * 11 / 5, crossed=False)
    assert " A or better (" in str(found)


def test_resolution__below_from_the_start() -> None:
    found = resolution([1, 0.1, 0.1], 0.5, voxel_size=1.0, size=5)
    assert found.crossed
    assert 0 < found.shell < 1
    # the mean says nothing about resolution, whatever its sign
    assert resolution([-1, 0.1, 0.1], 0.5, 1.0, 5).angstrom == np.inf
    assert resolution([-1, 1, 0.9], 0.5, 1.0, 5).shell == 2


def test_resolution__scales_with_the_voxel() -> None:
    curve = [1, 0.8, 0.4, 0.2]
    one, three = (resolution(curve, 0.5, v, 7).angstrom for v in (1.0, 3.0))
    assert three == pytest.approx(3 * one)
    assert resolution(curve, 0.143, 1.0, 7).angstrom < one


def test_correlation__identities() -> None:
    a, b = volumes(6)
    wanted = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert correlation(a, b) == pytest.approx(wanted)
    assert correlation(a, 3 * a - 1) == pytest.approx(1)
    assert correlation(a, -a) == pytest.approx(-1)
    assert correlation(a, np.ones(a.shape)) == 0


# --- half maps under a mask --------------------------------------------------------


def half_maps(size: int, last_shell: float, seed: int = 0) -> tuple[Array, Array]:
    """A ball of signal up to a shell, in strong noise that fills both cubes."""
    generator = np.random.default_rng(seed)
    signal, first, second = generator.standard_normal((3, size, size, size))
    signal = 20 * low_pass(signal * soft_ball(size), last_shell)
    return signal + first, signal + second


def narrow_ball(size: int) -> Array:
    offset = (np.arange(size) - size // 2) ** 2
    radius = np.sqrt(np.add.outer(np.add.outer(offset, offset), offset))
    return (radius < size / 6).astype(float)


def test_half_map_correlation__takes_out_what_the_mask_makes() -> None:
    size = 33
    signal, noise = [], []
    for seed in range(6):
        a, b = half_maps(size, 5.0, seed)
        found = half_map_correlation(a, b, narrow_ball(size))
        assert found.randomized_from is not None
        assert 5 <= found.randomized_from <= 7
        np.testing.assert_allclose(found.unmasked, fourier_shell_correlation(a, b))
        before = slice(0, found.randomized_from + 1)
        np.testing.assert_array_equal(found.corrected[before], found.masked[before])
        signal.append(found.corrected[1:5].min())
        noise.append([found.masked[9:].mean(), found.corrected[9:].mean()])
    assert min(signal) > 0.95
    # a hard, narrow mask correlates nothing but noise; the correction sees through it
    masked, corrected = np.abs(np.mean(noise, axis=0))
    assert corrected < 0.05
    assert corrected < masked + 0.02


def test_half_map_correlation__sees_through_a_mask_with_a_signal_of_its_own() -> None:
    # Strong low shells leak outwards through a hard mask.
    size = 33
    a, b = half_maps(size, 5.0)
    a, b = (low_pass(v, 5.0) * 50 + v for v in (a, b))
    found = half_map_correlation(a, b, narrow_ball(size))
    leaked = slice(7, 11)
    assert found.masked[leaked].mean() > found.unmasked[leaked].mean() + 0.3
    assert found.corrected[leaked].mean() < found.masked[leaked].mean() - 0.2


def test_half_map_correlation__of_equal_maps_is_one() -> None:
    a, _ = volumes(11)
    found = half_map_correlation(a, a)
    assert found.randomized_from is None
    for curve in (found.unmasked, found.masked, found.randomized, found.corrected):
        np.testing.assert_allclose(curve, 1)
    assert found.mask == "a soft ball of radius 5 voxels, corrected by random phases"
    at_0143 = resolution(found.corrected, 0.143, 2.0, 11, found.mask)
    assert str(at_0143) == (
        "4.40 A or better (FSC = 0.143, a soft ball of radius 5 voxels, corrected by "
        "random phases)"
    )


def test_half_map_correlation__depends_on_the_seed_alone() -> None:
    a, b = half_maps(11, 3.0)
    first, again = (half_map_correlation(a, b).corrected for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("size", [10, 11])
def test_soft_ball__covers_what_the_model_supports(size: int) -> None:
    mask = soft_ball(size)
    centre, radius = size // 2, size // 2
    line = mask[centre, centre]
    assert line[centre] == 1
    assert line[centre - radius + 1] == 1
    assert line[centre - radius] == pytest.approx(0.5)
    assert mask[0, 0, 0] == 0
    np.testing.assert_allclose(mask, mask.T)


def test_random_phases__keep_amplitudes_and_reality() -> None:
    a, _ = volumes(12)
    mixed = _random_phases(a, 3, np.random.default_rng(9))
    np.testing.assert_allclose(
        np.abs(np.fft.fftn(mixed)), np.abs(np.fft.fftn(a)), atol=1e-9
    )
    fsc = fourier_shell_correlation(a, mixed)
    np.testing.assert_allclose(fsc[:3], 1)
    assert np.abs(fsc[3:]).max() < 0.5


def test_is_mostly_negative__looks_within_the_ball() -> None:
    density = np.zeros((7, 7, 7))
    density[2, 3, 3] = 1
    assert not is_mostly_negative(density)
    assert is_mostly_negative(-density)
    # what a basis does in the corners of the cube does not count
    density[0, 0, 0] = -10
    assert not is_mostly_negative(density)
