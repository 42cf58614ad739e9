"""Measure the share of false picks that `pick --fdr` keeps to, and the recall.

    python tools/measure_picks.py shepp-logan 1QLQ.pdb --snr 3.5 1 0.5 --size 11

A micrograph is simulated for each molecule and signal-to-noise ratio, and picked with
the true map and with the map that a reconstruction of it finds, with default settings
but for those given as `--set name=value`. A pick within `--tolerance` pixels of a
particle of its own is right. A line is printed for each.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from measure_quality import setting

from numbasaem import Settings, SimulationSettings, reconstruct
from numbasaem.aliases import no_progress
from numbasaem.errors import InputError
from numbasaem.io.atomic_models import load_volume
from numbasaem.picking.files import pick_with_map, pick_with_run
from numbasaem.picking.tables import match_tables, write_picks
from numbasaem.simulation.files import simulate_to_folder

COLUMNS = "| molecule | SNR | map | asked | picks | false | recall |"


def measured(folder: Path, the_map: str, fdr: float, tolerance: float) -> str:
    """Columns of one micrograph, picked with the true map or with the one found."""
    micrographs = [folder / "data" / "micrograph_0001.mrc"]
    try:
        if the_map == "true":
            volume = folder / "data" / "volume_true.mrc"
            picks = pick_with_map(micrographs, volume, no_progress, fdr=fdr)
        else:
            picks = pick_with_run(micrographs, folder / "run", no_progress, fdr=fdr)
    except InputError:
        return "0 | none | 0 |"
    table = folder / f"{the_map}.star"
    write_picks(table, picks)
    scores = match_tables(table, folder / "data" / "truth.star", tolerance)
    n_picks = len(picks.micrograph_names)
    return f"{n_picks} | {1 - scores.precision:.3f} | {scores.recall:.3f} |"


def main() -> None:
    """Print a line for each molecule, ratio and map."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("molecules", nargs="+", help="maps or atomic models")
    parser.add_argument("--snr", nargs="+", type=float, default=[3.5, 1.0, 0.5])
    parser.add_argument("--size", type=int, default=11)
    parser.add_argument("--pixels", type=int, default=748)
    parser.add_argument("--fdr", type=float, default=0.1)
    parser.add_argument("--tolerance", type=float, default=2.0)
    parser.add_argument("--set", nargs="+", type=setting, default=[], dest="changes")
    arguments = parser.parse_args()
    print(f"{COLUMNS}\n{7 * '|---'}|", flush=True)
    for molecule, snr in product(arguments.molecules, arguments.snr):
        with TemporaryDirectory() as name:
            folder = Path(name)
            volume, _ = load_volume(molecule, arguments.size)
            plan = SimulationSettings(
                size=arguments.size, pixels=arguments.pixels, snr=snr
            )
            simulate_to_folder(folder / "data", volume, plan)
            settings = Settings(
                **{"size": arguments.size, "halves": False} | dict(arguments.changes)
            )
            micrograph = folder / "data" / "micrograph_0001.mrc"
            reconstruct([micrograph], settings, out=folder / "run")
            for the_map in ("true", "found"):
                row = f"| {Path(molecule).stem} | {snr:g} | {the_map} "
                columns = measured(folder, the_map, arguments.fdr, arguments.tolerance)
                print(f"{row}| {arguments.fdr:g} | {columns}", flush=True)


if __name__ == "__main__":
    main()
