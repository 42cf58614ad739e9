"""`numbasaem report`: the page of a finished run."""

from __future__ import annotations

import typer

from .options import Run
from .progress import ProgressDisplay

EXAMPLE = "numbasaem report run"


def command(
    run: Run,
) -> None:
    """Write the report of a finished reconstruction again, from its files."""
    from numbasaem.report import write_report

    with ProgressDisplay() as display:
        display.step("writing the report", 0.0)
        path = write_report(run)
    typer.echo(f"report: {path}")
