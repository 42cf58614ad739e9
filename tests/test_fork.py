"""A process that is forked from one that has run kernels is told, and does not hang."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, sys
import numba, numpy as np
from numbasaem.errors import InputError
from numbasaem.kernels._jit import FAST, parallel_kernel

@parallel_kernel(FAST)
def double(values):
    for i in numba.prange(len(values)):
        values[i] *= 2

def work(number):
    values = np.full(4, float(number))
    double(values)
    return float(values[0])

if __name__ == "__main__":
    if sys.argv[2] == "used":
        work(1)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        try:
            print(pool.map(work, [1, 2]))
        except InputError as error:
            print(error)
    print(work(4), numba.threading_layer())
"""


@pytest.mark.parallel
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("before", ["used", "unused"])
def test_pool__is_served_or_told(tmp_path: Path, method: str, before: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = [sys.executable, "-W", "ignore", str(program), method, before]
    output = subprocess.run(
        run, check=True, capture_output=True, text=True, timeout=300
    ).stdout.splitlines()
    served, after = output
    layer = after.removeprefix("8.0 ")
    if (method, before, layer) == ("fork", "used", "omp"):
        assert served == (
            "kernels: expected a process of its own for the work: multiprocessing's "
            "context 'spawn' or 'forkserver', found a fork of a process that has run "
            "them"
        )
    else:
        assert served == "[2.0, 4.0]"
