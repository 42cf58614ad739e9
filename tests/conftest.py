"""Fixtures that more than one test module needs."""

from __future__ import annotations

import os
from pathlib import Path

import numba
import numpy as np
import pytest


def pytest_configure() -> None:
    """Share the cores among pytest's workers: threads that wait for one are slow."""
    n_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    numba.set_num_threads(max(1, numba.config.NUMBA_NUM_THREADS // n_workers))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of public input data, which the repository does not hold."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NUMBASAEM_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no input data: {folder} is not a folder (set NUMBASAEM_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, steps of a moment are not announced as if they were long."""
    monkeypatch.setattr("numbasaem.cli.progress._PATIENCE_S", 60.0)


@pytest.fixture
def generator() -> np.random.Generator:
    """Random numbers of one test, the same in any order of the tests."""
    return np.random.default_rng(0)
