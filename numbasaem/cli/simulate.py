"""`numbasaem simulate`: micrographs of a known molecule."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from numbasaem.errors import expected

from .progress import ProgressDisplay

EXAMPLE = (
    "numbasaem simulate data --volume shepp-logan --size 11 --micrographs 2 "
    "--pixels 512 --snr 5"
)


def command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    volume: Annotated[
        str,
        typer.Option(
            metavar="FILE|shepp-logan",
            help="Density map (MRC), structure (PDB, mmCIF) or the phantom.",
        ),
    ],
    size: Annotated[
        int, typer.Option(help="Side L of a patch and of the volume, pixels.")
    ],
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
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
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
        defocus=None if defocus is None else _two_numbers("defocus", defocus),
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


def _two_numbers(parameter: str, text: str) -> tuple[float, float]:
    """Read two comma-separated numbers."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise expected(parameter, "two comma-separated numbers", repr(text)) from None
    return low, high
