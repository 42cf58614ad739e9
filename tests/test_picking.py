"""Picking: shifts, particles, tables, and the measures of section IV-B."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from numbasaem import cli
from numbasaem.errors import InputError
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.io.coordinates import (
    read_boxes,
    read_topaz,
    write_boxes,
    write_topaz,
)
from numbasaem.io.micrograph_tables import write_micrograph_table
from numbasaem.io.mrc import read_micrographs, write_micrograph
from numbasaem.io.relion import read_particles, write_particles
from numbasaem.observations import patch_positions, window_tiles
from numbasaem.observations.patch_cutting import (
    crop_shift_pad,
    cut_patches,
    patch_origins,
)
from numbasaem.observations.patch_positions import (
    is_empty,
    most_probable_shifts,
    particle_centres,
)
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.observations.window_expectation import window_expectation
from numbasaem.picking import files
from numbasaem.picking.algorithm import likeliest_rotations, pick
from numbasaem.picking.scores import (
    calibration,
    empty_patch_f1,
    match_picks,
    share_found_within_one_pixel,
    true_patch_shifts,
)
from numbasaem.picking.selection import LEAST, surest
from numbasaem.picking.tables import (
    PickedParticles,
    check_table,
    match_tables,
    write_picks,
)
from numbasaem.picking.template import (
    ParticleTemplate,
    template_of_map,
    template_of_run,
)
from numbasaem.projection.operator import project
from numbasaem.reconstruction.checkpoint import load_checkpoint, save_checkpoint
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.settings import Settings
from numbasaem.simulation.files import simulate_to_folder
from numbasaem.simulation.scene import Simulation, simulate
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from tests.helpers import refusal

Array = NDArray[np.float64]

SIZE = 7


def placed(centres: NDArray[np.int_], images: Array, shape: tuple[int, int]) -> Array:
    """Micrograph without noise, the images in turn at the centres."""
    size = images.shape[1]
    micrograph = np.zeros(shape)
    for number, (y, x) in enumerate(centres - size // 2):
        micrograph[y : y + size, x : x + size] += images[number % len(images)]
    return micrograph


def distinct_images(n: int, size: int) -> Array:
    return np.random.default_rng(3).uniform(1, 2, (n, size, size))


# --- geometry ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 5])
def test_true_patch_shifts__say_what_each_patch_shows(size: int) -> None:
    image = distinct_images(1, size)
    shape = (4 * size + 2, 3 * size + 1)
    origins = patch_origins(shape, size)
    for y in range(shape[0] - size + 1):
        for x in range(shape[1] - size + 1):
            centres = np.array([[y, x]]) + size // 2
            shifts = true_patch_shifts(centres, shape, size)
            patches = cut_patches(placed(centres, image, shape), size)
            for patch, shift in zip(patches, shifts, strict=True):
                np.testing.assert_allclose(
                    patch, crop_shift_pad(image[0], shift), rtol=1e-6
                )
            seen = ~is_empty(shifts, size)
            np.testing.assert_array_equal(seen, patches.any(axis=(1, 2)))
            found = particle_centres(origins, shifts, size)[seen]
            assert (found == centres).all()


def test_true_patch_shifts__the_most_visible_of_several() -> None:
    size, shape = 6, (12, 12)
    # 2 rows of the first and 3 of the second reach into the top left patch
    centres = np.array([[-4, 0], [6, 0]]) + size // 2
    assert tuple(true_patch_shifts(centres, shape, size)[0]) == (4, 0)
    assert tuple(true_patch_shifts(centres - (1, 0), shape, size)[0]) == (7, 0)


def test_true_patch_shifts__none() -> None:
    shifts = true_patch_shifts(np.zeros((0, 2)), (20, 11), 5)
    np.testing.assert_array_equal(shifts, np.full((8, 2), 5))
    outside = true_patch_shifts([[-10, 3], [300, 4]], (20, 11), 5)
    np.testing.assert_array_equal(outside, shifts)


# --- the most probable state -------------------------------------------------------


def test_most_probable_shifts__empty_shifts_are_one_state() -> None:
    size = 3
    posterior = np.zeros((4, 2 * size, 2 * size), np.float32)
    empty = np.zeros((2 * size, 2 * size), dtype=bool)
    empty[size], empty[:, size] = True, True
    posterior[0, 1, 5] = 1
    posterior[1, size, 2] = 1
    # each empty shift has less than the best of the others, together they have more
    posterior[2][empty] = 0.6 / empty.sum()
    posterior[2, 0, 0] = 0.4
    # a particle for sure, its place is not: no single shift beats the empty state
    posterior[3, [1, 1, 2], [4, 5, 5]] = 0.2, 0.25, 0.2
    posterior[3, size, size] = 0.35
    shifts, probability = most_probable_shifts(posterior)
    np.testing.assert_array_equal(shifts, [[1, 5], [3, 3], [3, 3], [1, 5]])
    np.testing.assert_allclose(probability, [0, 1, 0.6, 0.35], rtol=1e-6)


# --- picking -----------------------------------------------------------------------


def simulated(noise: float) -> tuple[NDArray[np.int_], Array, Array]:
    size, shape = 7, (72, 65)
    images = np.random.default_rng(5).standard_normal((6, size, size))
    centres = np.array(
        [[3, 3], [10, 24], [17, 45], [24, 10], [31, 31], [45, 17], [52, 59], [66, 38]]
    )
    micrograph = placed(centres, images, shape)
    micrograph += noise * np.random.default_rng(6).standard_normal(shape)
    return centres, images, micrograph


def test_pick__finds_all_particles_once() -> None:
    centres, images, micrograph = simulated(noise=0.2)
    size = images.shape[1]
    prior = uniform_shift_prior(size, 0.6)
    kept = micrograph.copy()
    shares: list[float] = []
    picks = pick(micrograph, images, prior, 0.2**2, on_progress=shares.append)
    np.testing.assert_array_equal(micrograph, kept)
    assert shares == [1.0]
    assert picks.centres.dtype == np.float64
    assert sorted(map(tuple, picks.centres)) == sorted(map(tuple, centres))
    assert (np.diff(picks.probability) <= 0).all()
    assert picks.probability.min() > 0.99
    assert picks.probability.max() <= 1 + 1e-5  # float32 posterior
    true = true_patch_shifts(centres, micrograph.shape, size)
    assert picks.patch_shifts.shape == true.shape
    assert picks.empty_probability.shape == (len(true),)
    assert share_found_within_one_pixel(true, picks.patch_shifts, size) == 1
    f1 = empty_patch_f1(is_empty(true, size), is_empty(picks.patch_shifts, size))
    assert f1 > 0.9
    assert match_picks(picks.centres, centres, 0.5) == (1, 1)


def test_pick__in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, images, micrograph = simulated(noise=0.2)
    prior = uniform_shift_prior(7, 0.6)
    whole = pick(micrograph, images, prior, 0.2**2)
    monkeypatch.setattr(patch_positions, "_PATCHES_AT_ONCE", 17)
    parts = pick(micrograph, images, prior, 0.2**2)
    np.testing.assert_array_equal(parts.centres, whole.centres)
    np.testing.assert_array_equal(parts.patch_shifts, whole.patch_shifts)
    np.testing.assert_allclose(parts.probability, whole.probability, rtol=1e-5)


def test_pick__simulated_micrograph() -> None:
    size = 7
    sample = simulate(folded_chain(size), size=size, pixels=120, snr=20, ell_max=4)
    basis = VolumeBasis(size, ell_max=4)
    images = basis.project(basis.expand(sample.volume_true), rotation_grid(100))
    (micrograph,), (true,) = sample.micrographs, sample.coordinates
    empty_share = is_empty(true_patch_shifts(true, micrograph.shape, size), size).mean()
    prior = uniform_shift_prior(size, float(empty_share))
    picks = pick(micrograph, images, prior, sample.noise_variance)
    recall, _ = match_picks(picks.centres, true, tolerance_px=1.5)
    assert recall > 0.9
    # what is picked beside particles are slivers of them at a patch's border
    sure = picks.centres[picks.probability > 0.5]
    recall, precision = match_picks(sure, true, tolerance_px=1.5)
    assert recall > 0.9
    assert precision > 0.9


def test_likeliest_rotations__are_those_simulated() -> None:
    """To the grid's step, also of particles that the border cuts."""
    size, n = 11, 552
    simulation = simulate(folded_chain(size), size=size, pixels=300, snr=20, ell_max=6)
    basis = VolumeBasis(size, 6)
    rotations = rotation_grid(n)
    images = project(basis, basis.expand(simulation.volume_true), rotations)
    (micrograph,), (centres,) = simulation.micrographs, simulation.coordinates
    variance = simulation.noise_variance
    found = rotations[likeliest_rotations(micrograph, centres, images, variance)]
    (true,) = simulation.rotations
    turn = Rotation.from_matrix(found @ true.transpose(0, 2, 1)).magnitude()
    assert np.median(np.degrees(turn)) < 25
    cut = micrograph[: round(centres[0, 0]) + 2]
    again = likeliest_rotations(cut, centres[:1], images, variance)
    turn = Rotation.from_matrix(rotations[again[0]] @ true[0].T).magnitude()
    assert np.degrees(turn) < 40
    assert len(likeliest_rotations(micrograph, [], images, variance)) == 0


def test_rotation_prior__weighs_likelihoods() -> None:
    """At equal likelihood the more probable wins; an excluded one never does."""
    generator = np.random.default_rng(8)
    images = np.repeat(generator.standard_normal((2, SIZE, SIZE)), 2, axis=0)
    micrograph = placed(np.array([[8, 8], [8, 20]]), images[::2], (20, 30))
    centres = np.array([[8.0, 8.0], [8.0, 20.0]])
    prior = np.array([0.1, 0.4, 0.5, 0.0])
    found = likeliest_rotations(micrograph, centres, images, 0.01, prior)
    np.testing.assert_array_equal(found, [1, 2])


def test_rotation_prior__excludes_half_of_the_rotations() -> None:
    centres, images, micrograph = simulated(noise=0.2)
    variance, allowed = 0.2**2, np.array([1, 0, 1, 0, 1, 0]) / 3
    found = likeliest_rotations(micrograph, centres, images, variance, allowed)
    assert not (found % 2).any()
    # a particle in an excluded rotation is no longer one
    prior = uniform_shift_prior(SIZE, 0.6)
    picks, half = (
        pick(micrograph, images, prior, variance, views) for views in (None, allowed)
    )
    sure, sure_half = (p.centres[p.probability > 0.9] for p in (picks, half))
    assert match_picks(sure, centres, 0.5).recall == 1
    assert match_picks(sure_half, centres[::2], 0.5).recall == 1
    assert match_picks(sure_half, centres[1::2], 0.5).recall == 0


def test_template_of_run__has_the_views_that_the_run_learned(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    description, runs = load_checkpoint(finished / "run.h5")
    state = runs["full"]
    first = np.arange(len(state.view_weights)) == 0
    state.view_weights = np.where(first, 1.0, 0.0)
    save_checkpoint(tmp_path / "run.h5", description, runs)
    template, settings = template_of_run(tmp_path)
    assert template.rotation_prior is not None
    np.testing.assert_allclose(template.rotation_prior.sum(), 1)
    of_views = template.rotation_prior.reshape(len(first), -1).sum(axis=1)
    assert np.argmax(of_views) == 0
    assert of_views[0] > 2 / len(first)
    plain = settings.model_copy(update={"views": "uniform"}).model_dump()
    save_checkpoint(tmp_path / "run.h5", description | {"settings": plain}, runs)
    assert template_of_run(tmp_path)[0].rotation_prior is None


def test_template_of_map__finds_contrast_and_noise() -> None:
    size = 7
    sample = simulate(folded_chain(size), size=size, pixels=120, snr=10, ell_max=4)
    patches = cut_patches(sample.micrographs[0], size)
    basis = VolumeBasis(size, ell_max=10)
    coefficients = basis.expand(sample.volume_true)
    (image,) = basis.project(coefficients, ViewGrid(552).rotations[:1])
    for contrast in (1, 30):
        template = template_of_map("map", contrast * sample.volume_true, patches)
        np.testing.assert_allclose(
            template.noise_variance, sample.noise_variance, rtol=0.05
        )
        scale = np.vdot(template.images[0], image) / np.vdot(image, image)
        assert scale == pytest.approx(1, abs=0.05)
        shifts = true_patch_shifts(sample.coordinates[0], (120, 120), size)
        empty = template.shift_prior[size].sum() + template.shift_prior[:, size].sum()
        empty -= template.shift_prior[size, size]
        assert empty == pytest.approx(is_empty(shifts, size).mean(), abs=0.1)


def test_template_of_map__without_signal() -> None:
    with pytest.raises(InputError, match="map: expected a map with signal"):
        template_of_map("map", np.zeros((7, 7, 7)), np.ones((4, 7, 7), np.float32))


def test_pick__nothing_but_noise() -> None:
    _, images, _ = simulated(noise=0.2)
    noise = 0.2 * np.random.default_rng(7).standard_normal((40, 40))
    picks = pick(noise, images, uniform_shift_prior(7, 0.6), 0.2**2)
    assert picks.centres.shape == (0, 2)
    assert picks.probability.shape == (0,)
    assert is_empty(picks.patch_shifts, 7).all()


def test_pick__min_distance_merges() -> None:
    centres, images, micrograph = simulated(noise=0.2)
    prior = uniform_shift_prior(7, 0.6)
    one = pick(micrograph, images, prior, 0.2**2, min_distance=1000.0)
    assert len(one.centres) == 1
    assert tuple(one.centres[0]) in set(map(tuple, centres))


@pytest.mark.parametrize("shape", [(7, 7), (0, 7, 7)])
def test_pick__unusable_images(shape: tuple[int, ...]) -> None:
    prior = uniform_shift_prior(7, 0.6)
    with pytest.raises(InputError, match="images: expected"):
        pick(np.zeros((20, 20)), np.zeros(shape), prior, 1.0)


def test_pick__unusable_micrograph() -> None:
    prior = uniform_shift_prior(7, 0.6)
    with pytest.raises(InputError, match="micrograph: expected"):
        pick(np.zeros(20), np.zeros((1, 7, 7)), prior, 1.0)


# --- measures ----------------------------------------------------------------------


def test_f1__by_precision_and_sensitivity() -> None:
    true, found = np.random.default_rng(0).random((2, 200)) < [[0.6], [0.4]]
    precision = true[found].mean()
    sensitivity = found[true].mean()
    wanted = 2 * precision * sensitivity / (precision + sensitivity)
    assert empty_patch_f1(true, found) == pytest.approx(wanted)
    assert empty_patch_f1(true, true) == 1
    assert empty_patch_f1(true, ~true) == 0
    always = empty_patch_f1(true, np.ones(200, dtype=bool))
    assert always == pytest.approx(2 * true.mean() / (1 + true.mean()))
    assert np.isnan(empty_patch_f1([False, False], [False, False]))
    with pytest.raises(InputError, match="found_empty: expected shape"):
        empty_patch_f1([True], [True, False])


@pytest.mark.parametrize(
    ("true", "found", "share"),
    [
        ((0, 0), (9, 9), 1),  # around the period
        ((0, 2), (1, 1), 1),
        ((0, 2), (2, 2), 0),
        ((9, 8), (0, 8), 1),
        ((1, 1), (5, 1), 0),  # found empty
        ((1, 8), (1, 8), np.nan),  # displaced up and right: not counted, as printed
        ((2.5, 1), (2, 1), np.nan),
        ((5, 5), (5, 5), np.nan),
        ((4, 4), (4, 4), np.nan),
    ],
)
def test_share_found__one_patch(true, found, share) -> None:
    given = share_found_within_one_pixel([true], [found], 5)
    np.testing.assert_equal(given, share)


def test_share_found__counts_well_filled_patches_only() -> None:
    true = [(0, 0), (1, 1), (5, 5), (4, 0), (9, 9)]
    found = [(1, 1), (4, 1), (5, 5), (4, 0), (8, 0)]
    assert share_found_within_one_pixel(true, found, 5) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="found_shifts: expected shape"):
        share_found_within_one_pixel(true, found[1:], 5)


def test_match_picks__each_particle_once() -> None:
    true = [(0, 0), (10, 10), (20, 20)]
    assert match_picks([(0, 1), (1, 0), (10, 10)], true, 2) == (2 / 3, 2 / 3)
    assert match_picks(true, true, 0) == (1, 1)
    assert match_picks([(50, 50)], true, 2) == (0, 0)


def test_match_picks__as_many_as_can_be_made() -> None:
    # the nearest pair first would leave the second pick without a particle
    assert match_picks([(0, 0), (0, 3)], [(0, 1), (0, -2)], 2) == (1, 1)


def test_match_picks__of_none() -> None:
    recall, precision = match_picks(np.zeros((0, 2)), [(1, 1)], 1)
    assert recall == 0
    assert np.isnan(precision)
    recall, precision = match_picks([(1, 1)], np.zeros((0, 2)), 1)
    assert np.isnan(recall)
    assert precision == 0


def test_calibration__of_probabilities_that_hold() -> None:
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.5, 1, 20_000)
    right = generator.random(20_000) < probability
    bins = calibration(probability, right)
    assert [b.lowest for b in bins] == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert [b.highest for b in bins] == [0.6, 0.7, 0.8, 0.9, 1.0]
    assert sum(b.n_picks for b in bins) == 20_000
    for b in bins:
        assert b.deviation == pytest.approx(
            np.sqrt(b.mean_probability * (1 - b.mean_probability) / b.n_picks), rel=0.02
        )
        assert abs(b.share_right - b.mean_probability) < 3 * b.deviation


def test_calibration__bounds_and_what_is_no_probability() -> None:
    assert calibration([0.0, 1.0, 1.0], [False, True, False]) == [
        (0.0, 0.1, 1, 0.0, 0.0, 0.0),
        (0.9, 1.0, 2, 1.0, 0.5, 0.0),
    ]
    for unusable in (-0.1, 1.5, np.nan):
        assert calibration([0.5, unusable], [True, True]) == []
    assert calibration([], []) == []


# --- a rate of false picks ---------------------------------------------------------


def test_surest__as_many_as_the_rate_allows() -> None:
    probability = np.array([0.5, 1.0, 0.9, 0.2, 0.9])
    for fdr, n_kept in ((0.02, 1), (0.07, 3), (0.18, 4), (0.31, 5)):
        kept = surest(probability, fdr)
        assert kept.sum() == n_kept
        assert probability[kept].min() >= probability[~kept].max(initial=0)
        assert (1 - probability[kept]).mean() <= fdr


def test_surest__keeps_to_the_rate_where_probabilities_hold(
    generator: np.random.Generator,
) -> None:
    probability = generator.uniform(0.1, 1, 20_000)
    right = generator.random(20_000) < probability
    for fdr in (0.02, 0.1, 0.3):
        kept = surest(probability, fdr)
        assert 1 - right[kept].mean() == pytest.approx(fdr, abs=0.02)


def test_surest__refused_where_not_even_the_best_is_sure() -> None:
    line = refusal(surest, np.array([0.3, 0.7]), 0.1)
    assert "found 0.70 at best: this particle is below the detection limit" in line
    line = refusal(surest, np.zeros(0), 0.1)
    assert "found none more probable than 0.1" in line


def test_fdr__of_every_way_to_pick(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    micrograph, out = data / "micrograph_0001.mrc", tmp_path / "picks.star"
    for particle in (
        ("--run", finished),
        ("--volume", data / "volume_true.mrc"),
    ):
        words = ("pick", micrograph, *particle, "--out", out)
        assert command(*words, "--fdr", 0.05) == 0
        share = capsys.readouterr().out.splitlines()[-1]
        assert share.startswith("expected share of false ones: 0.0")
        particles = read_particles(out).particles
        merit = particles["rlnAutopickFigureOfMerit"].to_numpy(float)
        assert 1 - merit.mean() <= 0.05
        assert command(*words, "--fdr", 0) == 2
        assert "--fdr: expected a rate above 0" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_found")
def test_fdr__below_the_limit_is_refused(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    micrograph, out = data / "micrograph_0001.mrc", tmp_path / "picks.star"
    words = ("pick", micrograph, "--run", finished, "--out", out, "--fdr", 0.1)
    assert command(*words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--fdr: expected" in line
    assert "below the detection limit" in line
    assert not out.exists()


# --- tables ------------------------------------------------------------------------

OPTIONS = "--ell-max 2 --iterations 1 --rotations 24 --starts 1 --no-halves --no-report"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("picking") / "data"
    settings = SimulationSettings(size=SIZE, pixels=64, snr=10, ell_max=3)
    simulate_to_folder(folder, folded_chain(SIZE), settings, None)
    return folder


def run_of_one_iteration(data: Path, out: Path, **more: Any) -> Path:
    few: dict[str, Any] = {"ell_max": (2,), "iterations": (1,), "rotations": 24}
    settings = Settings(size=SIZE, starts=1, halves=False, **few, **more)
    reconstruct([data / "micrograph_0001.mrc"], settings, out=out)
    return out


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("picking") / "run"
    return run_of_one_iteration(data, out, model="patch", views="learned")


def command(*words: object) -> int:
    return cli.main([str(word) for word in words])


def never_shown(template: ParticleTemplate) -> ParticleTemplate:
    """Template of a particle without contrast."""
    return replace(template, volume_coefficients=0 * template.volume_coefficients)


@pytest.fixture
def nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_run(run: Path) -> tuple[ParticleTemplate, Settings]:
        template, settings = template_of_run(run)
        return never_shown(template), settings

    def of_map(
        where: object, volume: Array, patches: NDArray[np.float32]
    ) -> ParticleTemplate:
        return never_shown(template_of_map(where, volume, patches))

    monkeypatch.setattr(files, "template_of_run", of_run)
    monkeypatch.setattr(files, "template_of_map", of_map)


def n_rows(table: Path) -> int:
    if table.suffix == ".box":
        return len(read_boxes(table)[0])
    if table.suffix == ".txt":
        return len(read_topaz(table)[0])
    return len(read_particles(table).particles)


@pytest.mark.usefixtures("nothing_found")
@pytest.mark.parametrize("suffix", ["star", "box", "txt"])
def test_empty_table__of_every_command(
    suffix: str,
    data: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    micrograph, table = data / "micrograph_0001.mrc", tmp_path / f"picks.{suffix}"
    chosen = ("--size", SIZE, *OPTIONS.split(), "--out", tmp_path / "run")
    for words in (
        ("pick", micrograph, "--run", finished, "--out", table),
        ("pick", micrograph, "--volume", data / "volume_true.mrc", "--out", table),
        ("reconstruct", micrograph, *chosen, "--picks", table),
    ):
        assert command(*words) == 0
        assert f"0 particles written to {table}" in capsys.readouterr().out
        assert n_rows(table) == 0
        table.unlink()


@pytest.mark.usefixtures("nothing_found")
@pytest.mark.parametrize("suffix", ["star", "txt"])
def test_empty_table__is_judged(
    suffix: str,
    data: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, truth = tmp_path / f"picks.{suffix}", data / "truth.star"
    micrograph = data / "micrograph_0001.mrc"
    assert command("pick", micrograph, "--run", finished, "--out", table) == 0
    capsys.readouterr()
    for found, true, recall, precision in (
        (table, truth, 0, None),
        (truth, table, None, 0),
        (table, table, None, None),
    ):
        assert command("evaluate", found, true, "--tolerance", 1, "--json") == 0
        scores = json.loads(capsys.readouterr().out)
        assert (scores["recall"], scores["precision"]) == (recall, precision)
    assert command("evaluate", table, table, "--tolerance", 1) == 0
    assert capsys.readouterr().out == "recall: nan\nprecision: nan\n"


CENTRES = np.array([[10.0, 20.0], [30.0, 40.0]])


def table(path: Path, names: list[str]) -> Path:
    """Table of the two centres in each of some micrographs."""
    all_names = [name for name in names for _ in CENTRES]
    centres = np.concatenate([CENTRES] * len(names))
    if path.suffix == ".box":
        write_boxes(path, centres, 9)
    elif path.suffix == ".txt":
        write_topaz(path, all_names, centres, np.ones(len(centres)))
    else:
        write_particles(
            path, micrograph_names=all_names, coordinates=centres, pixel_size=1.0
        )
    return path


@pytest.mark.parametrize("found", ["star", "box", "txt"])
@pytest.mark.parametrize("true", ["star", "box", "txt"])
def test_match_tables__of_all_formats(tmp_path: Path, found: str, true: str) -> None:
    picks = table(tmp_path / f"picks.{found}", ["MotionCorr/job002/grid 2/mic 1.mrc"])
    particles = table(tmp_path / f"truth.{true}", ["mic 1.mrc"])
    assert match_tables(picks, particles, 1)[:2] == (1, 1)
    words = ("evaluate", picks, particles, "--tolerance", 1)
    assert command(*words) == 0


@pytest.mark.parametrize("found", ["star", "txt"])
def test_match_tables__micrographs_are_never_merged(tmp_path: Path, found: str) -> None:
    picks, particles = tmp_path / f"picks.{found}", tmp_path / "truth.star"
    for picked, there, scores in (
        (["a/m.mrc", "b/m.mrc"], ["x/a/m.mrc", "x/b/m.mrc"], (1, 1)),
        (["a/m.mrc", "b/m.mrc"], ["x/a/m.mrc", "x/c/m.mrc"], (0.5, 0.5)),
        (["000001@x/s.mrcs", "000002@x/s.mrcs"], ["000002@s.mrcs"], (1, 0.5)),
        (["m.mrc", "m.map"], ["m.mrc", "m.map"], (1, 1)),
    ):
        table(picks, picked)
        table(particles, there)
        assert match_tables(picks, particles, 1)[:2] == scores


@pytest.mark.parametrize("suffix", ["star", "txt", "cs"])
def test_evaluate__shows_the_calibration(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picks = tmp_path / f"picks.{suffix}"
    names = ["m.mrc", "n.mrc", "n.mrc"]
    centres = np.array([[10.0, 20.0], [30.0, 40.0], [10.0, 90.0]])
    written = PickedParticles(
        micrograph_names=names,
        coordinates=centres,
        angles=np.zeros((3, 3)),
        probability=np.array([0.95, 0.625, 0.675]),
        optics_groups=[1, 1, 1],
        micrograph_uids=[None, None, None],
        micrograph_shapes=np.full((3, 2), 128),
        pixel_size=1.0,
        box=9,
        optics=None,
    )
    write_picks(picks, written)
    truth = table(tmp_path / "truth.star", ["m.mrc", "n.mrc"])
    words = ("evaluate", picks, truth, "--tolerance", 1)
    assert command(*words) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "precision: 0.667",
        "probability  picks   mean  right, +- by chance",
        " 0.6 to 0.7      2  0.650  0.500 +- 0.337",
        " 0.9 to 1.0      1  0.950  1.000 +- 0.218",
    ]
    assert command(*words, "--json") == 0
    low, high = json.loads(capsys.readouterr().out)["calibration"]
    assert low["n_picks"] == 2
    assert low["share_right"] == 0.5
    assert high["mean_probability"] == pytest.approx(0.95)
    without = table(tmp_path / "without.star", ["m.mrc"])
    assert match_tables(without, truth, 1).calibration == []


@pytest.mark.parametrize("source", ["run", "volume"])
def test_probability_maps__of_every_micrograph(
    source: str,
    data: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pixels = read_micrographs(data / "micrograph_0001.mrc")[0][0]
    with mrcfile.new(tmp_path / "two.mrcs") as file:
        noise = pixels.std() * np.random.default_rng(1).standard_normal(pixels.shape)
        file.set_data(np.stack([pixels, noise.astype(np.float32)]))
        file.voxel_size = 1.0
    micrographs = [data / "micrograph_0001.mrc", tmp_path / "two.mrcs"]
    kept = [path.read_bytes() for path in micrographs]
    particle = finished if source == "run" else data / "volume_true.mrc"
    # in the folder of a micrograph, which stays as it is
    words = (
        "pick",
        *micrographs,
        f"--{source}",
        particle,
        "--out",
        tmp_path / "p.star",
    )
    assert command(*words, "--probability-maps", tmp_path) == 0
    assert f"probability maps written to {tmp_path}" in capsys.readouterr().out
    assert [path.read_bytes() for path in micrographs] == kept
    # the first section is a copy
    maps = sorted(path.name for path in tmp_path.glob("*.mrc"))
    names = ["000002@two_probability.mrc", "micrograph_0001_probability.mrc"]
    assert maps == names
    values, pixel_size = read_micrographs(tmp_path / names[1])
    assert pixel_size == 1
    assert values[0].shape == pixels.shape
    assert values[0].min() >= 0
    assert values[0].max() <= 1
    particles = read_particles(tmp_path / "p.star").particles
    first = particles[particles["rlnMicrographName"] == "micrograph_0001.mrc"]
    names = ["rlnCoordinateY", "rlnCoordinateX", "rlnAutopickFigureOfMerit"]
    for y, x, merit in first[names].to_numpy(float):
        rows, columns = (slice(max(0, int(c) - 1), int(c) + 2) for c in (y, x))
        near = values[0][rows, columns].sum()
        assert merit == pytest.approx(min(near, 1), abs=1e-5)
    nowhere = tmp_path / "no" / "where"
    assert command(*words, "--probability-maps", nowhere) == 2
    assert f"{nowhere}: expected a folder" in capsys.readouterr().err


def test_match_tables__what_cannot_be_compared(tmp_path: Path) -> None:
    picks = table(tmp_path / "picks.star", ["a/m.mrc", "b/m.mrc"])
    short = table(tmp_path / "short.star", ["m.mrc"])
    box = table(tmp_path / "m.box", ["m.mrc"])
    assert refusal(match_tables, picks, short, 1) == (
        f"{short}: expected names with folders, as a/m, found m"
    )
    assert refusal(match_tables, box, picks, 1) == (
        f"{picks}: expected one micrograph, as m.box holds, found 2"
    )
    assert "expected picks in .star, .box, .txt, .cs, found the name" in refusal(
        match_tables, picks, tmp_path / "a.mrc", 1
    )


@pytest.mark.parametrize("suffix", ["star", "txt"])
def test_pick__one_name_in_two_folders(
    suffix: str, data: Path, finished: Path, tmp_path: Path
) -> None:
    micrographs = [tmp_path / folder / "m 1.mrc" for folder in ("grid1", "grid2")]
    pixels = read_micrographs(data / "micrograph_0001.mrc")[0][0]
    for path, image in zip(micrographs, (pixels, pixels[:, ::-1][1:]), strict=True):
        path.parent.mkdir()
        write_micrograph(path, image, 1.0)
    out = tmp_path / f"picks.{suffix}"
    assert command("pick", *micrographs, "--run", finished, "--out", out) == 0
    names = (
        list(read_particles(out).particles["rlnMicrographName"])
        if suffix == "star"
        else read_topaz(out)[0]
    )
    ending = ".mrc" if suffix == "star" else ""
    assert set(names) == {f"grid1/m 1{ending}", f"grid2/m 1{ending}"}
    assert match_tables(out, out, 1)[:2] == (1, 1)
    box = tmp_path / "picks.box"
    assert command("pick", *micrographs, "--run", finished, "--out", box) == 2
    assert not box.exists()


def test_check_table__names_that_it_cannot_hold(tmp_path: Path) -> None:
    micrograph = tmp_path / "two\nlines.mrc"
    write_micrograph(micrograph, np.eye(64), 1.0)
    line = refusal(check_table, tmp_path / "picks.star", [micrograph])
    assert line.startswith(f"{tmp_path / 'picks.star'}: expected names without line br")
    check_table(tmp_path / "picks.txt", [micrograph])


def test_pick__a_copy_is_left_out(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    micrograph, out = data / "micrograph_0001.mrc", tmp_path / "picks.star"
    for micrographs in ([micrograph], [micrograph, micrograph]):
        words = ("pick", *micrographs, "--run", finished, "--out", out)
        assert command(*words) == 0
    once, twice = capsys.readouterr().out.splitlines()
    assert once == twice


def test_table__one_micrograph_of_several_is_empty(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    quiet = tmp_path / "quiet.mrc"
    pixels = np.random.default_rng(0).standard_normal((64, 64))
    write_micrograph(quiet, 1e-3 * pixels, 1.0)
    table = tmp_path / "picks.star"
    shown = data / "micrograph_0001.mrc"
    for micrographs in ((quiet, shown), (shown, quiet)):
        assert command("pick", *micrographs, "--run", finished, "--out", table) == 0
        names = read_particles(table).particles["rlnMicrographName"]
        assert set(names) == {"micrograph_0001.mrc"}


@pytest.mark.parametrize("given", ["two files", "a stack", "a list"])
def test_box__of_several_micrographs_is_refused_at_once(
    given: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unwanted(*arguments: object, **options: object) -> None:
        raise AssertionError("the work has begun")

    for name in (
        "picking.files.pick_with_run",
        "picking.files.pick_with_map",
        "reconstruction.driver.reconstruct",
    ):
        monkeypatch.setattr(f"numbasaem.{name}", unwanted)
    path = data / "micrograph_0001.mrc"
    micrographs = [path, path]
    if given == "a stack":
        micrographs = [tmp_path / "two.mrcs"]
        pixels, _ = read_micrographs(path)
        with mrcfile.new(micrographs[0]) as file:
            file.set_data(np.stack([pixels[0], pixels[0]]))
    if given == "a list":
        micrographs = [tmp_path / "micrographs.star"]
        write_micrograph_table(micrographs[0], [str(path), str(path)], 1.0)
    table = tmp_path / "picks.box"
    chosen = ("--size", SIZE, *OPTIONS.split(), "--out", tmp_path / "run")
    for words in (
        ("pick", *micrographs, "--run", tmp_path, "--out", table),
        ("pick", *micrographs, "--volume", tmp_path / "v.mrc", "--out", table),
        ("reconstruct", *micrographs, *chosen, "--picks", table),
    ):
        assert command(*words) == 2
        complaint = f"{table}: expected one micrograph, or a .star or .txt, found 2"
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- probabilities of positions ----------------------------------------------------


def template_of(
    sample: Simulation, least_distance: float | None = None
) -> ParticleTemplate:
    """Template of the particle that was simulated."""
    basis = VolumeBasis(SIZE, 4)
    return ParticleTemplate(
        basis=basis,
        volume_coefficients=basis.expand(sample.volume_true),
        views=ViewGrid(200),
        shift_prior=uniform_shift_prior(SIZE, 0.4),
        noise_variance=sample.noise_variance,
        least_distance=least_distance,
    )


@pytest.mark.parametrize(("distance", "reach"), [(None, 4), (4.5, 5)])
def test_probability_map__in_tiles_as_in_one_piece(
    distance: float | None, reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=120, snr=2, ell_max=4)
    template, pixels = template_of(sample, distance), sample.micrographs[0][:, :97]
    excluded = np.zeros(pixels.shape, bool)
    excluded[40:50, 60:75] = True
    shown, usable = (
        np.pad(plane, SIZE - 1, constant_values=outside)
        for plane, outside in ((pixels, 0), (~excluded, True))
    )
    _, whole = window_expectation(
        shown,
        template.basis,
        template.volume_coefficients,
        template.views,
        template.noise_variance,
        1 - 0.6 * ((2 * reach - 1) / (2 * SIZE - 1)) ** 2,
        least_distance=reach,
        mask=usable,
    )
    first = SIZE - 1 - SIZE // 2
    wanted = whole[first : first + 120, first : first + 97]
    for side in (18, 2):
        monkeypatch.setattr(window_tiles, "_SIDE", side)
        shares: list[float] = []
        found = template.probability_map(pixels, excluded, on_progress=shares.append)
        assert found.shape == pixels.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert len(shares) == (2 if side == 18 else 8)
        assert not found[40 - SIZE // 2 : 50 + SIZE // 2, 60:75].any()
    everything = np.ones_like(excluded)
    nothing = template.probability_map(pixels, everything)
    assert not nothing.any()
    assert len(template.positions(nothing).centres) == 0


def test_probability_map__particles_that_the_edge_cuts() -> None:
    """They are found, and whole windows beside them do not take them for theirs."""
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=300, snr=20, ell_max=4)
    template, (centres,) = template_of(sample), sample.coordinates
    n_cut, n_found, n_picks, n_right = 0, 0.0, 0, 0.0
    for start in range(20, 240, 10):
        pixels = sample.micrographs[0][start:]
        true = centres - (start, 0)
        cut = (true[:, 0] >= 0) & (true[:, 0] < SIZE // 2)
        picks = template.positions(template.probability_map(pixels[: 4 * SIZE])).centres
        beside = picks[picks[:, 0] < SIZE]
        n_cut += int(cut.sum())
        n_picks += len(beside)
        if cut.any():
            n_found += match_picks(picks, true[cut], 1.5).recall * cut.sum()
        if len(beside):
            n_right += match_picks(beside, true, 1.5).precision * len(beside)
    assert n_cut > 20
    assert n_found > 0.7 * n_cut
    assert n_right > 0.85 * n_picks


def test_least_distance__in_prepared_pixels(data: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": "window", "least_distance": 8.0}
    run = run_of_one_iteration(data, tmp_path / "run", **given)
    assert template_of_run(run)[0].least_distance == 8
    small = run_of_one_iteration(
        data, tmp_path / "small", particle_diameter=10.0, **given
    )
    # the diameter becomes five pixels
    assert template_of_run(small)[0].least_distance == 4


def test_least_distance__tells_which_neighbourhoods_have_the_prior(
    data: Path, tmp_path: Path
) -> None:
    for model, reach in (("patch", None), ("window", 4)):
        run = run_of_one_iteration(
            data, tmp_path / model, model=model, least_distance=4.0
        )
        template = template_of_run(run)[0]
        assert template.least_distance == 4
        assert template.prior_reach == reach


def test_positions__of_particles_that_touch() -> None:
    sample = simulate(
        folded_chain(SIZE), size=SIZE, pixels=150, snr=5, ell_max=4, spacing="arbitrary"
    )
    template = template_of(sample)
    particles = template.positions(template.probability_map(sample.micrographs[0]))
    match = match_picks(particles.centres, sample.coordinates[0], 1.5)
    assert match.recall > 0.8
    assert match.precision > 0.8


def test_positions__keep_the_least_distance() -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=60, snr=2, ell_max=4)
    probability = np.zeros((30, 30), np.float32)
    probability[10, 10], probability[10, 15], probability[20, 20] = 0.9, 0.8, 0.7
    for distance, n_particles in ((None, 3), (3.0, 3), (6.0, 2)):
        particles = template_of(sample, distance).positions(probability)
        assert len(particles.centres) == n_particles
        np.testing.assert_array_equal(particles.centres[0], [10, 10])


def test_positions__are_those_simulated() -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=300, snr=3, ell_max=4)
    template = template_of(sample)
    centres = sample.coordinates[0]
    particles = template.positions(template.probability_map(sample.micrographs[0]))
    match = match_picks(particles.centres, centres, 1.5)
    assert match.recall > 0.95
    assert match.precision > 0.95


@pytest.mark.parametrize(
    ("snr", "recall"), [(3.5, 0.95), (1.0, 0.8), (0.5, 0.4)], ids=str
)
def test_positions__of_a_rate_of_false_ones(snr: float, recall: float) -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=400, snr=snr, ell_max=4)
    template, (centres,) = template_of(sample), sample.coordinates
    probability_map = template.probability_map(sample.micrographs[0])
    particles = template.positions(probability_map, LEAST)
    kept = surest(particles.probability, 0.1)
    match = match_picks(particles.centres[kept], centres, 1.5)
    assert match.recall > recall
    assert 1 - match.precision < 0.13
