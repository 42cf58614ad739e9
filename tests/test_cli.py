"""The command line: help, exit statuses, one-line complaints, a tiny whole run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

import numbasaem
from numbasaem import cli
from numbasaem.geometry.rotations import rotations_from_relion
from numbasaem.io.coordinates import read_boxes, read_topaz, write_topaz
from numbasaem.io.mrc import write_micrograph, write_volume
from numbasaem.io.relion import ANGLES, read_particles
from numbasaem.picking.scores import match_picks
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.settings_file import read_settings
from numbasaem.simulation import demo
from numbasaem.volume.phantom import folded_chain

COMMANDS = (
    "simulate",
    "reconstruct",
    "pick",
    "evaluate",
    "demo",
    "validate",
    "report",
    "info",
)
SIZE = 7

Captured = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def simulate(out: Path, *more: object) -> int:
    options = f"--volume shepp-logan --size {SIZE} --micrographs 1 --pixels 96 --snr 10"
    return run("simulate", out, *options.split(), *more)


def reconstruct(micrograph: Path, out: Path, *more: object) -> int:
    options = f"--size {SIZE} --ell-max 2,3 --iterations 2,1 --rotations 24 --starts 1"
    return run("reconstruct", micrograph, "--out", out, *options.split(), *more)


def complaint(captured: Captured) -> str:
    """Return the one line on standard error."""
    out, err = captured.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    assert "Traceback" not in line
    return line


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report to its own tests: it takes longer than these small runs."""
    monkeypatch.setattr("numbasaem.cli.output.write_report", lambda run, as_json: None)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "data"
    assert simulate(out) == 0
    return out


@pytest.fixture
def micrograph(tmp_path: Path) -> Path:
    path = tmp_path / "noise.mrc"
    pixels = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    write_micrograph(path, pixels, 1.0)
    return path


def test_help__lists_every_command(capsys: Captured) -> None:
    assert run("--help") == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help__has_an_example(command: str, capsys: Captured) -> None:
    assert run(command, "--help") == 0
    assert f"Example: numbasaem {command}" in capsys.readouterr().out


def test_help__imports_nothing_heavy() -> None:
    code = (
        "import sys, numbasaem, numbasaem.cli; numbasaem.cli.main(sys.argv[1:]);"
        "sys.exit(bool({'numba', 'scipy', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    for asked in (["--help"], ["reconstruct", "--help"]):
        command = [sys.executable, "-c", code, *asked]
        assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_module__runs_as_program() -> None:
    command = [sys.executable, "-m", "numbasaem", "reconstruct", "nowhere.mrc"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_info__names_versions_and_machine(capsys: Captured) -> None:
    assert run("info") == 0
    printed = capsys.readouterr().out
    for name in ("numbasaem", "numba", "threads", "SIMD width", "threading layer"):
        assert f"{name}: " in printed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "nonsense"),
        (["reconstruct", "a.mrc", "--size", "11"], "--out"),
        (["reconstruct", "a.mrc", "--out", "o", "--size", "eleven"], "eleven"),
        (["reconstruct", "a.mrc", "--out", "o", "--sise", "11"], "--sise"),
        (["pick", "a.mrc", "--out", "picks.star"], "--volume"),
    ],
)
def test_usage__unusable_command_line(
    arguments: list[str], named: str, capsys: Captured
) -> None:
    assert run(*arguments) == 2
    assert named in complaint(capsys)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--size", "4"], "--size"),
        (["--batch-fraction", "0"], "--batch-fraction"),
        (["--batch-fraction", "1.5"], "--batch-fraction"),
        (["--ell-max", "2,x"], "--ell-max"),
        (["--noise-variance", "loud"], "--noise-variance"),
        (["--noise-variance", "-1"], "--noise-variance"),
        (["--threads", "0"], "--threads"),
        (["--rotations", "0"], "--rotations"),
        (["--rotations", "24,25,26"], "rotations"),
        (["--rotations", "25,24"], "rotations"),
        (["--rotations", "24,"], "--rotations"),
        (["--iterations", "5"], "iterations"),
    ],
)
def test_reconstruct__unusable_option(
    options: list[str], named: str, micrograph: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    assert reconstruct(micrograph, out, *options) == 2
    line = complaint(capsys)
    assert named in line
    assert "expected" in line
    assert not out.exists()


def test_reconstruct__missing_file(tmp_path: Path, capsys: Captured) -> None:
    assert reconstruct(tmp_path / "nowhere.mrc", tmp_path / "run") == 2
    assert "nowhere.mrc" in complaint(capsys)


def test_reconstruct__not_mrc(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "text.mrc"
    path.write_text("This is no micrograph.\n" * 100)
    assert reconstruct(path, tmp_path / "run") == 2
    assert "text.mrc" in complaint(capsys)


def test_reconstruct__micrograph_with_nan(micrograph: Path, capsys: Captured) -> None:
    with mrcfile.open(micrograph, "r+") as file:
        file.data[3, 4] = np.nan
    assert reconstruct(micrograph, micrograph.parent / "run") == 2
    line = complaint(capsys)
    assert micrograph.name in line
    assert "NaN" in line


def test_evaluate__missing_file(tmp_path: Path, capsys: Captured) -> None:
    assert run("evaluate", tmp_path / "a.mrc", tmp_path / "b.mrc") == 2
    assert "a.mrc" in complaint(capsys)


def test_main__interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupt() -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("numbasaem.machine.describe", interrupt)
    assert run("info") == 130
    assert complaint(capsys) == "interrupted"


def test_simulate__writes_micrographs_and_truth(simulated: Path) -> None:
    names = {path.name for path in simulated.iterdir()}
    assert names == {
        "micrograph_0001.mrc",
        "truth.star",
        "volume_true.mrc",
        "simulation.json",
    }
    with mrcfile.open(simulated / "micrograph_0001.mrc") as file:
        assert file.data.shape == (96, 96)


@pytest.mark.parametrize(
    ("options", "named"), [(["--size", "4"], "size"), (["--snr", "-1"], "snr")]
)
def test_simulate__unusable_option(
    options: list[str], named: str, tmp_path: Path, capsys: Captured
) -> None:
    assert simulate(tmp_path / "data", *options) == 2
    assert named in complaint(capsys)


def test_simulate__missing_volume(tmp_path: Path, capsys: Captured) -> None:
    assert simulate(tmp_path / "data", "--volume", "nowhere.mrc") == 2
    assert "nowhere.mrc" in complaint(capsys)


def test_workflow__simulate_reconstruct_evaluate_pick(
    simulated: Path, tmp_path: Path, capsys: Captured
) -> None:
    micrograph, out = simulated / "micrograph_0001.mrc", tmp_path / "run"
    truth = simulated / "volume_true.mrc"

    assert reconstruct(micrograph, out, "--json") == 0
    printed, progress = capsys.readouterr()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["total_done"] for line in lines[:-1]] == list(range(1, 10))
    assert lines[-1]["volume"] == str(out / "volume.mrc")
    assert progress.count("evidence per patch") == 9
    assert "plan: 1 micrograph, 165 patches of 7 x 7 pixels" in progress
    written = {path.name for path in out.iterdir()}
    assert written >= {"volume.mrc", "volume_half1.mrc", "volume_half2.mrc", "run.h5"}

    assert reconstruct(micrograph, out) == 2
    assert "run.h5" in complaint(capsys)
    assert reconstruct(micrograph, out, "--resume") == 0
    capsys.readouterr()

    aligned = tmp_path / "aligned.mrc"
    volume = out / "volume.mrc"
    assert run("evaluate", volume, truth, "--out", aligned, "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    comparison = json.loads(line)
    assert len(comparison["fsc"]) == SIZE // 2 + 1
    assert -1.0 <= comparison["correlation"] <= 1.0
    with mrcfile.open(aligned) as file:
        assert file.data.shape == (SIZE, SIZE, SIZE)

    assert run("evaluate", truth, truth) == 0
    printed = capsys.readouterr().out
    assert "correlation" in printed
    assert "hand" in printed

    picks = tmp_path / "picks.star"
    assert run("pick", micrograph, "--run", out, "--out", picks) == 0
    assert picks.exists()


def test_reconstruct__says_what_it_found(
    simulated: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    assert reconstruct(simulated / "micrograph_0001.mrc", out) == 0
    printed, progress = capsys.readouterr()
    for line in (
        f"volume: {out / 'volume.mrc'}",
        f"half map: {out / 'volume_half1.mrc'}",
        "evidence per patch: ",
        "noise variance: ",
        "empty patches: ",
        "FSC of the half maps per shell: ",
        "resolution of the half maps: ",
    ):
        assert line in printed
    assert "FSC = 0.143, no mask" in printed
    assert "FSC = 0.143, a soft ball of radius 3 voxels, corrected" in printed
    assert "full degree 3 1/1: " in progress


def test_reconstruct__one_stage_without_search(
    micrograph: Path, tmp_path: Path, capsys: Captured
) -> None:
    more = ("--ell-max", 2, "--iterations", 1, "--no-halves")
    assert reconstruct(micrograph, tmp_path / "run", *more) == 0
    assert "half" not in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "volume.mrc",
        "volume.cxc",
        "run.h5",
        "run.previous.h5",
        "settings.toml",
    }


@pytest.mark.parametrize("model", ["reconstruct", "simulate"])
def test_output__a_file_in_place_of_the_folder(
    model: str, micrograph: Path, tmp_path: Path, capsys: Captured
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("here already")
    for out in (taken, taken / "below"):
        if model == "reconstruct":
            assert reconstruct(micrograph, out) == 2
        else:
            assert simulate(out) == 2
        assert str(taken) in complaint(capsys)
    assert taken.read_text() == "here already"


def test_demo__refuses_a_folder_with_files(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "thesis.tex").write_text("Chapter 1")
    assert run("demo", "--out", tmp_path) == 2
    assert str(tmp_path) in complaint(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_demo__small(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = dataclasses.replace(demo.SIMULATION, size=SIZE, pixels=100, ell_max=3)
    settings = {"size": SIZE, "ell_max": (2, 3), "iterations": (1, 1), "starts": 1}
    monkeypatch.setattr(demo, "SIMULATION", simulation)
    monkeypatch.setattr(demo, "RECONSTRUCTION", demo.RECONSTRUCTION.changed(**settings))
    out = tmp_path / "demo"
    assert run("demo", "--out", out, "--snr", 8) == 0
    printed = capsys.readouterr().out
    for line in ("correlation: ", f"reconstruction: {out / 'run'}", "0.5"):
        assert line in printed
    assert "recall 1.000, precision 1.000, by chance 0.0" in printed
    for name in ("data/micrograph_0001.mrc", "run/volume.mrc", "aligned.mrc"):
        with mrcfile.open(out / name) as file:
            assert float(file.voxel_size.x) == demo.SIMULATION.pixel_size
    record = json.loads((out / "data" / "simulation.json").read_text("utf-8"))
    assert record["settings"]["snr"] == 8
    with Image.open(out / "demo.png") as picture:
        assert min(picture.size) > 1000


def test_demo__shows_a_molecule_of_55_angstrom() -> None:
    assert demo.SIMULATION.size * demo.SIMULATION.pixel_size == 55
    assert demo.SIMULATION.size == demo.RECONSTRUCTION.size


@pytest.mark.parametrize("snr", ["0", "-1", "inf", "nan"])
def test_demo__refuses_no_ratio(snr: str, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "demo"
    assert run("demo", "--out", out, "--snr", snr) == 2
    assert "--snr: expected a positive number" in complaint(capsys)
    assert not out.exists()


@pytest.mark.slow
def test_demo__finds_the_molecule(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, but on a ninth of the pixels, in which particles are seen."""
    simulation = dataclasses.replace(demo.SIMULATION, pixels=1000)
    monkeypatch.setattr(demo, "SIMULATION", simulation)
    assert run("demo", "--out", tmp_path / "demo", "--snr", 3.5) == 0
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("correlation: ")
    )
    assert float(line.split()[1]) > 0.95


def test_evaluate__sizes_differ(
    simulated: Path, tmp_path: Path, capsys: Captured
) -> None:
    other = tmp_path / "other.mrc"
    with mrcfile.new(other) as file:  # whose voxel size nobody knows
        file.set_data(np.random.default_rng(0).random((5, 5, 5), dtype=np.float32))
    assert run("evaluate", other, simulated / "volume_true.mrc") == 2
    assert "found 5 and 7 voxels a side" in complaint(capsys)


def test_pick__finds_particles_of_a_map(tmp_path: Path, capsys: Captured) -> None:
    sample = numbasaem.simulate(
        folded_chain(SIZE), size=SIZE, pixels=150, snr=20, ell_max=4
    )
    micrograph, density = tmp_path / "m.mrc", tmp_path / "map.mrc"
    write_micrograph(micrograph, sample.micrographs[0], 1.5)
    # neither the units of the map nor the noise is told
    write_volume(density, 40 * sample.volume_true, 1.5)
    out = tmp_path / "picks.star"
    assert run("pick", micrograph, "--volume", density, "--out", out) == 0
    table = read_particles(out).particles
    assert f"{len(table)} particles written to {out}" in capsys.readouterr().out
    assert set(table["rlnMicrographName"]) == {"m.mrc"}
    sure = table[table["rlnAutopickFigureOfMerit"] > 0.5]
    found = sure[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy()
    match = match_picks(found, sample.coordinates[0], tolerance_px=1.5)
    assert match.recall > 0.9
    assert match.precision > 0.9
    views = rotations_from_relion(sure[list(ANGLES)].to_numpy())
    _, nearest = cKDTree(sample.coordinates[0]).query(found)
    true = sample.rotations[0][nearest]
    turn = Rotation.from_matrix(views @ true.transpose(0, 2, 1)).magnitude()
    assert np.median(np.degrees(turn)) < 30


def test_evaluate__tables_of_picks(
    simulated: Path, tmp_path: Path, capsys: Captured
) -> None:
    truth = simulated / "truth.star"
    table = read_particles(truth).particles
    y, x = (table[f"rlnCoordinate{axis}"].to_numpy() for axis in "YX")
    names = [Path(name).stem for name in table["rlnMicrographName"]]
    # one of four is a pixel off, another of a micrograph that there is not
    places = np.stack([y, x], axis=1)[:4]
    places[2, 1] += 1
    found = tmp_path / "picks.txt"
    write_topaz(found, [*names[:3], "nowhere"], places, np.ones(4))
    n = len(table)
    for tolerance, right in ((0.5, 2), (1.5, 3)):
        assert run("evaluate", found, truth, "--tolerance", tolerance) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == [
            f"recall: {right / n:.3f}",
            f"precision: {right / 4:.3f}",
            "probability  picks   mean  right, +- by chance",
            f" 0.9 to 1.0      4  1.000  {right / 4:.3f} +- 0.000",
        ]
    assert run("evaluate", found, truth, "--tolerance", 1.5, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    (picks_alike,) = scores.pop("calibration")
    assert (picks_alike["n_picks"], picks_alike["share_right"]) == (4, 0.75)
    assert scores == {"recall": 3 / n, "precision": 0.75, "tolerance": 1.5}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "--tolerance: expected a number of pixels, for picks, found none"),
        (["--tolerance", "0"], "--tolerance: expected a number of pixels above 0"),
        (["--out", "aligned.mrc"], "--out: expected a map"),
    ],
)
def test_evaluate__tables_of_picks_unusable(
    options: list[str], named: str, simulated: Path, capsys: Captured
) -> None:
    truth = simulated / "truth.star"
    assert run("evaluate", truth, truth, *options) == 2
    assert named in complaint(capsys)


def test_reconstruct__picks_as_well(
    simulated: Path, tmp_path: Path, capsys: Captured
) -> None:
    micrograph, out = simulated / "micrograph_0001.mrc", tmp_path / "run"
    more = ("--no-halves", "--picks")
    wrong = tmp_path / "picks.csv"
    assert reconstruct(micrograph, out, *more, wrong) == 2
    assert "picks.csv: expected a name in .star, .box, .txt" in complaint(capsys)
    assert not out.exists()
    assert reconstruct(micrograph, out, *more, out / "picks.star") == 0
    separately = tmp_path / "picks.star"
    assert run("pick", micrograph, "--run", out, "--out", separately) == 0
    first, second = (
        read_particles(path).particles for path in (out / "picks.star", separately)
    )
    pd.testing.assert_frame_equal(first, second)


def test_pick__tables_of_other_programs(tmp_path: Path, capsys: Captured) -> None:
    sample = numbasaem.simulate(
        folded_chain(SIZE), size=SIZE, pixels=150, snr=20, ell_max=4
    )
    density = tmp_path / "map.mrc"
    write_volume(density, sample.volume_true, 3.0)
    # dark particles, a gain and a pedestal, pixels of half the map's voxels
    large = -np.kron(sample.micrographs[0], np.ones((2, 2)))
    micrograph = tmp_path / "m.mrc"
    write_micrograph(micrograph, 70 * large + 5e3, 1.5)
    options = ("--volume", density, "--out")
    assert run("pick", micrograph, *options, tmp_path / "wrong.star") == 2
    assert "map.mrc: expected a map as bright" in capsys.readouterr().err
    found = []
    for suffix in ("star", "box", "txt"):
        out = tmp_path / f"picks.{suffix}"
        assert run("pick", micrograph, *options, out, "--invert") == 0
        if suffix == "star":
            table = read_particles(out).particles
            found.append(table[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy())
            merit = table["rlnAutopickFigureOfMerit"].to_numpy()
        elif suffix == "box":
            centres, sides = read_boxes(out)
            found.append(centres)
            assert (sides == 2 * SIZE).all()
        else:
            found.append(read_topaz(out)[1])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=0.5)
    # in pixels of the micrograph as it was given
    truth = 2 * sample.coordinates[0] + 0.5
    match = match_picks(found[0][merit > 0.5], truth, tolerance_px=3.0)
    assert match.recall > 0.8
    assert match.precision > 0.8
    second = tmp_path / "n.mrc"
    write_micrograph(second, 70 * large + 5e3, 1.5)
    several = (micrograph, second, *options, tmp_path / "two.box", "--invert")
    assert run("pick", *several) == 2
    assert "two.box: expected one micrograph" in capsys.readouterr().err
    assert run("pick", micrograph, *options, tmp_path / "picks.csv") == 2
    assert "picks.csv: expected a name in .star, .box, .txt" in complaint(capsys)


def test_raw_micrographs__from_a_list_to_picks(
    tmp_path: Path, capsys: Captured
) -> None:
    sample = numbasaem.simulate(
        folded_chain(SIZE), size=SIZE, pixels=100, snr=20, ell_max=3, micrographs=2
    )
    project = tmp_path / "MotionCorr"
    project.mkdir()
    for number, pixels in enumerate(sample.micrographs):
        large = 1e4 - 30 * np.kron(pixels, np.ones((3, 3)))
        write_micrograph(project / f"{number}.mrc", large, 2.0)
    listed = tmp_path / "micrographs.star"
    listed.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n"
        "_rlnMicrographPixelSize\n_rlnVoltage\nopticsGroup1 1 2.0 200\n\n"
        "data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n"
        "MotionCorr/0.mrc 1\nMotionCorr/1.mrc 1\n"
    )
    out, picks = tmp_path / "run", tmp_path / "picks.star"
    # five pixels of 6 A across: half a pixel is left on either side
    raw = ("--particle-diameter", 30, "--invert", "--no-halves", "--no-flatten")
    # so many that particles are more likely than not where they are found
    assert (
        reconstruct(
            listed,
            out,
            *raw,
            "--iterations",
            "15,10",
            "--model",
            "window",
            "--rotations",
            200,
        )
        == 0
    )
    with mrcfile.open(out / "volume.mrc") as file:
        assert file.voxel_size.x == pytest.approx(6.0)
    description, _ = load_checkpoint(out / "run.h5")
    done = description["preparation"]
    assert done["pixel_size"] == 6.0
    not_taken = [name for name in done if done[name] is False]
    assert not_taken == ["flatten", "ctf", "whiten"]
    assert run("pick", listed, "--run", out, "--out", picks, "--invert") == 2
    assert "--invert: expected --volume" in capsys.readouterr().err
    assert run("pick", listed, "--run", out, "--out", picks) == 0
    tables = read_particles(picks)
    assert tables.optics is not None
    assert list(tables.optics["rlnVoltage"]) == [200]
    assert set(tables.particles["rlnMicrographName"]) <= {
        "MotionCorr/0.mrc",
        "MotionCorr/1.mrc",
    }
    assert tables.particles["rlnCoordinateX"].max() > 150


def test_pick__unusable_input(
    simulated: Path, micrograph: Path, tmp_path: Path, capsys: Captured
) -> None:
    truth, out = simulated / "volume_true.mrc", tmp_path / "picks.star"
    assert run("pick", micrograph, "--run", tmp_path, "--out", out) == 2
    assert "run.h5" in complaint(capsys)
    options = ("--volume", truth, "--out")
    assert run("pick", micrograph, *options, tmp_path / "no" / "picks.star") == 2
    assert "picks.star" in complaint(capsys)
    small = tmp_path / "small.mrc"
    write_micrograph(small, np.random.default_rng(0).random((30, 2 * SIZE - 1)), 1.0)
    assert run("pick", small, *options, out) == 2
    assert "small.mrc: expected at least 14 pixels a side" in complaint(capsys)
    write_micrograph(small, np.random.default_rng(0).random((30, 30)), 3.0)
    assert run("pick", simulated / "micrograph_0001.mrc", small, *options, out) == 2
    assert "small.mrc: expected the pixel size" in capsys.readouterr().err
    assert not out.exists()


def test_settings__repeat_a_run_exactly(
    simulated: Path, tmp_path: Path, capsys: Captured
) -> None:
    micrograph, first, again = simulated / "micrograph_0001.mrc", "first", "again"
    more = ("--no-halves", "--batch-fraction", 0.3, "--noise-variance", 0.1)
    assert reconstruct(micrograph, tmp_path / first, *more) == 0
    settings = tmp_path / first / "settings.toml"
    command = ["reconstruct", micrograph, "--settings", settings, "--out"]
    assert run(*command, tmp_path / again) == 0
    for name in ("volume.mrc", "settings.toml"):
        wanted = (tmp_path / first / name).read_bytes()
        assert (tmp_path / again / name).read_bytes() == wanted
    # an option of the command line wins, even where it states the default
    assert run(*command, tmp_path / "other", "--noise-variance", "auto") == 0
    other = read_settings(tmp_path / "other" / "settings.toml")
    assert other | {"noise_variance": 0.1} == read_settings(settings) != other


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("size = 7\nsise = 8", "expected names of settings, found sise"),
        ("size = ", "expected settings in TOML"),
        ("size = 4", "--size"),
        ("seed = 1", "--size"),
        ("size = 7\nbatching = 'all'", "--batching"),
    ],
)
def test_settings__unusable(
    text: str, named: str, micrograph: Path, tmp_path: Path, capsys: Captured
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(text)
    out = tmp_path / "run"
    assert run("reconstruct", micrograph, "--settings", settings, "--out", out) == 2
    assert named in complaint(capsys)
    assert not out.exists()
