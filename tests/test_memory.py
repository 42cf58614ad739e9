"""The plan of memory: against what is used, and against what is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numbasaem import cli
from numbasaem.errors import InputError
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.preparation import InputShape
from numbasaem.micrographs.reading import input_shapes, list_inputs
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.memory import limit_threads_to_memory, plan_memory
from numbasaem.settings import Settings

MEASURED = """
import json, sys
from numbasaem.micrographs.reading import input_shapes, list_inputs
from numbasaem.reconstruction.memory import plan_memory
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.settings import Settings

path, out, settings = sys.argv[1], sys.argv[2], Settings(**json.loads(sys.argv[3]))
plan = plan_memory(settings, input_shapes(list_inputs([path]), settings))
reconstruct([path], settings, out=out)
# The peak of ru_maxrss would include that of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([plan.total, 1024 * int(peak.split()[1])]))
"""
COMMON: dict[str, Any] = {"iterations": [1], "starts": 1, "threads": 1}


def noise(path: Path, pixels: int) -> Path:
    generator = np.random.default_rng(0)
    write_micrograph(path, generator.standard_normal((pixels, pixels)), 1.0)
    return path


@pytest.mark.parametrize(
    ("pixels", "settings"),
    [
        (200, {"size": 7, "ell_max": [4], "rotations": 100, "halves": False}),
        (3500, {"size": 7, "ell_max": [2], "rotations": 20, "batch_fraction": 0.02}),
        (3500, {"size": 7, "ell_max": [2], "rotations": 20, "whiten": True}),
    ],
    ids=["little data", "much data", "whitened"],
)
def test_plan__is_what_is_used(
    tmp_path: Path, pixels: int, settings: dict[str, Any]
) -> None:
    path = noise(tmp_path / "noise.mrc", pixels)
    told = json.dumps(COMMON | settings)
    command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "run"), told]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    planned, used = json.loads(done.stdout)
    # Kernels that are in the cache need not be compiled.
    assert used < planned < 1.1 * used + 0.15e9


def test_plan__grows_with_what_takes_memory() -> None:
    few = Settings(size=11, model="patch", threads=1, batch_fraction=0.05)
    shapes = [InputShape(1, (1000, 1000), (1000, 1000))]
    plan = plan_memory(few, shapes)
    two_micrographs = 2 * 990**2 * 4
    assert plan_memory(few, shapes * 3).patches >= plan.patches + two_micrographs
    more = few.model_copy(update={"threads": 8})
    assert plan_memory(more, shapes).total == plan.total + 7 * plan.thread
    seen = few.model_copy(update={"whiten": True})
    assert plan_memory(seen, shapes * 3).statistics == 3 * plan.statistics
    kept = few.model_copy(update={"batching": "incremental"})
    assert plan_memory(kept, shapes).statistics > 5 * plan.statistics


def test_plan__without_patches_where_others_hold_them(tmp_path: Path) -> None:
    settings = Settings(size=11, model="patch", max_memory=0.6)
    shapes = [InputShape(1, (4000, 4000), (4000, 4000))] * 100
    here, elsewhere = (plan_memory(settings, shapes, there) for there in (False, True))
    assert here.total - elsewhere.total > here.patches / 2
    assert (elsewhere.n_threads, "blocks" in str(elsewhere)) == (0, False)
    path = noise(tmp_path / "noise.mrc", 300)
    inputs = list_inputs([path])
    fitting, planned = limit_threads_to_memory(settings, inputs, elsewhere=True)
    assert (fitting.threads, planned.n_threads) == (None, 0)


def test_max_memory__runs_on_fewer_threads_to_fit(tmp_path: Path) -> None:
    path = noise(tmp_path / "noise.mrc", 300)
    settings = Settings(size=31, model="patch", threads=16)
    plan = plan_memory(settings, input_shapes(list_inputs([path]), settings))
    room = (plan.total - 10.5 * plan.thread) / 1e9
    bounded = settings.model_copy(update={"max_memory": room})
    fitting, planned = limit_threads_to_memory(bounded, list_inputs([path]))
    assert fitting.threads == planned.n_threads == 5
    assert planned.total <= 1e9 * room
    assert limit_threads_to_memory(settings, list_inputs([path])) == (settings, plan)


def test_max_memory__refused_with_the_figures_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = noise(tmp_path / "noise.mrc", 300), tmp_path / "run"
    command = ["reconstruct", str(path), "--out", str(out), "--size", "11"]
    assert cli.main([*command, "--max-memory", "0.1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("numbasaem: --max-memory: expected at least 0.")
    assert "patches 0." in line
    assert line.endswith("found 0.1 GB")
    assert not out.exists()
    assert cli.main([*command, "--max-memory", "0"]) == 2
    assert "--max-memory" in capsys.readouterr().err


def test_max_memory__does_not_decide_the_result(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).standard_normal((60, 60), dtype=np.float32)
    settings = Settings(
        size=5, ell_max=(2,), iterations=(2,), rotations=12, starts=1, halves=False
    )
    wanted = reconstruct([pixels], settings, out=tmp_path)
    roomy = settings.model_copy(update={"max_memory": 64.0})
    found = reconstruct([pixels], roomy, out=tmp_path, resume=True)
    np.testing.assert_array_equal(found.volume, wanted.volume)
    assert found.settings == roomy


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 20, 20))])
def test_input_shapes__refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"micrographs\[0\]: expected a 2-D array"):
        input_shapes(list_inputs([wrong]), Settings(size=5))
    with pytest.raises(InputError, match="at least one"):
        list_inputs([])
