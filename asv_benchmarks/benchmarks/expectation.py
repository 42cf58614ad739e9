"""The E-step: time, useful multiply-adds a second, memory, threads."""

from __future__ import annotations

from functools import partial

from numbasaem.observations.patch_expectation import compile_kernels

from .common import best_time, matrix_product_rate, simulated_problem

USUAL = (11, 552, 1024, 2)


class Expectation:
    """One E-step; each parameter is varied from the usual ones by itself."""

    params = ([11, 15, 21, 31], [216, 552], [128, 1024], [1, 2])
    param_names = ("size", "n_rotations", "n_patches", "threads")
    timeout = 300

    def setup(self, *varied: int) -> None:
        """Simulate, and compile."""
        if sum(a != b for a, b in zip(varied, USUAL, strict=True)) > 1:
            raise NotImplementedError("more than one parameter varied")
        size, n_rotations, n_patches, threads = varied
        self.problem = simulated_problem(size, n_patches, n_rotations)
        self.run = partial(self.problem.expectation, threads)
        self.run()

    def time_expectation(self, *_: int) -> None:
        """Wall time."""
        self.run()

    def peakmem_expectation(self, *_: int) -> None:
        """Peak memory of the process."""
        self.run()

    def track_rate(self, *_: int) -> float:
        """Useful multiply-adds a second."""
        return self.problem.multiply_adds / best_time(self.run)

    def track_rate_over_matrix_product(self, *varied: int) -> float:
        """The same as a share of a float32 matrix product's rate."""
        return self.track_rate() / matrix_product_rate(varied[3])


class Threads:
    """What a second thread brings."""

    timeout = 300

    def setup(self) -> None:
        """Simulate, and compile."""
        size, n_rotations, n_patches, _ = USUAL
        self.problem = simulated_problem(size, n_patches, n_rotations)

    def track_parallel_efficiency(self) -> float:
        """Speed-up of two threads over one, divided by two."""
        one, two = (best_time(partial(self.problem.expectation, n)) for n in (1, 2))
        return one / two / 2


class Cached:
    """Kernels that are in the on-disk cache."""

    params = ([11, 21],)
    param_names = ("size",)
    timeout = 300

    def setup(self, size: int) -> None:
        """Compile where that has not been done."""
        compile_kernels(size)

    def timeraw_first_expectation(self, size: int) -> str:
        """First E-step of a process."""
        return f"""
        from numbasaem.observations.patch_expectation import compile_kernels
        compile_kernels({size})
        """


Expectation.track_rate.unit = "multiply-adds/s"  # type: ignore[attr-defined]
Expectation.track_rate_over_matrix_product.unit = "ratio"  # type: ignore[attr-defined]
Threads.track_parallel_efficiency.unit = "ratio"  # type: ignore[attr-defined]
