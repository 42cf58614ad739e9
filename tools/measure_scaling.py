"""Measure weak and strong scaling on Dask workers, and model a campaign.

One process a worker, one thread each, on this machine:

    python tools/measure_scaling.py --workers 1,2

Strong scaling divides the same patches among more workers; weak scaling gives each
worker as many. Then a model with the terms measured here says what an iteration takes
on 1 to 1,000 nodes. Its assumptions, besides linear work:

- each thread of a node computes as fast as one thread here;
- projections and statistics pass each node's link once down and once up; each level of
  a tree over the nodes sends, unpacks and adds them once more;
- asking takes a fixed time, measured as that of an iteration with almost no work, and a
  time for each worker, measured as that of tasks that do nothing;
- the driver does the M-step alone.
"""

from __future__ import annotations

import argparse
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from distributed import Client
from problems import N_ROTATIONS, Problem, shortest, simulated_problem

from numbasaem.aliases import no_progress
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.reading import list_inputs
from numbasaem.observations.dask import local_cluster
from numbasaem.observations.dask_patches import RemotePatches, load_remotely
from numbasaem.observations.exact_sums import BatchLayout, PartialSums
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.patch_blocks import batch_layout
from numbasaem.observations.patch_expectation import partial_sums
from numbasaem.reconstruction.normal_equations import normal_equations
from numbasaem.settings import Settings

SIZES = (11, 21, 31)
NODES = (1, 3, 10, 30, 100, 300, 1000)
SCALING_SIZE = 11
FEW, MANY = 16, 128
"""Patches of two parts; the difference of their times gives the time of a patch."""


@dataclass(frozen=True)
class Costs:
    """Terms of the model at one size, in seconds and bytes.

    Attributes
    ----------
    patch : float
        Seconds of the E-step of a patch on one thread.
    part : float
        Seconds of the E-step of a part of a batch, however small.
    add : float
        Seconds of unpacking and adding up two sets of sums.
    maximization : float
        Seconds of projections and M-step.
    projections, statistics : int
        Bytes on the way to a worker and from it.
    """

    patch: float
    part: float
    add: float
    maximization: float
    projections: int
    statistics: int


def costs(size: int) -> Costs:
    """Measure the terms at one size."""
    problem = simulated_problem(size, MANY)
    statistics = problem.expectation()
    brightest = float(np.abs(problem.patches).max())
    batch = batch_layout(MANY, problem.images, brightest)
    few_sums = part_of(batch, problem, FEW)
    sent = pickle.dumps(few_sums)

    def maximization() -> None:
        problem.operator.project(problem.coefficients)
        normal_equations(problem.operator, statistics).solve()

    few, many, add, maximized = shortest(
        [
            partial(part_of, batch, problem, FEW),
            partial(part_of, batch, problem, MANY),
            lambda: pickle.loads(sent) + few_sums,
            maximization,
        ]
    )
    patch = (many - few) / (MANY - FEW)
    return Costs(
        patch=patch,
        part=max(few - FEW * patch, 0.0),
        add=add,
        maximization=maximized,
        projections=problem.images.nbytes,
        statistics=len(sent),
    )


def part_of(batch: BatchLayout, problem: Problem, n_patches: int) -> PartialSums:
    """Do the work of a worker for its part of a batch, on one thread."""
    return partial_sums(
        batch,
        problem.patches[:n_patches],
        problem.images,
        problem.shift_prior,
        problem.noise_variance,
        threads=1,
    )


@dataclass(frozen=True)
class Cluster:
    """Machines that the model describes.

    Attributes
    ----------
    threads : int
        Number of threads of a node.
    gigabits : float
        Gigabits that a node's link takes a second.
    latency, asking : float
        Seconds that asking takes once an iteration, and for each node.
    """

    threads: int
    gigabits: float
    latency: float
    asking: float


def iteration(
    terms: Costs, nodes: int, n_patches: int, cluster: Cluster
) -> dict[str, float]:
    """Seconds of each part of an iteration."""
    levels = math.ceil(math.log2(nodes))
    bandwidth = cluster.gigabits * 1e9 / 8
    moved = terms.projections + terms.statistics
    return {
        "E-step": n_patches * terms.patch / (nodes * cluster.threads) + terms.part,
        "tree": (levels + 1) * moved / bandwidth + levels * terms.add,
        "asking": cluster.latency + nodes * cluster.asking,
        "M-step": terms.maximization,
    }


def print_model(cluster: Cluster, n_patches: int) -> None:
    """Print the terms and the table of the model."""
    print(
        f"\nModel: {n_patches} patches an iteration, K = {N_ROTATIONS}, nodes of "
        f"{cluster.threads} threads, links of {cluster.gigabits:g} Gbit/s, asking "
        f"{cluster.latency:.3f} s and {1e3 * cluster.asking:.1f} ms a node\n"
    )
    rows = []
    print("| L | ms a patch | s a part | ms an addition | MB to and from a node |")
    print("|---|---|---|---|---|")
    for size in SIZES:
        terms = costs(size)
        to, back = terms.projections / 1e6, terms.statistics / 1e6
        print(
            f"| {size} | {1e3 * terms.patch:.3f} | {terms.part:.3f} "
            f"| {1e3 * terms.add:.1f} | {to:.2f} + {back:.2f} |"
        )
        for nodes in NODES:
            seconds = iteration(terms, nodes, n_patches, cluster)
            terms_shown = " | ".join(f"{value:.3g}" for value in seconds.values())
            moved = f"{size} | {nodes} | {nodes * (to + back):.3g}"
            rows.append(f"| {moved} | {terms_shown} | {sum(seconds.values()):.3g} |")
    print("\n| L | nodes | MB moved | E-step s | tree s | asking s | M-step s | s |")
    print("|---|---|---|---|---|---|---|---|", *rows, sep="\n")


def measure_scaling(workers: Sequence[int], n_patches: int) -> tuple[float, float]:
    """Print both scalings; return seconds of asking, once and for each worker."""
    size = SCALING_SIZE
    problem = simulated_problem(size, MANY)
    hypotheses = Hypotheses(
        problem.operator,
        problem.coefficients,
        problem.shift_prior,
        problem.noise_variance,
    )
    side = size * math.ceil(math.sqrt(n_patches * max(workers)))
    print(f"L = {size}, K = {N_ROTATIONS}, {n_patches} patches\n")
    print("| workers | strong s | efficiency | weak s | efficiency |")
    print("|---|---|---|---|---|")
    base: tuple[float, float] | None = None
    with TemporaryDirectory() as folder:
        path = Path(folder, "noise.mrc")
        write_micrograph(path, problem.noise(side, side), 1.0)
        for n_workers in workers:
            with local_cluster(n_workers, n_workers) as client:
                data = load_remotely(
                    client, list_inputs([path]), Settings(size=size), no_progress
                ).part(None, None)

                def seconds(n: int, data: RemotePatches = data) -> float:
                    numbers = np.arange(n)
                    return shortest([lambda: data.expectation(numbers, hypotheses)])[0]

                strong, weak = seconds(n_patches), seconds(n_patches * n_workers)
                latency, asking = seconds(16), asking_a_worker(client)
            base = base or (strong * n_workers, weak)
            print(
                f"| {n_workers} | {strong:.2f} | {base[0] / (strong * n_workers):.2f} "
                f"| {weak:.2f} | {base[1] / weak:.2f} |",
                flush=True,
            )
    return latency, asking


def asking_a_worker(client: Client) -> float:
    """Seconds for each worker of an iteration: two parts and two sums."""
    n_tasks = 400

    def ask() -> None:
        client.gather([client.submit(int, i, pure=False) for i in range(n_tasks)])

    return 4 * shortest([ask])[0] / n_tasks


def main() -> None:
    """Measure, then model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", default="1,2", help="numbers of workers")
    parser.add_argument("--patches", type=int, default=1850, help="of strong scaling")
    parser.add_argument("--campaign", type=int, default=3_700_000, help="of the model")
    parser.add_argument("--threads", type=int, default=64, help="of a node")
    parser.add_argument("--gigabits", type=float, default=10.0, help="of a link")
    asked = parser.parse_args()
    workers = [int(n) for n in asked.workers.split(",")]
    latency, asking = measure_scaling(workers, asked.patches)
    cluster = Cluster(asked.threads, asked.gigabits, latency, asking)
    print_model(cluster, asked.campaign)


if __name__ == "__main__":
    main()
