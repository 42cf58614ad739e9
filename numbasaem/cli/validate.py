"""`numbasaem validate`: whether the data support a structure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .options import Json, Run
from .progress import ProgressDisplay
from .signals import Interrupted

EXAMPLE = "numbasaem validate run"


def command(
    run: Run,
    threads: Annotated[
        int | None, typer.Option(help="Threads; as many as the run had.")
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Most memory to take; as much as the run."),
    ] = None,
    micrographs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the micrographs, if they were moved."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask whether the data support a structure, or noise could have made it.

    Takes as long as the reconstruction did, or about twice that without half maps.
    """
    from numbasaem.validation import checks as validation

    with ProgressDisplay() as display:
        try:
            outcome = validation.validate(
                run,
                threads=threads,
                max_memory=max_memory,
                micrographs=micrographs,
                on_iteration=display.iteration,
                on_progress=display.step,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"{run} is as it was") from None
    if as_json:
        output.print_json(outcome.record())
    else:
        for check in outcome.checks:
            typer.echo(f"{check.question}: {check.found}")
            passed = "passed" if check.passed else "failed"
            typer.echo(f"    {passed}: {check.wanted}")
        typer.echo(f"FSC of half maps per shell: {output.shells(outcome.fsc)}")
        typer.echo(f"FSC of half maps of noise: {output.shells(outcome.control_fsc)}")
        typer.echo(f"verdict: {outcome.verdict}")
    output.write_report(run, as_json)
