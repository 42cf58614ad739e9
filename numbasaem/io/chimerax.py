"""A script that opens a reconstruction in ChimeraX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.geometry.grids import ball
from numbasaem.volume.threshold import otsu_threshold

from . import written_whole


def surface_level(volume: NDArray[np.floating]) -> float:
    """Level at which the surface of a map shows the molecule.

    Parameters
    ----------
    volume : array, shape (L, L, L)
        The map.

    Returns
    -------
    float
        Otsu's threshold of the voxels in the ball of radius L // 2.
    """
    return otsu_threshold(volume[ball(len(volume))])


def write_chimerax_script(
    path: PathLike,
    volume: NDArray[np.floating],
    name: str,
    hidden: Sequence[str] = (),
) -> None:
    """Write commands that open a map, and others hidden beside it.

    Parameters
    ----------
    path : path-like
        A ``.cxc`` file in the folder of the maps; ChimeraX runs it there.
    volume : array, shape (L, L, L)
        The map; its surface is shown at :func:`surface_level`.
    name : str
        File of the map.
    hidden : sequence of str
        Files of maps that are opened at the same level and hidden.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    level = surface_level(volume)
    lines = ["# Level: Otsu's threshold of the voxels in the ball that holds the map."]
    for number, file in enumerate((name, *hidden), start=1):
        lines.append(f"open {file} id #{number}")
        lines.append(f"volume #{number} style surface step 1 level {level:.6g}")
        if number > 1:
            lines.append(f"hide #{number} models")
    lines += ["lighting soft", "view"]
    with written_whole(path) as part:
        Path(part).write_text("\n".join(lines) + "\n", encoding="utf-8")
