"""A whole run on generated input: simulate, reconstruct from the files, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import OnProgress, no_progress
from numbasaem.assessment.alignment import Comparison, evaluate_against
from numbasaem.errors import expected
from numbasaem.io.mrc import read_volume, write_volume
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.plan import Plan
from numbasaem.reconstruction.state import Iteration
from numbasaem.settings import Settings
from numbasaem.volume.phantom import folded_chain

from .files import simulate_to_folder
from .settings import SimulationSettings
from .true_map_search import TrueMapSearch, search_with_true_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIMULATION = SimulationSettings(size=11, pixels=2992, snr=0.25, pixel_size=5.0)
"""Settings of the input: a molecule of 55 angstrom in one micrograph."""
_RADIUS = 0.42
"""Radius of the molecule, in boxes: with the width of its beads 55 angstrom across."""
RECONSTRUCTION = Settings(size=11, halves=False)
"""Settings of the reconstruction: those of any run, without half maps."""


def demonstration_volume(seed: int = 0) -> NDArray[np.float64]:
    """Molecule of the demonstration, or another of its kind.

    Parameters
    ----------
    seed : int
        Seed of its chain; 0 is the demonstration's.

    Returns
    -------
    float64, shape (L, L, L)
        The molecule.
    """
    return folded_chain(SIMULATION.size, radius=_RADIUS, seed=seed)


@dataclass(frozen=True)
class Demonstration:
    """What the demo found, and where its files are.

    Attributes
    ----------
    comparison : Comparison
        The reconstruction against the truth.
    truth : float64, shape (L, L, L)
        The molecule.
    search : TrueMapSearch
        What a search with the true map finds.
    snr : float
        Signal-to-noise ratio of the micrographs.
    pixel_size : float
        Angstrom per voxel.
    data : pathlib.Path
        Folder of the simulated micrographs and the truth.
    run : pathlib.Path
        Folder of the reconstruction.
    aligned : pathlib.Path
        The reconstruction, turned and moved onto the truth.
    """

    comparison: Comparison
    truth: NDArray[np.float64]
    search: TrueMapSearch
    snr: float
    pixel_size: float
    data: Path
    run: Path
    aligned: Path


def demonstrate(
    out: Path,
    *,
    snr: float | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_iteration: Callable[[Iteration], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Demonstration:
    """Simulate micrographs, reconstruct from their files alone, compare.

    The reconstruction starts from random numbers and reads nothing but the micrographs;
    the truth is opened afterwards.

    Parameters
    ----------
    out : pathlib.Path
        Folder to write; new or empty.
    snr : float, optional
        Signal-to-noise ratio, in place of that of `SIMULATION`.
    on_plan, on_iteration, on_progress : callable, optional
        As in :func:`numbasaem.reconstruct`.

    Returns
    -------
    Demonstration
        The comparison and the files.

    Raises
    ------
    InputError
        If the folder holds files or cannot be written, or `snr` is not a positive
        number.
    """
    simulation = SIMULATION if snr is None else replace(SIMULATION, snr=snr)
    if not np.isfinite(simulation.snr):
        raise expected("snr", "a positive number", simulation.snr)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise expected(out, "a new or empty folder", "files in it")
    report = on_progress or no_progress
    data, run, aligned = out / "data", out / "run", out / "aligned.mrc"

    report("simulating micrographs", 0.0)
    simulate_to_folder(
        data,
        demonstration_volume(),
        simulation,
        lambda done, total: report("simulating micrographs", done / total),
    )
    result = reconstruct(
        sorted(data.glob("micrograph_*.mrc")),
        RECONSTRUCTION,
        out=run,
        on_plan=on_plan,
        on_iteration=on_iteration,
        on_progress=report,
    )
    report("comparing with the truth", 0.0)
    truth, _ = read_volume(data / "volume_true.mrc")
    comparison = evaluate_against(result.volume, truth)
    write_volume(aligned, comparison.alignment.volume, simulation.pixel_size)
    report("searching with the true map", 0.0)
    return Demonstration(
        comparison=comparison,
        truth=truth.astype(np.float64),
        search=search_with_true_map(data),
        snr=simulation.snr,
        pixel_size=simulation.pixel_size,
        data=data,
        run=run,
        aligned=aligned,
    )
