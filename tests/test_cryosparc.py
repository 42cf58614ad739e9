"""cryoSPARC's files: exposures as a list of micrographs, picks as particles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numbasaem import cli
from numbasaem.errors import InputError
from numbasaem.io.cryosparc import read_exposures, read_locations, write_locations
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.sources import list_micrographs
from numbasaem.picking.tables import check_table
from tests.helpers import noise, refusal

UIDS = np.array([2**63 + 5, 7, 12], np.uint64)
BLOB = {
    "micrograph_blob/path": np.array(
        [b">J2/motioncorrected/c.mrc", b"J2/motioncorrected/a.mrc", b"J2/b b.mrc"]
    ),
    "micrograph_blob/psize_A": np.full(3, 0.83, np.float32),
    "micrograph_blob/shape": np.full((3, 2), (12, 17), np.uint32),
    "mscope_params/accel_kv": np.full(3, 300, np.float32),
}
LENS = {
    "ctf/accel_kv": np.full(3, 300, np.float32),
    "ctf/cs_mm": np.full(3, 2.7, np.float32),
    "ctf/amp_contrast": np.full(3, 0.1, np.float32),
    "ctf/df1_A": np.array([12_000, 9_000, np.nan], np.float32),
    "ctf/df2_A": np.array([11_000, 8_500, 8_000], np.float32),
    "ctf/df_angle_rad": np.array([np.pi / 6, 0, 0], np.float32),
    "ctf/phase_shift_rad": np.array([np.pi / 2, 0, 0], np.float32),
}


def saved(path: Path, fields: dict[str, Any], uids: Any = UIDS) -> Path:
    """A file of these fields, as cryoSPARC writes it."""
    columns = {"uid": uids} | fields
    rows = np.zeros(
        len(uids), [(name, v.dtype, v.shape[1:]) for name, v in columns.items()]
    )
    for name, values in columns.items():
        rows[name] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.save(stream, rows)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with three micrographs, their job's output and its passthrough."""
    for name in BLOB["micrograph_blob/path"]:
        path = tmp_path / name.decode().removeprefix(">")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(path, noise(12, 17, seed=3), 3.0)
    saved(tmp_path / "J3" / "exposures_ctf_estimated.cs", LENS)
    order = [2, 0, 1]
    beside = {name: values[order] for name, values in BLOB.items()}
    saved(tmp_path / "J3" / "J3_passthrough_exposures.cs", beside, UIDS[order])
    return tmp_path


@pytest.mark.parametrize("both", [False, True])
def test_exposures__are_a_list_of_micrographs(project: Path, both: bool) -> None:
    own = project / "J3" / "exposures_ctf_estimated.cs"
    sources = [own, project / "J3" / "J3_passthrough_exposures.cs"]
    listed = list_micrographs(sources if both else [own])
    assert [file.name for file in listed.files] == [
        "J2/motioncorrected/c.mrc",
        "J2/motioncorrected/a.mrc",
        "J2/b b.mrc",
    ]
    assert all(file.path.exists() for file in listed.files)
    assert [file.listed_pixel_size for file in listed.files] == [0.83] * 3
    assert [file.uid for file in listed.files] == [int(uid) for uid in UIDS]
    first, second, third = listed.files
    assert first.ctf is not None
    assert first.ctf.voltage == 300
    assert first.ctf.spherical_aberration == 2.7
    assert first.ctf.defocus_u == 12_000
    assert first.ctf.defocus_v == 11_000
    assert first.ctf.defocus_angle == pytest.approx(30)
    assert first.ctf.phase_shift == pytest.approx(90)
    assert second.ctf is not None
    assert (third.ctf, third.ctf_fault) == (None, "rlnDefocusU nan in row 3")
    assert listed.optics is not None
    assert list(listed.optics["rlnMicrographPixelSize"]) == [0.83]


def test_exposures__passthrough_alone_has_no_lens(tmp_path: Path) -> None:
    path = saved(tmp_path / "J1" / "passthrough_exposures.cs", BLOB)
    table = read_exposures([path])
    assert table.pixel_sizes == [0.83] * 3
    assert table.ctf_parameters == ["no column rlnDefocusU"] * 3


def test_exposures__of_other_micrographs(project: Path) -> None:
    own = project / "J3" / "exposures_ctf_estimated.cs"
    other = saved(project / "other.cs", BLOB, UIDS + 1)
    line = refusal(list_micrographs, [own, other])
    assert line.startswith(f"{other}: expected all exposures of {own}")
    # beside it they are passed over
    (project / "J3" / "J3_passthrough_exposures.cs").unlink()
    saved(project / "J3" / "J3_passthrough_other.cs", BLOB, UIDS + 1)
    line = refusal(list_micrographs, [own])
    assert line.startswith(f"{own}: expected a field micrograph_blob/path")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "No such file"),
        (b"", "an array of NumPy"),
        (b"\x94CSDAT", "an array of NumPy"),
        (b"\x93NUMPY\x01\x00", "an array of NumPy"),
    ],
)
def test_exposures__damaged(tmp_path: Path, content: bytes | None, named: str) -> None:
    path = tmp_path / "exposures.cs"
    if content is not None:
        path.write_bytes(content)
    line = refusal(list_micrographs, [path])
    assert line.startswith(f"{path}: expected a file of cryoSPARC")
    assert named in line


def test_exposures__other_arrays(tmp_path: Path) -> None:
    path = tmp_path / "exposures.cs"
    for rows in (
        np.zeros(3),
        np.zeros(3, [("a", "f4")]),
        np.zeros((), [("uid", "u8")]),
    ):
        with path.open("wb") as stream:
            np.save(stream, rows)
        assert "rows with a uid" in refusal(list_micrographs, [path])
    with path.open("wb") as stream:
        np.save(stream, np.array([{}], object), allow_pickle=True)
    assert "an array of NumPy" in refusal(list_micrographs, [path])


def test_exposures__text_for_numbers(tmp_path: Path) -> None:
    fields = BLOB | {"ctf/df1_A": np.array([b"a", b"b", b"c"])}
    path = saved(tmp_path / "exposures.cs", fields)
    line = refusal(list_micrographs, [path])
    assert line.startswith(f"{path}: expected numbers in ctf/df1_A")


def test_exposures__stand_alone(project: Path) -> None:
    own = project / "J3" / "exposures_ctf_estimated.cs"
    line = refusal(list_micrographs, [own, project / "J2" / "b b.mrc"])
    assert "a list of micrographs on its own" in line


# --- particles ---------------------------------------------------------------------


def test_locations__round_trip(tmp_path: Path) -> None:
    path = tmp_path / "picks.cs"
    names = ["J2/a.mrc", "J2/a.mrc", "J2/longer name.mrc"]
    centres = np.array([[1.5, 2.25], [300.125, 40.0], [7.0, 123.456]])
    shapes = np.array([[400, 600]] * 2 + [[500, 300]])
    merit = np.array([0.5, 1e-9, 1.0])
    write_locations(
        path,
        micrograph_names=names,
        micrograph_uids=[int(UIDS[0])] * 2 + [None],
        micrograph_shapes=shapes,
        coordinates=centres,
        pixel_size=0.83,
        figure_of_merit=merit,
    )
    again, coordinates, scores = read_locations(path)
    np.testing.assert_allclose(scores, merit)
    assert again == names
    np.testing.assert_allclose(coordinates, centres, atol=1e-4)  # float32
    rows = np.load(path)
    assert len(set(rows["uid"])) == 3
    uids = rows["location/micrograph_uid"]
    assert list(uids[:2]) == [UIDS[0]] * 2
    assert uids[2] not in UIDS
    # a share of the width is x: cryoSPARC's shapes are rows and columns
    x = rows["location/center_x_frac"] * rows["location/micrograph_shape"][:, 1]
    np.testing.assert_allclose(x, centres[:, 1], atol=1e-4)
    np.testing.assert_allclose(rows["pick_stats/ncc_score"], merit)
    np.testing.assert_allclose(rows["location/micrograph_psize_A"], 0.83)


def test_locations__none(tmp_path: Path) -> None:
    path = tmp_path / "picks.cs"
    write_locations(
        path,
        micrograph_names=[],
        micrograph_uids=[],
        micrograph_shapes=np.empty((0, 2), int),
        coordinates=np.empty((0, 2)),
        pixel_size=1.0,
        figure_of_merit=np.empty(0),
    )
    names, coordinates, scores = read_locations(path)
    assert names == []
    assert scores.shape == (0,)
    assert coordinates.shape == (0, 2)


def test_locations__missing_field(tmp_path: Path) -> None:
    path = saved(tmp_path / "picks.cs", BLOB)
    with pytest.raises(InputError, match="a field location/center_y_frac"):
        read_locations(path)


def test_check_table__a_stack_has_no_file_of_each(tmp_path: Path) -> None:
    import mrcfile

    path = tmp_path / "stack.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(np.stack([noise(12, 17, seed=3)] * 2).astype(np.float32))
    line = refusal(check_table, tmp_path / "picks.cs", [path])
    assert f"found the stack {path}" in line


def test_pick__from_exposures_to_particles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same picks as STAR and as cryoSPARC's particles."""
    data = tmp_path / "S1"
    options = "--volume shepp-logan --size 11 --micrographs 1 --pixels 120 --snr 20"
    assert cli.main(f"simulate {data} {options}".split()) == 0
    name = np.array([b"S1/micrograph_0001.mrc"])
    fields = {"micrograph_blob/path": name}
    listed = saved(tmp_path / "J1" / "exposures.cs", fields, np.array([9], np.uint64))
    for suffix in ("cs", "star"):
        line = (
            f"pick {listed} --volume {data}/volume_true.mrc --out {tmp_path}/p.{suffix}"
        )
        assert cli.main(line.split()) == 0
    capsys.readouterr()
    line = f"evaluate {tmp_path}/p.cs {tmp_path}/p.star --tolerance 0.1"
    assert cli.main(line.split()) == 0
    assert "recall: 1.000" in capsys.readouterr().out
    particles = np.load(tmp_path / "p.cs")
    assert len(particles) > 1
    assert set(particles["location/micrograph_uid"]) == {9}
    assert set(particles["location/micrograph_path"]) == set(name)
    assert particles["location/micrograph_shape"].tolist()[0] == [120, 120]
