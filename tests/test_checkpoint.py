"""The checkpoint file: what it keeps, and what becomes of a damaged one."""

from __future__ import annotations

import errno
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from numbasaem.errors import RunWarning
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.patch_expectation import expectation
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.reconstruction import journal
from numbasaem.reconstruction.checkpoint import load_checkpoint, save_checkpoint
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.journal import Journal
from numbasaem.reconstruction.result import Result
from numbasaem.reconstruction.state import Estimate, Iteration, RunState
from numbasaem.settings import Settings
from tests import helpers
from tests.helpers import refusal

SIZE = 5
SETTINGS = Settings(
    size=SIZE, ell_max=(2,), iterations=(4,), rotations=12, starts=1, halves=False
)


def noise(seed: int = 0) -> np.ndarray:
    return helpers.noise(60, 60, seed=seed)


def run(out: Path, **update: Any) -> Result:
    resume = update.pop("resume", False)
    micrographs = update.pop("micrographs", [noise()])
    settings = SETTINGS.model_copy(update=update)
    return reconstruct(micrographs, settings, out=out, resume=resume)


def sealed(content: bytes) -> bytes:
    """Return a file of this format around any content."""
    seal = b"numbasaem run, format 7, SHA-256 %s\n"
    digest = hashlib.sha256(content).hexdigest().encode()
    return (seal % digest).ljust(512, b"\0") + content


# --- what it keeps -----------------------------------------------------------------


@pytest.fixture(scope="module")
def statistics() -> ImageStatistics:
    generator = np.random.default_rng(0)
    images = generator.standard_normal((4, SIZE, SIZE))
    patches = generator.standard_normal((20, SIZE, SIZE))
    return expectation(patches, images, uniform_shift_prior(SIZE, 0.5), 1.0)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, ImageStatistics):
        return same(vars(one), vars(other))
    return bool(np.array_equal(one, other))


@pytest.mark.parametrize("kind", ["nothing", "blocks", "average"])
def test_checkpoint__round_trip(
    tmp_path: Path, statistics: ImageStatistics, kind: str
) -> None:
    generator = np.random.default_rng(5)
    generator.random(7)
    minibatches: dict[str, dict[str, object]] = {
        "nothing": {},
        "blocks": {
            "blocks": [np.arange(i) for i in range(12)],
            "kept": {0: statistics, 11: statistics + statistics},
            "n_visits": 3,
        },
        "average": {"average": statistics, "n_averaged": 2},
    }
    row = Iteration(
        "full", 0, 2, 3, 1, 2, 1, 4, 0.2, 0.1, -1.5, -1.6, 0.5, 0.25, 0.1, 2.0
    )
    state = RunState(
        volume_coefficients=np.arange(4.0),
        shift_prior=np.full((2, 2), 0.25),
        noise_variance=0.5,
        view_mass=np.arange(3.0),
        view_weights=np.full(3, 1 / 3),
        generator=generator,
        stage=1,
        iteration=2,
        step=1.5,
        em_step=np.arange(4.0) - 2,
        last_move=np.arange(4.0) - 1,
        mean_volume=np.arange(4.0) + 1,
        best=Estimate(np.arange(4.0) + 2, np.full((2, 2), 0.25), 0.75),
        minibatches={},
        history=[row],
    )
    state.minibatches = minibatches[kind]
    path = tmp_path / "run.h5"
    save_checkpoint(path, {"settings": {"size": 5}}, {"full": state})
    description, runs = load_checkpoint(path)
    assert description == {"settings": {"size": 5}}
    found = runs["full"]
    assert found.history == [row]
    assert (found.stage, found.iteration, found.noise_variance) == (1, 2, 0.5)
    assert found.step == 1.5
    np.testing.assert_array_equal(found.em_step, state.em_step)
    np.testing.assert_array_equal(found.last_move, state.last_move)
    np.testing.assert_array_equal(found.mean_volume, state.mean_volume)
    assert found.best is not None
    assert found.best.noise_variance == 0.75
    np.testing.assert_array_equal(found.best.volume_coefficients, np.arange(4.0) + 2)
    np.testing.assert_array_equal(found.volume_coefficients, np.arange(4.0))
    np.testing.assert_array_equal(found.shift_prior, np.full((2, 2), 0.25))
    np.testing.assert_array_equal(found.view_mass, np.arange(3.0))
    assert found.generator.random() == generator.random()
    assert same(found.minibatches, state.minibatches)


def test_checkpoint__of_no_run_yet(tmp_path: Path) -> None:
    description = {"settings": {"model": "patch"}}
    save_checkpoint(tmp_path / "run.h5", description, {})
    assert load_checkpoint(tmp_path / "run.h5") == (description, {})


def test_checkpoint__is_hdf5_that_others_can_read(tmp_path: Path) -> None:
    result = run(tmp_path)
    with h5py.File(tmp_path / "run.h5") as file:
        coefficients = file["runs/full/volume_coefficients"][()]
    np.testing.assert_array_equal(coefficients, result.volume_coefficients)


def test_checkpoint__records_inputs_and_versions(tmp_path: Path) -> None:
    run(tmp_path)
    description, _ = load_checkpoint(tmp_path / "run.h5")
    (source,) = description["sources"]
    assert source["name"] == "micrographs[0]"
    assert source["size"] == noise().nbytes
    assert len(source["sha256"]) == 64
    assert description["versions"]["numpy"] == np.__version__
    assert {"numbasaem", "numba", "python"} < set(description["versions"])
    assert not {"threads", "max_memory"} & set(description["settings"])


def test_checkpoint__the_last_two_are_kept(tmp_path: Path) -> None:
    run(tmp_path)
    _, newest = load_checkpoint(tmp_path / "run.h5")
    _, before = load_checkpoint(tmp_path / "run.previous.h5")
    assert len(newest["full"].history) == 4
    assert before["full"].history == newest["full"].history[:3]


# --- damage ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return tuple(  # type: ignore[return-value]
        (folder / name).read_bytes() for name in ("run.h5", "run.previous.h5")
    )


def flipped(whole: bytes) -> Iterator[bytearray]:
    """A file with a bit of one byte turned, for all of its seal and 300 others."""
    places = np.random.default_rng(0).integers(512, len(whole), size=300)
    for place in (*range(512), 512, len(whole) - 1, *places.tolist()):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        yield damaged


def test_damage__any_byte_is_found_out(
    tmp_path: Path, finished: tuple[bytes, bytes]
) -> None:
    path = tmp_path / "run.h5"
    load_checkpoint(_written(path, finished[0]))
    for damaged in flipped(finished[0]):
        _written(path, damaged)
        line = refusal(lambda: load_checkpoint(path))
        assert line.startswith(f"{path}: expected a checkpoint of a run, found")


def test_damage__any_byte_leads_to_the_one_before(
    tmp_path: Path, finished: tuple[bytes, bytes]
) -> None:
    path = tmp_path / "run.h5"
    before = load_checkpoint(_written(path, finished[1]))[1]["full"]
    _written(tmp_path / "run.previous.h5", finished[1])
    for damaged in flipped(finished[0]):
        _written(path, damaged)
        with pytest.warns(RunWarning, match=r"run\.previous\.h5 is used"):
            state = load_checkpoint(path)[1]["full"]
        np.testing.assert_array_equal(
            state.volume_coefficients, before.volume_coefficients
        )
        assert state.history == before.history


@pytest.mark.parametrize("kept_bytes", [0, 100, 5000])
def test_damage__cut_short(
    tmp_path: Path, finished: tuple[bytes, bytes], kept_bytes: int
) -> None:
    _written(tmp_path / "run.h5", finished[0][:kept_bytes])
    line = refusal(lambda: run(tmp_path, resume=True))
    assert "run.h5: expected a checkpoint" in line


def test_damage__falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, finished: tuple[bytes, bytes]
) -> None:
    wanted = run(tmp_path / "wanted")
    newest, before = tmp_path / "run.h5", tmp_path / "run.previous.h5"
    damaged = bytearray(finished[0])
    damaged[-100] ^= 1
    _written(newest, damaged)
    _written(before, finished[1])
    with pytest.warns(RunWarning, match=r"damaged bytes; run\.previous\.h5 is used"):
        found = run(tmp_path, resume=True)
    np.testing.assert_array_equal(found.volume, wanted.volume)
    assert len(load_checkpoint(newest)[1]["full"].history) == 4
    assert before.read_bytes() == finished[1]


def test_damage__neither_is_whole(
    tmp_path: Path, finished: tuple[bytes, bytes]
) -> None:
    _written(tmp_path / "run.h5", finished[0][:-1])
    _written(tmp_path / "run.previous.h5", finished[1][:-1])
    assert "run.h5: expected" in refusal(lambda: run(tmp_path, resume=True))
    assert "`resume=True`" in refusal(lambda: run(tmp_path))


def test_damage__killed_between_the_two_renames(
    tmp_path: Path, finished: tuple[bytes, bytes]
) -> None:
    _written(tmp_path / "run.previous.h5", finished[1])
    assert "`resume=True`" in refusal(lambda: run(tmp_path))
    with pytest.warns(RunWarning, match="No such file"):
        assert len(run(tmp_path, resume=True).history) == 4


def test_leftovers__of_a_killed_process_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".part.run.h5").write_bytes(b"half")
    run(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    written = {"volume.mrc", "volume.cxc", "settings.toml"}
    assert names == {"run.h5", "run.previous.h5"} | written


def test_alien__content_that_this_program_did_not_write(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with h5py.File.in_memory() as file:
        file.attrs["description"] = "{}"
        file["runs"] = np.zeros(3)
        file.flush()
        content = file.id.get_file_image()
    _written(path, sealed(content))
    assert "run.h5: expected a checkpoint" in refusal(lambda: load_checkpoint(path))
    _written(path, sealed(b"not HDF5"))
    assert "run.h5: expected a checkpoint" in refusal(lambda: load_checkpoint(path))


def _external_link(file: h5py.File, other: Path) -> None:
    file["runs"] = h5py.ExternalLink(str(other), "/runs")


def _soft_link(file: h5py.File, other: Path) -> None:
    file["runs"] = h5py.SoftLink("/elsewhere")


def _external_storage(file: h5py.File, other: Path) -> None:
    group = file.create_group("runs/full")
    group.create_dataset("shift_prior", (4,), "f8", external=[(str(other), 0, 32)])


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "x", (4,))
    file.create_group("runs/full").create_virtual_dataset("shift_prior", layout)


@pytest.mark.parametrize(
    "refer", [_external_link, _soft_link, _external_storage, _virtual]
)
def test_alien__references_out_of_the_file_are_not_followed(
    tmp_path: Path, refer: Callable[[h5py.File, Path], None]
) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros(4)
        file.create_group("runs")
    with h5py.File.in_memory() as file:
        file.attrs["description"] = "{}"
        refer(file, other)
        file.flush()
        content = file.id.get_file_image()
    path = _written(tmp_path / "run.h5", sealed(content))
    line = refusal(lambda: load_checkpoint(path))
    assert "a link in" in line or "outside of the file" in line


def _written(path: Path, content: bytes | bytearray) -> Path:
    path.write_bytes(content)
    return path


# --- refusals ----------------------------------------------------------------------


def test_refused__before_micrographs_are_read(tmp_path: Path) -> None:
    run(tmp_path)
    nowhere: Sequence[Any] = [tmp_path / "nowhere.mrc"]
    assert "`resume=True`" in refusal(lambda: run(tmp_path, micrographs=nowhere))
    line = refusal(lambda: run(tmp_path, micrographs=nowhere, resume=True, seed=9))
    assert "seed: expected 0, as begun, found 9" in line


def test_refused__other_data_names_the_difference(tmp_path: Path) -> None:
    run(tmp_path)
    longer = [np.vstack([noise(), noise()])]
    line = refusal(lambda: run(tmp_path, micrographs=longer, resume=True))
    assert "found 28800 bytes, not 14400, in micrographs[0]" in line
    line = refusal(lambda: run(tmp_path, micrographs=[noise(1)], resume=True))
    assert "found other data in micrographs[0]" in line


def test_refused__a_folder_in_use(tmp_path: Path) -> None:
    with Journal(tmp_path, False, {}) as first:
        first.begin([], {})
        with Journal(tmp_path, True, {}) as second:
            line = refusal(lambda: second.begin([], {}))
    assert line.endswith("expected a folder for one process, found a run under way")


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shares have none, or none that holds on another host."""

    def flock(number: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)


TWO = "expected a folder for one process, found the run.h5 of another"


@pytest.mark.usefixtures("no_locks")
def test_no_locks__the_checkpoint_of_another_process_is_not_replaced(
    tmp_path: Path,
) -> None:
    run(tmp_path)
    with Journal(tmp_path, True, {}) as first, Journal(tmp_path, True, {}) as second:
        for journal in (first, second):
            journal.begin(*of_run(tmp_path))
        second.save()
        second.save()
        kept = (tmp_path / "run.h5").read_bytes()
        assert f"{tmp_path}: {TWO}" in refusal(first.save)
        assert (tmp_path / "run.h5").read_bytes() == kept
        second.save()


@pytest.mark.usefixtures("no_locks")
def test_no_locks__two_that_begin_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path, False, {}) as first, Journal(tmp_path, False, {}) as second:
        first.begin([], {})
        assert TWO in refusal(lambda: second.begin([], {}))
        first.save()


@pytest.mark.usefixtures("no_locks")
def test_no_locks__a_second_run_under_way_ends_with_a_line(tmp_path: Path) -> None:
    """The run that finds another's checkpoint ends; the other one has its own map."""
    wanted = run(tmp_path / "wanted")
    out = tmp_path / "run"

    def begin_another(row: Iteration) -> None:
        if row.total_done == 2:
            run(out, resume=True)

    line = refusal(
        lambda: reconstruct([noise()], SETTINGS, out=out, on_iteration=begin_another)
    )
    assert TWO in line
    found = run(out, resume=True)
    np.testing.assert_array_equal(found.volume, wanted.volume)


def of_run(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Sources and preparation of a run, as its journal takes them."""
    description, _ = load_checkpoint(folder / "run.h5")
    return description["sources"], description["preparation"]


def test_checkpoint__that_is_gone_is_made_anew(tmp_path: Path) -> None:
    def remove(row: Iteration) -> None:
        (tmp_path / "run.h5").unlink()

    reconstruct([noise()], SETTINGS, out=tmp_path, on_iteration=remove)
    with Journal(tmp_path / "other", False, {}) as journal:
        journal.begin([], {})
        (tmp_path / "other" / "run.h5").unlink()
        journal.save()
        assert (tmp_path / "other" / "run.h5").exists()


def test_versions__a_difference_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    now = journal.versions()
    monkeypatch.setattr(journal, "versions", lambda: now | {"numba": "99.0"})
    with pytest.warns(RunWarning, match=r"begun with numba \S+, goes on with 99\.0;"):
        run(tmp_path, resume=True)


def test_resume__without_damage_warns_of_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path, resume=True)


def test_refused__a_checkpoint_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(b"numbasaem run, format 4, SHA-256 0".ljust(512, b"\0"))
    line = refusal(lambda: load_checkpoint(path))
    assert line.endswith("found format 4 of another version of this program")
