"""The paper's experiments from one script, at a small size."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "tools" / "reproduce_paper.py"


def reproduce(out: Path, data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--data", str(data)]
    return subprocess.run(
        [*command, "--quick", *more], capture_output=True, text=True, check=False
    )


def test_reproduction__of_one_row(tmp_path: Path) -> None:
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    wanted = ("--only", "shepp-logan-original")
    assert reproduce(out, nowhere, *wanted).returncode == 1  # for want of TRPV1
    with (out / "results.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["figure"] == "3b"
    assert row["iterations"] == "5+5+5"
    estimate, ceiling = (
        [float(value) for value in row[name].split()] for name in ("fsc", "ceiling")
    )
    assert len(estimate) == len(ceiling) == 6
    assert estimate[1] > 0.9
    assert min(ceiling) > 0.7
    assert int(row["peak_mb"]) > 100
    page = (out / "index.html").read_text()
    for picture in page.split('<img src="')[1:]:
        assert (out / picture.partition('"')[0]).exists()
    # what is done is not done again
    done = out / "shepp-logan-original" / "paper" / "run" / "run.h5"
    before = done.stat().st_mtime_ns
    refused = reproduce(out, nowhere, *wanted)
    assert refused.returncode == 2
    assert "--resume goes on with it" in refused.stderr
    assert reproduce(out, nowhere, *wanted, "--resume").returncode == 1
    assert done.stat().st_mtime_ns == before
