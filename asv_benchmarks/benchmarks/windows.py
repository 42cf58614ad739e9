"""The window model's E-step: time, useful multiply-adds a second, memory."""

from __future__ import annotations

from functools import partial

import numbasaem

from .common import best_time, matrix_product_rate, simulated_problem

N_ROTATIONS, PIXELS = 552, 256


class Windows:
    """One E-step on a micrograph of noise under a structure, set-up included."""

    params = ([11, 15, 21, 31],)
    param_names = ("size",)
    timeout = 300

    def setup(self, size: int) -> None:
        """Make a micrograph, and compile."""
        problem = simulated_problem(size, 16, N_ROTATIONS)
        views = numbasaem.ViewGrid(N_ROTATIONS)
        self.n_rotations = len(views)
        self.run = partial(
            numbasaem.window_expectation,
            problem.noise(PIXELS, PIXELS),
            problem.operator.basis,
            problem.coefficients,
            views,
            problem.noise_variance,
            0.5,
        )
        self.run()

    def time_windows(self, _: int) -> None:
        """Wall time."""
        self.run()

    def peakmem_windows(self, _: int) -> None:
        """Peak memory of the process."""
        self.run()

    def track_rate_over_matrix_product(self, size: int) -> float:
        """Useful multiply-adds a second as a share of a float32 matrix product's."""
        n_windows = (PIXELS - size + 1) ** 2
        work = 2 * n_windows * self.n_rotations * size**2
        return work / best_time(self.run) / matrix_product_rate(2)


Windows.track_rate_over_matrix_product.unit = "ratio"  # type: ignore[attr-defined]
