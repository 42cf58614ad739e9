"""Types that every room of the package uses."""

from __future__ import annotations

import os
from collections.abc import Callable

PathLike = str | os.PathLike[str]
"""Name of a file, as Python takes it."""

OnProgress = Callable[[str, float], None]
"""Function that is told what is being done and which share of it is done, 0 to 1."""


def no_progress(step: str, share: float) -> None:
    """Say nothing of a step."""
