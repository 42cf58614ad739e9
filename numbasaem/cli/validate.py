"""`numbasaem validate`: whether the data support a structure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .cluster import LocalCluster, Scheduler, cluster
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
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="All of the control, and another start: three times as long.",
        ),
    ] = False,
    omit: Annotated[
        bool,
        typer.Option(
            "--omit",
            help="Leave out parts of the map, and see how much of them other data "
            "bring back.",
        ),
    ] = False,
    scheduler: Scheduler = None,
    n_workers: LocalCluster = None,
    as_json: Json = False,
) -> None:
    """Ask whether the data support a structure, or noise could have made it.

    Takes less than a reconstruction with half maps; where there are none it makes them.
    """
    from numbasaem.validation import algorithm
    from numbasaem.validation.omission import mean_returned

    with ProgressDisplay() as display:
        try:
            with cluster("validate", scheduler, n_workers, threads) as client:
                outcome = algorithm.validate(
                    run,
                    threads=threads,
                    max_memory=max_memory,
                    micrographs=micrographs,
                    thorough=thorough,
                    omit=omit,
                    client=client,
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
        if outcome.control_fsc is not None:
            shells = output.shells(outcome.control_fsc)
            typer.echo(f"FSC of half maps of noise: {shells}")
        for omission in outcome.omissions:
            typer.echo(str(omission))
        if outcome.omissions:
            typer.echo(f"on average: {mean_returned(outcome.omissions):.0%} came back")
        typer.echo(f"verdict: {outcome.verdict}")
    output.write_report(run, as_json)
