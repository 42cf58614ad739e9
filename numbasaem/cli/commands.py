"""The commands: each reads its options, calls the library and prints what it found.

The library is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from numbasaem.errors import expected

from .progress import ProgressDisplay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distributed import Client

    from numbasaem.assessment.alignment import Comparison
    from numbasaem.picking.tables import PickedParticles
    from numbasaem.reconstruction.result import Result
    from numbasaem.reconstruction.state import Iteration


class Interrupted(Exception):
    """A signal in a command that can go on later; says how."""


app = typer.Typer(
    help="3-D structure directly from cryo-EM micrographs, without picking particles.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


Micrographs = Annotated[
    list[Path],
    typer.Argument(
        metavar="MRC...",
        help="Micrographs: MRC or TIFF files, quoted patterns, or RELION's list "
        "(STAR).",
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(metavar="A", help="Pixel size in angstrom; from the files."),
]
# What is done to raw micrographs unless the user says otherwise.
RAW_ONLY: dict[str, Any] = {"show_default": "with --particle-diameter"}
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers.")]
Size = Annotated[int, typer.Option(help="Side L of a patch and of the volume, pixels.")]


@app.command(
    epilog="Example: numbasaem simulate data --volume shepp-logan --size 11 "
    "--micrographs 2 --pixels 512 --snr 5"
)
def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    volume: Annotated[
        str,
        typer.Option(
            metavar="FILE|shepp-logan",
            help="Density map (MRC), structure (PDB, mmCIF) or the phantom.",
        ),
    ],
    size: Size,
    micrographs: Annotated[int, typer.Option(help="Number of micrographs.")],
    pixels: Annotated[int, typer.Option(help="Side N of a micrograph, pixels.")],
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio, equation (4).")],
    spacing: Annotated[
        Literal["separated", "arbitrary"],
        typer.Option(help="Keep particles a patch apart, or only from overlapping."),
    ] = "separated",
    density: Annotated[
        float | None,
        typer.Option(help="Share of the area under particles; as dense as fits."),
    ] = None,
    method: Annotated[
        Literal["expanded", "original"],
        typer.Option(help="Project the volume's expansion, or the volume itself."),
    ] = "expanded",
    ell_max: Annotated[int, typer.Option(help="Degree of the expansion.")] = 10,
    defocus: Annotated[
        str | None,
        typer.Option(
            metavar="A,A", help="Lowest and highest defocus, angstrom; else no lens."
        ),
    ] = None,
    noise_like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Micrograph whose spectrum the noise has."),
    ] = None,
    preferred: Annotated[
        float, typer.Option(help="Share of particles seen within 30 degrees of z.")
    ] = 0.0,
    seed: Seed = 0,
) -> None:
    """Simulate micrographs of a molecule and keep the truth beside them."""
    from numbasaem.io.atomic_models import load_volume
    from numbasaem.simulation.files import RECORD, simulate_to_folder
    from numbasaem.simulation.settings import SimulationSettings

    settings = SimulationSettings(
        size=size,
        micrographs=micrographs,
        pixels=pixels,
        snr=snr,
        spacing=spacing,
        density=density,
        method=method,
        ell_max=ell_max,
        seed=seed,
        defocus=None if defocus is None else _two_numbers("--defocus", defocus),
        noise_like=noise_like,
        preferred=preferred,
    )
    density_map, voxel_size = load_volume(volume, size)
    if voxel_size is not None:
        pixel_size = voxel_size * len(density_map) / size
        settings = dataclasses.replace(settings, pixel_size=pixel_size)
    with ProgressDisplay() as display:
        display.step("simulating micrographs", 0.0)
        simulate_to_folder(
            out,
            density_map,
            settings,
            lambda done, total: display.step("simulating micrographs", done / total),
        )
    record = json.loads((out / RECORD).read_text("utf-8"))
    requested = "as many as fit" if density is None else str(record["requested"])
    for number, placed in enumerate(record["placed"], start=1):
        share = record["density_placed"][number - 1]
        typer.echo(
            f"micrograph {number}: {placed} particles placed, density {share:.3f}, "
            f"{requested} requested"
        )
    typer.echo(f"written to {out}")


@app.command(
    epilog="Example: numbasaem reconstruct data/micrograph_*.mrc --out run --size 11"
)
def reconstruct(
    context: typer.Context,
    micrographs: Micrographs,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    size: Annotated[
        int | None,
        typer.Option(
            help="Side L of a patch and of the volume, pixels; here or in --settings."
        ),
    ] = None,
    model: Annotated[
        Literal["patch", "window"],
        typer.Option(
            help="Look at patches, as in the paper, or at every position with the "
            "whole particle in view."
        ),
    ] = "patch",
    ell_max: Annotated[
        str, typer.Option(metavar="L,L,...", help="Degree of the expansion per stage.")
    ] = "6,8,10",
    iterations: Annotated[
        str, typer.Option(metavar="n,n,...", help="Iterations per stage.")
    ] = "25,15,15",
    rotations: Annotated[
        str,
        typer.Option(metavar="K[,K,...]", help="Rotations to sum over, or per stage."),
    ] = "552",
    batch_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share S of the patches in one iteration.",
            show_default="0.05, or 4000 patches if that is more",
        ),
    ] = None,
    batching: Annotated[
        Literal["stochastic", "incremental", "online", "full"],
        typer.Option(help="What becomes of the statistics of earlier batches."),
    ] = "stochastic",
    symmetry: Annotated[
        str,
        typer.Option(metavar="GROUP", help="Point group: C1, Cn, Dn, T, O or I."),
    ] = "C1",
    noise_variance: Annotated[
        str,
        typer.Option(metavar="auto|v", help="Noise variance, if known; else found."),
    ] = "auto",
    halves: Annotated[
        bool, typer.Option(help="Also reconstruct two independent halves.")
    ] = True,
    starts: Annotated[
        int, typer.Option(help="Random starts tried first; the likeliest goes on.")
    ] = 4,
    seed: Seed = 0,
    threads: Annotated[
        int | None, typer.Option(help="Threads to use; all by default.")
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Particles are dark: turn the sign.")
    ] = False,
    pixel_size: PixelSize = None,
    particle_diameter: Annotated[
        float | None,
        typer.Option(
            metavar="A",
            help="Longest extent of the particle: downsample raw micrographs until it "
            "fits, and prepare them.",
        ),
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Most memory to take; refused if too little."),
    ] = None,
    level: Annotated[
        bool, typer.Option(help="Subtract the level of the background.")
    ] = True,
    mend: Annotated[
        bool | None,
        typer.Option(help="Replace hot pixels, leave out dead areas.", **RAW_ONLY),
    ] = None,
    flatten: Annotated[
        bool | None,
        typer.Option(help="Subtract what varies slowly.", **RAW_ONLY),
    ] = None,
    clean: Annotated[
        bool | None,
        typer.Option(help="Leave out crystals, carbon and edges.", **RAW_ONLY),
    ] = None,
    normalise: Annotated[
        bool | None,
        typer.Option(help="Divide by the standard deviation.", **RAW_ONLY),
    ] = None,
    ctf: Annotated[
        bool,
        typer.Option(
            "--ctf", help="Take the contrast transfer function of a list into account."
        ),
    ] = False,
    whiten: Annotated[
        bool, typer.Option("--whiten", help="Noise has the micrograph's spectrum.")
    ] = False,
    views: Annotated[
        Literal["uniform", "learned"],
        typer.Option(help="Whether all view directions are alike, or to be found."),
    ] = "uniform",
    flip_hand: Annotated[
        bool, typer.Option("--flip-hand", help="Write the mirror images of the maps.")
    ] = False,
    picks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table of particles to write: .star, .box (EMAN) or .txt (Topaz).",
        ),
    ] = None,
    write_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report and figures.")
    ] = True,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT", help="Work on the Dask cluster that it runs."
        ),
    ] = None,
    local_cluster: Annotated[
        int | None,
        typer.Option(metavar="n", help="Work on n Dask workers on this machine."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings in TOML, as beside each result; other options win.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that DIR holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Reconstruct a volume from micrographs, without picking particles."""
    from numbasaem.settings import Settings, read_settings

    options: dict[str, Any] = {
        "size": size,
        "model": model,
        "ell_max": _integers("--ell-max", ell_max),
        "iterations": _integers("--iterations", iterations),
        "rotations": _one_or_more("--rotations", rotations),
        "batch_fraction": batch_fraction,
        "batching": batching,
        "symmetry": symmetry,
        "noise_variance": _noise_variance(noise_variance),
        "halves": halves,
        "starts": starts,
        "seed": seed,
        "threads": threads,
        "max_memory": max_memory,
        "invert": invert,
        "pixel_size": pixel_size,
        "particle_diameter": particle_diameter,
        "level": level,
        "mend": mend,
        "flatten": flatten,
        "clean": clean,
        "normalise": normalise,
        "ctf": ctf,
        "whiten": whiten,
        "views": views,
    }
    if settings is not None:
        options = read_settings(settings) | _given(context, options)
    if options.get("size") is None:
        raise expected("reconstruct", "--size", "none")
    chosen = Settings(**options)
    # After the settings, so that a wrong option is refused at once.
    from numbasaem.picking import files as micrograph_picking
    from numbasaem.picking import tables
    from numbasaem.reconstruction import driver as reconstruction

    if picks is not None:
        tables.check_table(picks, micrographs, made=out)
    with ProgressDisplay() as display:

        def report(iteration: Iteration) -> None:
            display.iteration(iteration)
            if as_json:
                _print_json(dataclasses.asdict(iteration))

        try:
            with _cluster(scheduler, local_cluster, threads) as client:
                result = reconstruction.reconstruct(
                    micrographs,
                    chosen,
                    out=out,
                    resume=resume,
                    flip_hand=flip_hand,
                    on_plan=display.plan,
                    on_iteration=report,
                    on_progress=display.step,
                    client=client,
                )
        except KeyboardInterrupt:
            raise Interrupted("resume with --resume") from None
    _report_result(result, out, as_json)
    if write_report:
        _write_report(out, as_json)
    if picks is not None:
        with ProgressDisplay() as display:
            found = micrograph_picking.pick_with_run(micrographs, out, display.step)
        _write_picks(picks, found, as_json)


def _cluster(
    scheduler: str | None, n_workers: int | None, threads: int | None
) -> AbstractContextManager[Client | None]:
    """Workers of a Dask cluster, if any are asked for."""
    if scheduler is not None and n_workers is not None:
        raise expected("reconstruct", "--scheduler or --local-cluster", "both")
    if scheduler is not None:
        from numbasaem.observations.dask import connected

        return connected(scheduler)
    if n_workers is not None:
        from numbasaem.observations.dask import local_cluster

        return local_cluster(n_workers, threads)
    return nullcontext()


@app.command(
    epilog="Example: numbasaem pick data/micrograph_*.mrc --run run --out picks.star"
)
def pick(
    micrographs: Micrographs,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Table to write: .star (RELION), .box (EMAN) or .txt (Topaz).",
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
    pixel_size: PixelSize = None,
) -> None:
    """Find particles of a known map in micrographs."""
    if (volume is None) == (run is None):
        found = "both" if run else "neither"
        raise expected("pick", "either --volume or --run", found)
    if run is not None and invert:
        raise expected("--invert", "--volume with it", "--run, which has its own")
    from numbasaem.picking import files as micrograph_picking
    from numbasaem.picking import tables

    tables.check_table(out, micrographs)
    with ProgressDisplay() as display:
        display.step("preparing the particle", 0.0)
        if run is not None:
            picks = micrograph_picking.pick_with_run(
                micrographs, run, display.step, pixel_size
            )
        elif volume is not None:
            picks = micrograph_picking.pick_with_map(
                micrographs, volume, display.step, pixel_size, invert
            )
    _write_picks(out, picks)


@app.command(epilog="Example: numbasaem evaluate run/volume.mrc data/volume_true.mrc")
def evaluate(
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
    tolerance: Annotated[
        float | None,
        typer.Option(metavar="PX", help="How far off a pick of a table may be."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a map with a reference over rotation, translation and hand.

    Or a table of picks (.star, .txt) with the particles that there are.
    """
    if volume.suffix.lower() in (".star", ".txt"):
        _evaluate_picks(volume, reference, out, tolerance, as_json)
    else:
        _evaluate_map(volume, reference, out, tolerance, as_json)


def _evaluate_picks(
    found: Path, true: Path, out: Path | None, tolerance: float | None, as_json: bool
) -> None:
    if out is not None:
        raise expected("--out", "a map to write as aligned", f"picks in {found}")
    if tolerance is None:
        raise expected("--tolerance", "a number of pixels, for picks", "none")
    from numbasaem.picking.tables import match_tables

    match = match_tables(found, true, tolerance)
    if as_json:
        _print_json(match._asdict() | {"tolerance": tolerance})
    else:
        typer.echo(f"recall: {match.recall:.3f}")
        typer.echo(f"precision: {match.precision:.3f}")


def _evaluate_map(
    volume: Path,
    reference: Path,
    out: Path | None,
    tolerance: float | None,
    as_json: bool,
) -> None:
    if tolerance is not None:
        raise expected("--tolerance", "a table of picks with it", f"a map, {volume}")
    from numbasaem.assessment.alignment import evaluate_against
    from numbasaem.io.mrc import read_volume, write_volume

    judged, _ = read_volume(volume)
    truth, voxel_size = read_volume(reference)
    with ProgressDisplay() as display:
        display.step("aligning", 0.0)
        comparison = evaluate_against(judged, truth)
    if out is not None:
        write_volume(out, comparison.alignment.volume, voxel_size or 1.0)
    if as_json:
        _print_json(_comparison_record(comparison, voxel_size))
    else:
        _print_comparison(comparison, voxel_size)


@app.command(epilog="Example: numbasaem demo --out first-look")
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")] = Path(
        "numbasaem-demo"
    ),
) -> None:
    """Simulate micrographs, reconstruct from them alone, compare with the truth."""
    from numbasaem.simulation.demo import demonstrate

    with ProgressDisplay() as display:
        try:
            found = demonstrate(
                out,
                on_plan=display.plan,
                on_iteration=display.iteration,
                on_progress=display.step,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"what is finished is in {out}") from None
    _print_comparison(found.comparison, found.pixel_size)
    _write_report(found.run, as_json=False)
    typer.echo(f"micrographs and truth: {found.data}")
    typer.echo(f"reconstruction: {found.run}")
    typer.echo(f"reconstruction aligned to the truth: {found.aligned}")


@app.command(epilog="Example: numbasaem validate run")
def validate(
    run: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a reconstruction.")
    ],
    threads: Annotated[
        int | None, typer.Option(help="Threads; all that Numba may use.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask whether the data support a structure, or noise could have made it.

    Takes as long as the reconstruction did, or about twice that without half maps.
    """
    from numbasaem.validation import checks as validation

    with ProgressDisplay() as display:
        try:
            found = validation.validate(
                run,
                threads=threads,
                on_iteration=display.iteration,
                on_progress=display.step,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"{run} is as it was") from None
    if as_json:
        _print_json(found.record())
    else:
        for check in found.checks:
            typer.echo(f"{check.question}: {check.found}")
            passed = "passed" if check.passed else "failed"
            typer.echo(f"    {passed}: {check.wanted}")
        typer.echo(f"FSC of half maps per shell: {_shells(found.fsc)}")
        typer.echo(f"FSC of half maps of noise: {_shells(found.control_fsc)}")
        typer.echo(f"verdict: {found.verdict}")
    _write_report(run, as_json)


@app.command(epilog="Example: numbasaem report run")
def report(
    run: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a reconstruction.")
    ],
) -> None:
    """Write the report of a finished reconstruction again, from its files."""
    from numbasaem.report import write_report

    with ProgressDisplay() as display:
        display.step("writing the report", 0.0)
        path = write_report(run)
    typer.echo(f"report: {path}")


@app.command(epilog="Example: numbasaem info")
def info() -> None:
    """Show versions, threads, SIMD width and threading layer."""
    from numbasaem import machine

    for name, value in machine.describe().items():
        typer.echo(f"{name}: {value}")


def _given(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Keep the options that the command line states."""
    stated = {"COMMANDLINE", "ENVIRONMENT"}
    return {
        name: value
        for name, value in options.items()
        if getattr(context.get_parameter_source(name), "name", None) in stated
    }


def _integers(option: str, text: str) -> tuple[int, ...]:
    """Read a comma-separated list of integers given to an option."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise expected(option, "comma-separated integers", repr(text)) from None


def _one_or_more(option: str, text: str) -> int | tuple[int, ...]:
    """Read one integer, or several separated by commas."""
    one, *others = _integers(option, text)
    return (one, *others) if others else one


def _two_numbers(option: str, text: str) -> tuple[float, float]:
    """Read two comma-separated numbers given to an option."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise expected(option, "two comma-separated numbers", repr(text)) from None
    return low, high


def _noise_variance(text: str) -> float | None:
    """Read the value of --noise-variance; None is for the program to find out."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise expected("--noise-variance", "auto or a number", repr(text)) from None


def _report_result(result: Result, out: Path, as_json: bool) -> None:
    """Print what a reconstruction came to, and where it is."""
    from numbasaem.assessment.fsc import is_mostly_negative, resolution

    last = [row for row in result.history if row.run == "full"][-1]
    halves = (1, 2) if result.half_volumes is not None else ()
    summary: dict[str, Any] = {
        "volume": out / "volume.mrc",
        "half_volumes": [out / f"volume_half{half}.mrc" for half in halves],
        "log_likelihood_per_patch": last.log_likelihood_per_patch,
        "noise_variance": result.noise_variance,
        "empty_fraction": last.empty_fraction,
        "pixel_size": result.pixel_size,
        "fsc_of_halves": result.fsc,
        "fsc_of_halves_corrected": None
        if result.half_map_correlation is None
        else result.half_map_correlation.corrected,
    }
    if as_json:
        _print_json(summary)
    else:
        typer.echo(f"volume: {summary['volume']}")
        for half in summary["half_volumes"]:
            typer.echo(f"half map: {half}")
        typer.echo(f"log-likelihood per patch: {last.log_likelihood_per_patch:.4f}")
        typer.echo(f"noise variance: {result.noise_variance:.4g}")
        typer.echo(f"empty patches: {last.empty_fraction:.1%}")
        curves = result.half_map_correlation
        if curves is not None:
            typer.echo(f"FSC of the half maps per shell: {_shells(curves.unmasked)}")
            size = len(result.volume)
            length = result.pixel_size or 1.0
            for found in (
                resolution(curves.unmasked, 0.143, length, size),
                resolution(curves.corrected, 0.143, length, size, curves.mask),
            ):
                typer.echo(f"resolution of the half maps: {found}")
    if is_mostly_negative(result.volume):
        typer.echo(
            f"{summary['volume']}: mostly negative; if particles are dark in the "
            "micrographs, run again with --invert",
            err=True,
        )


def _write_report(run: Path, as_json: bool) -> None:
    """Write the report; the maps are safe, so that a failure is told and no more."""
    try:
        from numbasaem.report import write_report

        with ProgressDisplay() as display:
            display.step("writing the report", 0.0)
            path = write_report(run)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        typer.echo(
            f"no report ({reason}); the maps are written, "
            f"and numbasaem report {run} tries again",
            err=True,
        )
    else:
        typer.echo(f"report: {path}", err=as_json)


def _write_picks(table: Path, found: PickedParticles, as_json: bool = False) -> None:
    """Write picks and say how many there are."""
    from numbasaem.picking.tables import write_picks

    write_picks(table, found)
    typer.echo(
        f"{len(found.micrograph_names)} particles written to {table}", err=as_json
    )


def _shells(curve: Iterable[float]) -> str:
    return " ".join(f"{value:.3f}" for value in curve)


def _print_json(record: dict[str, Any]) -> None:
    """Print one JSON line; what is not finite becomes null."""
    typer.echo(json.dumps(_plain(record), allow_nan=False))


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


def _print_comparison(comparison: Comparison, voxel_size: float | None) -> None:
    """Print a comparison with a reference; resolutions say what they go by."""
    size = len(comparison.alignment.volume)
    length = voxel_size or 1.0
    unit = "A" if voxel_size else "pixels"
    typer.echo(f"shell  {unit:>8}  FSC")
    for shell, value in enumerate(comparison.fsc):
        period = f"{size * length / shell:8.2f}" if shell else f"{'inf':>8}"
        typer.echo(f"{shell:5d}  {period}  {value:.4f}")
    for found in (comparison.resolution_half, comparison.resolution_0143):
        limit = "" if found.crossed else " or better, the last shell"
        typer.echo(
            f"resolution at FSC {found.threshold:g} against the reference, no mask: "
            f"{found.angstrom * length:.2f} {unit}{limit}"
        )
    typer.echo(f"correlation: {comparison.correlation:.4f}")
    typer.echo(f"hand: {comparison.hand}")


def _comparison_record(
    comparison: Comparison, voxel_size: float | None
) -> dict[str, Any]:
    length = voxel_size or 1.0
    resolutions = _resolutions(comparison).items()
    return {
        "fsc": comparison.fsc,
        **{f"resolution_at_{at}": value * length for at, value in resolutions},
        "unit": "angstrom" if voxel_size else "pixel",
        "correlation": comparison.correlation,
        "hand": comparison.hand,
    }


def _resolutions(comparison: Comparison) -> dict[str, float]:
    """Resolutions in pixels by the threshold of the FSC they go by."""
    return {
        "0.5": comparison.resolution_half.angstrom,
        "0.143": comparison.resolution_0143.angstrom,
    }
