"""Outcome of a validation: questions to the data, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .omission import Omission


@dataclass(frozen=True)
class Check:
    """One question to the data.

    Attributes
    ----------
    question : str
        What was asked.
    found, wanted : str
        The answer, and what it takes to pass.
    passed : bool
        Whether it does.
    figures : dict of str to float
        The numbers in them, by name.
    """

    question: str
    found: str
    wanted: str
    passed: bool
    figures: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """Put question, outcome and figures as JSON can hold them."""
        figures = {name: _finite(value) for name, value in self.figures.items()}
        return {"question": self.question, "passed": self.passed, **figures}


@dataclass(frozen=True)
class Validation:
    """What the data say of a structure.

    Attributes
    ----------
    checks : tuple of Check
        All questions and their answers.
    fsc : float64, shape (L // 2 + 1,)
        Fourier shell correlation of the half maps.
    control_fsc : float64, shape (L // 2 + 1,), or None
        That of the control, if the validation was thorough.
    omissions : tuple of Omission
        Parts of the map that were left out, and what came back of them.

    Examples
    --------
    >>> check = Check("half maps, correlation", "0.41", "at least 0.5", passed=False)
    >>> Validation((check,), np.ones(4), np.zeros(4)).verdict
    'not supported'
    """

    checks: tuple[Check, ...]
    fsc: NDArray[np.float64]
    control_fsc: NDArray[np.float64] | None = None
    omissions: tuple[Omission, ...] = ()

    @property
    def verdict(self) -> str:
        """Verdict: "supported" if every check is passed, else "not supported"."""
        passed = all(check.passed for check in self.checks)
        return "supported" if passed else "not supported"

    def record(self) -> dict[str, object]:
        """Put verdict and figures as JSON can hold them."""
        return {
            "verdict": self.verdict,
            "checks": [check.record() for check in self.checks],
            "fsc": [_finite(value) for value in self.fsc],
            "control_fsc": None
            if self.control_fsc is None
            else [_finite(value) for value in self.control_fsc],
            "omissions": [omission.record() for omission in self.omissions],
        }


def _finite(value: float) -> float | None:
    """Number as JSON can hold it; None if it is infinite or not a number."""
    return float(value) if np.isfinite(value) else None
