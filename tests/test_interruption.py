"""Whatever ends a process, its run goes on to the bits of an unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from numbasaem import cli
from numbasaem.reconstruction.checkpoint import load_checkpoint
from tests.helpers import file_of_chains

SIZE = 7
OPTIONS = (
    f"--size {SIZE} --ell-max 2,3 --iterations 4,36 --rotations 48 --starts 1 "
    "--no-halves --batching incremental --batch-fraction 0.5"
).split()
VOLUME = "volume.mrc"

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of_chains(tmp_path_factory.mktemp("data"), SIZE, 420)


@pytest.fixture(scope="module")
def wanted(micrograph: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("wanted")
    assert cli.main(arguments(micrograph, out)) == 0
    return (out / VOLUME).read_bytes()


def arguments(micrograph: Path, out: Path, *more: str) -> list[str]:
    return ["reconstruct", str(micrograph), "--out", str(out), *OPTIONS, *more]


@contextmanager
def started(*command: str, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start the program, after some code; it is gone in the end."""
    code += "import sys, numbasaem.cli; sys.exit(numbasaem.cli.main())"
    program = [sys.executable, "-c", code, *command]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    """Read progress until a line begins like this."""
    assert process.stderr is not None
    assert any(line.startswith(beginning) for line in process.stderr)


def n_done(out: Path) -> int:
    return len(load_checkpoint(out / "run.h5")[1]["full"].history)


# --- signals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_signal__leaves_a_run_that_can_go_on(
    micrograph: Path, wanted: bytes, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with started(*arguments(micrograph, tmp_path)) as process:
        wait_for(process, "full degree 3 2/36")
        process.send_signal(number)
        sent = time.monotonic()
        _, rest = process.communicate()
        assert time.monotonic() - sent < 5
    assert process.returncode == status
    assert rest.splitlines()[-1] == "interrupted; resume with --resume"
    assert "Traceback" not in rest
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.h5", "run.previous.h5"}
    assert 6 <= n_done(tmp_path) < 40
    assert cli.main(arguments(micrograph, tmp_path, "--resume")) == 0
    assert (tmp_path / VOLUME).read_bytes() == wanted


def test_signal__a_second_one_leaves_at_once() -> None:
    code = (
        "import os, signal, sys\n"
        "from numbasaem.cli.signals import stopping_on_signals\n"
        "with stopping_on_signals():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except KeyboardInterrupt:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    sys.exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGINT


def test_signal__handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["--help"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_signal__stops_the_demo(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    smaller = (
        "import dataclasses; from numbasaem.simulation import demo\n"
        "demo.SIMULATION = dataclasses.replace(demo.SIMULATION, pixels=300)\n"
    )
    with started("demo", "--out", str(out), code=smaller) as process:
        wait_for(process, "full-start0 degree 2 1/")
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        _, rest = process.communicate()
        assert time.monotonic() - sent < 5
    assert process.returncode == 143
    assert rest.splitlines()[-1] == f"interrupted; what is finished is in {out}"
    assert load_checkpoint(out / "run" / "run.h5")[1]["full-start0"].history


# --- kill -9 -----------------------------------------------------------------------


@pytest.mark.slow
def test_kill__twenty_times_at_random_moments(micrograph: Path, tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        """A run with far more iterations than go by between twenty kills."""
        words = arguments(micrograph, tmp_path / name, "--resume")
        return ["4,396" if word == "4,36" else word for word in words]

    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    assert cli.main(command("unbroken")) == 0
    generator = np.random.default_rng(0)
    n_killed, done = 0, 0
    while n_killed < 20:
        with started(*command("killed")) as process:
            wait_for(process, "full degree")
            time.sleep(generator.uniform(0, 0.05))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        n_killed += 1
        assert n_done(killed) > done
        done = n_done(killed)
    assert done < 400
    assert cli.main(command("killed")) == 0
    assert (killed / VOLUME).read_bytes() == (unbroken / VOLUME).read_bytes()


# --- disk --------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a small file system, or skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    if done.returncode != 0:
        pytest.skip(f"not allowed to mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass


def test_disk__fills_up_during_a_run(
    micrograph: Path, wanted: bytes, tmp_path: Path
) -> None:
    with mounted(tmp_path / "small", "size=4m") as disk:
        out, filling = disk / "run", disk / "filling"
        with started(*arguments(micrograph, out)) as process:
            wait_for(process, "full degree 3 2/36")
            with pytest.raises(OSError, match="No space left"):
                fill(filling)
            _, rest = process.communicate()
        assert process.returncode == 2
        last = rest.splitlines()[-1]
        assert last.startswith(f"numbasaem: {out / 'run.h5'}: expected")
        assert "No space left" in last
        done = n_done(out)
        assert 6 <= done < 40
        assert {path.name for path in out.iterdir()} == {"run.h5", "run.previous.h5"}
        filling.unlink()
        assert cli.main(arguments(micrograph, out, "--resume")) == 0
        assert (out / VOLUME).read_bytes() == wanted


def test_disk__fills_up_during_the_report(
    micrograph: Path, wanted: bytes, tmp_path: Path, capsys: Captured
) -> None:
    """The page of a report takes more than this disk has; maps and picks do not."""
    with mounted(tmp_path / "small", "size=3m") as disk:
        out, picks = disk / "run", tmp_path / "picks.star"
        assert cli.main(arguments(micrograph, out, "--picks", str(picks))) == 0
        captured = capsys.readouterr()
        assert "no report (InputError: " in captured.err
        assert "No space left" in captured.err
        assert "particles written to" in captured.out
        assert (out / VOLUME).read_bytes() == wanted
        assert n_done(out) == 40
        assert not list(out.rglob(".part.*"))
        assert not (out / "report.html").exists()
        (out / "report.html").write_text("the one before")
        assert cli.main(["report", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"numbasaem: {out}")
        assert "No space left" in line
        assert (out / "report.html").read_text() == "the one before"


def test_disk__read_only(micrograph: Path, tmp_path: Path, capsys: Captured) -> None:
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        for out in (disk, disk / "run"):
            assert cli.main(arguments(micrograph, out)) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            assert line.startswith(f"numbasaem: {out}")
            assert "Read-only file system" in line


def test_disk__folder_vanishes_during_a_run(micrograph: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started(*arguments(micrograph, out)) as process:
        wait_for(process, "full degree 3 2/36")
        out.rename(tmp_path / "elsewhere")
        _, rest = process.communicate()
    assert process.returncode == 2
    assert rest.splitlines()[-1].startswith(f"numbasaem: {out / 'run.h5'}: expected")
    assert n_done(tmp_path / "elsewhere") >= 6


def test_input__vanishes_before_a_resume(
    micrograph: Path, wanted: bytes, tmp_path: Path, capsys: Captured
) -> None:
    copy, out = tmp_path / "copy.mrc", tmp_path / "run"
    copy.write_bytes(micrograph.read_bytes())
    with started(*arguments(copy, out)) as process:
        wait_for(process, "full degree 2 1/")
        copy.unlink()
        process.terminate()
        process.communicate()
    before = (out / "run.h5").read_bytes()
    assert cli.main(arguments(copy, out, "--resume")) == 2
    assert f"{copy}: expected" in capsys.readouterr().err
    assert (out / "run.h5").read_bytes() == before
    os.symlink(micrograph, copy)
    assert cli.main(arguments(copy, out, "--resume")) == 0
    assert (out / VOLUME).read_bytes() == wanted
