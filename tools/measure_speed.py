"""Measure the E-step on this machine and print a table.

    python tools/measure_speed.py [--sizes 11 15 21] [--patches 1024] [--rounds 5]

Rates count L**4 useful multiply-adds per patch and rotation for the correlations and
as many for the adjoint, however they are computed. Other work may share the machine, so
every figure is a ratio of the shortest of several alternating runs in one process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray
from problems import (
    ELL_MAX,
    MATRIX_SIDE,
    Problem,
    matrix_product,
    shortest,
    simulated_problem,
)

from numbasaem import machine
from numbasaem.aliases import no_progress
from numbasaem.observations.patch_data import Patches
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.starts import random_start
from numbasaem.settings import Settings

ITERATION_PATCHES = 14_796
"""Number of patches of an iteration: 5 % of those of four 2992 x 2992 micrographs."""
LEAST_EXPONENT = -40.0
"""Logarithm of a weight, relative to the largest, below which it counts as 0."""
NUMPY_PATCHES = 64


def numpy_expectation(problem: Problem) -> tuple[NDArray[np.float32], ...]:
    """Compute the sums in NumPy: one matrix product each for correlation and adjoint.

    Returns m_k and b_k: float32, shape (n_rotations, L * L) each.
    """
    size, images = problem.images.shape[1], problem.images.astype(np.float32)
    n_shifts = 2 * size - 1
    visible_shifts = [shift % (2 * size) for shift in range(1 - size, size)]
    shift_prior = problem.shift_prior[np.ix_(visible_shifts, visible_shifts)]
    templates = images.reshape(len(images), -1) / np.float32(problem.noise_variance)
    # pixel (y, x) of a patch displaced by (u, v) lies on projection pixel
    # (y + u - (L-1), x + v - (L-1)); index n_pixels of a patch is a zero
    row = np.arange(size)[None, :] - np.arange(n_shifts)[:, None] + (size - 1)
    inside = (row >= 0) & (row < size)
    both = inside[:, None, :, None] & inside[None, :, None, :]
    source = np.where(both, row[:, None, :, None] * size + row[None, :, None, :], -1)
    source = source.reshape(n_shifts**2, size * size)
    mask = (source >= 0).astype(np.float32)
    energy = mask @ (templates * images.reshape(len(images), -1)).T / 2
    bias = np.log(shift_prior).ravel()[:, None] - np.log(len(images))
    bias = (bias - energy).astype(np.float32)
    log_empty = np.log(1 - shift_prior.sum())
    visible, weighted = np.zeros_like(templates), np.zeros_like(templates)
    for patch in problem.patches.reshape(len(problem.patches), -1):
        moved = np.append(patch, np.float32(0))[source]
        weight = moved @ templates.T
        weight += bias
        peak = max(float(weight.max()), log_empty)
        weight -= peak
        small = weight < LEAST_EXPONENT
        np.exp(weight, out=weight)
        weight[small] = 0
        weight /= weight.sum(dtype=np.float64) + np.exp(log_empty - peak)
        visible += weight.T @ mask
        weighted += weight.T @ moved
    return visible, weighted


def rates(sizes: Sequence[int], n_patches: int, rounds: int) -> None:
    """Print the E-step's rate beside the matrix product's, for each size."""
    print("| L | threads | useful G multiply-adds/s | matrix product | ratio |")
    print("|---|---|---|---|---|")
    for size in sizes:
        count = max(128, n_patches * 11**3 // size**3)
        problem = simulated_problem(size, count)
        for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):
            step, product = shortest(
                [partial(problem.expectation, threads), matrix_product(threads)],
                rounds,
            )
            rate, scale = problem.multiply_adds / step, MATRIX_SIDE**3 / product
            print(
                f"| {size} | {threads} | {rate / 1e9:.1f} | {scale / 1e9:.1f} "
                f"| {rate / scale:.2f} |"
            )


def scaling(n_patches: int, rounds: int) -> None:
    """Print the speed-up of 2, 4, ... threads over one."""
    problem, most = simulated_problem(11, n_patches), numba.config.NUMBA_NUM_THREADS
    counts = [2**i for i in range(most.bit_length()) if 2**i <= most]
    counts += [most] * (most not in counts)
    times = shortest([partial(problem.expectation, n) for n in counts], rounds)
    for count, seconds in zip(counts[1:], times[1:], strict=True):
        speed_up = times[0] / seconds
        print(f"{count} threads: {speed_up:.2f} times one ({speed_up / count:.0%})")


def against_numpy(rounds: int) -> None:
    """Print how much faster the E-step is than NumPy's, after comparing the sums."""
    problem = simulated_problem(11, NUMPY_PATCHES)
    many = simulated_problem(11, 16 * NUMPY_PATCHES)
    visible, weighted = numpy_expectation(problem)
    statistics = problem.expectation()
    for mine, numpys in (
        (statistics.visible_weight, visible),
        (statistics.weighted_patch, weighted),
    ):
        gap = np.abs(mine.reshape(numpys.shape) - numpys).max() / np.abs(numpys).max()
        if gap > 1e-4:
            raise AssertionError(f"the two E-steps differ by {gap:.1e}")
    ours, theirs = shortest(
        [many.expectation, partial(numpy_expectation, problem)], rounds
    )
    ours, theirs = ours / len(many.patches), theirs / len(problem.patches)
    print(
        f"NumPy: {theirs * 1e3:.3f} ms a patch; expectation: {ours * 1e3:.3f} ms; "
        f"{theirs / ours:.1f} times as fast"
    )


def whole_iteration(rounds: int) -> None:
    """Print the time of an iteration beside that of its E-step, and the memory."""
    size = 11
    problem = simulated_problem(size, ITERATION_PATCHES)
    settings = Settings(
        size=size,
        ell_max=(ELL_MAX,),
        iterations=(2 * rounds,),
        starts=1,
        batching="full",
    )
    problem.expectation()
    data = Patches(problem.patches)
    state = random_start(data, settings, run=0, start=0)
    run = iterations(state, data, settings, 1, no_progress)
    held = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    ratios = []
    for _ in range(rounds):
        same = replace(
            problem,
            images=problem.operator.project(state.volume_coefficients),
            shift_prior=state.shift_prior.copy(),
            noise_variance=state.noise_variance,
        )
        whole = next(run).seconds
        ratios.append(whole / shortest([same.expectation], 1)[0])
    beyond = (memory("VmHWM") - held) / numba.config.NUMBA_NUM_THREADS
    print(
        f"iteration of {ITERATION_PATCHES} patches: {whole:.2f} s, "
        f"{np.median(ratios):.2f} times its E-step (median of {rounds}); "
        f"memory beyond the patches {beyond:.0f} MB a thread"
    )


def memory(entry: str) -> float:
    """Memory of this process, MB; Linux says what is in use and its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == entry:
            return int(value.split()[0]) / 1024
    raise KeyError(entry)


FIRST_CALL = """
import time
start = time.perf_counter()
import numbasaem
imported = time.perf_counter()
numbasaem.reconstruct
everything = time.perf_counter()
from numbasaem.observations.patch_expectation import compile_kernels
compile_kernels({size})
print(imported - start, everything - start, time.perf_counter() - everything)
"""


def first_calls(sizes: Sequence[int]) -> None:
    """Print import and compilation times, each in processes of their own."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"XDG_CACHE_HOME": cache}
            environment.pop("NUMBA_CACHE_DIR", None)
            command = [sys.executable, "-c", FIRST_CALL.format(size=size)]
            ever, later = (
                subprocess.check_output(command, env=environment, text=True).split()
                for _ in range(2)
            )
        print(
            f"L = {size}: import numbasaem {float(later[0]):.2f} s, with all its "
            f"modules {float(later[1]):.2f} s; first call ever {float(ever[2]):.1f} s, "
            f"in a later process {float(later[2]):.2f} s"
        )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[11, 15, 21])
    parser.add_argument("--patches", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name, value in machine.describe().items():
        print(f"{name}: {value}")
    print()
    rates(options.sizes, options.patches, options.rounds)
    print()
    scaling(options.patches, options.rounds)
    against_numpy(options.rounds)
    whole_iteration(options.rounds)
    first_calls(options.sizes)


if __name__ == "__main__":
    main()
