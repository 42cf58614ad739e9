"""The problem and the clock of the benchmarks are those of the tools."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

from problems import MATRIX_SIDE, Problem, matrix_product, shortest, simulated_problem

__all__ = ["Problem", "best_time", "matrix_product_rate", "simulated_problem"]


def best_time(work: Callable[[], object]) -> float:
    """Shortest of a few runs, in seconds."""
    return shortest([work])[0]


def matrix_product_rate(threads: int) -> float:
    """Multiply-adds a second of a float32 matrix product."""
    return MATRIX_SIDE**3 / best_time(matrix_product(threads))
