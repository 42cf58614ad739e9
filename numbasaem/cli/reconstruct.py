"""`numbasaem reconstruct`: a volume from micrographs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from numbasaem.settings import Settings

from . import output
from .cluster import LocalCluster, Scheduler, cluster
from .options import Json, Micrographs, takes_settings
from .progress import ProgressDisplay
from .signals import Interrupted

if TYPE_CHECKING:
    from numbasaem.reconstruction.detection import Detectability
    from numbasaem.reconstruction.result import Result
    from numbasaem.reconstruction.state import Iteration


EXAMPLE = "numbasaem reconstruct data/micrograph_*.mrc --out run --size 11"


@takes_settings
def command(
    micrographs: Micrographs,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    settings: Settings,
    flip_hand: Annotated[
        bool, typer.Option("--flip-hand", help="Write the mirror images of the maps.")
    ] = False,
    picks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table of particles to write: .star, .box (EMAN), .txt (Topaz) or "
            ".cs (cryoSPARC).",
        ),
    ] = None,
    write_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report and figures.")
    ] = True,
    scheduler: Scheduler = None,
    n_workers: LocalCluster = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that DIR holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Reconstruct a volume from micrographs, without picking particles."""
    # Imported here, so that a wrong setting is refused before this takes its time.
    from numbasaem.picking import files, tables
    from numbasaem.reconstruction import driver
    from numbasaem.reconstruction.detection import detectability

    if picks is not None:
        tables.check_table(picks, micrographs, made=out)
    with ProgressDisplay() as display:

        def report(iteration: Iteration) -> None:
            display.iteration(iteration)
            if as_json:
                output.print_json(dataclasses.asdict(iteration))

        try:
            with cluster(
                "reconstruct", scheduler, n_workers, settings.threads
            ) as client:
                result = driver.reconstruct(
                    micrographs,
                    settings,
                    out=out,
                    resume=resume,
                    flip_hand=flip_hand,
                    on_contrast=display.contrast,
                    on_plan=display.plan,
                    on_iteration=report,
                    on_progress=display.step,
                    client=client,
                )
        except KeyboardInterrupt:
            raise Interrupted("resume with --resume") from None
    strength = detectability(out)
    if as_json:
        output.print_json(_record(result, out) | _strength_record(strength))
    else:
        _print(result, out)
        if strength is not None:
            typer.echo(str(strength))
    if settings.contrast_or_default != "auto":
        _point_out_the_contrast(result, out)
    if write_report:
        output.write_report(out, as_json)
    if picks is not None:
        with ProgressDisplay() as display:
            particles = files.pick_with_run(
                micrographs, out, display.step, settings.pixel_size
            )
        output.write_picks(picks, particles, as_json)


def _record(result: Result, out: Path) -> dict[str, Any]:
    """Results of a reconstruction, and the files of its maps, for JSON."""
    last = _last_iteration(result)
    curves = result.half_map_correlation
    return {
        "volume": out / "volume.mrc",
        "half_volumes": _half_maps(result, out),
        "evidence_per_patch": last.evidence_per_patch,
        "log_likelihood_per_patch": last.log_likelihood_per_patch,
        "noise_variance": result.noise_variance,
        "empty_fraction": last.empty_fraction,
        "pixel_size": result.pixel_size,
        "fsc_of_halves": result.fsc,
        "fsc_of_halves_corrected": None if curves is None else curves.corrected,
    }


def _strength_record(strength: Detectability | None) -> dict[str, Any]:
    """Whether the molecule could have been picked, for JSON; null if not known."""
    return {
        "strength": None if strength is None else strength.strength,
        "detection_limit": None if strength is None else strength.limit,
        "pickable": None if strength is None else strength.is_pickable,
    }


def _print(result: Result, out: Path) -> None:
    """Print the results of a reconstruction, and the files of its maps."""
    from numbasaem.assessment.fsc import resolution

    last = _last_iteration(result)
    typer.echo(f"volume: {out / 'volume.mrc'}")
    for half_map in _half_maps(result, out):
        typer.echo(f"half map: {half_map}")
    typer.echo(f"evidence per patch: {last.evidence_per_patch:.4f}")
    typer.echo(f"noise variance: {result.noise_variance:.4g}")
    typer.echo(f"empty patches: {last.empty_fraction:.1%}")
    curves = result.half_map_correlation
    if curves is None:
        return
    typer.echo(f"FSC of the half maps per shell: {output.shells(curves.unmasked)}")
    size, length = len(result.volume), result.pixel_size or 1.0
    for crossing in (
        resolution(curves.unmasked, 0.143, length, size),
        resolution(curves.corrected, 0.143, length, size, curves.mask),
    ):
        typer.echo(f"resolution of the half maps: {crossing}")


def _point_out_the_contrast(result: Result, out: Path) -> None:
    """Say on standard error that the contrast that was given may be the wrong one."""
    from numbasaem.assessment.fsc import is_mostly_negative
    from numbasaem.reconstruction.contrast import other_contrast

    if is_mostly_negative(result.volume):
        other = other_contrast(result.settings)
        typer.echo(
            f"{out / 'volume.mrc'}: mostly negative; if particles are {other} in the "
            f"micrographs, run again with --contrast {other}",
            err=True,
        )


def _last_iteration(result: Result) -> Iteration:
    return [row for row in result.history if row.run == "full"][-1]


def _half_maps(result: Result, out: Path) -> list[Path]:
    halves = (1, 2) if result.half_volumes is not None else ()
    return [out / f"volume_half{half}.mrc" for half in halves]
