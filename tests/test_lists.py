"""Lists of micrographs of all versions: what is read, what is refused in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numbasaem.errors import InputError, RunWarning
from numbasaem.io.micrograph_tables import (
    MicrographTable,
    read_micrograph_table,
    write_micrograph_table,
)
from numbasaem.io.mrc import write_micrograph
from numbasaem.io.star import write_tables
from numbasaem.micrographs.sources import list_micrographs
from tests.helpers import noise, refusal

CTF = {
    "defocus_u": 12_000.0,
    "defocus_v": 11_800.0,
    "defocus_angle": 30.0,
    "voltage": 300.0,
    "spherical_aberration": 2.7,
    "amplitude_contrast": 0.1,
}
OF_ROW: dict[str, object] = {
    "rlnDefocusU": 12_000.0,
    "rlnDefocusV": 11_800.0,
    "rlnDefocusAngle": 30.0,
}
OF_MICROSCOPE: dict[str, object] = {
    "rlnVoltage": 300.0,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
}
OF_PIXELS: dict[str, object] = {"rlnMicrographPixelSize": 1.25}
OF_DETECTOR: dict[str, object] = {
    "rlnMagnification": 40_000.0,
    "rlnDetectorPixelSize": 5.0,
}


def loop(name: str, rows: Sequence[Mapping[str, object]]) -> str:
    """A table as RELION writes it."""
    labels = "".join(f"_{label} #{n}\n" for n, label in enumerate(rows[0], start=1))
    values = "".join(" ".join(map(str, row.values())) + " \n" for row in rows)
    return f"\ndata_{name}\n\nloop_ \n{labels}{values}\n"


def names(count: int) -> list[dict[str, object]]:
    return [{"rlnMicrographName": f"Micrographs/m{n}.mrc"} for n in range(count)]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "micrographs_ctf.star"
    path.write_bytes(text.encode())
    return path


# --- versions ----------------------------------------------------------------------


def test_list__relion_30(tmp_path: Path) -> None:
    rows = [row | OF_ROW | OF_MICROSCOPE | OF_DETECTOR for row in names(2)]
    table = read_micrograph_table(written(tmp_path, loop("", rows)))
    assert list(table.micrographs["rlnMicrographName"]) == [
        "Micrographs/m0.mrc",
        "Micrographs/m1.mrc",
    ]
    assert table.pixel_sizes == [1.25, 1.25]
    assert table.ctf_parameters == [CTF, CTF]
    # as later versions have it, for tables of picks
    assert list(table.micrographs["rlnOpticsGroup"]) == [1, 1]
    assert table.optics is not None
    assert table.optics.iloc[0].to_dict() == OF_MICROSCOPE | {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnMicrographPixelSize": 1.25,
        "rlnMicrographOriginalPixelSize": 1.25,
    }


def test_list__relion_30_of_two_microscopes(tmp_path: Path) -> None:
    rows = [row | OF_ROW | OF_MICROSCOPE | OF_DETECTOR for row in names(3)]
    rows[1] |= {"rlnVoltage": 200.0}
    table = read_micrograph_table(written(tmp_path, loop("micrographs", rows)))
    assert list(table.micrographs["rlnOpticsGroup"]) == [1, 2, 1]
    assert table.optics is not None
    assert list(table.optics["rlnVoltage"]) == [300, 200]


def test_list__of_movies_pixels(tmp_path: Path) -> None:
    """The movie's pixel size is told from the micrograph's, row by row."""
    original = {"rlnMicrographOriginalPixelSize": 0.5}
    rows = [row | original for row in names(2)]
    table = read_micrograph_table(written(tmp_path, loop("", rows)))
    assert (table.pixel_sizes, table.before_binning) == ([0.5] * 2, [True] * 2)
    assert table.optics is not None
    assert table.optics.iloc[0].to_dict() == original | {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
    }
    for others in ({"rlnMicrographPixelSize": 1.25}, OF_DETECTOR):
        both = [rows[0] | dict.fromkeys(others, "nan"), rows[1] | others]
        table = read_micrograph_table(written(tmp_path, loop("", both)))
        assert table.pixel_sizes == [0.5, 1.25]
        assert table.before_binning == [True, False]


@pytest.mark.parametrize("name", ["", "micrographs", "images"])
def test_list__of_names_alone(tmp_path: Path, name: str) -> None:
    table = read_micrograph_table(written(tmp_path, loop(name, names(2))))
    assert table.pixel_sizes == [None, None]
    assert table.ctf_parameters == ["no column rlnDefocusU"] * 2
    assert table.optics is None
    assert list(table.micrographs["rlnOpticsGroup"]) == [1, 1]


@pytest.mark.parametrize("of_optics", [{}, OF_PIXELS, OF_MICROSCOPE, OF_DETECTOR])
def test_list__columns_in_either_table(
    tmp_path: Path, of_optics: dict[str, object]
) -> None:
    everything = OF_ROW | OF_MICROSCOPE | OF_PIXELS
    if of_optics is OF_DETECTOR:
        everything.pop("rlnMicrographPixelSize")
    of_row = {k: v for k, v in everything.items() if k not in of_optics}
    optics = loop("optics", [{"rlnOpticsGroup": 3} | of_optics])
    rows = [row | {"rlnOpticsGroup": 3} | of_row for row in names(2)]
    table = read_micrograph_table(written(tmp_path, optics + loop("micrographs", rows)))
    assert table.pixel_sizes == [1.25, 1.25]
    assert table.ctf_parameters == [CTF, CTF]


def test_list__one_group_needs_no_number(tmp_path: Path) -> None:
    text = loop("optics", [OF_PIXELS | OF_MICROSCOPE])
    text += loop("micrographs", [row | OF_ROW for row in names(2)])
    table = read_micrograph_table(written(tmp_path, text))
    assert list(table.micrographs["rlnOpticsGroup"]) == [1, 1]
    assert table.ctf_parameters == [CTF, CTF]


def test_list__several_groups_need_one(tmp_path: Path) -> None:
    optics = [{"rlnOpticsGroup": n} | OF_PIXELS for n in (1, 2)]
    text = loop("optics", optics) + loop("micrographs", names(2))
    line = refusal(read_micrograph_table, written(tmp_path, text))
    assert "expected a column rlnOpticsGroup" in line


# --- values that cannot be used ----------------------------------------------------


@pytest.mark.parametrize("value", ["nan", "inf", "far", "<NA>"])
def test_list__one_row_without_its_lens(tmp_path: Path, value: str) -> None:
    rows = [row | OF_ROW | OF_MICROSCOPE | OF_PIXELS for row in names(3)]
    rows[1]["rlnDefocusV"] = value
    table = read_micrograph_table(written(tmp_path, loop("", rows)))
    first, second, third = table.ctf_parameters
    assert first == third == CTF
    assert isinstance(second, str)
    assert second.startswith("rlnDefocusV ")
    assert second.endswith(" in row 2")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "wide"])
def test_list__pixel_size_that_cannot_be(tmp_path: Path, value: str) -> None:
    rows = [row | {"rlnMicrographPixelSize": 1.25} for row in names(2)]
    rows[1]["rlnMicrographPixelSize"] = value
    path = written(tmp_path, loop("", rows))
    with pytest.warns(RunWarning, match="no pixel size above 0 in row 2") as told:
        assert read_micrograph_table(path).pixel_sizes == [1.25, None]
    assert len(told) == 1


def test_list__no_magnification(tmp_path: Path) -> None:
    rows = [row | OF_DETECTOR for row in names(2)]
    rows[0]["rlnMagnification"] = 0
    path = written(tmp_path, loop("", rows))
    with pytest.warns(RunWarning, match="no pixel size above 0 in row 1"):
        assert read_micrograph_table(path).pixel_sizes == [None, 1.25]


def test_list__of_movies_or_particles(tmp_path: Path) -> None:
    movies = [{"rlnMicrographMovieName": "Movies/a.tif"}]
    line = refusal(read_micrograph_table, written(tmp_path, loop("movies", movies)))
    assert "one table of micrographs" in line
    assert "data_movies" in line
    particles = [row | {"rlnImageName": "1@a.mrcs"} for row in names(2)]
    path = written(tmp_path, loop("particles", particles))
    assert "particles in data_particles" in refusal(read_micrograph_table, path)


def test_list__of_nothing(tmp_path: Path) -> None:
    text = "data_micrographs\n\nloop_\n_rlnMicrographName #1\n\n"
    path = written(tmp_path, text)
    line = refusal(read_micrograph_table, path)
    assert line == f"{path}: expected at least one micrograph, found none"


@pytest.mark.parametrize("column", ["rlnMicrographName", "rlnVoltage"])
def test_list__column_twice(tmp_path: Path, column: str) -> None:
    rows = [row | OF_ROW | OF_MICROSCOPE for row in names(2)]
    text = loop("", rows).replace("_rlnDefocusAngle", f"_{column}")
    path = written(tmp_path, text)
    line = refusal(read_micrograph_table, path)
    assert line == f"{path}: expected one column {column} in data_, found two"


def test_list__group_in_one_row_without_a_loop(tmp_path: Path) -> None:
    optics = "data_optics\n\n_rlnOpticsGroup 1\n_rlnVoltage 300\n\n"
    rows = [row | {"rlnOpticsGroup": 1} | OF_ROW for row in names(1)]
    table = read_micrograph_table(written(tmp_path, optics + loop("a", rows)))
    (parameters,) = table.ctf_parameters
    assert isinstance(parameters, dict)
    assert parameters["voltage"] == 300


# --- properties --------------------------------------------------------------------

COLUMNS = OF_ROW | OF_MICROSCOPE | OF_PIXELS | OF_DETECTOR
SAFE = st.text("abcXYZ0189_-./", min_size=1, max_size=12).map(lambda s: f"M/{s}.mrc")
ANY = st.text(
    st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8
).map(lambda s: s + ".mrc")
NUMBERS = st.one_of(
    st.floats(1e-3, 1e6).map(lambda v: f"{v:.6g}"),
    st.sampled_from(["nan", "0", "-1", "inf", "none", "1e4", "+3.0", "007"]),
)


@st.composite
def lists(draw: st.DrawFn, of_names: st.SearchStrategy[str]) -> str:
    """A list of any version, its columns in any order and in either table."""
    count = draw(st.integers(1, 4))
    columns = draw(st.permutations([*COLUMNS, "rlnCtfMaxResolution"]))
    columns = columns[: draw(st.integers(0, len(columns)))]
    has_optics = draw(st.booleans())
    of_optics = [c for c in columns if has_optics and draw(st.booleans())]
    n_groups = draw(st.integers(1, 2))
    rows: list[dict[str, str]] = []
    for name in draw(st.lists(of_names, min_size=count, max_size=count, unique=True)):
        row = {c: draw(NUMBERS) for c in columns if c not in of_optics}
        row["rlnMicrographName"] = name
        if has_optics and (n_groups > 1 or draw(st.booleans())):
            row["rlnOpticsGroup"] = str(draw(st.integers(1, n_groups)))
        order = draw(st.permutations(list(row)))
        rows.append({c: row[c] for c in (rows[0] if rows else order) if c in row})
    text = ""
    if has_optics:
        optics = [
            {"rlnOpticsGroup": str(n + 1)} | {c: draw(NUMBERS) for c in of_optics}
            for n in range(n_groups)
        ]
        text = loop("optics", optics)
    name = draw(st.sampled_from(["", "micrographs", "images"]))
    text = draw(st.sampled_from(["", "# version 30001\n"])) + text + loop(name, rows)
    if draw(st.booleans()):
        text = text.replace(" #", " # ")
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return text.replace("\n", end)


def read_or_refused(path: Path) -> MicrographTable | None:
    """The list, or None if one line says what is wrong with it."""
    try:
        return read_micrograph_table(path)
    except InputError as error:
        line = str(error)
    assert line.startswith(str(path))
    assert ": expected " in line
    assert len(line.splitlines()) == 1
    return None


def same(first: MicrographTable, second: MicrographTable) -> None:
    """See that two lists say the same."""
    for column in ("rlnMicrographName", "rlnOpticsGroup"):
        assert list(first.micrographs[column]) == list(second.micrographs[column])
    assert first.pixel_sizes == pytest.approx(second.pixel_sizes)
    pairs = zip(first.ctf_parameters, second.ctf_parameters, strict=True)
    for parameters, others in pairs:
        if isinstance(parameters, str):
            assert parameters == others
        else:
            assert parameters == pytest.approx(others)


@pytest.mark.filterwarnings("ignore:.*no pixel size above 0")
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lists(SAFE))
def test_list__reads_writes_and_reads_again(tmp_path: Path, text: str) -> None:
    table = read_or_refused(written(tmp_path, text))
    if table is None:
        return
    again = tmp_path / "again.star"
    tables = {"micrographs": table.micrographs}
    if table.optics is not None:
        tables = {"optics": table.optics} | tables
    write_tables(again, tables)
    same(read_micrograph_table(again), table)


@pytest.mark.filterwarnings("ignore:.*no pixel size above 0")
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lists(ANY))
def test_list__with_any_name_is_read_or_refused(tmp_path: Path, text: str) -> None:
    read_or_refused(written(tmp_path, text))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(SAFE, min_size=1, max_size=4, unique=True),
    st.floats(0.1, 20),
    st.floats(-180, 180),
)
def test_list__of_ours_is_read(
    tmp_path: Path, found: list[str], pixel_size: float, angle: float
) -> None:
    path = tmp_path / "micrographs.star"
    parameters = CTF | {"defocus_angle": angle, "phase_shift": 0.0, "b_factor": 10.0}
    write_micrograph_table(path, found, pixel_size, [parameters] * len(found))
    table = read_micrograph_table(path)
    assert list(table.micrographs["rlnMicrographName"]) == found
    np.testing.assert_allclose(table.pixel_sizes, pixel_size)  # type: ignore[arg-type]
    for row in table.ctf_parameters:
        assert row == pytest.approx(parameters)


# --- on to the commands ------------------------------------------------------------


def test_list_micrographs__relion_30(tmp_path: Path) -> None:
    (tmp_path / "Micrographs").mkdir()
    for number in range(2):
        path = tmp_path / "Micrographs" / f"m{number}.mrc"
        write_micrograph(path, noise(12, 17, seed=3), 3.0)
    rows = [row | OF_ROW | OF_MICROSCOPE | OF_DETECTOR for row in names(2)]
    rows[1]["rlnDefocusU"] = "nan"
    first, second = list_micrographs([written(tmp_path, loop("", rows))]).files
    assert first.listed_pixel_size == second.listed_pixel_size == 1.25
    assert first.ctf is not None
    assert first.ctf.voltage == 300
    assert (second.ctf, second.ctf_fault) == (None, "rlnDefocusU nan in row 2")
