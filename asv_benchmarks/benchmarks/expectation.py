"""The E-step: time, useful multiply-adds a second, memory, threads."""

from __future__ import annotations

from .common import best_time, multiply_adds, problem, sgemm_rate


class Expectation:
    """One E-step over patch size and number of rotations."""

    params = ([11, 15, 21], [552])
    param_names = ("size", "n_rotations")
    timeout = 300
    _N_PATCHES = 1024

    def setup(self, size: int, n_rotations: int) -> None:
        """Simulate, and compile."""
        self.problem = problem(size, n_rotations, self._N_PATCHES)
        self.problem.expectation()

    def time_expectation(self, size: int, n_rotations: int) -> None:
        """Wall time."""
        self.problem.expectation()

    def peakmem_expectation(self, size: int, n_rotations: int) -> None:
        """Peak memory of the process."""
        self.problem.expectation()

    def track_rate(self, size: int, n_rotations: int) -> float:
        """Useful multiply-adds a second."""
        seconds = best_time(self.problem.expectation)
        return multiply_adds(size, n_rotations, self._N_PATCHES) / seconds

    def track_rate_over_sgemm(self, size: int, n_rotations: int) -> float:
        """The same as a share of a float32 matrix product's rate."""
        return self.track_rate(size, n_rotations) / sgemm_rate()

    def track_parallel_efficiency(self, size: int, n_rotations: int) -> float:
        """Speed-up of two threads over one, divided by two."""
        one, two = (
            best_time(lambda n=n: self.problem.expectation(threads=n)) for n in (1, 2)
        )
        return one / two / 2


Expectation.track_rate.unit = "multiply-adds/s"  # type: ignore[attr-defined]
Expectation.track_rate_over_sgemm.unit = "ratio"  # type: ignore[attr-defined]
Expectation.track_parallel_efficiency.unit = "ratio"  # type: ignore[attr-defined]
