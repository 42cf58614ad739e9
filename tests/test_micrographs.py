"""Micrographs as other programs leave them: formats, patterns, lists, pixel sizes."""

from __future__ import annotations

import bz2
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile

from numbasaem.errors import RunWarning
from numbasaem.io.micrograph_tables import read_micrograph_table
from numbasaem.io.mrc import read_micrographs, write_micrograph
from numbasaem.io.tiff import read_tiff, read_tiff_shape
from numbasaem.micrographs import reading as inputs
from numbasaem.micrographs.reading import input_shapes, list_inputs
from numbasaem.micrographs.sources import MicrographFile, list_micrographs
from numbasaem.observations import patch_cutting
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_data import PatchSet, load_patches
from numbasaem.settings import Settings
from tests.helpers import noise, refusal

IMAGE = noise(22, 27, seed=3)
GREYS = np.random.default_rng(3).integers(0, 255, (22, 27), np.uint8)
OTHER = noise(22, 27, seed=4)
SIZE = 5

OPTICS = """\
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
opticsGroup1 1 1.25 300.0 2.7
opticsGroup2 2 1.25 200.0 2.7

"""
MICROGRAPHS = """\
data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
MotionCorr/one.mrc 1
MotionCorr/two.mrc 2
"""


def load(*sources: object, **settings: Any) -> PatchSet:
    return load_patches(
        list_inputs(sources),  # type: ignore[arg-type]
        Settings(size=SIZE, **{"level": False, **settings}),
        lambda *_: None,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Folder of a RELION project with two micrographs and their list."""
    folder = tmp_path / "MotionCorr"
    folder.mkdir()
    for name, image in (("one", IMAGE), ("two", OTHER)):
        write_micrograph(folder / f"{name}.mrc", image, 1.0)
    (tmp_path / "micrographs.star").write_text(OPTICS + MICROGRAPHS)
    return tmp_path


# --- formats -----------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_read_micrographs__compressed(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    plain, path = tmp_path / "a.mrc", tmp_path / "a.mrc.compressed"
    write_micrograph(plain, IMAGE, 1.5)
    whole = compress(plain.read_bytes())
    path.write_bytes(whole)
    (image,), pixel_size = read_micrographs(path)
    np.testing.assert_array_equal(image, IMAGE)
    assert pixel_size == pytest.approx(1.5)
    path.write_bytes(whole[: len(whole) // 2])
    line = refusal(read_micrographs, path)
    assert line.startswith(f"{path}: expected a whole compressed file; copy it anew")


def stack_of_three(path: Path) -> np.ndarray:
    """Stack in a file, and its samples."""
    stack = np.stack([IMAGE, 2 * IMAGE, 3 * IMAGE])
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(stack)
    return stack


def test_read_micrographs__each_section_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "stack.mrcs"
    stack = stack_of_three(path)
    sections, _ = read_micrographs(path)
    assert len(sections) == 3
    np.testing.assert_array_equal(sections[-1], stack[2])
    with pytest.raises(IndexError):
        sections[3]


def test_read_micrographs__of_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    """What was read stays, and what is gone is named: no bus error, no other data."""
    path = tmp_path / "stack.mrcs"
    stack = stack_of_three(path)
    sections, _ = read_micrographs(path)
    first = sections[0]
    with path.open("r+b") as stream:
        stream.seek(1024)
        stream.write(bytes(stack[0].nbytes))
    np.testing.assert_array_equal(first, stack[0])
    os.truncate(path, 1024 + stack[0].nbytes)
    line = refusal(lambda: sections[1])
    assert line == (
        f"{path}: expected a file that stays as it is while it is read, found one that "
        "is shorter than before"
    )
    path.unlink()
    assert refusal(lambda: sections[1]).startswith(f"{path}: expected a file that can")


def test_load_patches__of_a_file_that_changes_after_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.mrc"
    write_micrograph(path, IMAGE, 1.0)
    fingerprint = inputs.source_of_file

    def and_then_another(file: MicrographFile) -> dict[str, Any]:
        source = fingerprint(file)
        write_micrograph(path, OTHER, 1.0)
        return source

    monkeypatch.setattr(inputs, "source_of_file", and_then_another)
    line = refusal(load, path)
    assert line == (
        f"{path}: expected a file that stays as it is while it is read, found one that "
        "was written to"
    )


@pytest.mark.filterwarnings(
    "ignore:.*as given, in place of:numbasaem.errors.RunWarning"
)
def test_load_patches__one_micrograph_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stack.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(noise(3, 22, 27))
    events: list[str] = []

    def cutting(*arguments: Any) -> Any:
        events.append("cut")
        return cut_patches(*arguments)

    monkeypatch.setattr(patch_cutting, "cut_patches", cutting)
    read = inputs.prepared_micrographs

    def reading(*arguments: Any) -> Any:
        for one in read(*arguments):
            events.append("read")
            yield one

    monkeypatch.setattr(inputs, "prepared_micrographs", reading)
    load(path, pixel_size=1.0)
    assert events == ["read", "cut"] * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("suffix", [".tif", ".TIFF"])
def test_read_tiff__the_bottom_row_is_the_first(
    tmp_path: Path, dtype: type, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    pixels: Any = np.arange(60).reshape(6, 10).astype(dtype)
    tifffile.imwrite(path, pixels)
    (image,), pixel_size = MicrographFile(path, path.name).open()
    np.testing.assert_array_equal(image, pixels[::-1])
    assert image.dtype == np.float32
    assert pixel_size is None


@pytest.mark.parametrize(
    ("compression", "predictor"),
    [
        ("zlib", False),
        ("lzw", False),
        ("lzw", True),
        ("zstd", False),
        ("packbits", False),
        ("lzma", False),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint8])
def test_read_tiff__pages_and_compression(
    tmp_path: Path, compression: str, predictor: bool, dtype: type
) -> None:
    path = tmp_path / "a.tif"
    pages: Any = np.stack([GREYS, GREYS[:, ::-1]]).astype(dtype)
    options: Any = {"compression": compression, "predictor": predictor}
    tifffile.imwrite(path, pages, photometric="minisblack", **options)
    np.testing.assert_array_equal(read_tiff(path), pages[:, ::-1])


def test_read_tiff__jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    smooth = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    tifffile.imwrite(path, smooth, photometric="minisblack", compression="jpeg")
    (image,) = read_tiff(path)
    np.testing.assert_allclose(image, smooth[::-1], atol=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_read_tiff__white_is_zero(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "a.tif"
    pixels: Any = GREYS.astype(dtype)
    tifffile.imwrite(path, pixels, photometric="miniswhite")
    (image,) = read_tiff(path)
    largest = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 0
    np.testing.assert_array_equal(image, largest - pixels[::-1].astype(np.float32))


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_read_tiff__without_previews(tmp_path: Path, marked: bool, first: bool) -> None:
    path = tmp_path / "a.tif"
    preview = np.zeros((5, 6, 3) if marked else (5, 6), np.uint8)
    kind: Any = {"photometric": "rgb", "subfiletype": 1} if marked else {}

    def write_preview(file: tifffile.TiffWriter) -> None:
        file.write(preview, **kind)

    with tifffile.TiffWriter(path) as file:
        if first:
            write_preview(file)
        file.write(GREYS, photometric="minisblack")
        if not first:
            write_preview(file)
        file.write(GREYS + 1, photometric="minisblack")
    pages = np.stack([GREYS, GREYS + 1])
    np.testing.assert_array_equal(read_tiff(path), pages[:, ::-1])
    assert read_tiff_shape(path) == pages.shape


def test_read_tiff__palette(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, GREYS, photometric="palette", colormap=colours)
    assert "one grey value a pixel" in refusal(read_tiff, path)


def test_read_tiff__unusable(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    assert f"{path}: expected a TIFF file, found no such file" == refusal(
        read_tiff, path
    )
    path.write_bytes(b"no TIFF at all")
    assert f"{path}: expected a TIFF file" in refusal(read_tiff, path)
    tifffile.imwrite(path, np.zeros((20, 20, 3), np.uint8), photometric="rgb")
    line = refusal(read_tiff, path)
    assert line.startswith(f"{path}: expected one grey value a pixel; convert it")
    assert "SamplesPerPixel 3" in line
    tifffile.imwrite(path, np.stack([IMAGE] * 9), photometric="minisblack")
    path.write_bytes(path.read_bytes()[:-3000])
    assert f"{path}" in refusal(read_tiff, path)


# --- lists -------------------------------------------------------------------------


def test_list_micrographs__patterns(project: Path) -> None:
    pattern = f"{project}/MotionCorr/*.mrc"
    found = list_micrographs([pattern, project / "MotionCorr" / "one.mrc"])
    assert [file.name for file in found.files] == ["one.mrc", "two.mrc", "one.mrc"]
    assert found.optics is None
    assert load(pattern).micrograph.max() == 1
    # a name with a bracket is a name before it is a pattern
    odd = project / "[a].mrc"
    write_micrograph(odd, IMAGE, 1.0)
    assert [file.path for file in list_micrographs([odd]).files] == [odd]
    assert refusal(load, f"{project}/*.tif") == (
        f"{project}/*.tif: expected files of such names, found none"
    )


def test_list_micrographs__one_name_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grid1/raw/1.mrc", "grid2/raw/1.mrc", "grid2/raw/2.mrc", "1.mrc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(tmp_path / name, IMAGE, 1.0)

    def names(*sources: object) -> list[str]:
        return [file.name for file in list_micrographs(sources).files]  # type: ignore[arg-type]

    monkeypatch.chdir(tmp_path / "grid1")
    wanted = ["grid1/raw/1.mrc", "grid2/raw/1.mrc", "2.mrc"]
    assert names(f"{tmp_path}/grid*/raw/*.mrc") == wanted
    assert names("raw/1.mrc", "../grid2/raw/1.mrc") == wanted[:2]
    assert names("raw/1.mrc", tmp_path / "grid1/../grid1/raw/1.mrc") == ["1.mrc"] * 2
    assert names("../1.mrc", "raw/1.mrc") == [f"{tmp_path.name}/1.mrc", "raw/1.mrc"]


def test_list_micrographs__relion(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list_micrographs([project / "micrographs.star"])
    assert [file.name for file in listed.files] == [
        "MotionCorr/one.mrc",
        "MotionCorr/two.mrc",
    ]
    assert [file.optics_group for file in listed.files] == [1, 2]
    assert listed.optics is not None
    assert list(listed.optics["rlnVoltage"]) == [300, 200]
    # the list's pixel size, not the 1.0 of the headers
    said = r"one\.mrc: pixel size 1\.25 A as listed, in place of 1 A in the header"
    with pytest.warns(RunWarning, match=said) as warned:
        data = load(project / "micrographs.star")
    assert len(warned) == 1
    assert data.pixel_size == 1.25
    wanted = [cut_patches(image, SIZE) for image in (IMAGE, OTHER)]
    np.testing.assert_array_equal(data.patches, np.concatenate(wanted))
    # a list in a folder of its own, its names relative to the working folder
    elsewhere = project / "CtfFind" / "job003"
    elsewhere.mkdir(parents=True)
    (elsewhere / "micrographs.star").write_text(OPTICS + MICROGRAPHS)
    monkeypatch.chdir(project)
    assert len(list_micrographs(["CtfFind/job003/micrographs.star"]).files) == 2
    # and from anywhere, in case the project has moved
    monkeypatch.chdir(project / "MotionCorr")
    listed = list_micrographs([elsewhere / "micrographs.star"])
    assert listed.files[0].path == project / "MotionCorr" / "one.mrc"
    assert listed.files[0].name == "MotionCorr/one.mrc"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s[: s.index("data_micrographs")], "one table of micrographs"),
        (
            lambda s: (
                s.replace("data_micrographs", "data_particles")
                .replace("two.mrc 2", "two.mrc 2 1")
                .replace("one.mrc 1", "one.mrc 1 1")
                .replace(
                    "_rlnOpticsGroup #2\nM", "_rlnOpticsGroup #2\n_rlnCoordinateX #3\nM"
                )
            ),
            "found particles in data_particles",
        ),
        (
            lambda s: (
                s.replace("data_micrographs", "data_a")
                + MICROGRAPHS.replace("data_micrographs", "data_b")
            ),
            "found tables data_a, data_b",
        ),
        (lambda s: s.replace("_rlnMicrographName", "_rlnName"), "rlnMicrographName"),
        (lambda s: s.replace("two.mrc 2", "two.mrc 3"), "rlnOpticsGroup in data_opti"),
        (lambda s: s.replace("two.mrc", "three.mrc"), "no MotionCorr/three.mrc"),
    ],
)
def test_list_micrographs__unusable_list(
    project: Path, change: Callable[[str], str], named: str
) -> None:
    path = project / "micrographs.star"
    path.write_text(change(OPTICS + MICROGRAPHS))
    line = refusal(load, path)
    assert line.startswith(f"{path}: expected")
    assert named in line


@pytest.mark.filterwarnings("ignore:.*1.25 A as listed")
def test_list_micrographs__unequal_pixel_sizes(project: Path) -> None:
    path = project / "micrographs.star"
    path.write_text((OPTICS + MICROGRAPHS).replace("2 1.25", "2 1.5"))
    assert refusal(load, path) == (
        f"{project}/MotionCorr/two.mrc: expected the pixel size of the others, 1.25 A, "
        "or `pixel_size`, found 1.5 A"
    )
    with pytest.warns(RunWarning, match=r"1.2 A as given, in place of 1.25 A"):
        assert load(path, pixel_size=1.2).pixel_size == 1.2


def test_list_micrographs__a_list_stands_alone(project: Path) -> None:
    path = project / "micrographs.star"
    line = refusal(list_micrographs, [project / "MotionCorr" / "one.mrc", path])
    assert line == f"{path}: expected a list of micrographs on its own, found 1 more"


def test_read_micrograph_table__older_name_of_the_pixel_size(project: Path) -> None:
    path = project / "micrographs.star"
    text = OPTICS.replace("MicrographPixelSize", "MicrographOriginalPixelSize")
    path.write_text(text + MICROGRAPHS)
    table = read_micrograph_table(path)
    assert list(table.pixel_sizes) == [1.25, 1.25]
    assert list(table.before_binning) == [True, True]
    # it may be that of a movie before binning: no match for the header's 1 A
    said = "1 A as in the header, in place of 1.25 A in the list"
    with pytest.warns(RunWarning, match=said):
        assert load(path).pixel_size == 1.0


@pytest.mark.parametrize(
    ("change", "without"),
    [
        (lambda s: s.replace("2 1.25", "2 1.5"), "of the others, 1.25 A, or `pixel_s"),
        (lambda s: s.replace("1.25", "0"), 1.0),
        (lambda s: s.replace("_rlnMicrographPixelSize", "_rlnX"), 1.0),
        (lambda s: s.replace("_rlnMicrographP", "_rlnMicrographOriginalP"), 1.0),
    ],
)
@pytest.mark.filterwarnings("ignore:.*in place of:numbasaem.errors.RunWarning")
@pytest.mark.filterwarnings("ignore:.*no pixel size above 0")
def test_pixel_size__given_overrules_a_list_that_is_no_good(
    project: Path, change: Callable[[str], str], without: float | str
) -> None:
    path = project / "micrographs.star"
    path.write_text(change(OPTICS + MICROGRAPHS))
    if isinstance(without, str):
        assert without in refusal(load, path)
    else:
        assert load(path).pixel_size == without  # of the headers
    assert load(path, pixel_size=1.5).pixel_size == 1.5


# --- pixel sizes -------------------------------------------------------------------


def test_pixel_size__that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(IMAGE)
    assert refusal(load, path) == (
        f"{path}: expected a pixel size (CELLA) above 0 in the header, or "
        "`pixel_size`, found 0 or none"
    )


def test_pixel_size__given_overrules_the_headers_and_says_so_once(
    project: Path,
) -> None:
    pattern = f"{project}/MotionCorr/*.mrc"
    said = r"one\.mrc: pixel size 1\.4 A as given, in place of 1 A"
    with pytest.warns(RunWarning, match=said) as warned:
        assert load(pattern, pixel_size=1.4).pixel_size == 1.4
    assert len(warned) == 1
    load(pattern, pixel_size=1.0)  # nothing to say


def test_pixel_size__given_overrules_a_header_of_unequal_sides(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(IMAGE)
        file.header["cella"] = (IMAGE.shape[1], 2 * IMAGE.shape[0], 1)
    assert refusal(load, path) == (
        f"{path}: expected the same sampling along each axis, or `pixel_size`, "
        "found 1 x 2 angstrom"
    )
    said = r"pixel size 1\.4 A as given, in place of 1 x 2 angstrom in the header"
    with pytest.warns(RunWarning, match=said):
        data = load(path, pixel_size=1.4)
    assert data.pixel_size == data.sources[0]["pixel_size"] == 1.4
    assert input_shapes(list_inputs([path]), Settings(size=SIZE, pixel_size=1.4))


def test_pixel_size__of_the_patches_after_downsampling(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    pixels = np.random.default_rng(0).standard_normal((120, 150), dtype=np.float32)
    write_micrograph(path, 7 * pixels + 100, 2.0)
    data = load(path, particle_diameter=12.0, level=True)
    assert data.pixel_size == 4.0
    assert data.patches.shape == (12 * 15, SIZE, SIZE)
    assert data.patches.std() == pytest.approx(1, abs=0.1)


def test_load_patches__leaves_dead_areas_out(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    pixels = np.random.default_rng(0).standard_normal((60, 60), dtype=np.float32)
    pixels[:20] = 0
    write_micrograph(path, pixels, 1.0)
    assert len(load(path).patches) == 144
    with pytest.warns(RunWarning, match=r"a\.mrc: 33\.3 % of the area is left out"):
        assert len(load(path, mend=True).patches) == 96
