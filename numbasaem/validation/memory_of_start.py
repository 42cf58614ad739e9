"""What a map keeps of the random volume that its run began from.

On noise EM keeps the Fourier phases of its start, in the pose of the start: there the
two are compared as they lie. Only degrees that the start has can be kept, and degree 0
is left out, since all that is round agrees in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.reconstruction.current_stage import basis_of
from numbasaem.reconstruction.result import RUNS
from numbasaem.reconstruction.starts import random_volume
from numbasaem.volume.basis import VolumeBasis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.observations.protocol import Observations
    from numbasaem.reconstruction.state import RunState
    from numbasaem.settings import Settings


def first_volumes(
    run: str, data: Observations, settings: Settings
) -> list[NDArray[np.float64]]:
    """Volumes of all random starts of a run, whichever of them went on.

    Parameters
    ----------
    run : str
        Name of the run.
    data : Observations
        Any data of the reconstruction; they decide no more than the scale.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    list of float64, shape (M,)
        Coefficients in the basis of the first stage.
    """
    number = RUNS.index(run)
    return [
        random_volume(data, settings, number, start) for start in range(settings.starts)
    ]


def shape_of_map(state: RunState, settings: Settings) -> NDArray[np.float64]:
    """Part of a finished map that its start can have had, on the grid.

    Parameters
    ----------
    state : RunState
        State of a run that is done.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float64, shape (L, L, L)
        The map in the degrees of its start, without degree 0.
    """
    basis = basis_of(state, settings)
    lowest = _first_basis(settings).ell_max
    return shape(basis.restrict(state.volume_coefficients, lowest), settings)


def shape(start: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Volume of a start without degree 0, on the grid.

    Parameters
    ----------
    start : float64, shape (M,)
        Coefficients in the basis of the first stage.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float64, shape (L, L, L)
        The volume; all of it if it has no other degree.
    """
    basis = _first_basis(settings)
    shaped = basis.indices[:, 0] > min(0, basis.ell_max - 1)
    return basis.evaluate(np.where(shaped, start, 0.0))


def _first_basis(settings: Settings) -> VolumeBasis:
    return VolumeBasis(settings.size, settings.schedule[0].ell_max)
