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
    snr: Annotated[
        float | None,
        typer.Option(help="Signal-to-noise ratio; 0.25, or 3.5 to see particles."),
    ] = None,
) -> None:
    """Simulate micrographs, reconstruct from them alone, compare with the truth."""
    from numbasaem.report.demonstration import write_picture
    from numbasaem.simulation.demo import demonstrate

    with ProgressDisplay() as display:
        try:
            demonstration = demonstrate(
                out,
                snr=snr,
                on_plan=display.plan,
                on_iteration=display.iteration,
                on_progress=display.step,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"what is finished is in {out}") from None
        display.step("drawing the picture", 0.0)
        picture = write_picture(demonstration, out)
    output.print_comparison(demonstration.comparison, demonstration.pixel_size)
    search = demonstration.search
    typer.echo(
        f"picks by the true map, {len(search.picks)} in a corner: "
        f"recall {search.match.recall:.3f}, precision {search.match.precision:.3f}, "
        f"by chance {search.chance:.3f}"
    )
    output.write_report(demonstration.run, as_json=False)
    typer.echo(f"micrographs and truth: {demonstration.data}")
    typer.echo(f"reconstruction: {demonstration.run}")
    typer.echo(f"reconstruction aligned to the truth: {demonstration.aligned}")
    typer.echo(f"picture: {picture}")
