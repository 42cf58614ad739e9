"""The E-step on Dask workers: the same bytes, whatever becomes of the workers."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from distributed import Client

import numbasaem
from numbasaem import cli
from numbasaem.aliases import no_progress
from numbasaem.errors import InputError, RunWarning
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.ctf import ContrastTransferFunction
from numbasaem.micrographs.reading import list_inputs
from numbasaem.micrographs.sources import MicrographFile
from numbasaem.observations import dask as distributed
from numbasaem.observations import window_blocks
from numbasaem.observations.dask import local_cluster
from numbasaem.observations.dask_patches import load_remotely
from numbasaem.observations.dask_window_tasks import SentHypotheses
from numbasaem.observations.dask_windows import load_remotely as load_windows_remotely
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.models import observation_model
from numbasaem.observations.patch_data import load_patches
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.observations.statistics import Statistics
from numbasaem.observations.window_blocks import view_projections
from numbasaem.observations.window_data import TileSet, load_windows
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.result import Result
from numbasaem.reconstruction.state import Iteration
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from tests.helpers import (
    Interruption,
    assert_identical_statistics,
    assert_same_result,
    assert_same_statistics,
    hypotheses_in,
    interrupted_after,
    noise,
    random_coefficients,
)

SIZE = 7
SETTINGS = Settings(
    size=SIZE,
    model="patch",
    ell_max=(2, 3),
    iterations=(3, 2),
    rotations=48,
    starts=1,
    batch_fraction=0.5,
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data")
    sample = simulate(
        folded_chain(SIZE), size=SIZE, micrographs=3, pixels=210, snr=10, ell_max=3
    )
    for number, pixels in enumerate(sample.micrographs):
        write_micrograph(folder / f"{number}.mrc", pixels, 1.0)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_cluster(2, 2) as client:
        yield client


@pytest.fixture(scope="module", params=["patch", "window"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return SETTINGS.model_copy(update={"model": request.param})


@pytest.fixture(scope="module")
def alone(paths: list[Path], settings: Settings) -> Result:
    return reconstruct(paths, settings)


def test_reconstruct__same_bytes_as_alone(
    client: Client, paths: list[Path], settings: Settings, alone: Result
) -> None:
    assert_same_result(reconstruct(paths, settings, client=client), alone)


def test_reconstruct__finds_the_contrast_as_alone(
    client: Client, paths: list[Path], settings: Settings, alone: Result
) -> None:
    found = reconstruct(paths, settings.changed(contrast="auto"), client=client)
    assert found.settings.contrast == "bright"
    assert_same_result(found, alone)


def test_reconstruct__halves_of_one_micrograph(
    client: Client, paths: list[Path], settings: Settings
) -> None:
    wanted = reconstruct(paths[:1], settings)
    assert wanted.half_volumes is not None
    assert_same_result(reconstruct(paths[:1], settings, client=client), wanted)


def test_reconstruct__begins_with_moments_as_alone(
    client: Client, paths: list[Path]
) -> None:
    settings = Settings(
        size=SIZE, start="moments", starts=1, ell_max=(2,), iterations=(1,)
    )
    wanted = reconstruct(paths, settings)
    assert_same_result(reconstruct(paths, settings, client=client), wanted)


def test_load__sends_changed_pixels(
    client: Client, paths: list[Path], settings: Settings
) -> None:
    """The control of a validation is made here, whoever works on it."""
    inputs = list_inputs(paths)
    load = observation_model(settings.model).load
    wanted = load(inputs, settings, no_progress, change=lambda pixels: pixels**3)
    sent = load(inputs, settings, no_progress, client, lambda pixels: pixels**3)
    untouched = load(inputs, settings, no_progress, client)
    assert sent.pixel_sums == wanted.pixel_sums != untouched.pixel_sums


def test_resume__without_a_cluster(
    client: Client,
    paths: list[Path],
    tmp_path: Path,
    settings: Settings,
    alone: Result,
) -> None:
    with pytest.raises(Interruption):
        reconstruct(
            paths,
            settings,
            out=tmp_path,
            client=client,
            on_iteration=interrupted_after(7),
        )
    assert_same_result(reconstruct(paths, settings, out=tmp_path, resume=True), alone)


def test_reconstruct__workers_are_sent_what_they_need_of_arrays(
    client: Client, paths: list[Path], settings: Settings
) -> None:
    settings = settings.model_copy(
        update={"batching": "incremental", "halves": False, "ell_max": (3,)}
        | {"iterations": (3,)}
    )
    arrays = [np.random.default_rng(n).standard_normal((160, 90)) for n in range(2)]
    wanted = reconstruct([*paths, *arrays], settings)
    assert wanted.half_volumes is None
    found = reconstruct([*paths, *arrays], settings, client=client)
    np.testing.assert_array_equal(found.volume, wanted.volume)


def test_reconstruct__same_bytes_when_workers_come_and_die(
    paths: list[Path], settings: Settings, alone: Result
) -> None:
    with local_cluster(2, 2) as client:
        cluster: Any = client.cluster

        def disturb(iteration: Iteration) -> None:
            if iteration.total_done == 2:
                cluster.scale(3)
            if iteration.total_done in (4, 9):
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        found = reconstruct(paths, settings, client=client, on_iteration=disturb)
    assert_same_result(found, alone)


def test_cli__local_cluster_and_resume_without(
    paths: list[Path], tmp_path: Path, settings: Settings
) -> None:
    options = "--size 7 --ell-max 2,3 --iterations 3,2 --rotations 48 --starts 1"
    given = [str(path) for path in paths] + options.split() + ["--no-report"]
    out = ["--batch-fraction", "0.5", "--out", str(tmp_path)]
    out += ["--model", settings.model]
    assert cli.main(["reconstruct", *given, *out, "--local-cluster", "1"]) == 0
    made = (tmp_path / "volume.mrc").read_bytes()
    assert cli.main(["reconstruct", *given, *out, "--resume"]) == 0
    assert (tmp_path / "volume.mrc").read_bytes() == made


BASIS, VIEWS = VolumeBasis(SIZE, 3), ViewGrid(48)


def statistics_of_windows(
    data: TileSet, chosen: np.ndarray | None = None
) -> Statistics:
    """Statistics of all tiles of a run under some volume."""
    part = data.part(chosen, None)
    views = VIEWS.turned(VIEWS.rotations[5])
    hypotheses = Hypotheses(
        part.projections(BASIS, VIEWS).at(views),
        0.4 * random_coefficients(BASIS),
        uniform_shift_prior(SIZE, 0.6),
        1.0,
    )
    return part.expectation(np.arange(len(part)), hypotheses)


def test_windows__groups_halves_and_excluded_areas(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for number, pixels in enumerate(noise(3, 120, 190)):
        path = tmp_path / f"{number}.mrc"
        if number == 1:
            pixels[:, 120:] = 7.0
        write_micrograph(path, pixels, 3.0)
        ctf = ContrastTransferFunction(*[6_000.0 + 9_000.0 * (number % 2)] * 2)
        files.append(MicrographFile(path, path.name, ctf=ctf))
    settings = Settings(size=SIZE, model="window", ctf=True, mend=True)
    with pytest.warns(RunWarning) as warned_here:
        here = load_windows(files, settings, no_progress)
    with pytest.warns(RunWarning) as warned_remotely:
        remote = load_windows_remotely(client, files, settings, no_progress)
    lines, same_lines = (
        {str(warning.message) for warning in warned}
        for warned in (warned_here, warned_remotely)
    )
    assert lines == same_lines
    assert any("1.mrc: 36.8 % of the area is left out" in line for line in lines)
    assert here.optics is not None
    assert len(here.optics.point_spreads) == 2
    assert here.prepared[1].excluded.any()
    upper = np.flatnonzero(here.micrograph == 0)[:1]
    parts = [None, upper, np.flatnonzero(here.micrograph > 0)]
    one_a_block = [statistics_of_windows(here, part) for part in parts]
    for part, wanted in zip(parts, one_a_block, strict=True):
        assert_identical_statistics(statistics_of_windows(remote, part), wanted)
    monkeypatch.setattr(window_blocks, "_MOST_BLOCKS", 2)
    few_blocks = statistics_of_windows(here)
    assert_identical_statistics(statistics_of_windows(remote), few_blocks)
    assert_same_statistics(few_blocks, one_a_block[0])


def test_windows__autocorrelations_of_halves_and_excluded_areas(
    client: Client, tmp_path: Path
) -> None:
    images = noise(3, 90, 190)
    images[1, :, 120:] = 7.0
    for number, pixels in enumerate(images):
        write_micrograph(tmp_path / f"{number}.mrc", pixels, 1.0)
    inputs = list_inputs(sorted(tmp_path.iterdir()))
    settings = Settings(size=SIZE, model="window", mend=True)
    with pytest.warns(RunWarning, match=r"1\.mrc"):
        here = load_windows(inputs, settings, no_progress)
    with pytest.warns(RunWarning, match=r"1\.mrc"):
        remote = load_windows_remotely(client, inputs, settings, no_progress)
    with pytest.warns(RunWarning, match=r"1\.mrc"):
        sent = load_windows_remotely(
            client, inputs, settings, no_progress, change=lambda pixels: pixels
        )
    whole_and_upper_half = np.flatnonzero(here.micrograph != 1)[:-1]
    for chosen in (None, *here.halves(0), whole_and_upper_half):
        alone: Any = here.part(chosen, None)
        for data in (remote, sent):
            part: Any = data.part(chosen, None)
            for found, wanted in (
                (part.autocorrelations(), alone.autocorrelations()),
                (part.first_two_orders(), alone.first_two_orders()),
            ):
                assert found.n_pixels == wanted.n_pixels
                np.testing.assert_array_equal(found.sums, wanted.sums)
                np.testing.assert_array_equal(found.scatter, wanted.scatter)


def test_windows__autocorrelations_name_the_micrograph_that_is_too_small(
    client: Client, tmp_path: Path
) -> None:
    for number, n_rows in enumerate((90, 25)):
        write_micrograph(tmp_path / f"{number}.mrc", noise(n_rows, 90), 1.0)
    inputs = list_inputs(sorted(tmp_path.iterdir()))
    settings = Settings(size=SIZE, model="window")
    data = load_windows_remotely(client, inputs, settings, no_progress)
    with pytest.raises(InputError, match="micrograph 2: expected at least 28 pixels"):
        data.part(None, None).autocorrelations()


def test_windows__projections_travel_as_what_they_are_made_of() -> None:
    basis, views = VolumeBasis(21, 18), ViewGrid(4608)
    assert views.rotations.nbytes > 300_000
    hypotheses = Hypotheses(
        view_projections(basis, views),
        random_coefficients(basis),
        uniform_shift_prior(21, 0.5),
        1.0,
    )
    sent = pickle.dumps(SentHypotheses.of(hypotheses, None, 21))
    assert len(sent) < 8 * (basis.n_coefficients + 42**2) + 2000
    same = pickle.loads(sent).views
    np.testing.assert_array_equal(same.rotations, views.rotations)


def problem(
    size: int, n_rotations: int, n_patches: int
) -> tuple[np.ndarray, Hypotheses]:
    images = np.random.default_rng(0).standard_normal((n_rotations, size, size))
    prior = uniform_shift_prior(size, 0.5)
    return np.arange(n_patches), hypotheses_in(images, prior, 1.0)


def test_statistics__on_the_wire_within_twice_float32(client: Client) -> None:
    def sent(dask_worker: Any) -> int:
        return int(dask_worker.transfer_outgoing_bytes_total)

    size, n_rotations = 11, 552
    pixels = np.random.default_rng(1).standard_normal((220, 220))
    settings = Settings(size=size, model="patch")
    data = load_remotely(client, [pixels], settings, no_progress).part(None, None)
    asked = problem(size, n_rotations, len(data))
    data.expectation(*asked)
    before = sum(client.run(sent).values())
    data.expectation(*asked)
    # One worker gets the projections; both pass on sums, the other one to the client.
    bytes_sent = sum(client.run(sent).values()) - before - 8 * n_rotations * size**2
    in_float32 = 2 * n_rotations * size**2 * 4
    assert in_float32 < bytes_sent / 2 < 2 * in_float32


def test_worker__runs_on_its_own_threads(client: Client) -> None:
    def threads(_: Path) -> int:
        return numba.get_num_threads()

    assert distributed.submit(client, "threads", threads).result() == 1


def test_file__that_a_worker_cannot_read_is_named_with_the_host(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "here_only.mrc"
    path.touch()

    def header(_: MicrographFile) -> tuple[None, float]:
        path.unlink()
        return None, 1.0

    monkeypatch.setattr(MicrographFile, "header", header)
    with pytest.raises(InputError) as caught:
        load_remotely(client, list_inputs([path]), SETTINGS, no_progress)
    assert str(path) in str(caught.value)
    assert f"(on {socket.gethostname()})" in str(caught.value)


@pytest.mark.parametrize("model", ["patch", "window"])
def test_file__that_changed_since_it_was_loaded_is_refused(
    client: Client, tmp_path: Path, model: str
) -> None:
    path = tmp_path / "changing.mrc"
    first, second = noise(2, 70, 70)
    write_micrograph(path, first, 1.0)
    settings = SETTINGS.model_copy(update={"model": model})
    data = observation_model(model).load(
        list_inputs([path]), settings, no_progress, client
    )
    part = data.part(None, None)
    hypotheses = Hypotheses(
        part.projections(BASIS, VIEWS),
        random_coefficients(BASIS),
        uniform_shift_prior(SIZE, 0.5),
        1.0,
    )
    write_micrograph(path, second, 1.0)
    client.restart()  # what was kept is gone
    with pytest.raises(InputError, match=r"changing.mrc: expected the content that"):
        part.expectation(np.arange(len(part)), hypotheses)


def test_file__that_is_a_copy_is_left_out_as_without_workers(
    client: Client, tmp_path: Path
) -> None:
    image, other = np.random.default_rng(1).standard_normal((2, 70, 70))
    given = {"a.mrc": image, "b.mrc": -image, "c.mrc": other}
    for name, pixels in given.items():
        write_micrograph(tmp_path / name, pixels, 1.0)
    inputs = list_inputs([tmp_path / name for name in given])
    with pytest.warns(RunWarning, match=r"b\.mrc: left out, .* of .*a\.mrc"):
        remote = load_remotely(client, inputs, SETTINGS, no_progress)
    with pytest.warns(RunWarning):
        here = load_patches(inputs, SETTINGS, no_progress)
    assert remote.sources == here.sources
    np.testing.assert_array_equal(remote.micrograph, here.micrograph)


def test_worker__of_another_version_is_refused(
    client: Client, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = numbasaem.__version__
    monkeypatch.setattr(distributed, "__version__", "9.9")
    complaint = rf"worker tcp://.*: expected numbasaem 9\.9, found {mine}"
    with pytest.raises(InputError, match=complaint):
        load_remotely(client, list_inputs(paths), SETTINGS, no_progress)
    # One that came later finds out by itself.
    with pytest.raises(InputError, match=complaint):
        distributed.submit(client, "late", lambda _: None).result()


@pytest.mark.parametrize("listens", [False, True])
def test_cli__scheduler_that_does_not_answer(
    listens: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as silence:
        silence.bind(("127.0.0.1", 0))
        if listens:
            silence.listen()
        address = f"tcp://127.0.0.1:{silence.getsockname()[1]}"
        began = time.monotonic()
        options = ["--out", str(tmp_path), "--size", "7", "--scheduler", address]
        assert cli.main(["reconstruct", "some.mrc", *options]) == cli.UNUSABLE
    assert time.monotonic() - began < 10
    assert f"--scheduler {address}: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--scheduler", "nonsense"], "--scheduler nonsense: expected"),
        (["--local-cluster", "0"], "--local-cluster: expected at least 1"),
        (["--local-cluster", "1", "--scheduler", "tcp://a:1"], "found both"),
    ],
)
def test_cli__unusable_options(
    options: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["some.mrc", "--size", "7", "--out", str(tmp_path), *options]
    assert cli.main(["reconstruct", *given]) == cli.UNUSABLE
    assert complaint in capsys.readouterr().err


def test_cli__without_dask_names_the_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['dask'] = None; import numbasaem.cli as cli;"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    options = ["reconstruct", "a.mrc", "--out", str(tmp_path), "--size", "7"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options, "--local-cluster", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == cli.UNUSABLE
    assert "pip install 'numbasaem[distributed]'" in done.stderr
    assert done.stderr.count("\n") == 1
