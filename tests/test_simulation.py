"""Simulated micrographs, checked against equations (2) to (5)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import shift
from scipy.spatial.transform import Rotation

from numbasaem.errors import InputError
from numbasaem.io.mrc import read_micrographs, read_volume
from numbasaem.io.relion import read_particles
from numbasaem.micrographs.fourier_crop import fourier_crop
from numbasaem.simulation import scene
from numbasaem.simulation.files import simulate_to_folder, write_simulation
from numbasaem.simulation.placement import place_squares
from numbasaem.simulation.scene import Simulation, iterate_micrographs, simulate
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.simulation.slices import downsampled, project_slices
from numbasaem.simulation.true_map_search import search_with_true_map
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import shepp_logan
from tests.helpers import gaussians

SMALL: dict[str, Any] = {"size": 7, "pixels": 90, "snr": 2.0, "ell_max": 3}
VOLUME = shepp_logan(7)
CLUSTER = (np.array([[0.8, 0.0, 0.0], [-0.8, 0.5, 0.0]]), np.ones(2), 0.7)
"""Places, weights and width of beads in the middle of a box of seven pixels."""


def blobs(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Volume of three Gaussians, and their centres (x, y, z), weights, deviation.

    Narrow enough for the ball, wide enough for the band: both hold to about 1e-3.
    """
    centres = np.array([[2.0, 0.5, -1.0], [-1.5, 2.0, 0.3], [0.2, -1.7, 1.9]])
    centres *= size / 31
    weights = np.array([1.0, 0.7, -0.4])
    deviation = size / 16
    volume = gaussians(size, centres, weights, deviation)
    return volume, centres, weights, deviation


def blob_projections(size: int, rotations: np.ndarray) -> np.ndarray:
    """Line integrals of `blobs`: a rotated Gaussian is one about its turned centre."""
    _, centres, weights, deviation = blobs(size)
    places = np.arange(size) - size // 2
    y, x = np.meshgrid(places, places, indexing="ij")
    images = np.zeros((len(rotations), size, size))
    for centre, weight in zip(centres, weights, strict=True):
        for image, (cx, cy, _) in zip(images, rotations @ centre, strict=True):
            distance = (x - cx) ** 2 + (y - cy) ** 2
            image += weight * np.exp(-0.5 * distance / deviation**2)
    return images * deviation * np.sqrt(2 * np.pi)


def closest(places: np.ndarray) -> float:
    """Smallest of max(|dy|, |dx|) over all pairs."""
    gaps = np.abs(places[:, None] - places[None]).max(axis=-1).astype(float)
    np.fill_diagonal(gaps, np.inf)
    return float(gaps.min())


# Projection of a full-size volume


@pytest.mark.parametrize("size", [31, 32])
def test_project_slices__gaussians(size: int) -> None:
    rotations = Rotation.random(5, rng=np.random.default_rng(1)).as_matrix()
    images = project_slices(blobs(size)[0], rotations)
    exact = blob_projections(size, rotations)
    assert images.dtype == np.float32
    # What the transform is computed to, and what of the blobs leaves the box.
    np.testing.assert_allclose(images, exact, atol=1e-3 * np.abs(exact).max())


@pytest.mark.parametrize("size", [21, 22])
def test_project_slices__matches_the_expansion(size: int) -> None:
    rotations = Rotation.random(4, rng=np.random.default_rng(2)).as_matrix()
    basis = VolumeBasis(size, 8)
    coefficients = basis.expand(blobs(size)[0])
    images = project_slices(basis.evaluate(coefficients), rotations)
    # The expansion's projection is zero outside the disc, and so close to it only
    # that degree 8 and the band limit allow.
    exact = basis.project(coefficients, rotations)
    inside = exact != 0
    error = np.abs(images - exact)[inside].max()
    assert error < 2e-2 * np.abs(exact).max()


def test_project_slices__the_identity_sums_along_z() -> None:
    volume = np.random.default_rng(0).standard_normal((15, 15, 15))
    (image,) = project_slices(volume, np.eye(3)[None])
    # The slice leaves out the corners of the square of frequencies.
    spectrum = np.fft.fft2(volume.sum(axis=0))
    ky, kx = np.meshgrid(*[np.fft.fftfreq(15)] * 2, indexing="ij")
    spectrum[ky**2 + kx**2 >= 0.25] = 0
    exact = np.fft.ifft2(spectrum).real
    np.testing.assert_allclose(image, exact, atol=2e-3 * np.abs(exact).max())


# Placement


@pytest.mark.parametrize(("extent", "side"), [(60, 9), (61, 8), (40, 1), (30, 2)])
def test_place_squares__jams(extent: int, side: int) -> None:
    places = place_squares(extent, side, None, np.random.default_rng(0))
    assert closest(places) >= side
    assert places.min() >= 0
    assert places.max() < extent
    free = np.ones((extent, extent), dtype=bool)
    for y, x in places:
        free[max(y - side + 1, 0) : y + side, max(x - side + 1, 0) : x + side] = False
    assert not free.any()


def test_place_squares__jamming_coverage() -> None:
    """Aligned squares dropped at random jam at 0.562 of the area.

    On a lattice of pixels rather than in the plane a square of side 21 jams some 0.015
    higher; equation (5) at L = 11 therefore ends at a density of 0.158, where the plane
    would give 0.562 (11 / 21)² = 0.154.
    """
    extent, side = 1500, 21
    places = place_squares(extent, side, None, np.random.default_rng(1))
    coverage = len(places) * side**2 / (extent + side - 1) ** 2
    assert coverage == pytest.approx(0.577, abs=0.006)


def test_place_squares__is_uniform() -> None:
    generator = np.random.default_rng(2)
    extent, side, trials = 12, 5, 3000
    first = np.array(
        [place_squares(extent, side, 2, generator)[0] for _ in range(trials)]
    )
    counts = np.bincount(first[:, 0] * extent + first[:, 1], minlength=extent**2)
    mean = trials / extent**2
    chi_square = np.sum((counts - mean) ** 2) / mean
    degrees = extent**2 - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_place_squares__second_is_uniform_among_the_free() -> None:
    generator = np.random.default_rng(3)
    extent, side, trials = 6, 3, 6000
    counts = np.zeros((extent, extent))
    weights = np.zeros((extent, extent))
    y, x = np.mgrid[:extent, :extent]
    for _ in range(trials):
        (py, px), (qy, qx) = place_squares(extent, side, 2, generator)
        free = (abs(y - py) >= side) | (abs(x - px) >= side)
        counts[qy, qx] += 1
        weights += free / free.sum()
    chi_square = np.sum((counts - weights) ** 2 / weights)
    degrees = extent**2 - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_place_squares__stops_at_the_count() -> None:
    for count in (1, 7, 50):
        places = place_squares(200, 5, count, np.random.default_rng(3))
        assert len(places) == count
        assert closest(places) >= 5 or count == 1


# Micrographs of an expansion


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("spacing", ["separated", "arbitrary"])
def test_simulate__is_the_sum_of_its_projections(size: int, spacing: str) -> None:
    volume = shepp_logan(size)
    options = SMALL | {"size": size, "snr": np.inf, "spacing": spacing}
    result = simulate(volume, **options)
    (micrograph,), (centres,), (rotations,) = (
        result.micrographs,
        result.coordinates,
        result.rotations,
    )
    assert micrograph.dtype == np.float32
    assert result.noise_variance == 0
    side = 2 * size - 1 if spacing == "separated" else size
    assert closest(centres) >= side
    basis = VolumeBasis(size, 3)
    coefficients = basis.expand(volume)
    np.testing.assert_allclose(result.volume_true, basis.evaluate(coefficients))
    expected = np.zeros_like(micrograph)
    images = basis.project(coefficients, rotations)
    for (y, x), image in zip(centres.astype(int) - size // 2, images, strict=True):
        assert expected[y : y + size, x : x + size].shape == (size, size)
        expected[y : y + size, x : x + size] += image
    np.testing.assert_allclose(micrograph, expected, atol=1e-6)


def test_simulate__noise_has_the_ratio_asked_for() -> None:
    options = SMALL | {"pixels": 300}
    noisy = simulate(VOLUME, **options)
    clean = simulate(VOLUME, **options | {"snr": np.inf})
    noise = noisy.micrographs[0] - clean.micrographs[0]
    basis = VolumeBasis(7, 3)
    images = basis.project(basis.expand(VOLUME), noisy.rotations[0])
    signal = np.mean(np.sum(images**2, axis=(1, 2))) / 7**2
    assert noisy.noise_variance == pytest.approx(signal / 2.0, rel=1e-5)
    # Sampling error of a variance and of a mean over 90,000 pixels.
    assert noise.var() == pytest.approx(noisy.noise_variance, rel=5 * (2**0.5) / 300)
    assert abs(noise.mean()) < 5 * noise.std() / 300
    neighbours = np.mean(noise[1:] * noise[:-1]) / noise.var()
    assert abs(neighbours) < 5 / 300


def test_simulate__is_deterministic_and_extends() -> None:
    one = simulate(VOLUME, **SMALL)
    three = simulate(VOLUME, **SMALL | {"micrographs": 3})
    np.testing.assert_array_equal(one.micrographs[0], three.micrographs[0])
    np.testing.assert_array_equal(one.rotations[0], three.rotations[0])
    assert one.noise_variance == three.noise_variance
    other = simulate(VOLUME, **SMALL | {"seed": 1})
    first, second, _ = three.micrographs
    assert np.abs(first - second).max() > 0.1
    assert np.abs(first - other.micrographs[0]).max() > 0.1


def test_simulate__densities() -> None:
    options = SMALL | {"pixels": 280}
    sparse = simulate(VOLUME, **options | {"density": 0.05})
    assert sparse.requested == 80
    assert sparse.placed == [80]
    dense = simulate(VOLUME, **options | {"density": 0.4})
    assert dense.requested == 640
    assert dense.placed[0] < 0.19 * 280**2 / 7**2
    arbitrary = simulate(VOLUME, **options | {"density": 0.4, "spacing": "arbitrary"})
    assert arbitrary.placed == [640]
    assert simulate(VOLUME, **options).requested is None


def test_simulate__downsamples_a_larger_volume() -> None:
    volume = blobs(28)[0]
    result = simulate(volume, **SMALL | {"ell_max": 6, "snr": np.inf, "density": 0.02})
    small = downsampled(volume, 7)
    # Sums along lines are those of the full size.
    assert small.sum(axis=0).mean() == pytest.approx(volume.sum(axis=0).mean())
    basis = VolumeBasis(7, 6)
    expansion = basis.evaluate(basis.expand(small))
    np.testing.assert_allclose(result.volume_true, expansion, atol=1e-5)


def test_iterate_micrographs__progress_and_override() -> None:
    settings = SimulationSettings(**SMALL, micrographs=2)
    told: list[tuple[int, int]] = []
    drawn = list(iterate_micrographs(VOLUME, settings, lambda *done: told.append(done)))
    assert told == [(1, 2), (2, 2)]
    whole = simulate(VOLUME, settings)
    for one, micrograph in zip(drawn, whole.micrographs, strict=True):
        np.testing.assert_array_equal(one.micrograph, micrograph)
    assert len(simulate(VOLUME, settings, micrographs=1).micrographs) == 1


# Micrographs of a full-size volume


@pytest.mark.parametrize(
    ("full", "size", "pixels"), [(24, 8, 40), (25, 7, 31), (31, 11, 50), (12, 12, 40)]
)
def test_simulate__original_equals_the_naive_route(
    full: int, size: int, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.random.default_rng(4).standard_normal((full,) * 3)
    width = round(pixels * full / size)
    # Several strips and batches, although the micrograph is small.
    monkeypatch.setattr(scene, "STRIP_PIXELS", 40 * width)
    monkeypatch.setattr(scene, "BATCH_PIXELS", 3 * full**2)
    result = simulate(
        volume,
        size=size,
        pixels=pixels,
        snr=np.inf,
        method="original",
        spacing="arbitrary",
    )
    (centres,), (rotations,) = result.coordinates, result.rotations
    places = np.arange(full) - full // 2
    z, y, x = np.meshgrid(places, places, places, indexing="ij")
    volume[z**2 + y**2 + x**2 > (full // 2) ** 2] = 0
    images = project_slices(volume, rotations)
    whole = np.zeros((width, width))
    middles = (centres - pixels // 2) * width / pixels + width // 2
    np.testing.assert_allclose(middles, np.round(middles), atol=1e-9)
    corners = np.round(middles).astype(int) - full // 2
    assert closest(corners) >= full
    for (top, left), image in zip(corners, images, strict=True):
        whole[top : top + full, left : left + full] += image
    naive = fourier_crop(whole, pixels)
    (micrograph,) = result.micrographs
    np.testing.assert_allclose(micrograph, naive, atol=1e-5 * np.abs(naive).max())


def test_simulate__original_shows_the_truth_at_its_coordinates() -> None:
    volume = blobs(33)[0]
    result = simulate(
        volume, size=11, pixels=60, snr=np.inf, method="original", density=0.05
    )
    truth = result.volume_true
    images = project_slices(truth, result.rotations[0])
    expected = np.zeros((60, 60))
    for (y, x), image in zip(result.coordinates[0], images, strict=True):
        one = np.zeros((60, 60))
        one[20:31, 20:31] = image
        expected += shift(one, (y - 25, x - 25), order=5, mode="grid-wrap")
    (micrograph,) = result.micrographs
    match = np.corrcoef(micrograph.ravel(), expected.ravel())[0, 1]
    assert match > 0.995
    scale = np.vdot(micrograph, expected) / np.vdot(expected, expected)
    assert scale == pytest.approx(1, abs=0.02)


def test_simulate__original_noise_is_that_of_the_full_size() -> None:
    options: dict[str, Any] = {
        "size": 8,
        "pixels": 120,
        "method": "original",
        "density": 0.05,
    }
    volume = blobs(24)[0]
    noisy = simulate(volume, snr=0.5, **options)
    clean = simulate(volume, snr=np.inf, **options)
    noise = noisy.micrographs[0] - clean.micrographs[0]
    images = blob_projections(24, noisy.rotations[0])
    signal = np.mean(np.sum(images**2, axis=(1, 2))) / 24**2
    # The blobs are cut by the ball, a little.
    assert noisy.noise_variance == pytest.approx(signal / 0.5 / 9, rel=1e-2)
    assert noise.var() == pytest.approx(noisy.noise_variance, rel=5 * (2**0.5) / 120)


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 4),
        ("size", 7.5),
        ("pixels", 13),
        ("snr", 0.0),
        ("snr", -1.0),
        ("snr", float("nan")),
        ("micrographs", 0),
        ("spacing", "wide"),
        ("method", "both"),
        ("density", 0.0),
        ("density", 1.5),
        ("density", 1e-6),
        ("ell_max", -1),
        ("seed", -1),
        ("pixel_size", 0.0),
        ("pixel_size", float("inf")),
    ],
)
def test_settings__refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected .*, found ") as error:
        SimulationSettings(**SMALL | {name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("volume", "found"),
    [
        (np.ones((7, 7)), r"shape \(7, 7\)"),
        (np.ones((7, 7, 8)), r"shape \(7, 7, 8\)"),
        (np.ones((6, 6, 6)), "found 6"),
        (np.zeros((7, 7, 7)), "zeros"),
        (np.full((7, 7, 7), np.nan), "finite"),
    ],
)
def test_simulate__bad_volume(volume: np.ndarray, found: str) -> None:
    with pytest.raises(InputError, match=found):
        simulate(volume, **SMALL)


def test_simulate__settings_missing_or_unknown() -> None:
    with pytest.raises(InputError, match="snr"):
        simulate(VOLUME, size=7, pixels=90)
    with pytest.raises(InputError, match="found noise"):
        simulate(VOLUME, **SMALL, noise=3)


def test_settings__import_no_compiler() -> None:
    program = (
        "import sys, numbasaem; numbasaem.SimulationSettings; "
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# Files


def test_write_simulation__round_trip(tmp_path: Path) -> None:
    settings = SimulationSettings(**SMALL, micrographs=2, pixel_size=1.5, density=0.1)
    result = simulate(VOLUME, settings)
    write_simulation(tmp_path / "out", result, settings)
    simulate_to_folder(tmp_path / "same", VOLUME, settings)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "micrograph_0001.mrc",
        "micrograph_0002.mrc",
        "simulation.json",
        "truth.star",
        "volume_true.mrc",
    ]
    for name in names:
        written = (tmp_path / "out" / name).read_bytes()
        if name != "truth.star":  # It begins with the time.
            assert written == (tmp_path / "same" / name).read_bytes()
    check_written(tmp_path / "out", result)


def check_written(out: Path, result: Simulation) -> None:
    (image,), pixel_size = read_micrographs(out / "micrograph_0002.mrc")
    np.testing.assert_array_equal(image, result.micrographs[1])
    assert pixel_size == pytest.approx(1.5)
    volume, _ = read_volume(out / "volume_true.mrc")
    np.testing.assert_allclose(volume, result.volume_true, atol=1e-6)
    rows = read_particles(out / "truth.star").particles
    second = rows[rows["rlnMicrographName"] == "micrograph_0002.mrc"]
    centres = second[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy()
    np.testing.assert_allclose(centres, result.coordinates[1])
    angles = second[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    matrices = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    np.testing.assert_allclose(matrices, result.rotations[1], atol=1e-6)
    record = json.loads((out / "simulation.json").read_text())
    assert record["settings"]["size"] == 7
    assert record["noise_variance"] == result.noise_variance
    assert record["requested"] == result.requested == 17
    assert record["placed"] == result.placed
    assert record["density_requested"] == 0.1
    assert record["density_placed"][0] == pytest.approx(result.placed[0] * 7**2 / 90**2)


def test_write_simulation__folder_in_use(tmp_path: Path) -> None:
    settings = SimulationSettings(**SMALL)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("not a simulation")
    simulate_to_folder(out, VOLUME, settings)
    with pytest.raises(InputError, match=r"found micrograph_0001\.mrc in it"):
        simulate_to_folder(out, VOLUME, settings)
    with pytest.raises(InputError, match="a folder that can be written"):
        simulate_to_folder(out / "notes.txt", VOLUME, settings)


def test_write_simulation__infinite_ratio_is_valid_json(tmp_path: Path) -> None:
    settings = SimulationSettings(**SMALL | {"snr": np.inf})
    simulate_to_folder(tmp_path, VOLUME, settings)
    text = (tmp_path / "simulation.json").read_text()
    assert "Infinity" not in text
    assert json.loads(text)["settings"]["snr"] is None


def test_search__with_the_true_map(tmp_path: Path) -> None:
    settings = SimulationSettings(**{**SMALL, "pixels": 250, "snr": 20.0})
    simulate_to_folder(tmp_path, gaussians(7, *CLUSTER), settings)
    search = search_with_true_map(tmp_path)
    side = 30 * 7
    table = read_particles(tmp_path / "truth.star").particles
    centres = table[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy()
    inside = centres[(centres < side).all(axis=1)]
    assert search.pixels.shape == (side, side)
    np.testing.assert_allclose(search.particles, inside)
    assert len(search.picks) == len(inside)
    assert search.match.recall == search.match.precision > 0.95
    # Each particle has nine pixels within a quarter of its box.
    assert search.chance == pytest.approx(9 * len(inside) / side**2, rel=0.02)
    assert len(search.missed) <= (~search.right).sum()


def test_search__in_noise_alone_is_right_by_chance(tmp_path: Path) -> None:
    settings = SimulationSettings(**{**SMALL, "pixels": 250, "snr": 1e-6})
    simulate_to_folder(tmp_path, gaussians(7, *CLUSTER), settings)
    search = search_with_true_map(tmp_path)
    share = search.right.mean()
    deviation = np.sqrt(search.chance / len(search.right))
    assert len(search.picks) == len(search.particles)
    assert abs(share - search.chance) < 4 * deviation
