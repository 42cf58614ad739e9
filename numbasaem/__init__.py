"""Three-dimensional structure directly from cryo-EM micrographs.

Nobody picks a particle: expectation-maximization sums over every position and
rotation of the molecule in every patch of the micrographs. The names below are the
public surface; each is imported on first use, so that `import numbasaem` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numbasaem.assessment.alignment import align
    from numbasaem.assessment.fsc import fourier_shell_correlation
    from numbasaem.autocorrelation.fit import AutocorrelationFit, fit_autocorrelations
    from numbasaem.autocorrelation.moments import Autocorrelations, autocorrelations
    from numbasaem.errors import InputError, NumericalError
    from numbasaem.geometry.rotations import random_rotations, rotation_grid
    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.observations.patch_expectation import expectation
    from numbasaem.observations.statistics import Statistics
    from numbasaem.observations.window_expectation import window_expectation
    from numbasaem.reconstruction.driver import reconstruct
    from numbasaem.reconstruction.maximization import maximization
    from numbasaem.reconstruction.result import Result
    from numbasaem.settings import Settings
    from numbasaem.simulation.scene import simulate
    from numbasaem.simulation.settings import SimulationSettings
    from numbasaem.validation.algorithm import validate
    from numbasaem.validation.outcome import Validation
    from numbasaem.volume.basis import VolumeBasis

    __version__: str

__all__ = [
    "AutocorrelationFit",
    "Autocorrelations",
    "InputError",
    "NumericalError",
    "Result",
    "Settings",
    "SimulationSettings",
    "Statistics",
    "Validation",
    "ViewGrid",
    "VolumeBasis",
    "__version__",
    "align",
    "autocorrelations",
    "expectation",
    "fit_autocorrelations",
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
    "AutocorrelationFit": "autocorrelation.fit",
    "Autocorrelations": "autocorrelation.moments",
    "InputError": "errors",
    "NumericalError": "errors",
    "Result": "reconstruction.result",
    "Settings": "settings",
    "SimulationSettings": "simulation.settings",
    "Statistics": "observations.statistics",
    "Validation": "validation.outcome",
    "ViewGrid": "geometry.view_grid",
    "VolumeBasis": "volume.basis",
    "align": "assessment.alignment",
    "autocorrelations": "autocorrelation.moments",
    "expectation": "observations.patch_expectation",
    "fit_autocorrelations": "autocorrelation.fit",
    "fourier_shell_correlation": "assessment.fsc",
    "maximization": "reconstruction.maximization",
    "random_rotations": "geometry.rotations",
    "reconstruct": "reconstruction.driver",
    "rotation_grid": "geometry.rotations",
    "simulate": "simulation.scene",
    "validate": "validation.algorithm",
    "window_expectation": "observations.window_expectation",
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
