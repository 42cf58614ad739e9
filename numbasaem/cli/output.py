"""What commands print, as lines for people or as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .progress import ProgressDisplay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numbasaem.assessment.alignment import Comparison
    from numbasaem.picking.scores import CalibrationBin
    from numbasaem.picking.tables import PickedParticles


def say_in_one_line(message: str) -> None:
    """Print an error or a warning on standard error.

    Parameters
    ----------
    message : str
        Text of the error or the warning.
    """
    typer.echo("numbasaem: " + " ".join(message.split()), err=True)


def print_json(record: dict[str, Any]) -> None:
    """Print one JSON line.

    Parameters
    ----------
    record : dict
        Record, which may hold arrays, numbers of NumPy and paths; numbers that are not
        finite become null.
    """
    typer.echo(json.dumps(_plain(record), allow_nan=False))


def write_report(run: Path, as_json: bool) -> None:
    """Write the report; if that fails say so, and go on, since the maps are written.

    Parameters
    ----------
    run : Path
        Folder of a reconstruction.
    as_json : bool
        Whether standard output is for JSON.
    """
    try:
        from numbasaem import report

        with ProgressDisplay() as display:
            display.step("writing the report", 0.0)
            path = report.write_report(run)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        typer.echo(
            f"no report ({reason}); the maps are written, "
            f"and numbasaem report {run} tries again",
            err=True,
        )
    else:
        typer.echo(f"report: {path}", err=as_json)


def write_picks(table: Path, picks: PickedParticles, as_json: bool = False) -> None:
    """Write picks and say how many there are.

    Parameters
    ----------
    table : Path
        File to write.
    picks : PickedParticles
        The particles.
    as_json : bool
        Whether standard output is for JSON.
    """
    from numbasaem.picking import tables

    tables.write_picks(table, picks)
    n_picks = len(picks.micrograph_names)
    typer.echo(f"{n_picks} particles written to {table}", err=as_json)


def print_calibration(calibration: Iterable[CalibrationBin]) -> None:
    """Print how many picks of each probability are right; nothing if there are none.

    Parameters
    ----------
    calibration : iterable of CalibrationBin
        Picks by their probability.
    """
    bins = list(calibration)
    if bins:
        typer.echo("probability  picks   mean  right, +- by chance")
    for picks in bins:
        typer.echo(
            f" {picks.lowest:.1f} to {picks.highest:.1f}  {picks.n_picks:5d}  "
            f"{picks.mean_probability:.3f}  {picks.share_right:.3f} +- "
            f"{picks.deviation:.3f}"
        )


def shells(curve: Iterable[float]) -> str:
    """Put a curve over shells on one line.

    Parameters
    ----------
    curve : iterable of float
        Values of the curve.

    Returns
    -------
    str
        Three decimals of each.
    """
    return " ".join(f"{value:.3f}" for value in curve)


def print_comparison(comparison: Comparison, voxel_size: float | None) -> None:
    """Print a comparison with a reference, each resolution with its threshold.

    Parameters
    ----------
    comparison : Comparison
        The comparison.
    voxel_size : float or None
        Angstrom per voxel; lengths are in pixels if None.
    """
    size = len(comparison.alignment.volume)
    length = voxel_size or 1.0
    unit = "A" if voxel_size else "pixels"
    typer.echo(f"shell  {unit:>8}  FSC")
    for shell, value in enumerate(comparison.fsc):
        period = f"{size * length / shell:8.2f}" if shell else f"{'inf':>8}"
        typer.echo(f"{shell:5d}  {period}  {value:.4f}")
    for crossing in (comparison.resolution_half, comparison.resolution_0143):
        limit = "" if crossing.crossed else " or better, the last shell"
        typer.echo(
            f"resolution at FSC {crossing.threshold:g} against the reference, no mask: "
            f"{crossing.angstrom * length:.2f} {unit}{limit}"
        )
    typer.echo(f"correlation: {comparison.correlation:.4f}")
    typer.echo(f"hand: {comparison.hand}")


def _plain(value: Any) -> Any:
    """Turn arrays, numbers of NumPy and paths into what JSON has."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
