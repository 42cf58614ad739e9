"""A simulation on disk: micrographs, truth and a record of what was asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected
from numbasaem.geometry.rotations import relion_angles
from numbasaem.io import written_whole
from numbasaem.io.micrograph_tables import write_micrograph_table
from numbasaem.io.mrc import write_micrograph, write_volume
from numbasaem.io.relion import optics_table, write_particles

from .scene import Progress, Scene, SimulatedMicrograph, Simulation
from .settings import VOLTAGE, SimulationSettings

RECORD = "simulation.json"
"""Name of the record; it is written last."""


def simulate_to_folder(
    folder: PathLike,
    volume: NDArray[np.floating],
    settings: SimulationSettings,
    progress: Progress | None = None,
) -> None:
    """Simulate micrographs and write each before the next is drawn.

    Parameters
    ----------
    folder : path-like
        Where to write; made if it is not there.
    volume : ndarray, shape (n, n, n), n >= size
        As in :func:`simulate`.
    settings : SimulationSettings
        What to simulate.
    progress : callable, optional
        Called with the number of micrographs done and of all.

    Raises
    ------
    InputError
        If the volume cannot be used, or the folder cannot or holds a simulation.
    """
    _make_folder(folder)
    scene = Scene(volume, settings)
    _write(folder, scene.micrographs(progress), scene.volume_true, settings)


def write_simulation(
    folder: PathLike,
    simulation: Simulation,
    settings: SimulationSettings,
) -> None:
    """Write micrographs, truth and settings.

    The folder gets ``micrograph_0001.mrc`` and so on, ``truth.star``,
    ``volume_true.mrc``, with a lens RELION's list ``micrographs.star``, and, last,
    ``simulation.json``.

    Parameters
    ----------
    folder : path-like
        Where to write; made if it is not there.
    simulation : Simulation
        Result of :func:`simulate`.
    settings : SimulationSettings
        Settings that it was given.

    Raises
    ------
    InputError
        If the folder cannot be written or holds a simulation already.
    """
    _make_folder(folder)
    simulated = map(
        SimulatedMicrograph,
        simulation.micrographs,
        simulation.coordinates,
        simulation.rotations,
        repeat(simulation.noise_variance),
        simulation.ctfs or repeat(None),
    )
    _write(folder, simulated, simulation.volume_true, settings)


def _make_folder(folder: PathLike) -> None:
    """Make the folder if it is not there; refuse one that holds a simulation."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in place.iterdir())
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror}"
        raise expected(folder, "a folder that can be written", found) from error
    for name in names:
        if name == RECORD or name.startswith("micrograph_"):
            raise expected(folder, "a folder without a simulation", f"{name} in it")


def _write(
    folder: PathLike,
    simulated: Iterable[SimulatedMicrograph],
    volume_true: NDArray[np.float64],
    settings: SimulationSettings,
) -> None:
    """Write each micrograph as it comes, then what is known of all of them."""
    place, pixel_size = Path(folder), settings.pixel_size
    truths: dict[str, SimulatedMicrograph] = {}
    for number, each in enumerate(simulated, start=1):
        name = f"micrograph_{number:04d}.mrc"
        write_micrograph(place / name, each.micrograph, pixel_size)
        # The pixels are on disk, and memory may not hold those of all.
        truths[name] = replace(each, micrograph=np.empty((0, 0), np.float32))
    ctfs = [asdict(truth.ctf) for truth in truths.values() if truth.ctf is not None]
    if ctfs:
        table = place / "micrographs.star"
        write_micrograph_table(table, list(truths), pixel_size, ctfs)
    write_volume(place / "volume_true.mrc", volume_true, pixel_size)
    _write_truth(place / "truth.star", truths, pixel_size)
    _write_record(place / RECORD, list(truths.values()), settings)


def _write_truth(
    path: Path, truths: Mapping[str, SimulatedMicrograph], pixel_size: float
) -> None:
    """Write RELION's table of the particles; `truths` are by name of the micrograph."""
    names = [name for name, truth in truths.items() for _ in truth.rotations]
    rotations = np.concatenate([truth.rotations for truth in truths.values()])
    write_particles(
        path,
        micrograph_names=names,
        coordinates=np.concatenate([truth.coordinates for truth in truths.values()]),
        angles=relion_angles(rotations),
        pixel_size=pixel_size,
        optics=optics_table(pixel_size, VOLTAGE),
    )


def _write_record(
    path: Path, truths: Sequence[SimulatedMicrograph], settings: SimulationSettings
) -> None:
    """Write what was asked for and what came of it."""
    placed = [len(truth.rotations) for truth in truths]
    area = settings.pixels**2 / settings.size**2
    record = {
        # JSON has no infinity.
        "settings": asdict(settings)
        | {"snr": settings.snr if np.isfinite(settings.snr) else None}
        | {"noise_like": settings.noise_like and os.fspath(settings.noise_like)},
        "noise_variance": truths[0].noise_variance,
        "requested": settings.requested,
        "placed": placed,
        "density_requested": settings.density,
        "density_placed": [count / area for count in placed],
    }
    with written_whole(path) as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
