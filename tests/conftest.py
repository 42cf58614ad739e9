"""Fixtures that more than one test module needs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


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
