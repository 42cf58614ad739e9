"""Measure what effects of real micrographs cost, with their term of the model or not.

Micrographs of one molecule, the same but for an effect (a lens, coloured noise, views
that prefer a direction, particles that touch, unknown noise, and all of them), are
reconstructed by the released command, and the results compared with the truth beside
those of the ideal case:

    python tools/measure_effects.py TRPV1_31.mrc --noise-like one.mrc --out effects

The table goes to the standard output as Markdown. Runs that ``--out`` holds already
are not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from numbasaem.io.atomic_models import load_volume
from numbasaem.io.mrc import read_micrographs, write_volume

SIZE, PIXEL_SIZE = 11, 3.0
SCHEDULE = ("--iterations", "10,6,14", "--batch-fraction", "0.2", "--no-halves")


@dataclass(frozen=True)
class Effect:
    """An effect, and the term of the model that takes it into account.

    Attributes
    ----------
    name : str
        Name in the table.
    simulated, term : tuple of str
        Options of ``simulate`` and ``reconstruct``.
    noise_known : bool
        Whether the noise variance is given. If not, it is learned where the term is on,
        and held at the variance of the micrographs where it is off.
    """

    name: str
    simulated: tuple[str, ...] = ()
    term: tuple[str, ...] = ()
    noise_known: bool = True


@dataclass(frozen=True)
class Outcome:
    """Result of a reconstruction.

    Attributes
    ----------
    correlation : float
        Correlation with the truth, aligned.
    shells : list of float
        FSC with the truth per shell.
    seconds : float
        Median wall time of the iterations of the last stage.
    noise_variance : float
        Noise variance, learned or given, over the true one.
    """

    correlation: float
    shells: list[float]
    seconds: float
    noise_variance: float


def effects(noise_like: Path) -> list[Effect]:
    """Effects to study, the ideal case first."""
    defocus = ("--defocus", "8000,25000")
    colour = ("--noise-like", str(noise_like))
    views = ("--preferred", "0.5")
    close = ("--spacing", "arbitrary")
    return [
        Effect("none"),
        Effect("unknown noise variance", noise_known=False),
        Effect("lens, 0.8 to 2.5 um", defocus, ("--ctf",)),
        Effect("coloured noise", colour, ("--whiten",), noise_known=False),
        Effect("half the views within 30 degrees", views, ("--views", "learned")),
        Effect("touching particles", close, ("--model", "window")),
        Effect(
            "all of these",
            (*defocus, *colour, *views, *close),
            ("--ctf", "--whiten", "--views", "learned", "--model", "window"),
            noise_known=False,
        ),
    ]


def command(*words: str) -> list[dict[str, object]]:
    """Run the command, and return the JSON lines that it printed."""
    process = subprocess.run(
        [sys.executable, "-m", "numbasaem", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = process.stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def simulated(folder: Path, molecule: Path, effect: Effect, options: Options) -> Path:
    """Simulate micrographs with the effect, unless they are there."""
    if not (folder / "simulation.json").exists():
        command(
            *("simulate", str(folder), "--volume", str(molecule), "--size", str(SIZE)),
            *("--micrographs", str(options.micrographs)),
            *("--pixels", str(options.pixels), "--snr", str(options.snr)),
            *effect.simulated,
        )
    return folder


def outcome(data: Path, run: Path, effect: Effect, term: bool, seed: int) -> Outcome:
    """Reconstruct with or without the term, unless that is done, and judge."""
    kept = run / "iterations.json"
    if not kept.exists():
        table = data / "micrographs.star"
        paths = [table] if table.exists() else sorted(data.glob("micrograph_*.mrc"))
        lines = command(
            *("reconstruct", *map(str, paths), "--out", str(run), "--size", str(SIZE)),
            *(*SCHEDULE, "--seed", str(seed), "--json", "--no-report"),
            *noise_options(data, effect, term),
            *(effect.term if term else ()),
        )
        kept.write_text(json.dumps(lines), encoding="utf-8")
    lines = json.loads(kept.read_text("utf-8"))
    rows = [row for row in lines if "noise_variance" in row and "seconds" in row]
    last = [row["seconds"] for row in rows if row["stage"] == rows[-1]["stage"]]
    (judged,) = command(
        *("evaluate", str(run / "volume.mrc"), str(data / "volume_true.mrc"), "--json")
    )
    return Outcome(
        correlation=float(str(judged["correlation"])),
        shells=list(np.array(judged["fsc"], dtype=float)),
        seconds=median(last),
        noise_variance=rows[-1]["noise_variance"] / true_variance(data),
    )


def noise_options(data: Path, effect: Effect, term: bool) -> tuple[str, ...]:
    """Give the noise variance, leave it to be learned, or hold it at a guess."""
    if effect.noise_known:
        return "--noise-variance", repr(true_variance(data))
    if term or effect.term:
        return ()
    sections, _ = read_micrographs(next(data.glob("micrograph_*.mrc")))
    return "--noise-variance", repr(float(np.var(sections[0], dtype=np.float64)))


def true_variance(data: Path) -> float:
    """Variance of the noise in simulated micrographs."""
    record = json.loads((data / "simulation.json").read_text("utf-8"))
    return float(record["noise_variance"])


def row(name: str, term: str, result: Outcome, ideal: Outcome) -> str:
    """Word a line of the table."""
    shells = " ".join(f"{value:.3f}" for value in result.shells)
    worst = min(np.subtract(result.shells, ideal.shells))
    return (
        f"| {name} | {term} | {result.correlation:.3f} | {shells} | {worst:+.3f} | "
        f"{result.noise_variance:.3f} | {result.seconds / ideal.seconds:.2f} |"
    )


class Options(argparse.Namespace):
    """Options of this script."""

    volume: Path
    noise_like: Path
    out: Path
    micrographs: int
    pixels: int
    snr: float
    seed: int


def options(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", type=Path, help="density map of the molecule")
    parser.add_argument("--noise-like", type=Path, required=True, help="micrograph")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--micrographs", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=748)
    parser.add_argument("--snr", type=float, default=3.5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments, Options())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    chosen = options(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    # The molecule is scaled down, so that its box is 11 voxels of 3 angstrom.
    volume, _ = load_volume(chosen.volume, SIZE)
    molecule = chosen.out / "molecule.mrc"
    write_volume(molecule, volume, PIXEL_SIZE * SIZE / len(volume))
    print(
        "| effect | term | correlation | FSC per shell | worst shell less the ideal's "
        "| noise variance over the true one | seconds an iteration over the ideal's |\n"
        "|---|---|---|---|---|---|---|"
    )
    ideal: Outcome | None = None
    for number, effect in enumerate(effects(chosen.noise_like)):
        data = simulated(chosen.out / f"{number}", molecule, effect, chosen)
        for term in (True, False) if number else (True,):
            run = chosen.out / f"{number}-{'with' if term else 'without'}"
            result = outcome(data, run, effect, term, chosen.seed)
            ideal = ideal or result
            options_shown = f"`{' '.join(effect.term)}`" if effect.term else "learned"
            shown = options_shown if term else "none"
            print(row(effect.name, shown if number else "", result, ideal), flush=True)


if __name__ == "__main__":
    main()
