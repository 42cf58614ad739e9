"""The report: complete, self-contained, drawn by a browser without an error."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numbasaem import cli
from numbasaem.errors import InputError
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.io.mrc import write_micrograph
from numbasaem.io.relion import read_particles
from numbasaem.reconstruction.checkpoint import load_checkpoint, save_checkpoint
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.report import shapes, write_report
from numbasaem.report.record import read_record
from numbasaem.report.rendering import cube_of, shaded_view
from numbasaem.settings import Settings
from numbasaem.simulation.files import simulate_to_folder
from numbasaem.simulation.scene import simulate
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.phantom import folded_chain
from tests.helpers import noise

SIZE = 7
FIGURES = ("surfaces", "slices", "fsc", "history", "shift_prior", "views", "picks")
CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync
--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader
--hide-scrollbars --window-size=1100,1400
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    simulation = SimulationSettings(size=SIZE, pixels=120, snr=10, ell_max=4)
    simulate_to_folder(folder / "data", folded_chain(SIZE), simulation, None)
    settings = Settings(
        size=SIZE,
        ell_max=(2, 3),
        iterations=(2, 2),
        rotations=24,
        starts=2,
        batching="full",
    )
    reconstruct([folder / "data" / "micrograph_0001.mrc"], settings, out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return write_report(run)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[object]:
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def keep(picture: Path) -> None:
    """Copy a screenshot to where it is wanted, if that is said."""
    wanted = os.environ.get("NUMBASAEM_ARTIFACTS")
    if wanted:
        Path(wanted).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, wanted)


def share_painted(picture: Path) -> float:
    """Share of the pixels that are not the commonest colour."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((400, 400))
    pixels = np.asarray(image).reshape(-1, 3)
    _, counts = np.unique(pixels, axis=0, return_counts=True)
    return 1 - float(counts.max()) / len(pixels)


def test_report__of_names_of_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 <&> $1_$")
    folder.mkdir()
    micrograph = folder / os.fsdecode(b"m\xe9c # ' $1_$ {.mrc")
    write_micrograph(micrograph, noise(60, 60), 1.0)

    def said(*words: object) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "numbasaem", *map(str, words)]
        utf8 = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(command, capture_output=True, check=True, env=utf8)

    words = "--size 7 --ell-max 2 --iterations 1 --rotations 24 --starts 1 --no-halves"
    run, picks = folder / "run", folder / "picks.star"
    told = said(
        "reconstruct", micrograph, *words.split(), "--out", run, "--picks", picks
    )
    assert b"no report" not in told.stderr
    assert os.fsencode(f"particles written to {picks}") in told.stdout
    page = (run / "report.html").read_text("utf-8")
    assert "m\N{REPLACEMENT CHARACTER}c # &#x27; $1_$ {.mrc" in page
    names = set(read_particles(picks).particles["rlnMicrographName"])
    assert names <= {micrograph.name}
    for suffix in ("box", "txt"):
        said("pick", micrograph, "--run", run, "--out", folder / f"picks.{suffix}")


@pytest.mark.slow
def test_report__is_drawn_without_an_error(page: Path, browser, tmp_path: Path) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get(page.as_uri())
    drawn = browser.find_elements("css selector", ".plot.js-plotly-plot")
    assert len(drawn) == browser.execute_script(
        "return document.querySelectorAll('.plot').length"
    )
    complaints = [
        entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
    ]
    assert complaints == []
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').map(e => e.name)"
            ".filter(name => !name.startsWith('data:') && !name.startsWith('blob:'))"
        )
        == []
    )
    map_of_run = drawn[0]
    picture = tmp_path / "report-map.png"
    browser.execute_script("arguments[0].scrollIntoView()", map_of_run)
    browser.execute_async_script(
        "requestAnimationFrame(() => setTimeout(arguments[0], 500))"
    )
    assert map_of_run.screenshot(str(picture))
    assert share_painted(picture) > 0.05
    keep(picture)
    fits = (
        "return [...document.querySelectorAll('main, .main-svg')].every("
        "part => part.getBoundingClientRect().right <= window.innerWidth)"
    )
    for name, width in (("wide", 1100), ("phone", 500)):
        browser.set_window_size(width, 1400)
        WebDriverWait(browser, 20).until(lambda now: now.execute_script(fits))
        shot = tmp_path / f"report-{name}.png"
        assert browser.save_screenshot(str(shot))
        keep(shot)


def test_report__turns_all_maps_together(page: Path, browser) -> None:
    browser.get(page.as_uri())
    eyes = browser.execute_async_script(
        """
        const done = arguments[0];
        const maps = [...document.querySelectorAll(".turning .plot")];
        Plotly.relayout(maps[0], {"scene.camera": {eye: {x: 0, y: 2, z: 1}}})
          .then(() => setTimeout(() => done(
            maps.map((map) => map.layout.scene.camera.eye.y)), 1000));
        """
    )
    assert eyes == [2, 2, 2]


def test_report__is_one_file_with_everything(run: Path, page: Path) -> None:
    text = page.read_text("utf-8")
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", own)
    for title in (
        "Map",
        "Half maps",
        "Slices",
        "Resolution",
        "History",
        "Positions and views",
        "Particles",
        "Settings and versions",
    ):
        assert f"<h2>{title}</h2>" in own
    assert "FSC = 0.143, no mask" in own
    assert "<td>2, 3</td>" in own
    assert "micrograph_0001.mrc" in own
    assert "<h2>Validation</h2>" not in own
    assert page.stat().st_size < 12e6


def test_report__figures_for_print(run: Path, page: Path) -> None:
    drawn = {path.name for path in (run / "figures").iterdir()}
    assert drawn == {f"{n}.{kind}" for n in FIGURES for kind in ("png", "pdf")}
    for name in FIGURES:
        assert (run / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert share_painted(run / "figures" / f"{name}.png") > 0.02


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("figures"))
    return tmp_path / "copy"


def test_report__shows_a_verdict_where_there_is_one(copy: Path) -> None:
    from numbasaem.report import page as pages

    verdict = {
        "verdict": "supported <by> data",
        "checks": [{"question": "picks", "passed": False, "seen": 0.9}],
        "fsc": [1.0, None],
        "control_fsc": [0.5],
        "omissions": [
            {"centre": [1.0, 2.0, -3.0], "radius": 2.5, "returned_percent": percent}
            for percent in (88.0, 94.0)
        ],
    }
    (copy / "validation.json").write_text(json.dumps(verdict))
    text = pages.compose(read_record(copy))
    assert "supported &lt;by&gt; data" in text
    assert "failed: seen 0.9" in text
    assert "1.000 –" in text
    assert "Left out 2: 2.5 voxels around (1.0, 2.0, -3.0)" in text
    assert "<td>91 % came back on held-out data</td>" in text
    (copy / "validation.json").write_text("[]")
    with pytest.raises(InputError, match=r"validation\.json: expected a verdict"):
        pages.compose(read_record(copy))


def test_report__points_out_what_is_wrong(copy: Path) -> None:
    finished = read_record(copy)
    negative = replace(finished, volume=-np.abs(finished.volume), fsc=None)
    words = " ".join(negative.warnings)
    assert "`contrast=dark`" in words
    assert "no half maps" in words


@pytest.mark.filterwarnings("ignore:.*is left out:numbasaem.errors.RunWarning")
def test_report__shows_what_is_excluded(tmp_path: Path) -> None:
    plan = SimulationSettings(size=SIZE, pixels=120, snr=10, ell_max=4)
    pixels = simulate(folded_chain(SIZE), plan).micrographs[0]
    pixels[20:32, 60:72] *= 20
    write_micrograph(tmp_path / "m.mrc", pixels, 1.0)
    settings = Settings(
        size=SIZE,
        ell_max=(2,),
        iterations=(2,),
        rotations=24,
        starts=1,
        halves=False,
        clean=True,
    )
    reconstruct([tmp_path / "m.mrc"], settings, out=tmp_path / "run")
    excerpt = read_record(tmp_path / "run").excerpt
    assert excerpt is not None
    assert excerpt.excluded[20:32, 60:72].all()
    y, x = np.rint(excerpt.particles.centres).astype(int).T
    assert len(y) > 10
    assert not excerpt.excluded[y, x].any()
    assert "Blue: left out." in write_report(tmp_path / "run").read_text("utf-8")


def test_report__of_a_run_that_finds_no_particle(copy: Path) -> None:
    path = copy / "run.h5"
    description, runs = load_checkpoint(path)
    runs["full"].view_mass[:] = 0
    runs["full"].volume_coefficients[:] = 0
    save_checkpoint(path, description, runs)
    excerpt = read_record(copy).excerpt
    assert excerpt is not None
    assert excerpt.particles.centres.shape == (0, 2)
    assert "the 0 particles that the run finds" in write_report(copy).read_text("utf-8")


def test_report__of_no_finished_run(
    tmp_path: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 2
    assert "run.h5" in capsys.readouterr().err
    (copy / "volume.mrc").unlink()
    assert cli.main(["report", str(copy)]) == 2
    assert "expected a run that has ended" in capsys.readouterr().err


def test_report__that_fails_does_not_lose_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> Path:
        raise RuntimeError("no\nink")

    monkeypatch.setattr("numbasaem.report.write_report", fail)
    micrograph = run.parent / "data" / "micrograph_0001.mrc"
    options = f"--size {SIZE} --ell-max 2,3 --iterations 2,2 --rotations 24 "
    options += "--starts 2 --batching full"
    command = ["reconstruct", str(micrograph), "--out", str(run), *options.split()]
    assert cli.main([*command, "--resume"]) == 0
    _, progress = capsys.readouterr()
    assert "no report (RuntimeError: no ink); the maps are written" in progress
    assert f"numbasaem report {run}" in progress


def test_surface__of_a_ball_has_its_radius_and_points_outwards() -> None:
    offset = np.arange(11) - 5
    squares = np.add.outer(np.add.outer(offset**2, offset**2), offset**2)
    fine = shapes.FineMap.of(np.exp(-squares / 8.0), pixel_size=2.0)
    mesh = fine.surface(float(np.exp(-9 / 8)))
    radii = np.linalg.norm(mesh.corners, axis=1)
    np.testing.assert_allclose(radii, 6.0, rtol=0.01)
    outwards = np.einsum("ij,ij->i", mesh.corners / radii[:, np.newaxis], mesh.normals)
    assert outwards.min() > 0.98
    assert len(fine.surface(2.0).triangles) == 0


def test_surface__of_a_negative_map_is_closed_too() -> None:
    offset = np.arange(11) - 5
    squares = np.add.outer(np.add.outer(offset**2, offset**2), offset**2)
    fine = shapes.FineMap.of(np.exp(-squares / 8.0) - 2, pixel_size=1.0)
    radii = np.linalg.norm(fine.surface(fine.contour).corners, axis=1)
    assert fine.contour < 0
    assert radii.max() < 5
    assert np.ptp(radii) < 0.1


def test_surface__axes_are_x_y_z() -> None:
    volume = np.zeros((11, 11, 11))
    volume[5, 5, 7:9] = 1  # [z, y, x]: along +x
    mesh = shapes.FineMap.of(volume, 1.0).surface(0.5)
    middle = mesh.corners.mean(axis=0)
    np.testing.assert_allclose(middle, [2.5, 0, 0], atol=0.05)


def test_view__of_a_ball_is_its_disc_on_white() -> None:
    offset = np.arange(11) - 5
    squares = np.add.outer(np.add.outer(offset**2, offset**2), offset**2)
    fine = shapes.FineMap.of(np.exp(-squares / 8.0), pixel_size=2.0)
    level = float(np.exp(-9 / 8))  # a radius of 3 pixels
    cube = cube_of(fine, np.zeros(3), 10.0)
    picture = shaded_view(cube, level, "xyz", "#000080")
    assert picture.min() >= 0
    assert picture.max() <= 1
    covered = np.mean(picture[..., 0] < 1)
    assert covered == pytest.approx(np.pi * 6**2 / 20**2, rel=0.03)
    assert (shaded_view(cube, 2.0, "xyz", "#000080") == 1).all()


def test_view__of_a_map_without_contrast_is_white() -> None:
    fine = shapes.FineMap.of(np.ones((7, 7, 7)), pixel_size=1.0)
    picture = shaded_view(cube_of(fine, np.zeros(3), 1.0), 1.0, "xyz", "#000080")
    assert (picture == 1).all()


@pytest.mark.parametrize(
    ("side", "sign"), [("xyz", 1), ("xzy", -1), ("yzx", 1), ("zyx", -1)]
)
def test_view__keeps_hands(side: str, sign: int) -> None:
    """What is near is on the left; what is far, in haze, on the right; both are up."""
    places = np.zeros((2, 3))
    axes = ["xyz".index(letter) for letter in side]
    places[:, axes] = [[-2, 1, 2.5 * sign], [2, 1, -2.5 * sign]]
    offset = np.arange(11) - 5.0
    grid = np.stack(np.meshgrid(offset, offset, offset, indexing="ij"))[::-1]
    volume = sum(
        np.exp(-np.sum((grid - place[:, None, None, None]) ** 2, axis=0))
        for place in places
    )
    fine = shapes.FineMap.of(volume, pixel_size=1.0)
    picture = shaded_view(cube_of(fine, np.zeros(3), 5.0), 0.4, side, "#000080")
    rows, columns = np.nonzero(picture[..., 0] < 1)
    assert rows.mean() == pytest.approx(0.4 * len(picture), abs=2)
    left, right = columns < len(picture) / 2, columns >= len(picture) / 2
    shade = picture[rows, columns, 0]
    assert shade[left].min() < shade[right].min() - 0.1


def test_view_density__tells_a_favoured_side() -> None:
    directions = rotation_grid(552)[:, 2]
    assert shapes.view_density(directions, np.ones(552), directions) == pytest.approx(1)
    above = directions[:, 2] > 0.9
    density = shapes.view_density(directions, above.astype(float), np.eye(3))
    assert density[2] > 5
    assert max(density[:2]) < 0.1


def test_displacement_table__inverts_the_shifts() -> None:
    prior = np.zeros((14, 14))
    prior[14 - 2, 3] = 1  # box 2 below and 3 to the left of the patch
    table = shapes.displacement_table(prior)
    assert np.argwhere(table).tolist() == [[6 + 2, 6 - 3]]
