"""What a reconstruction is given: micrographs and settings, usable and not."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile

from numbasaem.errors import InputError, RunWarning
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.reading import list_inputs
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_data import PatchSet, load_patches
from numbasaem.reconstruction.journal import refuse_other_sources
from numbasaem.settings import Settings
from tests import helpers
from tests.helpers import noise

SIZE = 5


def load(*micrographs: Any, level: bool = False, **settings: Any) -> PatchSet:
    return load_patches(
        list_inputs(micrographs),
        Settings(size=SIZE, level=level, **settings),
        lambda *_: None,
    )


def refusal(*micrographs: object) -> str:
    line = helpers.refusal(load, *micrographs)
    assert "expected" in line
    return line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "good.mrc"
    write_micrograph(place, noise(23, 31), 2.5)
    return place


# --- micrographs that can be used --------------------------------------------------


def test_load_patches__arrays_and_files_alike(path: Path) -> None:
    data = load(noise(23, 31, seed=1), path)
    wanted = [cut_patches(noise(23, 31, seed=seed), SIZE) for seed in (1, 0)]
    assert data.patches.dtype == np.float32
    np.testing.assert_array_equal(data.patches, np.concatenate(wanted))
    np.testing.assert_array_equal(data.micrograph, np.repeat([0, 1], len(wanted[0])))
    assert data.pixel_size == 2.5


def test_load_patches__sources_name_and_fingerprint(path: Path) -> None:
    (array,), (one,) = load(noise(23, 31)).sources, load(path).sources
    assert array["name"] == "micrographs[0]"
    assert array["size"] == 4 * 23 * 31
    assert one["size"] == path.stat().st_size
    assert one["name"] == str(path.resolve())
    assert one["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    (same,) = load(noise(23, 31)).sources
    (other,) = load(noise(23, 31, seed=1)).sources
    assert same == array
    assert other["sha256"] != array["sha256"]


def test_load_patches__fingerprint_tells_shapes_apart() -> None:
    pixels = noise(20, 30)
    (first,) = load(pixels).sources
    (second,) = load(pixels.reshape(30, 20)).sources
    assert first != second


@pytest.mark.filterwarnings(
    "ignore:.*as given, in place of:numbasaem.errors.RunWarning"
)
def test_load_patches__a_stack_is_several_micrographs(tmp_path: Path) -> None:
    path = tmp_path / "stack.mrcs"
    stack = noise(3, 20, 20)
    with mrcfile.new(path) as file:
        file.set_data(stack)
    data = load(path, pixel_size=1.0)
    np.testing.assert_array_equal(np.bincount(data.micrograph), [16, 16, 16])
    np.testing.assert_array_equal(data.patches[16:32], cut_patches(stack[1], SIZE))


def test_load_patches__invert_changes_the_sign(path: Path) -> None:
    np.testing.assert_array_equal(load(path, invert=True).patches, -load(path).patches)


def test_load_patches__leaves_arrays_alone() -> None:
    pixels = noise(20, 20)
    pixels.flags.writeable = False
    load(pixels, invert=True)
    np.testing.assert_array_equal(pixels, noise(20, 20))


def test_load_patches__pixel_size_that_is_given_wins(path: Path) -> None:
    with pytest.warns(RunWarning, match="pixel size 1.5 A as given"):
        assert load(path, pixel_size=1.5).pixel_size == 1.5
    assert load(noise(20, 20)).pixel_size is None


def test_load_patches__reports_each_micrograph(path: Path) -> None:
    reports: list[tuple[str, float]] = []
    load_patches(
        list_inputs([path, noise(23, 31, seed=1)]),
        Settings(size=SIZE),
        lambda *report: reports.append(report),
    )
    assert reports == [("reading micrographs", 0.0), ("reading micrographs", 0.5)]


# --- the same micrograph twice -----------------------------------------------------


def copies(folder: Path) -> dict[str, Any]:
    """One micrograph in every disguise that a data set may hold it in."""
    image = np.round(20 * noise(60, 72))
    other = np.round(20 * noise(60, 72, seed=1))
    plain = folder / "plain.mrc"
    write_micrograph(plain, image, 1.0)
    (folder / "packed.mrc.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (folder / "linked.mrc").symlink_to(plain)
    tifffile.imwrite(folder / "tiff.tif", image[::-1].astype(np.int16))
    tifffile.imwrite(folder / "upside_down.tif", image.astype(np.int16))
    for name, numbers in (
        ("counts", image.astype(np.int16)),
        ("half", image.astype(np.float16)),
        ("bytes", np.clip(image / 2, -127, 127).astype(np.int8)),
        ("stack", np.stack([other, image]).astype(np.float32)),
    ):
        with mrcfile.new(folder / f"{name}.mrc") as file:
            file.set_data(numbers)
            file.voxel_size = 1.0
    files = {path.name: path for path in sorted(folder.iterdir())}
    return files | {
        "array": image,
        "negative": -image,
        "scaled": 0.37 * image + 900,
        "turned": np.rot90(image),
        "mirrored": image[:, ::-1],
        "of other weights": image + np.round(15 * noise(60, 72, seed=2)),
    }


def test_load_patches__leaves_copies_out_and_says_so(tmp_path: Path) -> None:
    given = copies(tmp_path)
    given = {"plain.mrc": given.pop("plain.mrc"), **given}
    with pytest.warns(RunWarning) as said:
        data = load(*given.values(), pixel_size=1.0)
    lines = [str(warning.message) for warning in said]
    assert sum("plain.mrc (correlation" in line for line in lines) == len(given) - 1
    assert data.n_micrographs == 2
    left_out = [source["copies"].keys() for source in data.sources[1:]]
    (section,) = (keys for keys in left_out if keys != {"1"})
    assert section == {"2"}
    assert "copies" not in data.sources[0]


@pytest.mark.filterwarnings("ignore:.*left out:numbasaem.errors.RunWarning")
def test_refuse_other_sources__a_run_that_has_used_copies(path: Path) -> None:
    now = load(path, str(path)).sources
    refuse_other_sources(Path("run.h5"), now, load(path, path).sources)
    begun = [{**source} for source in now]
    del begun[1]["copies"]
    line = helpers.refusal(refuse_other_sources, Path("run.h5"), begun, now)
    assert line == (
        f"run.h5: expected the use of {path} that it began with; run anew, "
        "found another, since copies are left out"
    )


def test_load_patches__keeps_what_the_camera_repeats() -> None:
    # hot pixels, a dead area and a background that all micrographs have in common
    images = [noise(60, 72, seed=seed) for seed in range(40)]
    for image in images:
        image += np.linspace(0, 30, 72, dtype=np.float32)
        image[5:50:9, 3:70:8] += 500
        image[:, :20] = 7
    data = load(*images)
    assert data.n_micrographs == len(images)


def test_load_patches__keeps_small_micrographs_apart() -> None:
    data = load(*(noise(10, 11, seed=seed) for seed in range(300)))
    assert data.n_micrographs == 300


# --- halves ------------------------------------------------------------------------


def test_halves__of_several_micrographs_share_none() -> None:
    data = load(*(noise(20, 20 + 5 * i, seed=i) for i in range(5)))
    first, second = (set(data.micrograph[half]) for half in data.halves(seed=3))
    assert first.isdisjoint(second)
    assert first | second == set(range(5))
    assert sorted((len(first), len(second))) == [2, 3]


def test_halves__of_one_micrograph_share_no_patch() -> None:
    data = load(noise(50, 55))
    first, second = data.halves(seed=3)
    together = np.sort(np.concatenate([first, second]))
    np.testing.assert_array_equal(together, np.arange(len(data.patches)))
    assert abs(len(first) - len(second)) <= 1


def test_halves__depend_on_the_seed_alone() -> None:
    data = load(noise(50, 55))
    np.testing.assert_array_equal(data.halves(3)[0], data.halves(3)[0])
    assert not np.array_equal(data.halves(3)[0], data.halves(4)[0])


# --- micrographs that cannot be used -----------------------------------------------


def test_load_patches__none() -> None:
    assert refusal() == "micrographs: expected at least one, found none"


def test_load_patches__one_path_instead_of_a_list(path: Path) -> None:
    single: Any
    for single in (path, str(path)):
        with pytest.raises(InputError, match="expected a list"):
            list_inputs(single)


def test_load_patches__missing(tmp_path: Path) -> None:
    assert "nowhere.mrc: expected" in refusal(tmp_path / "nowhere.mrc")
    assert "a folder" in refusal(tmp_path)


def test_load_patches__not_mrc(tmp_path: Path) -> None:
    path = tmp_path / "text.mrc"
    path.write_text("This is no micrograph.\n" * 100)
    assert f"{path}: expected" in refusal(path)
    path.write_bytes(b"")
    assert "an empty file" in refusal(path)


def test_load_patches__cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    line = refusal(path)
    assert f"{path}: expected" in line
    assert "bytes" in line


def test_load_patches__beyond_float32() -> None:
    pixels = noise(20, 20).astype(np.float64)
    pixels[0, 0] = 1e60
    assert "micrographs[0]: expected finite pixels" in refusal(pixels)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_load_patches__not_finite(path: Path, bad: float) -> None:
    with mrcfile.open(path, "r+") as file:
        file.data[3, 4] = bad
    assert f"{path}: expected finite pixels" in refusal(path)
    pixels = noise(20, 20)
    pixels[19, 19] = bad
    assert "micrographs[1]: expected finite pixels" in refusal(noise(20, 20), pixels)


def test_load_patches__constant(tmp_path: Path) -> None:
    path = tmp_path / "flat.mrc"
    write_micrograph(path, np.ones((20, 20)), 1.0)
    assert f"{path}: expected pixels that vary" in refusal(path)
    assert "micrographs[0]: expected pixels that vary" in refusal(np.ones((20, 20)))


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_load_patches__too_faint_or_bright(scale: float) -> None:
    line = refusal(noise(20, 20) * np.float32(scale))
    assert "micrographs[0]: expected pixels between 1e-15 and 1e+15" in line


def test_load_patches__too_small(tmp_path: Path) -> None:
    path = tmp_path / "small.mrc"
    write_micrograph(path, noise(30, 2 * SIZE - 1), 1.0)
    assert f"{path}: expected at least 10 pixels a side" in refusal(path)
    assert load(noise(2 * SIZE, 2 * SIZE)).patches.shape == (4, SIZE, SIZE)


@pytest.mark.parametrize("shape", [(), (40,), (3, 20, 20)])
def test_load_patches__not_two_dimensional(shape: tuple[int, ...]) -> None:
    assert "micrographs[0]: expected" in refusal(noise(*shape))


@pytest.mark.parametrize("values", ["text", None, [[1j, 2], [3, 4]]])
def test_load_patches__not_numbers(values: object) -> None:
    array = np.array(values, dtype=None if isinstance(values, list) else object)
    assert "micrographs[0]: expected real numbers" in refusal(array)


@pytest.mark.filterwarnings(
    "ignore:.*as given, in place of:numbasaem.errors.RunWarning"
)
def test_load_patches__pixel_sizes_differ(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mrc"
    write_micrograph(other, noise(20, 20), 3.0)
    line = refusal(path, other)
    assert "other.mrc: expected the pixel size of the others, 2.5 A" in line
    assert "found 3 A" in line
    assert load(path, other, pixel_size=2.0).pixel_size == 2.0


# --- settings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 4},
        {"size": 5.5},
        {"size": "large"},
        {"rotations": 0},
        {"batch_fraction": 0.0},
        {"batch_fraction": 1.01},
        {"batch_fraction": float("nan")},
        {"batching": "sometimes"},
        {"noise_variance": -1.0},
        {"noise_variance": 0.0},
        {"noise_variance": float("inf")},
        {"iterations": (1,), "ell_max": (-1,)},
        {"iterations": (), "ell_max": ()},
        {"iterations": (1, 1), "ell_max": (8, 6)},
        {"iterations": (0, 1, 1)},
        {"iterations": (5,)},
        {"rotations": (24, 0, 24)},
        {"rotations": (24, 24)},
        {"rotations": (24, 24, 12)},
        {"starts": 0},
        {"over_relaxation": 2.0},
        {"stopping": float("nan")},
        {"seed": -1},
        {"threads": 0},
        {"pixel_size": 0.0},
        {"iteration": (1, 1, 1)},
    ],
    ids=str,
)
def test_settings__refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(reversed(wrong))) as error:
        Settings(**{"size": 11, **wrong})
    assert len(str(error.value).splitlines()) == 1
    for other_door in (
        lambda: Settings.model_validate({"size": 11, **wrong}),
        lambda: Settings.model_validate_json(json.dumps({"size": 11, **wrong})),
        lambda: Settings(size=11).changed(**wrong),
    ):
        with pytest.raises(InputError, match="expected"):
            other_door()


def test_settings__cannot_be_changed() -> None:
    settings: Any = Settings(size=11)
    with pytest.raises(InputError, match="size: expected settings that stay"):
        settings.size = 12
    assert settings.changed(size=13).size == 13
    assert settings.size == 11


def test_settings__survive_json() -> None:
    settings = Settings(size=11, noise_variance=0.1, ell_max=(2, 3), iterations=(1, 2))
    assert Settings(**settings.model_dump(mode="json")) == settings
