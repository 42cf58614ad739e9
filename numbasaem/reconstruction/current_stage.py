"""Basis of the volume and grid of rotations that the arrays of a state refer to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.volume.basis import VolumeBasis

if TYPE_CHECKING:
    from numbasaem.settings import Settings

    from .state import RunState


def basis_of(state: RunState, settings: Settings) -> VolumeBasis:
    """Basis of the volume in the current stage.

    Parameters
    ----------
    state : RunState
        Current state.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    VolumeBasis
        The basis.
    """
    return VolumeBasis(settings.size, settings.schedule[state.stage].ell_max)


def grid_of(state: RunState, settings: Settings) -> ViewGrid:
    """Grid of the current stage, whose directions the state's arrays refer to.

    Parameters
    ----------
    state : RunState
        Current state.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    ViewGrid
        The grid, not turned.
    """
    return ViewGrid(settings.schedule[state.stage].n_rotations)
