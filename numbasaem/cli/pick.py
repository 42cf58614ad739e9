"""`numbasaem pick`: particles of a known map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from numbasaem.errors import expected

from . import output
from .options import Micrographs
from .progress import ProgressDisplay

EXAMPLE = "numbasaem pick data/micrograph_*.mrc --run run --out picks.star"


def command(
    micrographs: Micrographs,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Table to write: .star (RELION), .box (EMAN), .txt (Topaz), "
            ".cs (cryoSPARC).",
        ),
    ],
    volume: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Map of the particle.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of a reconstruction, instead."),
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="With --volume: particles are dark.")
    ] = False,
    pixel_size: Annotated[
        float | None,
        typer.Option(metavar="A", help="Pixel size in angstrom; from the files."),
    ] = None,
    probability_maps: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write, for each micrograph, the probability that a particle's "
            "centre is at each pixel.",
        ),
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Keep the most probable picks, of which no more than this share is "
            "expected to be false; left out, those more likely right than not.",
        ),
    ] = None,
) -> None:
    """Find particles of a known map in micrographs."""
    if (volume is None) == (run is None):
        found = "both" if run else "neither"
        raise expected("pick", "either `volume` or `run`", found)
    if run is not None and invert:
        raise expected("invert", "`volume` with it", "`run`, which has its own")
    from numbasaem.picking import files, tables

    tables.check_table(out, micrographs)
    if probability_maps is not None:
        files.check_maps(probability_maps)
    with ProgressDisplay() as display:
        display.step("preparing the particle", 0.0)
        if run is not None:
            picks = files.pick_with_run(
                micrographs, run, display.step, pixel_size, probability_maps, fdr
            )
        elif volume is not None:
            picks = files.pick_with_map(
                micrographs,
                volume,
                display.step,
                pixel_size,
                invert,
                probability_maps,
                fdr,
            )
    output.write_picks(out, picks)
    if fdr is not None:
        typer.echo(f"expected share of false ones: {1 - picks.probability.mean():.3f}")
    if probability_maps is not None:
        typer.echo(f"probability maps written to {probability_maps}")
