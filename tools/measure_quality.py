"""Reconstruct known molecules from simulated micrographs, and compare with the truth.

    python tools/measure_quality.py 1QLQ.pdb TRPV1_31.mrc --snr 3.5 0.5 --seeds 1 2

One micrograph of separated particles, or as many as `--micrographs` says, for each
molecule and signal-to-noise ratio, the same for all seeds; each seed is a run with
default settings, but for those given as `--set name=value`. A line is printed for each
run, and kept in the file that `--out` names: runs whose lines are there already are not
done again. Half maps, which do not change the map, are left out.
"""

from __future__ import annotations

import argparse
import ast
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from problems import timed

from numbasaem import Settings, SimulationSettings, reconstruct, simulate
from numbasaem.assessment.alignment import evaluate_against
from numbasaem.io.atomic_models import load_volume

COLUMNS = "| molecule | SNR | seed | settings | correlation | FSC | s |"


def setting(words: str) -> tuple[str, Any]:
    """Name and value of `name=value`."""
    name, _, value = words.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("molecules", nargs="+", help="maps or atomic models")
    parser.add_argument("--snr", nargs="+", type=float, default=[3.5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--size", type=int, default=11)
    parser.add_argument("--pixels", type=int, default=2992)
    parser.add_argument("--micrographs", type=int, default=1)
    parser.add_argument("--set", nargs="+", type=setting, default=[], dest="changes")
    parser.add_argument("--out", type=Path, default=Path("quality.md"))
    arguments = parser.parse_args()
    changes = dict(arguments.changes)
    words = " ".join(f"{name}={value}" for name, value in changes.items()) or "default"
    if arguments.micrographs > 1:
        words += f", {arguments.micrographs} micrographs"
    kept = arguments.out.read_text("utf-8") if arguments.out.exists() else ""
    print(f"{COLUMNS}\n{7 * '|---'}|", flush=True)
    for molecule, snr in product(arguments.molecules, arguments.snr):
        sample = None
        for seed in arguments.seeds:
            start = f"| {Path(molecule).stem} | {snr:g} | {seed} | {words} |"
            if start in kept:
                print(next(row for row in kept.splitlines() if row.startswith(start)))
                continue
            if sample is None:
                volume, _ = load_volume(molecule, arguments.size)
                plan = SimulationSettings(
                    size=arguments.size,
                    pixels=arguments.pixels,
                    micrographs=arguments.micrographs,
                    snr=snr,
                )
                sample = simulate(volume, plan)
            settings = Settings(
                **{"size": arguments.size, "seed": seed, "halves": False} | changes
            )
            work = partial(reconstruct, sample.micrographs, settings)
            result, seconds = timed(work)
            found = evaluate_against(result.volume, sample.volume_true)
            shells = " ".join(f"{value:.2f}" for value in found.fsc)
            correlation = found.alignment.correlation
            row = f"{start} {correlation:.3f} | {shells} | {seconds:.0f} |"
            print(row, flush=True)
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(f"{row}\n")


if __name__ == "__main__":
    main()
