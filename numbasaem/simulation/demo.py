"""A whole run on generated input: simulate, reconstruct from the files, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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

SIMULATION = SimulationSettings(size=11, pixels=1496, snr=3.5)
"""Settings of the input; with those below half a minute on two cores."""
RECONSTRUCTION = Settings(
    size=11,
    ell_max=(6, 8, 10),
    iterations=(6, 4, 10),
    batch_fraction=0.2,
    halves=False,
)
"""Settings of the reconstruction."""


@dataclass(frozen=True)
class Demonstration:
    """What the demo found, and where its files are.

    Attributes
    ----------
    comparison : Comparison
        The reconstruction against the truth.
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
    pixel_size: float
    data: Path
    run: Path
    aligned: Path


def demonstrate(
    out: Path,
    *,
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
    on_plan, on_iteration, on_progress : callable, optional
        As in :func:`numbasaem.reconstruct`.

    Returns
    -------
    Demonstration
        The comparison and the files.

    Raises
    ------
    InputError
        If the folder holds files or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise expected(out, "a new or empty folder", "files in it")
    report = on_progress or no_progress
    data, run, aligned = out / "data", out / "run", out / "aligned.mrc"

    report("simulating micrographs", 0.0)
    simulate_to_folder(
        data,
        folded_chain(SIMULATION.size),
        SIMULATION,
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
    write_volume(aligned, comparison.alignment.volume, SIMULATION.pixel_size)
    return Demonstration(comparison, SIMULATION.pixel_size, data, run, aligned)
