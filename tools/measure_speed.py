"""Measure the E-step on this machine and print a table.

    python tools/measure_speed.py [--sizes 11 15 21] [--patches 1024] [--rounds 5]

Rates count L**4 useful multiply-adds per patch and rotation for the correlations and
as many for the adjoint, however they are computed. Every figure is a ratio of the
shortest of several alternating runs in one process: other work may share the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from numbasaem import machine
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.patch_data import Patches
from numbasaem.observations.patch_expectation import expectation
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.observations.statistics import Statistics
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.starts import random_start
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain

SNR = 1.0
ELL_MAX = 10
N_ROTATIONS = 552
ITERATION_PATCHES = 14_796
"""Five hundredths of the patches of four micrographs of 2992 x 2992 pixels."""
MATRIX_SIDE = 2048
LEAST_EXPONENT = -40.0
NUMPY_PATCHES = 64


@dataclass(frozen=True)
class Problem:
    """Input of one E-step: patches and the projections of the molecule in them."""

    patches: NDArray[np.float32]
    images: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float

    def expectation(self, threads: int | None = None) -> Statistics:
        """Posterior of all patches, summed up."""
        return expectation(
            self.patches,
            self.images,
            self.shift_prior,
            self.noise_variance,
            threads=threads,
        )

    @property
    def multiply_adds(self) -> int:
        """Useful ones: L**4 a patch and rotation for each of the two products."""
        n_pixels = int(self.images.shape[1]) ** 2
        return 2 * len(self.patches) * len(self.images) * n_pixels**2


def simulated(size: int, n_patches: int, n_rotations: int = N_ROTATIONS) -> Problem:
    """Patches of a simulated micrograph at SNR 1, and the truth's projections."""
    basis, density = VolumeBasis(size, ELL_MAX), folded_chain(size)
    pixels = size * (int(np.ceil(np.sqrt(n_patches))) + 1)
    simulation = simulate(density, size=size, pixels=pixels, snr=SNR, ell_max=ELL_MAX)
    images = basis.project(basis.expand(density), rotation_grid(n_rotations))
    patches = cut_patches(simulation.micrographs[0], size)[:n_patches]
    prior = uniform_shift_prior(size, 0.5)
    return Problem(patches, images, prior, simulation.noise_variance)


def shortest(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Shortest time of each piece of work, in seconds, of alternating runs."""
    times = np.empty((rounds, len(works)))
    for work in works:
        work()
    for row in times:
        for number, work in enumerate(works):
            start = perf_counter()
            work()
            row[number] = perf_counter() - start
    return [float(seconds) for seconds in times.min(axis=0)]


def matrix_product(threads: int) -> Callable[[], object]:
    """A float32 matrix product on that many threads."""
    matrix = np.random.default_rng(0).standard_normal((MATRIX_SIDE, MATRIX_SIDE))
    single = matrix.astype(np.float32)

    def multiply() -> None:
        with threadpool_limits(threads):
            single @ single

    return multiply


def numpy_expectation(problem: Problem) -> tuple[NDArray[np.float32], ...]:
    """The same sums in NumPy: one matrix product each for correlation and adjoint.

    Returns m_k and b_k, each (n_rotations, L * L).
    """
    size, images = problem.images.shape[1], problem.images.astype(np.float32)
    n = 2 * size - 1
    seen = np.ix_(*[[d % (2 * size) for d in range(1 - size, size)]] * 2)
    templates = images.reshape(len(images), -1) / np.float32(problem.noise_variance)
    # pixel (y, x) of a patch displaced by (u, v) lies on projection pixel
    # (y + u - (L-1), x + v - (L-1)); index n_pixels of a patch is a zero
    at, of = np.arange(size), np.arange(n) - (size - 1)
    row = at[None, :] - of[:, None]
    inside = (row >= 0) & (row < size)
    both = inside[:, None, :, None] & inside[None, :, None, :]
    source = np.where(both, row[:, None, :, None] * size + row[None, :, None, :], -1)
    source = source.reshape(n * n, size * size)
    mask = (source >= 0).astype(np.float32)
    energy = mask @ (templates * images.reshape(len(images), -1)).T / 2
    bias = np.log(problem.shift_prior[seen]).ravel()[:, None] - np.log(len(images))
    bias = (bias - energy).astype(np.float32)
    log_empty = np.log(1 - problem.shift_prior[seen].sum())
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
        problem = simulated(size, count)
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
    problem, most = simulated(11, n_patches), numba.config.NUMBA_NUM_THREADS
    counts = [2**i for i in range(most.bit_length()) if 2**i <= most]
    counts += [most] * (most not in counts)
    times = shortest([partial(problem.expectation, n) for n in counts], rounds)
    for count, seconds in zip(counts[1:], times[1:], strict=True):
        speed_up = times[0] / seconds
        print(f"{count} threads: {speed_up:.2f} times one ({speed_up / count:.0%})")


def against_numpy(rounds: int) -> None:
    """Print how much faster the E-step is than NumPy's, after comparing the sums."""
    problem = simulated(11, NUMPY_PATCHES)
    many = simulated(11, 16 * NUMPY_PATCHES)
    visible, weighted = numpy_expectation(problem)
    found = problem.expectation()
    for mine, other in (
        (found.visible_weight, visible),
        (found.weighted_patch, weighted),
    ):
        gap = np.abs(mine.reshape(other.shape) - other).max() / np.abs(other).max()
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
    problem = simulated(size, ITERATION_PATCHES)
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
    run = iterations(state, data, settings, 1, lambda what, share: None)
    basis, rotations = VolumeBasis(size, ELL_MAX), rotation_grid(N_ROTATIONS)
    held = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    ratios = []
    for _ in range(rounds):
        now = Problem(
            problem.patches,
            basis.project(state.volume_coefficients, rotations),
            state.shift_prior.copy(),
            state.noise_variance,
        )
        whole = next(run).seconds
        ratios.append(whole / shortest([now.expectation], 1)[0])
    beyond = (memory("VmHWM") - held) / numba.config.NUMBA_NUM_THREADS
    print(
        f"iteration of {ITERATION_PATCHES} patches: {whole:.2f} s, "
        f"{np.median(ratios):.2f} times its E-step (median of {rounds}); "
        f"memory beyond the patches {beyond:.0f} MB a thread"
    )


def memory(what: str) -> float:
    """Memory of this process, MB; Linux says what is in use and its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) / 1024
    raise KeyError(what)


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
