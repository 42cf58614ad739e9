"""The window model's E-step: time, useful multiply-adds a second, memory."""

from __future__ import annotations

from functools import partial

import numpy as np

import numbasaem

from .common import best_time, problem, sgemm_rate

N_ROTATIONS, PIXELS = 552, 256


class Windows:
    """One E-step on a micrograph of noise under a structure's projections."""

    params = ([11, 15, 21, 31],)
    param_names = ("size",)
    timeout = 300

    def setup(self, size: int) -> None:
        """Make a micrograph, and compile."""
        given = problem(size, N_ROTATIONS, 16)
        deviation = np.sqrt(given.noise_variance)
        pixels = np.random.default_rng(0).normal(0, deviation, (PIXELS, PIXELS))
        self.run = partial(
            numbasaem.window_expectation,
            pixels.astype(np.float32),
            given.images,
            given.noise_variance,
            0.5,
        )
        self.run()

    def time_windows(self, _: int) -> None:
        """Wall time."""
        self.run()

    def peakmem_windows(self, _: int) -> None:
        """Peak memory of the process."""
        self.run()

    def track_rate_over_sgemm(self, size: int) -> float:
        """Useful multiply-adds a second as a share of a float32 matrix product's."""
        n_windows = (PIXELS - size + 1) ** 2
        work = 2 * n_windows * N_ROTATIONS * size**2
        return work / best_time(self.run) / sgemm_rate(2)


Windows.track_rate_over_sgemm.unit = "ratio"  # type: ignore[attr-defined]
