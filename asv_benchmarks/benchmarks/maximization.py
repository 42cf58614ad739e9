"""The M-step: normal equations and their solution."""

from __future__ import annotations

import numbasaem
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.normal_equations import normal_equations

from .common import simulated_problem


class Maximization:
    """One M-step over the highest degree, at L = 11."""

    params = ([6, 8, 10],)
    param_names = ("ell_max",)

    def setup(self, ell_max: int) -> None:
        """Make statistics to solve for."""
        rotations = numbasaem.ViewGrid(552).rotations
        basis = numbasaem.VolumeBasis(11, ell_max)
        self.operator = ProjectionOperator(basis, rotations)
        self.statistics = simulated_problem(11, 256).expectation()

    def time_maximization(self, ell_max: int) -> None:
        """Wall time."""
        normal_equations(self.operator, self.statistics).solve()
