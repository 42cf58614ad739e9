"""Picks and maps as RELION takes them up, by the rules that its source states.

``relion_preprocess --extract --reextract_data_star`` reads picks beside the list of
micrographs; ``relion_refine --ref`` reads a map. The rules are written out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from numpy.typing import NDArray

from numbasaem import cli
from numbasaem.io.mrc import read_micrographs, write_micrograph, write_volume
from numbasaem.simulation.scene import simulate
from numbasaem.volume.phantom import folded_chain

SIZE = 11
PIXEL_SIZE = 2.5
BOX = 16
NEEDED_OF_OPTICS = (
    "rlnOpticsGroup",
    "rlnOpticsGroupName",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnMicrographPixelSize",
)
LISTED = """\
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
krios 1 1.25 300.0 2.7 0.1 2.5
talos 2 1.25 200.0 2.7 0.1 2.5


data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
MotionCorr/job002/Movies/a.mrc 2
MotionCorr/job002/Movies/b.mrc 1
"""


def windows(
    image: NDArray[np.float32], rows: pd.DataFrame, box: int
) -> NDArray[np.float64]:
    """Boxes as RELION cuts them: coordinates lose their fractions; pixel box // 2 is
    the particle's.
    """
    x = rows["rlnCoordinateX"].to_numpy(np.float64).astype(int)
    y = rows["rlnCoordinateY"].to_numpy(np.float64).astype(int)
    first = -(box // 2)
    padded = np.pad(image.astype(np.float64), box)
    corners = zip(y + first + box, x + first + box, strict=True)
    return np.array([padded[j : j + box, i : i + box] for j, i in corners])


@dataclass(frozen=True)
class Project:
    """A project of RELION with picks, and where particles are."""

    folder: Path
    optics: pd.DataFrame
    particles: pd.DataFrame
    truth: Mapping[str, NDArray[np.floating]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    place = folder / "MotionCorr" / "job002" / "Movies"
    place.mkdir(parents=True)
    scene = simulate(folded_chain(SIZE), size=SIZE, pixels=160, snr=30, micrographs=2)
    truth = {}
    for name, micrograph, particles in zip(
        "ab", scene.micrographs, scene.coordinates, strict=True
    ):
        write_micrograph(place / f"{name}.mrc", micrograph, 7.0)
        truth[f"MotionCorr/job002/Movies/{name}.mrc"] = particles
    write_volume(folder / "map.mrc", scene.volume_true, PIXEL_SIZE)
    (folder / "micrographs_ctf.star").write_text(LISTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        line = "pick micrographs_ctf.star --volume map.mrc --out picks.star"
        assert cli.main(line.split()) == 0
    tables = starfile.read(folder / "picks.star", always_dict=True)
    assert set(tables) == {"optics", "particles"}
    return Project(folder, tables["optics"], tables["particles"], truth)


def test_picks__have_all_that_extraction_asks_for(project: Project) -> None:
    for column in NEEDED_OF_OPTICS:
        assert column in project.optics
    # groups go by their names, micrographs by theirs, relative to the project
    listed = starfile.read(project.folder / "micrographs_ctf.star", always_dict=True)
    pd.testing.assert_frame_equal(
        project.optics, listed["optics"], check_dtype=False, check_like=True
    )
    micrographs = listed["micrographs"]
    names = set(project.particles["rlnMicrographName"])
    assert names == set(micrographs["rlnMicrographName"])
    groups = dict(
        zip(
            micrographs["rlnMicrographName"], micrographs["rlnOpticsGroup"], strict=True
        )
    )
    for name, group in zip(
        project.particles["rlnMicrographName"],
        project.particles["rlnOpticsGroup"],
        strict=True,
    ):
        assert (project.folder / name).exists()
        assert group == groups[name]
    for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
        assert np.isfinite(project.particles[column]).all()


def test_picks__are_cut_out_with_the_particle_in_the_middle(project: Project) -> None:
    for name, truth in project.truth.items():
        rows = project.particles[project.particles["rlnMicrographName"] == name]
        centres = rows[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy().astype(int)
        away = np.abs(centres[:, None] - truth[None]).max(axis=2).min(axis=1)
        assert np.mean(away <= 1) > 0.7
        (image,), _ = read_micrographs(project.folder / name)
        mean = windows(image, rows[away <= 1], BOX).mean(axis=0)
        mean = np.clip(mean - np.quantile(mean, 0.6), 0, None)
        places = np.indices(mean.shape).reshape(2, -1)
        middle = (places * mean.ravel()).sum(axis=1) / mean.sum()
        np.testing.assert_allclose(middle, BOX // 2, atol=0.7)


def test_picks__state_the_pixel_size_that_was_given(project: Project) -> None:
    """A size that overrules the list is the one of the coordinates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        line = (
            "pick micrographs_ctf.star --volume map.mrc --out given.star "
            f"--pixel-size {1.001 * PIXEL_SIZE}"
        )
        assert cli.main(line.split()) == 0
    optics = starfile.read(project.folder / "given.star")["optics"]
    np.testing.assert_allclose(optics["rlnMicrographPixelSize"], 1.001 * PIXEL_SIZE)
    original = optics["rlnMicrographOriginalPixelSize"]
    np.testing.assert_allclose(original, 1.001 * PIXEL_SIZE / 2)
    assert list(optics["rlnVoltage"]) == [300, 200]


def test_map__is_a_reference(project: Project) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        line = (
            "reconstruct micrographs_ctf.star --out run --size 11 --ell-max 4 "
            "--iterations 3 --rotations 60 --starts 1 --no-halves --no-report"
        )
        assert cli.main(line.split()) == 0
    raw = (project.folder / "run" / "volume.mrc").read_bytes()[:1024]
    words, floats = np.frombuffer(raw, "<i4"), np.frombuffer(raw, "<f4")
    assert list(words[:4]) == [SIZE, SIZE, SIZE, 2]  # float32
    assert list(words[4:7]) == [0, 0, 0]  # begins at the first voxel
    assert list(words[7:10]) == [SIZE, SIZE, SIZE]
    np.testing.assert_allclose(floats[10:13] / words[7:10], PIXEL_SIZE, atol=1e-3)
    assert list(words[16:19]) == [1, 2, 3]  # x is fastest
    assert words[23] == 0  # no extended header to step over
    assert raw[208:214] == b"MAP \x44\x44"
    with mrcfile.open(project.folder / "run" / "volume.mrc") as file:
        volume = file.data.astype(np.float64)
    # bright, and within the ball about voxel size // 2, where RELION has its origin
    places = np.indices(volume.shape) - SIZE // 2
    inside = (places**2).sum(axis=0) <= (SIZE // 2) ** 2
    assert volume[inside].mean() > 0
    assert (volume[inside] ** 2).sum() > 0.95 * (volume**2).sum()
