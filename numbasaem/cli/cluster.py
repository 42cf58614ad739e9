"""Options of commands that can work on a Dask cluster, and the cluster they name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from numbasaem.errors import expected

if TYPE_CHECKING:
    from distributed import Client

Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://HOST:PORT", help="Work on the Dask cluster that it runs."
    ),
]
"""Option that names the scheduler of a cluster."""

LocalCluster = Annotated[
    int | None,
    typer.Option(
        "--local-cluster", metavar="n", help="Work on n Dask workers on this machine."
    ),
]
"""Option that asks for workers on this machine."""


def cluster(
    command: str, scheduler: str | None, n_workers: int | None, threads: int | None
) -> AbstractContextManager[Client | None]:
    """Workers of a Dask cluster, if any are asked for.

    Parameters
    ----------
    command : str
        Name of the command, for errors.
    scheduler : str or None
        Address of the scheduler of a cluster.
    n_workers : int or None
        Number of workers to start on this machine.
    threads : int or None
        Threads that they share; all that Numba may use if None.

    Returns
    -------
    context manager of distributed.Client or None
        Connection to the workers.

    Raises
    ------
    InputError
        If both are given, or the cluster does not answer.
    """
    if scheduler is not None and n_workers is not None:
        raise expected(command, "`scheduler` or `n_workers`", "both")
    if scheduler is not None:
        from numbasaem.observations.dask import connected

        return connected(scheduler)
    if n_workers is not None:
        from numbasaem.observations.dask import local_cluster

        return local_cluster(n_workers, threads)
    return nullcontext()
