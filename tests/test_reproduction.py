"""The paper's experiments from one script, at a small size."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[1] / "tools" / "reproduce_paper.py"


def reproduce(out: Path, data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--data", str(data)]
    return subprocess.run(
        [*command, "--quick", *more], capture_output=True, text=True, check=False
    )


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_pictures_of_page_exist(out: Path) -> None:
    page = (out / "index.html").read_text()
    for picture in page.split('<img src="')[1:]:
        assert (out / picture.partition('"')[0]).exists()


def test_reproduction__of_one_row(tmp_path: Path) -> None:
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    wanted = ("--only", "shepp-logan-original")
    assert reproduce(out, nowhere, *wanted).returncode == 1  # for want of TRPV1
    (row,) = rows_of(out)
    assert row["figure"] == "3b"
    assert row["iterations"] == "5+5+5"
    estimate, ceiling = (
        [float(value) for value in row[name].split()] for name in ("fsc", "ceiling")
    )
    assert len(estimate) == len(ceiling) == 6
    assert estimate[1] > 0.9
    assert min(ceiling) > 0.7
    assert int(row["peak_mb"]) > 100
    assert_pictures_of_page_exist(out)
    # what is done is not done again
    done = out / "shepp-logan-original" / "paper" / "run" / "run.h5"
    before = done.stat().st_mtime_ns
    refused = reproduce(out, nowhere, *wanted)
    assert refused.returncode == 2
    assert "--resume goes on with it" in refused.stderr
    assert reproduce(out, nowhere, *wanted, "--resume").returncode == 1
    assert done.stat().st_mtime_ns == before


def write_chain(path: Path) -> None:
    """An atomic model of eighty atoms, one after the other."""
    steps = np.random.default_rng(0).normal(0, 3.0, (80, 3))
    atoms = "".join(
        f"ATOM  {number:5d}  CA  ALA A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        "  1.00  0.00           C  \n"
        for number, (x, y, z) in enumerate(steps.cumsum(axis=0), start=1)
    )
    path.write_text(atoms + "END\n")


def test_reproduction__of_autocorrelations(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    write_chain(data / "1QLQ.pdb")
    wanted = ("--only", "figure-7")
    assert reproduce(out, data, *wanted).returncode == 1  # for want of TRPV1
    clean, noisy = rows_of(out)
    assert {clean["figure"], noisy["figure"]} == {"7"}
    assert [clean["row"], noisy["row"]] == [
        "moments without noise",
        "moments of micrographs",
    ]
    assert clean["stalled"] == "no"
    assert float(clean["misfit"]) < 0.2
    assert float(clean["correlation_at_degree"]) > 0.95
    assert float(noisy["correlation"]) > 0.3
    assert float(noisy["misfit"]) > 0.2
    assert len(noisy["fsc"].split()) == len(noisy["ceiling"].split()) == 6
    assert_pictures_of_page_exist(out)
    # of EM there is a row once it has a volume, and no fit is made again
    fits = sorted((out / "figure-7").glob("*-degree-2/result.json"))
    before = [fit.stat().st_mtime_ns for fit in fits]
    by_em = out / "bpti-expanded" / "paper"
    (by_em / "run").mkdir(parents=True)
    true = by_em.with_name("data") / "volume_true.mrc"
    shutil.copy(true, by_em / "run" / "volume.mrc")
    result = {"row": "paper", "snr": 3.5, "iterations": "5+5+5", "seconds": 1.0}
    (by_em / "result.json").write_text(json.dumps(result))
    assert reproduce(out, data, *wanted, "--resume").returncode == 1
    em, *others = rows_of(out)
    assert em["row"] == "EM, paper"
    assert float(em["correlation"]) > 0.999
    assert others == [clean, noisy]
    assert [fit.stat().st_mtime_ns for fit in fits] == before
