"""What a terminal shows of a run: the plan first, then a table that stays whole."""

from __future__ import annotations

import os
import struct
import sys
import time
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from numbasaem import reconstruct
from numbasaem.cli.progress import ProgressDisplay
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.memory import limit_threads_to_memory
from numbasaem.reconstruction.plan import Plan, make_plan
from numbasaem.settings import Settings
from numbasaem.volume.basis import VolumeBasis
from tests.helpers import file_of_chains

fcntl = pytest.importorskip("fcntl", reason="terminals of POSIX")
ROWS, COLUMNS = 40, 90


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of_chains(tmp_path_factory.mktemp("watching"), 7, 70)


def shown_on_a_terminal(arguments: list[str]) -> list[str]:
    """Run the command on a terminal; return the lines it ends with."""
    import pty
    import subprocess
    import termios

    import pyte

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    code = "import sys; from numbasaem.cli import main, output;"
    code += "output.write_report = lambda run, as_json: None; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    ):
        os.close(theirs)
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not chunk:
                break
            stream.feed(chunk)
    os.close(ours)
    return [line.rstrip() for line in screen.display if line.strip()]


def test_terminal__shows_plan_and_table(micrograph: Path, tmp_path: Path) -> None:
    options = "--size 7 --ell-max 2,3 --iterations 2,1 --rotations 24 --starts 1 "
    options += "--batching full"
    out = ["--out", str(tmp_path / "run")]
    lines = shown_on_a_terminal(
        ["reconstruct", str(micrograph), *out, *options.split()]
    )
    text = " ".join(lines)
    assert lines[0].startswith("plan: 1 micrograph, 84 patches of 7 x 7 pixels")
    table = [line.split() for line in lines if line.split()[0] in ("full", "half2")]
    assert [row[0] for row in table[:3]] == ["full"] * 3
    # run, stage, of degree, iteration, likelihood, empty, noise, change, took
    assert table[2][1:6] == ["2/2,", "ℓ", "≤", "3", "1/1"]
    assert all(row[7].endswith("%") for row in table[:3])
    assert sum("evidence" in line for line in lines) == 2  # header and result
    assert "half2 degree 3 1/1" in text
    assert text.count("left") == 1
    assert "\x1b" not in text
    assert any(line.startswith("volume: ") for line in lines)


def test_plan__counts_the_work_and_comes_first() -> None:
    pixels = np.random.default_rng(0).standard_normal((70, 77), dtype=np.float32)
    settings = Settings(
        size=7, model="patch", ell_max=(2, 3), iterations=(2, 1), rotations=24, starts=2
    )
    told: list[object] = []
    reconstruct([pixels], settings, on_plan=told.append, on_iteration=told.append)
    plan = told[0]
    assert isinstance(plan, Plan)
    assert (plan.n_micrographs, plan.n_patches, plan.n_rotations) == (1, 110, 24)
    assert plan.n_runs == 3
    assert plan.n_iterations == len(told) - 1 == 3 * (2 * 10 + 3)
    assert plan.memory_bytes == limit_threads_to_memory(settings, [pixels])[1].total
    assert 0 < plan.seconds < 60


@dataclass
class Workers:
    """Stands for observations whose E-step takes the seconds that it is told."""

    n: int
    first_call: float = 0.0
    each: float = 0.0
    variance: float = 1.0
    patches_each: float = 1.0
    n_calls: int = 0

    def __len__(self) -> int:
        return self.n

    def projections(self, basis: VolumeBasis, views: ViewGrid) -> ProjectionOperator:
        return ProjectionOperator(basis, views.rotations)

    def expectation(
        self, chosen: np.ndarray, hypotheses: Hypotheses, *_: object
    ) -> ImageStatistics:
        time.sleep((0 if self.n_calls else self.first_call) + len(chosen) * self.each)
        self.n_calls += 1
        return ImageStatistics.of_nothing(*hypotheses.images.shape[:2])


def planned_seconds(data: Workers, n_done: int = 0, **changes: Any) -> float:
    settings = Settings(
        size=7,
        model="patch",
        ell_max=(2,),
        iterations=(10,),
        rotations=12,
        starts=1,
        halves=False,
    ).changed(**changes)
    data_set: Any = SimpleNamespace(n_micrographs=1)
    memory: Any = SimpleNamespace(total=0)
    parts: Any = {"full": data}
    return make_plan(data_set, parts, settings, n_done, memory).seconds


def test_plan__does_not_count_what_happens_but_once() -> None:
    """Such as compilation, which the first call alone may have to wait for."""
    assert planned_seconds(Workers(2000, first_call=0.5)) < 0.3


def test_plan__foresees_work_that_grows_with_the_observations() -> None:
    data = Workers(4000, each=1e-4)
    n_iterations, share = 10, 0.25
    seconds = planned_seconds(data, batch_fraction=share)
    true = n_iterations * share * len(data) * data.each
    assert true / 2 < seconds < 2 * true


def test_plan__counts_the_time_of_what_is_left() -> None:
    """Of a run of two stages, a quarter of which is done."""
    data = Workers(1000, each=1e-4)
    stages = {"ell_max": (2, 3), "iterations": (10, 10), "batching": "full"}
    seconds = planned_seconds(data, n_done=5, **stages)
    true = 15 * len(data) * data.each
    assert true / 2 < seconds < 2 * true


def test_progress__names_are_no_markup() -> None:
    display, text = ProgressDisplay(), StringIO()
    display.step("picking [/red] [bold]m[1].mrc", 0.5)
    Console(file=text, width=100).print(display._bars)
    assert "picking [/red] [bold]m[1].mrc" in text.getvalue()
