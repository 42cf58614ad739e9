"""Lengths: maps, runs, micrographs and lists of unequal pixels, and tables of picks."""

from __future__ import annotations

import bz2
import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from numbasaem import cli
from numbasaem.assessment.common_grid import Map, on_common_grid
from numbasaem.errors import InputError, RunWarning
from numbasaem.io.atomic_models import load_volume
from numbasaem.io.coordinates import read_topaz
from numbasaem.io.micrograph_tables import write_micrograph_table
from numbasaem.io.mrc import (
    read_micrographs,
    read_volume,
    write_micrograph,
    write_volume,
)
from numbasaem.io.relion import read_particles
from numbasaem.micrographs.fourier_crop import fourier_crop, resampled
from numbasaem.micrographs.pixel_sizes import PixelSizes
from numbasaem.micrographs.sources import MicrographFile
from numbasaem.picking.scores import match_picks
from numbasaem.simulation.files import simulate_to_folder
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.phantom import folded_chain
from tests.helpers import gaussians, noise, refusal

Captured = pytest.CaptureFixture[str]

SIZE = 7
SETTINGS = (
    "--size 7 --ell-max 2 --iterations 1 --rotations 24 --starts 1 --no-halves "
    "--no-report"
)
ATOM = (
    "ATOM      1  CA  GLY A   1      10.000  10.000  10.000  1.00 20.00           C\n"
)


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def body(size: int, voxel_size: float) -> NDArray[np.float64]:
    """Three Gaussians that no rotation turns into one another."""
    centres = np.array([[1.0, 0, 0], [0, -2.5, 0.5], [-1.5, 1.0, 2.0]]) / voxel_size
    return np.asarray(
        gaussians(size, centres, (1.0, 0.8, 0.6), 1.5 / voxel_size), dtype=np.float64
    )


# --- resampling --------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(21, 7), (22, 11), (24, 8), (15, 5)])
def test_resampled__to_whole_parts_is_fourier_cropping(before: int, after: int) -> None:
    image = noise(before, before).astype(np.float64)
    np.testing.assert_allclose(
        resampled(image, before / after, after), fourier_crop(image, after), atol=1e-12
    )


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("step", [0.5, 0.8, 1.0, 1.3])
def test_resampled__is_the_body_at_other_voxels(size: int, step: float) -> None:
    wanted = body(size, step)
    found = resampled(body(25, 1.0), step, size)
    np.testing.assert_allclose(found, wanted, atol=0.01 * wanted.max())


def test_resampled__is_level_outside() -> None:
    image = np.full((5, 5), 3.0)
    image[2, 2] = 4.0
    wide = resampled(image, 1.0, 11)
    np.testing.assert_allclose(wide[3:8, 3:8], image)
    assert np.ptp(wide[:3]) == 0
    assert wide[0, 0] == pytest.approx(3.0)


# --- two maps ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "voxel_sizes"),
    [
        ((13, 25), (1.0, 1.0)),
        ((13, 25), (1.0, 0.5)),
        ((25, 13), (0.5, 1.0)),
        ((15, 14), (1.0, 1.2)),
    ],
)
def test_common_grid__of_one_body(
    sizes: tuple[int, int], voxel_sizes: tuple[float, float]
) -> None:
    maps = [
        Map(f"{size}.mrc", body(size, voxel_size), voxel_size)
        for size, voxel_size in zip(sizes, voxel_sizes, strict=True)
    ]
    with pytest.warns(RunWarning, match="voxels a side of"):
        first, second, voxel_size = on_common_grid(*maps)
    assert voxel_size == max(voxel_sizes)
    assert first.shape == second.shape
    np.testing.assert_allclose(first, second, atol=0.02 * first.max())


def test_common_grid__leaves_equal_grids_alone() -> None:
    volume = body(9, 1.0)
    first, second, voxel_size = on_common_grid(
        Map("a", volume, 1.0), Map("b", volume, 1.0005)
    )
    assert first is volume
    assert second is volume
    assert voxel_size == 1.0005
    assert on_common_grid(Map("a", volume, None), Map("b", volume, 2.0))[2] == 2.0
    assert on_common_grid(Map("a", volume, None), Map("b", volume, None))[2] is None


def test_common_grid__is_no_wider_than_twice_the_smaller_box() -> None:
    with pytest.warns(RunWarning, match="compared as 18 of 1 A"):
        first, second, _ = on_common_grid(
            Map("a", body(9, 1.0), 1.0), Map("b", body(41, 1.0), 1.0)
        )
    assert first.shape == second.shape == (18, 18, 18)


def test_common_grid__of_unknown_voxels() -> None:
    line = refusal(on_common_grid, Map("a", body(9, 1), None), Map("b", body(11, 1), 1))
    assert line == (
        "a: expected a voxel size in the header, or boxes of one size, found "
        "9 and 11 voxels a side"
    )


def test_evaluate__maps_of_other_voxels(tmp_path: Path, capsys: Captured) -> None:
    fine, coarse, wrong = (tmp_path / f"{name}.mrc" for name in ("a", "b", "c"))
    write_volume(fine, body(23, 0.5), 0.5)
    write_volume(coarse, body(13, 1.0), 1.0)
    write_volume(wrong, body(13, 1.0), 2.0)
    aligned = tmp_path / "aligned.mrc"
    assert run("evaluate", fine, coarse, "--json", "--out", aligned) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["correlation"] > 0.98
    assert "a.mrc: 23 voxels a side of 0.5 A compared as 13 of 1 A" in captured.err
    volume, voxel_size = read_volume(aligned)
    assert (len(volume), voxel_size) == (13, 1.0)
    # one molecule is twice as large as the other, though the numbers are the same
    assert run("evaluate", coarse, wrong, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["correlation"] < 0.9
    assert "1 A compared as 13 of 2 A" in captured.err


# --- picking -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale") / "data"
    settings = SimulationSettings(size=SIZE, pixels=120, snr=20, ell_max=4)
    simulate_to_folder(folder, folded_chain(SIZE), settings, None)
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scale") / "run"
    micrograph = data / "micrograph_0001.mrc"
    assert run("reconstruct", micrograph, "--out", out, *SETTINGS.split()) == 0
    return out


def with_pixels(source: Path, path: Path, *cell: float) -> Path:
    """Copy of a micrograph whose header states other pixels."""
    path.write_bytes(source.read_bytes())
    with mrcfile.open(path, "r+") as file:
        file.voxel_size = (*cell, 1.0) if len(cell) == 2 else cell[0]
    return path


def places(table: Path) -> NDArray[np.float64]:
    """(y, x) of the surer particles of a table."""
    rows = read_particles(table).particles
    if "rlnAutopickFigureOfMerit" in rows:
        rows = rows[rows["rlnAutopickFigureOfMerit"] > 0.5]
    centres: NDArray[np.float64] = rows[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy()
    return centres


@pytest.mark.parametrize("finer", [3.0, 2.5, 1.2])
def test_pick__with_a_finer_map(data: Path, tmp_path: Path, finer: float) -> None:
    volume, _ = read_volume(data / "volume_true.mrc")
    fine = tmp_path / "fine.mrc"
    size = round(SIZE * finer)
    write_volume(fine, resampled(volume, 1 / finer, size), 1 / finer)
    table = tmp_path / "picks.star"
    micrograph = data / "micrograph_0001.mrc"
    assert run("pick", micrograph, "--volume", fine, "--out", table) == 0
    match = match_picks(places(table), places(data / "truth.star"), tolerance_px=2)
    assert match.recall > 0.9


def test_pick__with_a_map_too_fine(
    data: Path, tmp_path: Path, capsys: Captured
) -> None:
    fine = tmp_path / "fine.mrc"
    write_volume(fine, folded_chain(SIZE), 0.3)
    micrograph, table = data / "micrograph_0001.mrc", tmp_path / "picks.star"
    assert run("pick", micrograph, "--volume", fine, "--out", table) == 2
    found = "at least 5 pixels of 1 A a side, found 7 voxels of 0.3 A"
    assert found in capsys.readouterr().err


def test_pick__with_a_map_of_unknown_voxels(
    data: Path, tmp_path: Path, capsys: Captured
) -> None:
    bare = tmp_path / "bare.mrc"
    with mrcfile.new(bare) as file:
        file.set_data(read_volume(data / "volume_true.mrc")[0])
    micrograph, table = data / "micrograph_0001.mrc", tmp_path / "picks.star"
    assert run("pick", micrograph, "--volume", bare, "--out", table) == 0
    assert "no voxel size in the header; taken to be 1 A" in capsys.readouterr().err


@pytest.mark.parametrize("pixel_size", [2.0, 0.5])
@pytest.mark.parametrize("by_option", [True, False])
def test_pick__with_a_run_of_other_pixels(
    data: Path,
    finished: Path,
    tmp_path: Path,
    capsys: Captured,
    pixel_size: float,
    by_option: bool,
) -> None:
    micrograph, table = data / "micrograph_0001.mrc", tmp_path / "picks.star"
    option = ("--pixel-size", pixel_size) if by_option else ()
    if not by_option:
        micrograph = with_pixels(micrograph, tmp_path / "other.mrc", pixel_size)
    assert run("pick", micrograph, "--run", finished, "--out", table, *option) == 2
    wanted = f"pixels of 1 A, those of {finished}, found {pixel_size:g} A"
    assert wanted in capsys.readouterr().err
    assert not table.exists()


def test_pick__with_the_pixel_size_given_to_the_run(
    data: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder, given = tmp_path / "run", ("--pixel-size", 1.4)
    wrong = with_pixels(data / "micrograph_0001.mrc", tmp_path / "a.mrc", 1.2, 1.0)
    words = ("reconstruct", wrong, "--out", folder, *SETTINGS.split(), *given)
    assert run(*words, "--picks", tmp_path / "own.star") == 0
    # headers that are wrong in the same way are overruled by the run
    alike = with_pixels(wrong, tmp_path / "b.mrc", 1.2, 1.0)
    table = tmp_path / "picks.star"
    assert run("pick", alike, "--run", folder, "--out", table) == 0
    for written in (tmp_path / "own.star", table):
        optics = read_particles(written).optics
        assert optics is not None
        assert set(optics["rlnMicrographPixelSize"]) == {1.4}
    assert read_volume(folder / "volume.mrc")[1] == pytest.approx(1.4)
    # also where micrographs and run were moved
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (folder, wrong, alike):
        path.rename(moved / path.name)
    folder, wrong = moved / "run", moved / "a.mrc"
    assert run("pick", moved / "b.mrc", "--run", folder, "--out", table) == 0
    # others are not
    other = with_pixels(wrong, tmp_path / "c.mrc", 2.0)
    capsys.readouterr()
    assert run("pick", other, "--run", folder, "--out", table) == 2
    assert "c.mrc: expected pixels of 1.4 A" in capsys.readouterr().err


def test_reconstruct__one_pixel_size_in_all_outputs(data: Path, tmp_path: Path) -> None:
    micrographs = tmp_path / "micrographs.star"
    write_micrograph_table(micrographs, [str(data / "micrograph_0001.mrc")], 1.0)
    folder, table = tmp_path / "run", tmp_path / "picks.star"
    words = ("--out", folder, *SETTINGS.split(), "--pixel-size", 2)
    assert run("reconstruct", micrographs, *words, "--picks", table) == 0
    assert read_volume(folder / "volume.mrc")[1] == 2.0
    optics = read_particles(table).optics
    assert optics is not None
    sizes = optics[["rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"]]
    assert (sizes == 2.0).all(axis=None)


# --- lists and headers -------------------------------------------------------------


def test_pixel_sizes__of_the_movie_do_not_win_over_the_header() -> None:
    file = MicrographFile(Path("a.mrc"), "a.mrc", 0.5, listed_before_binning=True)
    said = r"1 A as in the header, in place of 0\.5 A in the list, the movie's"
    with pytest.warns(RunWarning, match=said):
        assert PixelSizes(None).of(file, 1.0) == 1.0
    for in_header in (0.5, None):
        assert PixelSizes(None).of(file, in_header) == 0.5
    with pytest.warns(RunWarning, match=r"0\.5 A as listed, in place of 1 x 2"):
        assert PixelSizes(None).of(file, (1.0, 2.0)) == 0.5
    with pytest.warns(RunWarning, match=r"0\.7 A as given, in place of 1 A in the he"):
        assert PixelSizes(0.7).of(file, 1.0) == 0.7


def test_pick__from_a_list_that_states_the_movie_alone(
    data: Path, tmp_path: Path, capsys: Captured
) -> None:
    """Micrographs are half as fine as the movies: super-resolution."""
    micrographs, table = tmp_path / "micrographs.star", tmp_path / "picks.star"
    write_micrograph_table(micrographs, [str(data / "micrograph_0001.mrc")], 0.5)
    text = micrographs.read_text().replace("_rlnMicrographPixelSize", "_rlnOther")
    micrographs.write_text(text)
    words = ("--volume", data / "volume_true.mrc", "--out", table)
    assert run("pick", micrographs, *words) == 0
    said = "1 A as in the header, in place of 0.5 A in the list, the movie's"
    assert said in capsys.readouterr().err
    optics = read_particles(table).optics
    assert optics is not None
    assert list(optics["rlnMicrographPixelSize"]) == [1.0]
    assert list(optics["rlnMicrographOriginalPixelSize"]) == [0.5]


# --- tables ------------------------------------------------------------------------


def test_topaz__counts_rows_of_tiff_from_the_top(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (pixels,), _ = read_micrographs(data / "micrograph_0001.mrc")
    pixels = pixels[:90]
    write_micrograph("m.mrc", pixels, 1.0)
    tifffile.imwrite("m.tif", pixels[::-1])
    given: Any = ("--volume", data / "volume_true.mrc", "--pixel-size", 1, "--out")
    for name in ("m.mrc", "m.tif"):
        for suffix in ("star", "txt"):
            assert run("pick", name, *given, f"{name}.{suffix}") == 0
    of_mrc, of_tiff = (read_topaz(f"{name}.txt")[1] for name in ("m.mrc", "m.tif"))
    np.testing.assert_array_equal(of_tiff[:, 1], of_mrc[:, 1])
    np.testing.assert_allclose(of_tiff[:, 0], 89 - of_mrc[:, 0], atol=1)
    np.testing.assert_array_equal(
        places(Path("m.tif.star")), places(Path("m.mrc.star"))
    )
    for tables in (("m.tif.txt", "m.tif.star"), ("m.tif.star", "m.tif.txt")):
        capsys.readouterr()
        assert run("evaluate", *tables, "--tolerance", 1, "--json") == 0
        match = json.loads(capsys.readouterr().out)
        assert (match["recall"], match["precision"]) == (1, 1)
    Path("m.tif").unlink()
    assert run("evaluate", "m.tif.txt", "m.tif.star", "--tolerance", 1) == 2
    assert "expected m.tif beside it" in capsys.readouterr().err


# --- names -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.map.bz2", "a.mrc.bz2", "a.ccp4"])
def test_load_volume__names_of_maps(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_volume(path, folded_chain(SIZE), 1.5)
    if name.endswith(".bz2"):
        path.write_bytes(bz2.compress(path.read_bytes()))
    volume, voxel_size = load_volume(path, SIZE)
    np.testing.assert_allclose(volume, folded_chain(SIZE), atol=1e-6)
    assert voxel_size == 1.5


def test_load_volume__models_as_the_protein_data_bank_names_them(
    tmp_path: Path,
) -> None:
    for name in ("pdb1abc.ent", "a.pdb"):
        (tmp_path / name).write_text(ATOM + "END\n")
    ours, same = (load_volume(tmp_path / name, 9) for name in ("pdb1abc.ent", "a.pdb"))
    np.testing.assert_array_equal(ours[0], same[0])
    with pytest.raises(InputError, match="one of shepp-logan"):
        load_volume(tmp_path / "a.xyz", 9)
