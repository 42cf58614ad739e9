"""What a user waits for before the first number."""

from __future__ import annotations


class Start:
    """Import, and the first E-step of a process."""

    def timeraw_import(self) -> str:
        """Import of the package."""
        return "import numbasaem"

    def timeraw_first_expectation(self) -> str:
        """First E-step of a process whose kernels are in the on-disk cache."""
        return """
        import numpy as np
        import numbasaem
        numbasaem.expectation(
            np.zeros((1, 11, 11), np.float32),
            np.zeros((2, 11, 11)),
            np.full((22, 22), 1 / 484),
            1.0,
        )
        """
