"""The connection to a Dask cluster, and what any model asks of its workers.

Dask decides who works on what, moves data and repeats what was lost with a worker. What
is asked of it does not depend on who is there: an E-step is divided into blocks, whose
statistics add up to the same bits on any workers. Of each model, the data are in a
module of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numba
import numpy as np

from numbasaem import __version__
from numbasaem.errors import expected
from numbasaem.micrographs.copies import Copies
from numbasaem.micrographs.pixel_sizes import PixelSizes
from numbasaem.micrographs.preparation import preparation_of
from numbasaem.micrographs.reading import optics_of, warn_of_excluded
from numbasaem.micrographs.sources import MicrographFile

try:
    import dask
    from distributed import Client, LocalCluster, as_completed
    from distributed.comm.core import connect
    from distributed.scheduler import KilledWorker
except ImportError as error:
    raise ImportError(
        f"no {error.name}: a cluster takes Dask, pip install 'numbasaem[distributed]'",
        name=error.name,
    ) from None

from .dask_workers import StoredFile, at_work  # which imports Dask as well

if TYPE_CHECKING:
    from distributed import Future

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings

    from .dask_workers import Keep
    from .pixel_sums import PixelSums


_PACKAGE = "numbasaem"
_SECONDS_TO_ANSWER = 8
_TASKS = 2
"""Tasks of a worker in an iteration: what is lost with it, and how loads even out."""


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """Ask a scheduler for its workers.

    Parameters
    ----------
    scheduler : str
        Its address, ``tcp://host:port``.

    Yields
    ------
    distributed.Client
        The connection.

    Raises
    ------
    InputError
        If there is no answer within ten seconds.
    """
    try:
        asyncio.run(asyncio.wait_for(_greet(scheduler), _SECONDS_TO_ANSWER))
    except (OSError, ValueError) as error:
        what = "the address of a Dask scheduler that answers"
        found = str(error) or "silence"
        raise expected(f"`scheduler` {scheduler}", what, found) from error
    with Client(scheduler) as client:
        yield client


async def _greet(scheduler: str) -> None:
    """Exchange greetings, for which Dask itself would wait without end."""
    comm = await connect(scheduler, timeout=_SECONDS_TO_ANSWER)
    await comm.close()


@contextmanager
def local_cluster(n_workers: int, threads: int | None) -> Iterator[Client]:
    """Start workers on this machine.

    Parameters
    ----------
    n_workers : int
        Processes.
    threads : int or None
        Threads of all of them together; all that Numba may use if None.

    Yields
    ------
    distributed.Client
        The connection to them.

    Raises
    ------
    InputError
        If there are to be none.
    """
    if n_workers < 1:
        raise expected("n_workers", "at least 1 worker", n_workers)
    each = max(1, (threads or numba.config.NUMBA_NUM_THREADS) // n_workers)
    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=each,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@dataclass(frozen=True)
class StoredMicrographs:
    """Micrographs that workers keep, without copies, and what they told of them.

    Attributes
    ----------
    pieces : list of (StoredFile, int)
        File of each micrograph and its number therein.
    told : list
        Details of each, by what was kept of it.
    sources, pixel_size, pixel_sums, optics
        As in :class:`DataSet`.
    """

    pieces: list[tuple[StoredFile, int]]
    told: list[Any]
    sources: list[dict[str, Any]]
    pixel_size: float | None
    pixel_sums: list[PixelSums]
    optics: OpticsGroups | None

    @property
    def for_data_set(self) -> dict[str, Any]:
        """Arguments of a data set that are the same for any model."""
        names = "sources", "pixel_size", "pixel_sums", "optics"
        return {name: getattr(self, name) for name in names}


def await_workers(client: Client, on_progress: OnProgress) -> None:
    """Wait for a worker, and refuse workers of another version of this package.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    on_progress : callable
        Called with what is being done and the share of it that is done.

    Raises
    ------
    InputError
        If a worker has another version of this package or the cluster is lost.
    """
    with answering(client):
        on_progress("waiting for workers", 0.0)
        client.wait_for_workers(1)
        _refuse_versions(client)


def without_arrays(inputs: Sequence[Input]) -> list[MicrographFile] | None:
    """Files that workers can read themselves.

    Parameters
    ----------
    inputs : sequence of arrays and MicrographFile
        Inputs of a run.

    Returns
    -------
    list of MicrographFile, or None
        The inputs by their absolute paths; None if there is an array among them.
    """
    files = [item for item in inputs if isinstance(item, MicrographFile)]
    if len(files) < len(inputs):
        return None
    return [replace(file, path=file.path.absolute()) for file in files]


def stored_micrographs(
    client: Client,
    files: Sequence[MicrographFile],
    settings: Settings,
    keep_at: Callable[[float | None], Keep],
    on_progress: OnProgress,
) -> StoredMicrographs:
    """Have the workers read and prepare micrographs and keep what they need of them.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    files : sequence of MicrographFile
        By :func:`without_arrays`.
    settings : Settings
        Preparation and pixel size.
    keep_at : callable
        Function from the prepared micrographs' pixel size to what is kept of them.
    on_progress : callable
        Called with what is being done and the share of it that is done.

    Returns
    -------
    StoredMicrographs
        The micrographs.

    Raises
    ------
    InputError
        If a micrograph cannot be read or prepared, or the cluster is lost.

    Warns
    -----
    RunWarning
        If a micrograph or a part of it is left out.
    """
    preparation = preparation_of(settings)
    pixel_sizes = PixelSizes(settings.pixel_size)
    of_files = [pixel_sizes.of(file, file.header()[1]) for file in files]
    pixel_size = preparation.pixel_size or pixel_sizes.common
    keep = keep_at(pixel_size)
    asked = [
        StoredFile(file, preparation, of_file, keep)
        for file, of_file in zip(files, of_files, strict=True)
    ]
    with answering(client):
        tasks = [
            submit(client, "load", StoredFile.load, file, on=address)
            for address, _, first, end in _shares(client, len(asked))
            for file in asked[first:end]
        ]
        follow(tasks, partial(on_progress, "reading micrographs"))
        answers = client.gather(tasks)
    pieces, kept, sources = [], [], []
    copies = Copies()
    for file, (source, micrographs) in zip(asked, answers, strict=True):
        sources.append(source | {"pixel_size": file.pixel_size})
        stored = replace(file, sha256=source["sha256"])
        for number, facts in enumerate(micrographs):
            if copies.is_original(facts.identity, number, sources[-1]):
                warn_of_excluded(sources[-1]["name"], facts.excluded_share)
                pieces.append((stored, number))
                kept.append(facts)
    return StoredMicrographs(
        pieces=pieces,
        told=[facts.details for facts in kept],
        sources=sources,
        pixel_size=pixel_size,
        pixel_sums=[facts.pixel_sums for facts in kept],
        optics=optics_of([facts.point_spread for facts in kept]),
    )


def submit(
    client: Client,
    name: str,
    work: Callable[..., object],
    *arguments: object,
    on: str | None = None,
) -> Future[Any]:
    """Ask for a task.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    name : str
        What the task is, for the key by which Dask knows it.
    work : callable
        The task; it is called with the arguments and the worker's folder.
    *arguments : object
        Its arguments; of other tasks, what they return.
    on : str, optional
        Worker that is to do it, if it is there and has nothing else to do.

    Returns
    -------
    distributed.Future
        What it will return.
    """
    return client.submit(
        at_work,
        __version__,
        work,
        *arguments,
        key=f"{name}-{uuid4()}",
        workers=on,
        allow_other_workers=on is not None,
    )


def follow(
    tasks: list[Future[Any]], on_progress: Callable[[float], None] | None
) -> None:
    """Report the share of the tasks that are done, until all are.

    Parameters
    ----------
    tasks : list of distributed.Future
        By :func:`submit`.
    on_progress : callable or None
        Called with the share that is done.
    """
    for n_done, _ in enumerate(as_completed(tasks), start=1):
        if on_progress is not None:
            on_progress(n_done / len(tasks))


def _shares(client: Client, n: int) -> Iterator[tuple[str, int, int, int]]:
    """Consecutive shares of n things by worker, as large as its number of threads.

    Yields its address and threads, the first of its share and the end of it.
    """
    while not (threads := sorted(client.nthreads().items())):
        client.wait_for_workers(1)
    ends = np.cumsum([count for _, count in threads])
    bounds = np.rint(np.append(0, ends) * n / ends[-1]).astype(int).tolist()
    for (address, count), (first, end) in zip(threads, pairwise(bounds), strict=True):
        yield address, count, first, end


def portions(
    client: Client, n_blocks: int, shared: bool = False
) -> Iterator[tuple[str, slice]]:
    """Divide the blocks of an E-step among the workers, in a few tasks each.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    n_blocks : int
        Number of blocks.
    shared : bool
        Whether the threads of a worker share a block; else each takes one of its own.

    Yields
    ------
    address : str
        Worker that is to take the task.
    blocks : slice
        Consecutive blocks, in order.
    """
    for address, n_threads, first, end in _shares(client, n_blocks):
        at_once = 1 if shared else n_threads
        n_tasks = max(1, min(_TASKS, (end - first) // at_once))
        bounds = np.linspace(first, end, n_tasks + 1).astype(int).tolist()
        for start, stop in pairwise(bounds):
            if start < stop:
                yield address, slice(start, stop)


def _refuse_versions(client: Client) -> None:
    """Refuse workers that have another version of this package."""
    found = client.run(version, _PACKAGE, on_error="return")
    for address, theirs in found.items():
        if theirs != __version__:
            what = "none" if isinstance(theirs, PackageNotFoundError) else theirs
            raise expected(f"worker {address}", f"{_PACKAGE} {__version__}", what)


@contextmanager
def answering(client: Client) -> Iterator[None]:
    """Say in one line that the cluster is lost.

    Parameters
    ----------
    client : distributed.Client
        Connection to it.

    Raises
    ------
    InputError
        If it is.
    """
    address = client.scheduler_info(n_workers=0)["address"]
    # A minibatch of arrays may be sent as part of the task.
    unlimited = {"distributed.admin.large-graph-warning-threshold": "1 TB"}
    try:
        with dask.config.set(unlimited):
            yield
    except (OSError, CancelledError, KilledWorker) as error:
        what = "a scheduler and workers to the end of the run (see `resume`)"
        found = f"{type(error).__name__}: {error}"
        raise expected(f"Dask cluster {address}", what, found) from error
