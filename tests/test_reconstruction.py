"""Algorithm 1 from end to end: determinism, interruption, files, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import mrcfile
import numba
import numpy as np
import pytest

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.io.relion import read_fsc
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_data import Patches
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.result import Result
from numbasaem.reconstruction.starts import random_start
from numbasaem.reconstruction.state import Iteration
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.volume.phantom import folded_chain
from tests import helpers
from tests.helpers import Interruption, assert_same_result, interrupted_after

SIZE = 5
BATCHINGS = ("stochastic", "incremental", "online", "full")

SETTINGS = Settings(
    size=SIZE,
    model="patch",
    ell_max=(2, 3),
    iterations=(2, 2),
    rotations=(24, 40),
    batch_fraction=0.4,
    starts=2,
    halves=False,
    seed=3,
    level=False,
)
MARCH = SETTINGS.model_copy(update={"starts": 1})


@pytest.fixture(scope="module")
def micrographs() -> Sequence[np.ndarray]:
    sample = simulate(
        folded_chain(SIZE), size=SIZE, pixels=90, micrographs=2, snr=10, ell_max=3
    )
    return sample.micrographs


@pytest.fixture(scope="module")
def unbroken(micrographs) -> Result:
    return reconstruct(micrographs, SETTINGS)


# --- the result --------------------------------------------------------------------


def test_reconstruct__shapes(unbroken: Result) -> None:
    n_coefficients = unbroken.basis.n_coefficients
    assert unbroken.volume.shape == (SIZE,) * 3
    assert unbroken.volume_coefficients.shape == (n_coefficients,)
    assert unbroken.basis.ell_max == SETTINGS.degrees[-1]
    np.testing.assert_array_equal(unbroken.rotations, ViewGrid(40).rotations)
    assert unbroken.shift_prior.shape == (2 * SIZE, 2 * SIZE)
    assert unbroken.shift_prior.sum() == pytest.approx(1)
    assert unbroken.noise_variance > 0
    assert unbroken.half_volumes is None
    assert unbroken.fsc is None
    assert unbroken.pixel_size is None
    assert unbroken.settings == SETTINGS
    np.testing.assert_array_equal(
        unbroken.volume, unbroken.basis.evaluate(unbroken.volume_coefficients)
    )


def test_reconstruct__history_counts_every_iteration(unbroken: Result) -> None:
    history, total = unbroken.history, SETTINGS.iterations_per_run
    assert [row.total_done for row in history] == list(range(1, total + 1))
    assert {row.total for row in history} == {total}
    marched = [row for row in history if row.run == "full"]
    assert [(row.ell_max, row.iteration) for row in marched] == [
        (2, 1),
        (2, 2),
        (3, 1),
        (3, 2),
    ]
    searched = {row.run for row in history} - {"full"}
    assert searched == {"full-start0", "full-start1"}
    assert {row.held_out_evidence_per_patch for row in history} == {None}
    numbers = [astuple(row)[10:] for row in history]
    assert np.isfinite(numbers).all()
    assert all(0 <= row.empty_fraction <= 1 for row in history)


def test_reconstruct__reports_what_it_records(micrographs) -> None:
    rows: list[Iteration] = []
    steps: list[tuple[str, float]] = []
    result = reconstruct(
        micrographs,
        MARCH,
        on_iteration=rows.append,
        on_progress=lambda *report: steps.append(report),
    )
    assert tuple(rows) == result.history
    names = list(dict.fromkeys(name for name, _ in steps))
    assert names == ["reading micrographs", "compiling kernels", "expectation"]
    assert all(0 <= share <= 1 for _, share in steps)


def test_reconstruct__likelihood_rises(micrographs) -> None:
    settings = MARCH.model_copy(
        update={"batching": "full", "over_relaxation": 1.0, "iterations": (6, 6)}
        | {"rotations": 60}
    )
    history = reconstruct(micrographs, settings).history
    likelihood = np.array([row.log_likelihood_per_patch for row in history])
    gain = np.diff(likelihood)
    # EM never falls; float32 sums do by round-off
    assert (gain > -1e-4 * np.abs(likelihood[1:])).all()
    assert likelihood[-1] > likelihood[0] + 1


def test_iterations__adapted_steps_gain_more_than_plain_ones() -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=125, snr=1, ell_max=3)
    patches = Patches(cut_patches(sample.micrographs[0], SIZE))
    adapted = MARCH.model_copy(update={"batching": "full", "iterations": (4, 3)})
    plain = adapted.model_copy(update={"over_relaxation": 1.0})
    reached, steps = [], []
    for settings in (plain, adapted):
        state = random_start(patches, settings, 0, 0)
        taken = [1.0]
        for _ in iterations(state, patches, settings, 2, lambda *_: None):
            taken.append(state.step)
        reached.append(state.history[-1].log_likelihood_per_patch)
        steps.append(max(taken))
    assert reached[1] > reached[0]
    assert steps[0] == 1 < steps[1]


def test_iterations__a_step_that_lowered_the_likelihood_is_taken_back() -> None:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=125, snr=1, ell_max=3)
    patches = Patches(cut_patches(sample.micrographs[0], SIZE))
    settings = MARCH.model_copy(
        update={
            "batching": "full",
            "ell_max": (3,),
            "rotations": (24,),
            "iterations": (5,),
        }
    )
    state = random_start(patches, settings, 0, 0)
    run = iterations(state, patches, settings, 2, lambda *_: None)
    next(run)
    too_far = 30.0
    end_of_em = state.volume_coefficients - state.last_move + state.em_step
    state.volume_coefficients = end_of_em + (too_far - 1) * state.em_step
    state.last_move = too_far * state.em_step
    state.step = too_far
    next(run)
    np.testing.assert_allclose(state.volume_coefficients, end_of_em, rtol=1e-9)
    assert state.step == 1
    list(run)
    first, fallen, *later = (row.log_likelihood_per_patch for row in state.history)
    assert fallen < first
    assert min(later) > first
    assert state.step == 1


@pytest.mark.filterwarnings("ignore:log-likelihood per patch fell")
def test_iterations__steps_shorten_where_minibatches_disagree(micrographs) -> None:
    settings = MARCH.changed(batch_fraction=0.05, iterations=(10, 10), rotations=60)
    patches = Patches(np.concatenate([cut_patches(one, SIZE) for one in micrographs]))
    state = random_start(patches, settings, 0, 0)
    state.step = 4.0
    list(iterations(state, patches, settings, 2, lambda *_: None))
    assert state.step < 3


def test_reconstruct__goes_on_from_the_likeliest_start(
    micrographs, tmp_path: Path, unbroken: Result
) -> None:
    with pytest.raises(Interruption):
        reconstruct(
            micrographs, SETTINGS, out=tmp_path, on_iteration=interrupted_after(20)
        )
    _, starts = load_checkpoint(tmp_path / "run.h5")
    assert set(starts) == {"full-start0", "full-start1"}
    likelihood = {
        name: np.mean([row.log_likelihood_per_patch for row in state.history[-3:]])
        for name, state in starts.items()
    }
    likeliest = starts[max(likelihood, key=likelihood.__getitem__)]
    patches = np.concatenate([cut_patches(one, SIZE) for one in micrographs])
    data = Patches(patches)
    marched = list(iterations(likeliest, data, SETTINGS, 3, lambda *_: None))
    np.testing.assert_array_equal(
        likeliest.volume_coefficients, unbroken.volume_coefficients
    )
    assert [row.noise_variance for row in marched] == [
        row.noise_variance for row in unbroken.history if row.run == "full"
    ]


def test_reconstruct__known_noise_variance_stays(micrographs) -> None:
    settings = MARCH.model_copy(update={"noise_variance": 0.25})
    result = reconstruct(micrographs, settings)
    assert result.noise_variance == 0.25
    assert {row.noise_variance for row in result.history} == {0.25}


def test_reconstruct__stops_when_q_stalls(micrographs) -> None:
    update = {"iterations": (5, 5), "stopping": 1e6}
    history = reconstruct(micrographs, MARCH.model_copy(update=update)).history
    assert [row.iteration for row in history] == [1, 2, 1, 2]
    history = reconstruct(micrographs, SETTINGS.model_copy(update=update)).history
    assert [row.iteration for row in history] == [1, 2] * 4
    marched = [row.stage for row in history if row.run == "full"]
    assert marched == [1, 1, 2, 2]


# --- the same bits -----------------------------------------------------------------


def test_reconstruct__same_for_a_seed(micrographs, unbroken: Result) -> None:
    assert_same_result(reconstruct(micrographs, SETTINGS), unbroken)
    other = reconstruct(micrographs, SETTINGS.model_copy(update={"seed": 4}))
    assert not np.array_equal(other.volume, unbroken.volume)


@pytest.mark.parallel
def test_reconstruct__same_for_any_number_of_threads(
    micrographs, unbroken: Result
) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    for threads in (1, 2):
        settings = SETTINGS.model_copy(update={"threads": threads})
        assert_same_result(reconstruct(micrographs, settings), unbroken)


# --- interruption ------------------------------------------------------------------


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("last", [1, 3])
def test_resume__as_if_never_interrupted(
    micrographs, tmp_path: Path, batching: str, last: int
) -> None:
    settings = MARCH.model_copy(update={"batching": batching})
    wanted = reconstruct(micrographs, settings)
    with pytest.raises(Interruption):
        reconstruct(
            micrographs, settings, out=tmp_path, on_iteration=interrupted_after(last)
        )
    _, runs = load_checkpoint(tmp_path / "run.h5")
    assert len(runs["full"].history) == last
    assert_same_result(
        reconstruct(micrographs, settings, out=tmp_path, resume=True), wanted
    )


@pytest.mark.parametrize("batching", ["stochastic", "incremental"])
def test_resume__again_and_again_through_a_search(
    micrographs, tmp_path: Path, batching: str
) -> None:
    settings = SETTINGS.model_copy(update={"batching": batching})
    for last in (1, 10, 11, 20, 21, 22, 23):
        with pytest.raises(Interruption):
            reconstruct(
                micrographs,
                settings,
                out=tmp_path,
                resume=True,
                on_iteration=interrupted_after(last),
            )
    found = reconstruct(micrographs, settings, out=tmp_path, resume=True)
    assert_same_result(found, reconstruct(micrographs, settings))


def test_resume__a_finished_run_does_nothing_more(
    micrographs, tmp_path: Path, unbroken: Result
) -> None:
    reconstruct(micrographs, SETTINGS, out=tmp_path)
    rows: list[Iteration] = []
    again = reconstruct(
        micrographs, SETTINGS, out=tmp_path, resume=True, on_iteration=rows.append
    )
    assert rows == []
    assert_same_result(again, unbroken)


def test_resume__on_other_threads(micrographs, tmp_path: Path) -> None:
    reconstruct(micrographs, MARCH, out=tmp_path)
    settings = MARCH.model_copy(update={"threads": 1})
    reconstruct(micrographs, settings, out=tmp_path, resume=True)


# --- refusals ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(micrographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("finished")
    reconstruct(micrographs, MARCH, out=folder)
    return folder


def refusal(micrographs: Any, settings: Settings, out: Path, resume: bool) -> str:
    """Return the one line; the run is as it was."""
    run = out / "run.h5"
    before = run.read_bytes() if run.is_file() else None
    line = helpers.refusal(reconstruct, micrographs, settings, out=out, resume=resume)
    assert before is None or run.read_bytes() == before
    return line


def test_refused__a_folder_with_a_run(micrographs, finished: Path) -> None:
    line = refusal(micrographs, MARCH, finished, resume=False)
    assert str(finished) in line
    assert "`resume=True`" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotations", 30), ("iterations", (2, 3)), ("seed", 4), ("contrast", "dark")],
)
def test_refused__resuming_with_other_settings(
    micrographs, finished: Path, name: str, value: object
) -> None:
    settings = MARCH.model_copy(update={name: value})
    line = refusal(micrographs, settings, finished, resume=True)
    assert f"run.h5: {name}: expected" in line


def test_refused__resuming_with_other_data(micrographs, finished: Path) -> None:
    first, second = micrographs
    line = refusal([first, second + 1], MARCH, finished, resume=True)
    assert "micrographs[1]" in line
    line = refusal([first], MARCH, finished, resume=True)
    assert "expected 2 micrographs, as begun, found 1" in line


def test_refused__a_file_in_place_of_the_folder(micrographs, tmp_path: Path) -> None:
    out = tmp_path / "taken"
    out.write_text("here already")
    assert str(out) in refusal(micrographs, MARCH, out, resume=False)
    assert str(out) in refusal(micrographs, MARCH, out / "below", resume=False)
    assert out.read_text() == "here already"


def test_refused__before_a_folder_is_made(tmp_path: Path) -> None:
    out = tmp_path / "run"
    refusal([np.zeros((30, 30))], MARCH, out, resume=False)
    assert not out.exists()


# --- files -------------------------------------------------------------------------


def test_files__of_a_run_with_halves(micrographs, tmp_path: Path) -> None:
    settings = MARCH.model_copy(update={"halves": True, "pixel_size": 2.5})
    result = reconstruct(micrographs, settings, out=tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert {path.name for path in folder.iterdir()} == {
        "volume.mrc",
        "volume_half1.mrc",
        "volume_half2.mrc",
        "fsc.star",
        "volume.cxc",
        "run.h5",
        "run.previous.h5",
        "settings.toml",
    }
    assert result.half_volumes is not None
    assert result.fsc is not None
    for name, volume in zip(
        ("volume", "volume_half1", "volume_half2"),
        (result.volume, *result.half_volumes),
        strict=True,
    ):
        path = folder / f"{name}.mrc"
        assert mrcfile.validate(path)
        with mrcfile.open(path) as file:
            np.testing.assert_array_equal(file.data, volume.astype(np.float32))
            assert file.voxel_size.x == pytest.approx(2.5)
    frequency, fsc = read_fsc(folder / "fsc.star")
    np.testing.assert_allclose(fsc, result.fsc, atol=1e-8)
    np.testing.assert_allclose(frequency, np.arange(SIZE // 2 + 1) / (2.5 * SIZE))
    assert {row.run for row in result.history} == {"full", "half1", "half2"}
    assert result.history[-1].total_done == result.history[-1].total == 12
    first, second = result.half_volumes
    assert not np.array_equal(first, second)


def test_files__none_without_a_folder(
    micrographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reconstruct(micrographs, MARCH)
    assert list(tmp_path.iterdir()) == []
