"""`numbasaem demo`: all steps on simulated data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .progress import ProgressDisplay
from .signals import Interrupted

EXAMPLE = "numbasaem demo --out first-look"


def command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")] = Path(
        "numbasaem-demo"
    ),
) -> None:
    """Simulate micrographs, reconstruct from them alone, compare with the truth."""
    from numbasaem.simulation.demo import demonstrate

    with ProgressDisplay() as display:
        try:
            demonstration = demonstrate(
                out,
                on_plan=display.plan,
                on_iteration=display.iteration,
                on_progress=display.step,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"what is finished is in {out}") from None
    output.print_comparison(demonstration.comparison, demonstration.pixel_size)
    output.write_report(demonstration.run, as_json=False)
    typer.echo(f"micrographs and truth: {demonstration.data}")
    typer.echo(f"reconstruction: {demonstration.run}")
    typer.echo(f"reconstruction aligned to the truth: {demonstration.aligned}")
