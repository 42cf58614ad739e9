"""Files in and out, good and bad; and Fourier cropping."""

from __future__ import annotations

import errno
import gzip
import os
import re
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from numbasaem.errors import InputError, RunWarning
from numbasaem.io import written_whole
from numbasaem.io.atomic_models import density_from_model, load_volume
from numbasaem.io.chimerax import surface_level, write_chimerax_script
from numbasaem.io.coordinates import (
    read_boxes,
    read_topaz,
    write_boxes,
    write_topaz,
)
from numbasaem.io.mrc import (
    read_micrographs,
    read_volume,
    write_micrograph,
    write_volume,
)
from numbasaem.io.relion import (
    optics_table,
    read_fsc,
    read_particles,
    write_fsc,
    write_particles,
)
from numbasaem.io.star import read_tables
from numbasaem.micrographs.fourier_crop import fourier_crop
from numbasaem.volume.phantom import shepp_logan
from numbasaem.volume.threshold import otsu_threshold
from tests.helpers import noise, refusal

IMAGE = noise(12, 17, seed=3)
VOLUME = noise(7, 7, 7, seed=3)

WATER_AND_ATOMS = """\
CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1           1
ATOM      1  CA AGLY A   1      10.000  10.000  10.000  0.50 20.00           C
ATOM      2  CA BGLY A   1      12.000  10.000  10.000  0.50 20.00           C
ATOM      3  O   GLY A   1      11.000  14.000   9.000  1.00 20.00           O
HETATM    4  O   HOH A   2      40.000  40.000  40.000  1.00 20.00           O
END
"""


def one_line(error: pytest.ExceptionInfo[InputError], path: Path) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert path.name in message
    assert ": expected " in message
    assert ", found " in message
    return message


def new_mrc(path: Path, data: np.ndarray, **header: object) -> Path:
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        # Of pixels that are not finite, which the files are to hold.
        warnings.simplefilter("ignore", RuntimeWarning)
        file.set_data(data)
        for name, value in header.items():
            file.header[name] = value
    return path


# Micrographs


def test_micrograph__round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_micrograph(path, IMAGE, 1.25)
    (image,), pixel_size = read_micrographs(path)
    np.testing.assert_array_equal(image, IMAGE)
    assert pixel_size == pytest.approx(1.25)
    assert mrcfile.validate(path)
    assert os.listdir(tmp_path) == ["a.mrc"]


def test_micrograph__equal_data_give_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        write_micrograph(tmp_path / name, IMAGE, 2.0)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", "<>")
def test_read_micrographs__modes_and_byte_orders(
    tmp_path: Path, dtype: str, order: str
) -> None:
    pixels = np.arange(1, 7).reshape(2, 3).astype(order + dtype)
    (image,), _ = read_micrographs(new_mrc(tmp_path / "a.mrc", pixels))
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == np.float32


def with_imod_flags(path: Path, flags: int, order: str = "<") -> Path:
    """Mark a file as IMOD does."""
    content = bytearray(path.read_bytes())
    content[152:160] = np.array([1146047817, flags], f"{order}i4").tobytes()
    path.write_bytes(content)
    return path


BYTES = np.array([[3, 90, 128], [200, 255, 0]], dtype=np.uint8)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("signed", [True, False])
def test_read_micrographs__bytes_of_imod(
    tmp_path: Path, order: str, signed: bool
) -> None:
    pixels = BYTES.view(np.int8)
    path = new_mrc(tmp_path / "a.mrc", pixels.astype(f"{order}i1"))
    if order == ">":
        path.write_bytes(swapped(path.read_bytes()))
    (image,), _ = read_micrographs(with_imod_flags(path, int(signed), order))
    np.testing.assert_array_equal(image, pixels if signed else BYTES)


def swapped(content: bytes) -> bytes:
    """Contents of a file of bytes with a header in the other byte order."""
    header = np.frombuffer(content[:1024], mrcfile.dtypes.HEADER_DTYPE)[0]
    other = header.astype(header.dtype.newbyteorder(">"))
    other["machst"] = (0x11, 0x11, 0, 0)
    return other.tobytes() + content[1024:]


def test_read_micrographs__bytes_beyond_127_by_the_header(tmp_path: Path) -> None:
    path = new_mrc(tmp_path / "a.mrc", BYTES.view(np.int8), dmin=0, dmax=255)
    (image,), _ = read_micrographs(path)
    np.testing.assert_array_equal(image, BYTES)


def test_read_micrographs__two_samples_in_a_byte(tmp_path: Path) -> None:
    path = with_imod_flags(new_mrc(tmp_path / "a.mrc", BYTES.view(np.int8)), 16)
    with pytest.raises(InputError, match=r"whole bytes, found two in each byte"):
        read_micrographs(path)


def test_read_micrographs__byte_order_of_mode_0_by_the_stamp(tmp_path: Path) -> None:
    # 256 reads as 65536 in the other order: both make sense, and mode 0 is 0 in both.
    pixels = np.random.default_rng(0).integers(-99, 99, (256, 256, 256), np.int8)
    path = new_mrc(tmp_path / "a.mrcs", pixels)
    path.write_bytes(swapped(path.read_bytes()))
    images, _ = read_micrographs(path)
    assert len(images) == 256
    np.testing.assert_array_equal(images[7], pixels[7])


def test_read_micrographs__stack(tmp_path: Path) -> None:
    stack = noise(3, 4, 5)
    for is_flagged in (0, 1):
        path = new_mrc(tmp_path / "a.mrcs", stack, ispg=is_flagged)
        images, _ = read_micrographs(path)
        np.testing.assert_array_equal(images, stack)


def test_read_micrographs__no_pixel_size(tmp_path: Path) -> None:
    path = new_mrc(tmp_path / "a.mrc", IMAGE, cella=(0, 0, 0))
    assert read_micrographs(path)[1] is None


def test_read_micrographs__extended_header(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(IMAGE)
        file.set_extended_header(np.zeros(160, dtype="V1"))
    (image,), _ = read_micrographs(path)
    np.testing.assert_array_equal(image, IMAGE)


def test_read_micrographs__experimental(data_folder: Path) -> None:
    path = data_folder / "EMPIAR-10146_May08_03.15.02.mrc"
    (image,), pixel_size = read_micrographs(path)
    assert image.shape == (1200, 1240)
    assert pixel_size == pytest.approx(1.5)


def pixels_with(value: float) -> np.ndarray:
    pixels = IMAGE.copy()
    pixels[1, 2] = value
    return pixels


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-10])
    return path


def filled(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda p: p, "no such file"),
        (folder, "a folder"),
        (lambda p: filled(p, b""), "an empty file"),
        (lambda p: filled(p, b"short"), "5 bytes, less than its header"),
        (lambda p: filled(p, b"text, not MRC. " * 100), "a header that is not MRC"),
        (lambda p: filled(p, bytes(2000)), "a header that is not MRC"),
        (lambda p: new_mrc(p, IMAGE.astype("c8")), "mode 4"),
        (lambda p: cut(new_mrc(p, IMAGE)), "1830 bytes"),
        (lambda p: new_mrc(p, pixels_with(np.nan)), "1 NaN"),
        (lambda p: new_mrc(p, pixels_with(np.inf)), "1 infinite"),
        (lambda p: new_mrc(p, np.full_like(IMAGE, 2)), "the constant 2"),
        (lambda p: filled(p, gzip.compress(bytes(9000))[:20]), "end-of-stream"),
        (lambda p: filled(p, b"\x1f\x8bgarbage, not gzip"), "compression method"),
    ],
)
def test_read_micrographs__bad_file(
    tmp_path: Path, make: Callable[[Path], Path], found: str
) -> None:
    path = make(tmp_path / "bad.mrc")
    with pytest.raises(InputError, match=re.escape(found)) as error:
        list(read_micrographs(path)[0])
    one_line(error, path)


def test_read_micrographs__names_the_section(tmp_path: Path) -> None:
    stack = np.stack([IMAGE, np.zeros_like(IMAGE)])
    path = new_mrc(tmp_path / "a.mrcs", stack)
    with pytest.raises(InputError, match="section 2: expected pixels that vary"):
        list(read_micrographs(path)[0])


# Writing


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_write__read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError) as error:
        write_micrograph(tmp_path / "a.mrc", IMAGE, 1.0)
    one_line(error, tmp_path / "a.mrc")


def test_write__no_folder(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.mrc"
    with pytest.raises(InputError, match="FileNotFoundError") as error:
        write_micrograph(path, IMAGE, 1.0)
    one_line(error, path)


def test_write__folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        write_volume(tmp_path, VOLUME, 1.0)
    one_line(error, tmp_path)


def test_write__wrong_dimensions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an array of 2 dimensions"):
        write_micrograph(tmp_path / "a.mrc", VOLUME, 1.0)


def test_written_whole__leaves_the_old_file_when_interrupted(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.txt", b"old")

    def interrupted() -> None:
        with written_whole(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def fails_for(of_folder: bool, number: int) -> Callable[[int], None]:
    """An fsync that answers with an error for folders, or for files."""
    whole = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folder:
            raise OSError(number, os.strerror(number))
        whole(descriptor)

    return fsync


@pytest.mark.parametrize(
    ("of_folder", "name"),
    [
        (True, "EINVAL"),  # CIFS before Linux 4.17, DrvFs
        (True, "EBADF"),
        (True, "ENOTSUP"),
        (True, "EACCES"),
        (False, "EINVAL"),
        (False, "ENOSYS"),
    ],
)
def test_written_whole__where_nothing_can_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_folder: bool, name: str
) -> None:
    monkeypatch.setattr(os, "fsync", fails_for(of_folder, getattr(errno, name)))
    path = filled(tmp_path / "a.txt", b"old")
    with written_whole(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("of_folder", [True, False])
@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT"])
def test_written_whole__a_disk_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_folder: bool, name: str
) -> None:
    monkeypatch.setattr(os, "fsync", fails_for(of_folder, getattr(errno, name)))
    path = tmp_path / "a.txt"

    def write() -> None:
        with written_whole(path) as part:
            part.write_text("new")

    with pytest.raises(InputError, match="a file that can be written") as error:
        write()
    one_line(error, path)


# Volumes


def test_volume__round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_volume(path, VOLUME, 7.53)
    volume, voxel_size = read_volume(path)
    np.testing.assert_array_equal(volume, VOLUME)
    assert voxel_size == pytest.approx(7.53)
    assert mrcfile.validate(path)


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (2, 1, 3)])
def test_read_volume__axis_order(
    tmp_path: Path, axes: tuple[int, int, int], recwarn: pytest.WarningsRecorder
) -> None:
    mapc, mapr, maps = axes
    stored = VOLUME.transpose([3 - axis for axis in (maps, mapr, mapc)])
    path = new_mrc(tmp_path / "a.map", stored, mapc=mapc, mapr=mapr, maps=maps)
    np.testing.assert_array_equal(read_volume(path)[0], VOLUME)
    said = [f"{path}: axes MAPC, MAPR, MAPS are {mapc}, {mapr}, {maps}; permuted"]
    assert [str(w.message) for w in recwarn] == ([] if axes == (1, 2, 3) else said)


def test_read_volume__gzip(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.map", VOLUME, 1.5)
    whole = gzip.compress((tmp_path / "a.map").read_bytes())
    path = filled(tmp_path / "a.map.gz", whole)
    np.testing.assert_array_equal(load_volume(path, 7)[0], VOLUME)
    filled(path, whole[: len(whole) // 2])
    with pytest.raises(InputError, match="a whole compressed file") as error:
        read_volume(path)
    one_line(error, path)


@pytest.mark.parametrize(
    ("data", "header", "found"),
    [
        (VOLUME[:5], {}, "(5, 7, 7) voxels"),
        (VOLUME, {"mapc": 2}, "[2, 2, 3]"),
        (VOLUME, {"cella": (7, 7, 14)}, "1 x 1 x 2 angstrom"),
        (np.zeros_like(VOLUME), {}, "the constant 0"),
    ],
)
def test_read_volume__bad_file(
    tmp_path: Path, data: np.ndarray, header: dict[str, object], found: str
) -> None:
    path = new_mrc(tmp_path / "bad.mrc", data, **header)
    with pytest.raises(InputError, match=re.escape(found)) as error:
        read_volume(path)
    one_line(error, path)


# Atomic models and the dispatcher


def test_load_volume__phantom() -> None:
    volume, voxel_size = load_volume("shepp-logan", 12)
    np.testing.assert_array_equal(volume, shepp_logan(12))
    assert voxel_size is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nowhere.mrc", "no such file"),
        ("nowhere.pdb", "no such file"),
        ("volume.txt", "the name volume.txt"),
    ],
)
def test_load_volume__bad_name(tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(InputError, match=found) as error:
        load_volume(tmp_path / name, 11)
    one_line(error, tmp_path / name)


def test_load_volume__too_small(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.mrc", VOLUME, 1.0)
    with pytest.raises(InputError, match="at least 11 voxels per axis, found 7"):
        load_volume(tmp_path / "a.mrc", 11)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pdb", b""),
        ("text.pdb", b"hello\nworld\n"),
        ("text.cif", b"hello"),
        ("table.cif", b"data_x\n_cell.a 1\n"),
        ("cut.cif.gz", gzip.compress(b"data_x\n" * 99, mtime=0)[:20]),
    ],
)
def test_density_from_model__bad_file(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = filled(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        density_from_model(path)
    one_line(error, path)


def test_density_from_model__atoms_are_where_they_should_be(tmp_path: Path) -> None:
    path = filled(tmp_path / "few.pdb", WATER_AND_ATOMS.encode())
    volume, voxel_size = density_from_model(path, 41, voxel_size=0.5, resolution=2.0)
    assert voxel_size == 0.5
    # A carbon in two half-occupied places and an oxygen; the water is gone.
    carbon, oxygen = 12.011, 15.999
    atoms = np.array([[10, 10, 10], [12, 10, 10], [11, 14, 9]], dtype=float)
    mass = np.array([carbon / 2, carbon / 2, oxygen])
    atoms -= mass @ atoms / mass.sum()
    grid = (np.arange(len(volume)) - len(volume) // 2) * voxel_size
    z, y, x = np.meshgrid(grid, grid, grid, indexing="ij")
    total = volume.sum()
    found = np.array([(volume * axis).sum() / total for axis in (x, y, z)])
    # Scattering lengths of carbon and oxygen at zero angle, angstrom.
    weight = np.array([2.509 / 2, 2.509 / 2, 1.983])
    np.testing.assert_allclose(found, weight @ atoms / weight.sum(), atol=0.02)
    assert total * voxel_size**3 == pytest.approx(weight.sum(), rel=0.02)


@pytest.mark.parametrize("occupancy", ["  0.00", "      "])
def test_density_from_model__zero_occupancies(tmp_path: Path, occupancy: str) -> None:
    lines = WATER_AND_ATOMS.replace("  0.50 20", "  1.00 20").splitlines(True)
    whole = filled(tmp_path / "whole.pdb", "".join(lines).encode())
    wanted, _ = density_from_model(whole, 21, voxel_size=1.0)
    empty = [f"{line[:54]}{occupancy}{line[60:]}" for line in lines]
    path = filled(tmp_path / "docked.pdb", "".join(empty).encode())
    with pytest.warns(RunWarning, match=r"docked\.pdb: all occupancies are 0"):
        volume, _ = density_from_model(path, 21, voxel_size=1.0)
    np.testing.assert_array_equal(volume, wanted)
    path = filled(tmp_path / "part.pdb", "".join([*lines[:2], *empty[2:]]).encode())
    with pytest.warns(RunWarning, match=r"part\.pdb: 2 of 3 atoms are not drawn"):
        density_from_model(path, 21, voxel_size=1.0)
    below = WATER_AND_ATOMS.replace("  1.00 20", " -1.00 20").encode()
    line = refusal(density_from_model, filled(tmp_path / "below.pdb", below))
    assert line.endswith("below.pdb: expected occupancies of at least 0, found -1")


def test_density_from_model__bpti(data_folder: Path) -> None:
    volume, voxel_size = density_from_model(data_folder / "1QLQ.pdb")
    assert volume.shape == (31, 31, 31)
    assert voxel_size == pytest.approx(1.75)
    places = np.arange(31) - 15
    radius = np.sqrt(
        places[:, None, None] ** 2 + places[:, None] ** 2 + places**2
    ).ravel()
    inside = radius <= 15
    assert volume.ravel()[inside].sum() > 0.999 * volume.sum()
    assert volume.min() >= 0
    # Downsampling to the size the paper reconstructs keeps the scattering.
    assert fourier_crop(volume, 11).mean() == pytest.approx(volume.mean(), rel=1e-5)


def test_density_from_model__box(data_folder: Path) -> None:
    path = data_folder / "1QLQ.pdb"
    for size in (11, 31, 48):
        volume, voxel_size = density_from_model(path, size)
        assert len(volume) == size
        assert 23.5 < voxel_size * (size // 2) < 40
        assert len(load_volume(path, size)[0]) == max(size, 31)
    with pytest.raises(InputError, match="a model within"):
        density_from_model(path, size=31, voxel_size=1.0)
    with pytest.raises(InputError, match="resolution"):
        density_from_model(path, voxel_size=2.0, resolution=3.0)
    with pytest.raises(InputError, match="voxel_size"):
        density_from_model(path, voxel_size=-1.0)


# STAR files


def test_particles__round_trip(tmp_path: Path) -> None:
    path = tmp_path / "truth.star"
    centres = np.array([[1.5, 2.25], [300.125, 40.0], [7.0, 123.456]])
    angles = np.array([[10, 20, 30], [-120.5, 90, 0], [179.999, 3, 4]])
    merit = np.array([0.5, 1e-9, 1.0])
    names = ["0001", "0001", "0002"]
    write_particles(
        path,
        micrograph_names=names,
        coordinates=centres,
        pixel_size=1.4,
        angles=angles,
        figure_of_merit=merit,
    )
    tables = read_particles(path)
    rows = tables.particles
    np.testing.assert_allclose(rows[["rlnCoordinateY", "rlnCoordinateX"]], centres)
    columns = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    np.testing.assert_allclose(rows[columns], angles)
    np.testing.assert_allclose(rows["rlnAutopickFigureOfMerit"], merit)
    assert list(rows["rlnMicrographName"]) == names
    assert list(rows["rlnOpticsGroup"]) == [1, 1, 1]
    assert tables.optics is not None
    assert tables.optics["rlnMicrographPixelSize"][0] == 1.4
    assert "rlnVoltage" not in tables.optics
    assert optics_table(1.4, 300.0)["rlnVoltage"][0] == 300


def test_write_particles__none(tmp_path: Path) -> None:
    path = tmp_path / "picks.star"
    write_particles(
        path, micrograph_names=[], coordinates=np.empty((0, 2)), pixel_size=1.0
    )
    assert "_rlnCoordinateX" in path.read_text()


def test_write_particles__unequal_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 values of rlnCoordinateX, found 1"):
        write_particles(
            tmp_path / "a.star",
            micrograph_names=["a", "b"],
            coordinates=np.zeros((1, 2)),
            pixel_size=1.0,
        )


def test_read_particles__relion(data_folder: Path) -> None:
    tables = read_particles(data_folder / "aspire_sample_particles_relion31.star")
    assert tables.particles.shape == (17, 26)
    assert tables.optics is not None
    assert tables.optics.shape == (2, 8)
    first = tables.particles.iloc[0]
    assert first["rlnCoordinateX"] == 2158.111921
    assert first["rlnImageName"] == "000001@sample.mrcs"
    assert first["rlnLogLikeliContribution"] == 142111.5


def test_read_particles__relion_loses_nothing(data_folder: Path) -> None:
    path = data_folder / "aspire_sample_particles_relion31.star"
    tables = read_particles(path)
    assert tables.optics is not None
    blocks = path.read_text().split("data_")[1:]
    for table, block in zip((tables.optics, tables.particles), blocks, strict=True):
        lines = [line.split() for line in block.splitlines()[1:] if line.strip()]
        names = [words[0][1:] for words in lines if words[0].startswith("_")]
        rows = [words for words in lines if words[0][0] not in "_#" + "l"]
        assert list(table.columns) == names
        assert len(table) == len(rows)
        for name, column in zip(names, zip(*rows, strict=True), strict=True):
            for found, text in zip(table[name], column, strict=True):
                assert found == (text if isinstance(found, str) else float(text))


def test_write_particles__with_the_optics_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "picks.star"
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["opticsGroup1", "0002"],
            "rlnOpticsGroup": [1, 2],
            "rlnMicrographPixelSize": [1.5, 1.5],
            "rlnVoltage": [300.0, 200.0],
        }
    )
    write_particles(
        path,
        micrograph_names=["a", "b"],
        coordinates=np.zeros((2, 2)),
        pixel_size=1.5,
        optics=optics,
        optics_groups=[2, 1],
    )
    tables = read_particles(path)
    assert tables.optics is not None
    pd.testing.assert_frame_equal(tables.optics, optics, check_dtype=False)
    assert list(tables.particles["rlnOpticsGroup"]) == [2, 1]


@pytest.mark.parametrize(
    ("sizes", "written"),
    [
        ({}, {"rlnMicrographPixelSize": 2}),
        ({"rlnMicrographOriginalPixelSize": 1}, {"rlnMicrographOriginalPixelSize": 1}),
        (
            {"rlnMicrographOriginalPixelSize": 0.5, "rlnMicrographPixelSize": 1},
            {"rlnMicrographOriginalPixelSize": 1},
        ),
        ({"rlnMicrographPixelSize": 0, "rlnImagePixelSize": 3}, {}),
        ({"rlnMicrographPixelSize": "nan"}, {}),
    ],
)
def test_write_particles__one_pixel_size(
    tmp_path: Path, sizes: dict[str, float], written: dict[str, float]
) -> None:
    path = tmp_path / "picks.star"
    optics = pd.DataFrame([{"rlnOpticsGroup": 1} | sizes])
    write_particles(
        path,
        micrograph_names=["a"],
        coordinates=np.zeros((1, 2)),
        pixel_size=2,
        optics=optics,
    )
    again = read_particles(path).optics
    assert again is not None
    assert again["rlnMicrographPixelSize"][0] == 2
    for column in sizes:
        assert again[column][0] == written.get(column, 2)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "no such file"),
        ("", "no table"),
        ("nothing of the kind\n", "no table"),
        ("data_particles\n\nloop_\n_rlnCoordinateX #1\n1.0\n", "rlnCoordinateY"),
        (
            "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n",
            "rlnMicrographName",
        ),
        (
            "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 abc\n",
            "numbers in rlnCoordinateY",
        ),
        (
            "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 nan\n",
            "finite rlnCoordinateY",
        ),
        ("data_a\n\n_b 1\n\ndata_c\n\n_d 1\n", "data_particles"),
        (
            "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
            "1 2 3 4\n1 2\n",
            "a STAR file",
        ),
    ],
)
def test_read_particles__bad_file(
    tmp_path: Path, content: str | None, found: str
) -> None:
    path = tmp_path / "bad.star"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=found) as error:
        read_particles(path)
    one_line(error, path)


def test_read_particles__folder_and_bytes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder"):
        read_particles(tmp_path)
    with pytest.raises(InputError, match="a STAR file"):
        read_particles(filled(tmp_path / "a.star", bytes(range(256))))


AWKWARD_NAMES = [
    "plain.mrc",
    "MotionCorr/job002/grid 2/mic 1.mrc",
    "it's one.mrc",
    "' one.mrc",
    'say "a" b.mrc',
    "#1.mrc",
    "a #1.mrc",
    "a#1.mrc",
    "tab\tbed.mrc",
    "data_1.mrc",
    "loop_",
    "_1.mrc",
    "$1.mrc",
    "000001@stack.mrcs",
    "0001",
    "nan",
    "<NA>",
    "",
    "\N{LATIN SMALL LETTER E WITH ACUTE}\N{NO-BREAK SPACE}\N{LINE SEPARATOR}.mrc",
    os.fsdecode(b"caf\xe9.mrc"),
]


def names_read_back(folder: Path, names: list[str]) -> list[str]:
    path = folder / "names.star"
    write_particles(
        path,
        micrograph_names=names,
        coordinates=np.zeros((len(names), 2)),
        pixel_size=1.0,
    )
    return list(read_particles(path).particles["rlnMicrographName"])


def test_write_particles__names_read_back(tmp_path: Path) -> None:
    assert names_read_back(tmp_path, AWKWARD_NAMES) == AWKWARD_NAMES
    assert names_read_back(tmp_path, []) == []


@given(st.lists(st.text("ad_t #'\"\t\n\r$;[1.\u00e9\udce9", max_size=9), max_size=4))
def test_write_particles__any_names_read_back_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    read, line = names, f"{folder / 'names.star'}: expected names without"
    try:
        read = names_read_back(folder, names)
    except InputError as error:
        line = str(error)
    assert read == names
    assert line.startswith(f"{folder / 'names.star'}: expected names without")


def test_read_tables__rows_that_look_like_tables(tmp_path: Path) -> None:
    text = (
        "data_optics\n_rlnOpticsGroup 1 # the only one\n_rlnVoltage 300\n"
        "data_micrographs\nloop_\n_rlnMicrographName #1\n"
        "data_1.mrc\n# a comment\ndata_2.mrc # and another\n\n"
        "data_empty\n\nloop_\n_rlnA #1\n_rlnB #2\n\n"
        "data_\n\nloop_\n_rlnX\n_rlnY\n1 nan\ndata_3.mrc 4\n"
    )
    for ends in ("\n", "\r\n", "\r"):
        content = text.replace("\n", ends).encode("utf-8-sig")
        tables = read_tables(filled(tmp_path / "a.star", content))
        assert {name: table.shape for name, table in tables.items()} == {
            "optics": (1, 2),
            "micrographs": (2, 1),
            "empty": (0, 2),
            "": (2, 2),
        }
        names = list(tables["micrographs"]["rlnMicrographName"])
        assert names == ["data_1.mrc", "data_2.mrc"]


def test_read_tables__bytes_that_are_not_utf8(tmp_path: Path) -> None:
    content = b"data_\xff\nloop_\n_a\xff\n_b\nx\xff 2\n"
    (table,) = read_tables(filled(tmp_path / "a.star", content)).values()
    assert list(table.columns) == ["a\N{REPLACEMENT CHARACTER}", "b"]
    assert table.iloc[0].tolist() == ["x\udcff", 2]


def test_fsc__round_trip(tmp_path: Path) -> None:
    path = tmp_path / "fsc.star"
    fsc = np.array([1.0, 0.98, 0.5, 0.143, -0.01, 0.0])
    write_fsc(path, fsc, voxel_size=2.0, size=11)
    frequency, read = read_fsc(path)
    np.testing.assert_allclose(read, fsc)
    np.testing.assert_allclose(frequency, np.arange(6) / 22, rtol=1e-8)
    text = path.read_text()
    for name in ("rlnSpectralIndex", "rlnAngstromResolution"):
        assert f"_{name}" in text
    table = starfile.read(path)
    np.testing.assert_allclose(table["rlnFourierShellCorrelationUnmaskedMaps"], fsc)
    assert "rlnFourierShellCorrelationCorrected" not in table
    write_fsc(path, fsc, 2.0, 11, masked=fsc / 2, randomized=fsc / 3, corrected=fsc / 4)
    table = starfile.read(path)
    for name, share in (
        ("FourierShellCorrelationMaskedMaps", 2),
        ("CorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps", 3),
        ("FourierShellCorrelationCorrected", 4),
    ):
        np.testing.assert_allclose(table[f"rln{name}"], fsc / share, atol=1e-9)
    np.testing.assert_allclose(read_fsc(path)[1], fsc)
    with pytest.raises(InputError, match="data_fsc"):
        read_fsc(filled(tmp_path / "a.star", b"data_x\n\n_rlnA 1\n"))


# Fourier cropping


def blob(size: int, width: int, ndim: int) -> np.ndarray:
    """Gaussian of deviation ``1 / width`` of the field of view, 1 at the centre."""
    places = (np.arange(size) - size // 2) / size
    profile = np.exp(-0.5 * (places * width) ** 2)
    result = profile
    for _ in range(ndim - 1):
        result = np.multiply.outer(result, profile)
    return result


@pytest.mark.parametrize("before", [40, 41])
@pytest.mark.parametrize("after", [30, 31])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_fourier_crop__keeps_a_blob_centred(before: int, after: int, ndim: int) -> None:
    cropped = fourier_crop(blob(before, 12, ndim), after)
    # The blob's transform is below 1e-6 of its peak beyond the new Nyquist.
    np.testing.assert_allclose(cropped, blob(after, 12, ndim), atol=2e-5)


@pytest.mark.parametrize("shape", [(12, 17), (13, 16)])
@pytest.mark.parametrize("target", [(6, 8), (7, 8), (5, 9), (12, 4)])
def test_fourier_crop__mean_linearity_and_type(
    shape: tuple[int, int], target: tuple[int, int], generator: np.random.Generator
) -> None:
    image = generator.standard_normal(shape)
    cropped = fourier_crop(image, target)
    assert cropped.shape == target
    assert np.isrealobj(cropped)
    assert cropped.mean() == pytest.approx(image.mean(), abs=1e-12)
    single = fourier_crop(image.astype(np.float32), target)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, cropped, atol=1e-5)


@pytest.mark.parametrize("before", [12, 13])
def test_fourier_crop__matches_numpy_on_odd_targets(
    before: int, generator: np.random.Generator
) -> None:
    image = generator.standard_normal((before, before))
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))
    inside = slice(before // 2 - 3, before // 2 + 4)
    small = np.fft.ifft2(np.fft.ifftshift(spectrum[inside, inside]))
    naive = np.fft.fftshift(small).real * (7 / before) ** 2
    np.testing.assert_allclose(fourier_crop(image, 7), naive, atol=1e-12)


@pytest.mark.parametrize("target", [13, 0, (4, 4, 4), (4, 20)])
def test_fourier_crop__bad_size(target: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="size"):
        fourier_crop(np.zeros((12, 12)), target)


# Coordinates of other pickers


def test_boxes__round_trip(tmp_path: Path) -> None:
    path = tmp_path / "picks.box"
    centres = np.array([[10, 20], [3, 4], [300.4, 7.6]])
    for side in (12, 13):
        write_boxes(path, centres, side)
        found, sides = read_boxes(path)
        np.testing.assert_array_equal(found, np.rint(centres))
        np.testing.assert_array_equal(sides, np.full((3, 2), side))
    assert path.read_text().splitlines()[0].split() == ["14", "4", "13", "13"]
    write_boxes(path, np.empty((0, 2)), 12)
    assert len(read_boxes(path)[0]) == 0


def test_topaz__round_trip(tmp_path: Path) -> None:
    path = tmp_path / "picks.txt"
    centres, scores = np.array([[10, 20], [3.2, 4.9]]), np.array([0.5, 1e-7])
    write_topaz(path, ["one.mrc", "000002@two.mrcs"], centres, scores)
    names, found, read = read_topaz(path)
    assert names == ["one", "000002@two"]
    np.testing.assert_array_equal(found, np.rint(centres))
    np.testing.assert_allclose(read, scores)
    first = path.read_text().splitlines()[1].split("\t")
    assert first[:3] == ["one", "20", "10"]


@pytest.mark.parametrize("name", [*AWKWARD_NAMES, "two\nlines", "a\rb"])
def test_topaz__names_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "picks.txt"
    stem = name.rpartition("/")[2].removesuffix(".mrc").removesuffix(".mrcs")
    write_topaz(path, [name, "other.mrc"], np.ones((2, 2)), np.ones(2))
    assert read_topaz(path)[0] == [stem, "other"]


def test_topaz__one_name_for_each_micrograph(tmp_path: Path) -> None:
    path = tmp_path / "picks.txt"
    for names, written in (
        (["a/m.mrc", "b/m.mrc"], ["a/m", "b/m"]),
        (["m.mrc", "m.tif"], ["m.mrc", "m.tif"]),
        (["m.mrc.gz", "m.1.mrc"], ["m", "m.1"]),
        (["000001@a/m.mrcs", "000002@a/m.mrcs"], ["000001@m", "000002@m"]),
    ):
        write_topaz(path, names, np.ones((2, 2)), np.ones(2))
        assert read_topaz(path)[0] == written


@pytest.mark.parametrize(
    "text",
    [
        "image_name\tx_coord\ty_coord\na 1\t20\t10\n",
        "image_name\tx_coord\ty_coord\tscore\r\na 1\t20\t10\t0.5\r\n\r\n",
        "score\ty_coord\tx_coord\timage_name\tsplit\n0.5\t10\t20\ta 1\ttrain\n",
        "image_name,x_coord,y_coord\na 1,20,10\n",
        "image_name x_coord y_coord\na 1 20 10\n",
    ],
)
def test_topaz__labels_and_other_tables(tmp_path: Path, text: str) -> None:
    names, centres, scores = read_topaz(filled(tmp_path / "a.txt", text.encode()))
    assert names == ["a 1"]
    np.testing.assert_array_equal(centres, [[10, 20]])
    np.testing.assert_array_equal(scores, [0.5 if "score" in text else np.nan])


@pytest.mark.parametrize(
    ("read", "content", "found"),
    [
        (read_boxes, None, "FileNotFoundError"),
        (read_boxes, b"1 2 3\n", "line 1: expected x, y, width and height"),
        (read_boxes, b"1 2 3 4\n\n1 b 3 4\n", "line 3"),
        (read_boxes, b"1 2 nan 4\n", "line 1"),
        (read_boxes, b"\xff\xfe", "line 1: expected x, y, width and height"),
        (read_topaz, None, "FileNotFoundError"),
        (read_topaz, b"", "an empty file"),
        (read_topaz, b"name x y\n", "columns image_name x_coord y_coord, found"),
        (read_topaz, b"image_name x_coord y_coord score\na 1 2\n", "line 2"),
        (read_topaz, b"image_name x_coord y_coord score\na 1 2 high\n", "line 2"),
        (read_topaz, b"image_name\tx_coord\ty_coord\na\t1\n", "line 2"),
        (read_topaz, b"image_name\tx_coord\ty_coord\na\tnan\t1\n", "finite"),
    ],
)
def test_coordinates__bad_file(
    tmp_path: Path,
    read: Callable[[Path], object],
    content: bytes | None,
    found: str,
) -> None:
    path = tmp_path / "bad.box"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=found) as error:
        read(path)
    one_line(error, path)


# ChimeraX


def test_otsu_threshold__agrees_with_a_fine_histogram() -> None:
    generator = np.random.default_rng(2)
    values = np.append(generator.normal(0, 1, 9000), generator.normal(5, 1, 1500))
    assert otsu_threshold(values) == pytest.approx(threshold_otsu(values, 4096), 1e-2)


def test_surface_level__parts_a_bright_body_from_the_rest() -> None:
    offset = np.arange(15) - 7
    radius = np.sqrt(np.add.outer(np.add.outer(offset**2, offset**2), offset**2))
    body = radius < 4
    noise = 0.1 * np.random.default_rng(0).standard_normal(body.shape)
    level = surface_level(3 * body + noise)
    assert 0.5 < level < 2.5
    # corners of the cube, where the basis does as it likes, do not count
    assert surface_level(3 * body + noise - 50.0 * (radius > 7)) == level


def test_chimerax_script__opens_the_map_and_hides_the_halves(tmp_path: Path) -> None:
    path = tmp_path / "volume.cxc"
    write_chimerax_script(path, VOLUME, "volume.mrc", ["a.mrc", "b.mrc"])
    lines = path.read_text().splitlines()
    opened = [line.split()[1] for line in lines if line.startswith("open ")]
    assert opened == ["volume.mrc", "a.mrc", "b.mrc"]
    assert [line for line in lines if line.startswith("hide")] == [
        "hide #2 models",
        "hide #3 models",
    ]
    (shown,) = (line for line in lines if line.startswith("volume #1 "))
    assert float(shown.split()[-1]) == pytest.approx(surface_level(VOLUME), rel=1e-5)
