"""Result of a reconstruction, and the files that it is written to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.assessment.alignment import align
from numbasaem.assessment.fsc import HalfMapCorrelation, half_map_correlation
from numbasaem.io import written_whole
from numbasaem.io.chimerax import write_chimerax_script
from numbasaem.io.mrc import write_volume
from numbasaem.io.relion import write_fsc
from numbasaem.volume.basis import VolumeBasis

from .current_stage import basis_of, grid_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.settings import Settings

    from .state import Iteration, RunState

HALVES = ("half1", "half2")
"""Names of the runs on halves of the data."""
RUNS = ("full", *HALVES)
"""Names of all runs."""


@dataclass(frozen=True)
class Result:
    """A reconstruction.

    Attributes
    ----------
    volume : float64, shape (L, L, L)
        Map, indexed [z, y, x].
    volume_coefficients : float64, shape (M,)
        Real coefficients of the map.
    basis : VolumeBasis
        Basis that the coefficients belong to.
    rotations : float64, shape (K, 3, 3)
        Rotations that the posterior ran over.
    shift_prior : float64, shape (2L, 2L)
        Final rho.
    noise_variance : float
        Final sigma**2.
    history : tuple of Iteration
        Every iteration of every run.
    half_volumes : tuple of float64, shape (L, L, L), or None
        Maps of two independent halves of the data, aligned to `volume`.
    half_map_correlation : HalfMapCorrelation or None
        Fourier shell correlation of the two half maps, unmasked and corrected.
    pixel_size : float or None
        Angstrom per voxel.
    settings : Settings
        Settings of the reconstruction.

    Examples
    --------
    >>> from numbasaem import Settings, reconstruct
    >>> pixels = np.random.default_rng(0).random((40, 40))
    >>> plan = Settings(size=5, ell_max=(2,), iterations=(2,), rotations=8, starts=1)
    >>> result = reconstruct([pixels], plan.changed(halves=False))
    >>> result.volume.shape, len(result.history), result.fsc
    ((5, 5, 5), 2, None)
    """

    volume: NDArray[np.float64]
    volume_coefficients: NDArray[np.float64]
    basis: VolumeBasis
    rotations: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    history: tuple[Iteration, ...]
    half_volumes: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    half_map_correlation: HalfMapCorrelation | None
    pixel_size: float | None
    settings: Settings

    @property
    def fsc(self) -> NDArray[np.float64] | None:
        """Fourier shell correlation of the half maps, no mask.

        float64, shape (L // 2 + 1,); None without half maps.
        """
        correlation = self.half_map_correlation
        return None if correlation is None else correlation.unmasked


def result_of_runs(
    runs: dict[str, RunState],
    pixel_size: float | None,
    settings: Settings,
    flip_hand: bool,
    on_progress: OnProgress,
) -> Result:
    """Volumes of all runs, half maps aligned to the full one and compared.

    Parameters
    ----------
    runs : dict of str to RunState
        Last state of each run.
    pixel_size : float or None
        Angstrom per voxel.
    settings : Settings
        Settings of the reconstruction.
    flip_hand : bool
        Take the mirror images of the maps.
    on_progress : callable
        Called with what is being done and the share of it that is done.

    Returns
    -------
    Result
        The reconstruction.
    """
    # A march that gained no more may have ended at a lower degree.
    bases = {run: basis_of(runs[run], settings) for run in RUNS if run in runs}
    basis = max(bases.values(), key=lambda own: own.ell_max)
    # Inversion through the centre: the mirror image, in another pose.
    parity = (-1.0) ** basis.indices[:, 0] if flip_hand else 1.0
    coefficients = [
        parity * own.lift(runs[run].volume_coefficients, basis.ell_max)
        for run, own in bases.items()
    ]
    volumes = [basis.evaluate(values) for values in coefficients]
    halves = correlation = None
    if len(volumes) == len(RUNS):
        on_progress("aligning half maps", 0.0)
        first = align(volumes[1], volumes[0]).volume
        on_progress("aligning half maps", 0.5)
        second = align(volumes[2], volumes[0]).volume
        halves, correlation = (first, second), half_map_correlation(first, second)
    full = runs["full"]
    history = [row for state in runs.values() for row in state.history]
    return Result(
        volume=volumes[0],
        volume_coefficients=coefficients[0],
        basis=basis,
        rotations=grid_of(full, settings).rotations,
        shift_prior=full.shift_prior,
        noise_variance=full.noise_variance,
        history=tuple(sorted(history, key=lambda row: row.total_done)),
        half_volumes=halves,
        half_map_correlation=correlation,
        pixel_size=pixel_size,
        settings=settings,
    )


def write_result(folder: Path, result: Result) -> None:
    """Write the maps of a reconstruction, their FSC, settings and a viewer's script.

    Parameters
    ----------
    folder : Path
        Output folder.
    result : Result
        The reconstruction.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    voxel_size = result.pixel_size or 1.0
    write_volume(folder / "volume.mrc", result.volume, voxel_size)
    halves = []
    for number, half in enumerate(result.half_volumes or (), start=1):
        halves.append(f"volume_half{number}.mrc")
        write_volume(folder / halves[-1], half, voxel_size)
    correlation = result.half_map_correlation
    if correlation is not None:
        write_fsc(
            folder / "fsc.star",
            correlation.unmasked,
            voxel_size,
            result.settings.size,
            masked=correlation.masked,
            randomized=correlation.randomized,
            corrected=correlation.corrected,
        )
    script = folder / "volume.cxc"
    write_chimerax_script(script, result.volume, "volume.mrc", halves)
    with written_whole(folder / "settings.toml") as part:
        part.write_text(result.settings.to_toml(), encoding="utf-8")
