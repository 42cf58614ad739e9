"""Three-dimensional structure directly from cryo-EM micrographs.

Nobody picks a particle: expectation-maximization sums over every position and
rotation of the molecule in every patch of the micrographs. The names below are the
public surface; each is imported on first use, so that `import numbasaem` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numbasaem.alignment import align
    from numbasaem.errors import InputError
    from numbasaem.expectation_step import Statistics, expectation
    from numbasaem.maximization_step import maximization
    from numbasaem.metrics import fourier_shell_correlation
    from numbasaem.reconstruction import Result, reconstruct
    from numbasaem.rotations import random_rotations, rotation_grid
    from numbasaem.settings import Settings
    from numbasaem.simulation import SimulationSettings, simulate
    from numbasaem.validation import Validation, validate
    from numbasaem.volume_basis import VolumeBasis
    from numbasaem.window_step import window_expectation

    __version__: str

__all__ = [
    "InputError",
    "Result",
    "Settings",
    "SimulationSettings",
    "Statistics",
    "Validation",
    "VolumeBasis",
    "__version__",
    "align",
    "expectation",
    "fourier_shell_correlation",
    "maximization",
    "random_rotations",
    "reconstruct",
    "rotation_grid",
    "simulate",
    "validate",
    "window_expectation",
]

_HOME = {
    "InputError": "errors",
    "Result": "reconstruction",
    "Settings": "settings",
    "SimulationSettings": "simulation",
    "Statistics": "expectation_step",
    "Validation": "validation",
    "VolumeBasis": "volume_basis",
    "align": "alignment",
    "expectation": "expectation_step",
    "fourier_shell_correlation": "metrics",
    "maximization": "maximization_step",
    "random_rotations": "rotations",
    "reconstruct": "reconstruction",
    "rotation_grid": "rotations",
    "simulate": "simulation",
    "validate": "validation",
    "window_expectation": "window_step",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("numbasaem")
    elif name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names before they are imported."""
    return sorted({*globals(), *__all__})
