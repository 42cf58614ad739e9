"""`numbasaem evaluate`: a map or picks beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from numbasaem.errors import expected

from . import output
from .options import Json
from .progress import ProgressDisplay

if TYPE_CHECKING:
    from numbasaem.assessment.alignment import Comparison


EXAMPLE = "numbasaem evaluate run/volume.mrc data/volume_true.mrc"


def command(
    volume: Annotated[
        Path, typer.Argument(metavar="VOLUME", help="Map, or table of picks, to judge.")
    ],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="What to compare it with.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write VOLUME as aligned."),
    ] = None,
    tolerance_px: Annotated[
        float | None,
        typer.Option(
            "--tolerance", metavar="PX", help="How far off a pick of a table may be."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a map with a reference over rotation, translation and hand.

    Maps of other voxels or boxes are compared at the coarser voxels of the two.

    Or a table of picks (.star, .box, .txt, .cs) with the particles that there are; of
    picks with probabilities also how many are right, and how many should be.
    """
    if volume.suffix.lower() in (".star", ".box", ".txt", ".cs"):
        _evaluate_picks(volume, reference, out, tolerance_px, as_json)
    else:
        _evaluate_map(volume, reference, out, tolerance_px, as_json)


def _evaluate_picks(
    picks: Path,
    truth: Path,
    out: Path | None,
    tolerance_px: float | None,
    as_json: bool,
) -> None:
    if out is not None:
        raise expected("out", "a map to write as aligned", f"picks in {picks}")
    if tolerance_px is None:
        raise expected("tolerance_px", "a number of pixels, for picks", "none")
    from numbasaem.picking.tables import match_tables

    match = match_tables(picks, truth, tolerance_px)
    if as_json:
        calibration = [picks_alike._asdict() for picks_alike in match.calibration]
        shares = {"recall": match.recall, "precision": match.precision}
        more = {"calibration": calibration, "tolerance": tolerance_px}
        output.print_json(shares | more)
    else:
        typer.echo(f"recall: {match.recall:.3f}")
        typer.echo(f"precision: {match.precision:.3f}")
        output.print_calibration(match.calibration)


def _evaluate_map(
    volume: Path,
    reference: Path,
    out: Path | None,
    tolerance_px: float | None,
    as_json: bool,
) -> None:
    if tolerance_px is not None:
        raise expected("tolerance_px", "a table of picks with it", f"a map, {volume}")
    from numbasaem.assessment.alignment import evaluate_against
    from numbasaem.assessment.common_grid import Map, on_common_grid
    from numbasaem.io.mrc import read_volume, write_volume

    judged, truth, voxel_size = on_common_grid(
        Map(volume, *read_volume(volume)), Map(reference, *read_volume(reference))
    )
    with ProgressDisplay() as display:
        display.step("aligning", 0.0)
        comparison = evaluate_against(judged, truth)
    if out is not None:
        write_volume(out, comparison.alignment.volume, voxel_size or 1.0)
    if as_json:
        output.print_json(_comparison_record(comparison, voxel_size))
    else:
        output.print_comparison(comparison, voxel_size)


def _comparison_record(
    comparison: Comparison, voxel_size: float | None
) -> dict[str, Any]:
    length = voxel_size or 1.0
    resolutions = _resolutions(comparison).items()
    return {
        "fsc": comparison.fsc,
        **{
            f"resolution_at_{threshold}": value * length
            for threshold, value in resolutions
        },
        "unit": "angstrom" if voxel_size else "pixel",
        "correlation": comparison.correlation,
        "hand": comparison.hand,
    }


def _resolutions(comparison: Comparison) -> dict[str, float]:
    """Resolutions in pixels, by their threshold of the FSC."""
    return {
        "0.5": comparison.resolution_half.angstrom,
        "0.143": comparison.resolution_0143.angstrom,
    }
