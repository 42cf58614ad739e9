"""The E-step on a Dask cluster: patches stay where they are, statistics travel.

Dask decides who works on what, moves data and repeats what was lost with a worker. What
is asked of it does not depend on who is there: a batch is divided into blocks, and the
sums over blocks are exact, so that the statistics are the same bits on any workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
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
from numbasaem.micrographs.reading import optics_of
from numbasaem.micrographs.sources import MicrographFile
from numbasaem.projection.operator import ProjectionOperator

from .image_statistics import ImageStatistics
from .patch_blocks import batch_layout
from .patch_data import load_patches, spreads_of
from .patch_expectation import statistics_of_sums
from .pixel_sums import variance_and_brightest
from .protocol import DataSet
from .statistics import by_optics_group

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

from .dask_workers import (  # which imports Dask as well
    ChosenPatches,
    HypothesesInImages,
    StoredFile,
    added_sums,
    at_work,
    given_hypotheses,
    sums_of_blocks,
)

if TYPE_CHECKING:
    from distributed import Future
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings
    from numbasaem.volume.basis import VolumeBasis

    from .exact_sums import BatchLayout
    from .hypotheses import Hypotheses
    from .statistics import Statistics

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
class RemotePatchSet(DataSet):
    """Which patches there are, on workers' disks but for those of arrays.

    Attributes
    ----------
    client : distributed.Client
        Connection to the workers.
    pieces : sequence
        Of each micrograph: its file and number therein, or its patches.
    """

    client: Client
    pieces: Sequence[tuple[StoredFile, int] | NDArray[np.float32]]

    def part(
        self, chosen: NDArray[np.intp] | None, threads: int | None
    ) -> RemotePatches:
        """Patches of one run; see :meth:`PatchSet.part`. Threads are the workers'."""
        numbers = np.arange(len(self.micrograph)) if chosen is None else chosen
        return RemotePatches(self, numbers)

    def select(
        self, numbers: NDArray[np.intp]
    ) -> list[ChosenPatches | NDArray[np.float32]]:
        """What a worker has to know to come by patches.

        Parameters
        ----------
        numbers : intp, shape (n,)
            Which; they ascend.

        Returns
        -------
        list
            By micrograph.
        """
        owners = self.micrograph[numbers]
        cuts = np.flatnonzero(np.diff(owners)) + 1
        selected: list[ChosenPatches | NDArray[np.float32]] = []
        for group, owner in zip(
            np.split(numbers, cuts), owners[np.append(0, cuts)], strict=True
        ):
            rows = group - np.searchsorted(self.micrograph, owner)
            piece = self.pieces[owner]
            if not isinstance(piece, tuple):
                selected.append(piece[rows])
            else:
                file, number = piece
                mask = np.zeros(self.pixel_sums[owner].n_patches, bool)
                mask[rows] = True
                selected.append(ChosenPatches(file, number, np.packbits(mask)))
        return selected


def load_remotely(
    client: Client,
    inputs: Sequence[Input],
    settings: Settings,
    on_progress: OnProgress,
) -> RemotePatchSet:
    """Have the workers cut the micrographs into patches.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    inputs : sequence of arrays and MicrographFile
        As in :func:`load_patches`. Workers read files themselves; where there is an
        array among them, they are sent the patches they need.
    settings : Settings
        Patch size, preparation and pixel size.
    on_progress : callable
        Called with what is being done and the share of it that is done.

    Returns
    -------
    RemotePatchSet
        The patches.

    Raises
    ------
    InputError
        As :func:`load_patches`, or if a worker has another version of this package or
        the cluster is lost.
    """
    with _answering(client):
        on_progress("waiting for workers", 0.0)
        client.wait_for_workers(1)
        _refuse_versions(client)
    files = []
    for item in inputs:
        if not isinstance(item, MicrographFile):
            data = load_patches(inputs, settings, on_progress)
            starts = np.cumsum([one.n_patches for one in data.pixel_sums])[:-1]
            known = {f.name: getattr(data, f.name) for f in fields(DataSet)}
            return RemotePatchSet(
                **known, client=client, pieces=np.split(data.patches, starts)
            )
        files.append(replace(item, path=item.path.absolute()))
    preparation = preparation_of(settings)
    pixel_sizes = PixelSizes(settings.pixel_size)
    asked = [
        StoredFile(file, preparation, pixel_sizes.of(file, file.header()[1]))
        for file in files
    ]
    with _answering(client):
        tasks = [
            _submit(client, "load", StoredFile.load, file, on=address)
            for address, _, first, end in _shares(client, len(asked))
            for file in asked[first:end]
        ]
        _follow(tasks, partial(on_progress, "reading micrographs"))
        found = client.gather(tasks)
    sums, seen, pieces, sources = [], [], [], []
    copies = Copies()
    for file, (source, each, spreads, identities) in zip(asked, found, strict=True):
        sources.append(source | {"pixel_size": file.pixel_size})
        stored = replace(file, sha256=source["sha256"])
        for number, identity in enumerate(identities):
            if copies.is_original(identity, number, sources[-1]):
                pieces.append((stored, number))
                sums.append(each[number])
                seen.append(spreads[number])
    return RemotePatchSet(
        micrograph=np.repeat(np.arange(len(sums)), [one.n_patches for one in sums]),
        pixel_size=preparation.pixel_size or pixel_sizes.common,
        sources=sources,
        pixel_sums=sums,
        optics=optics_of(seen),
        client=client,
        pieces=pieces,
    )


class RemotePatches:
    """Patches of one run, wherever they are; see :class:`Observations`.

    Parameters
    ----------
    data : RemotePatchSet
        All patches.
    numbers : intp, shape (n_patches,)
        Those of the run.
    """

    patches_each = 1.0

    def __init__(self, data: RemotePatchSet, numbers: NDArray[np.intp]) -> None:
        self._data = data
        self._numbers = numbers
        self.variance, self._brightest = variance_and_brightest(data.pixel_sums)
        owners = data.micrograph[numbers]
        self._optics = None if data.optics is None else data.optics.take(owners)

    def __len__(self) -> int:
        """How many patches there are."""
        return len(self._numbers)

    def projections(self, basis: VolumeBasis, views: ViewGrid) -> ProjectionOperator:
        """Projections as the patches see them; see :class:`Observations`."""
        return ProjectionOperator(basis, views.rotations, spreads_of(self._optics))

    def compile(self, operator: Any) -> None:
        """Leave compiling to the workers; see :class:`Observations`."""

    def expectation(
        self,
        chosen: NDArray[np.intp],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of the chosen patches; see :class:`Observations`."""

        def of_group(members: NDArray[np.intp], hypotheses: Hypotheses) -> Statistics:
            if not len(members):
                return ImageStatistics.of_nothing(*hypotheses.images.shape[:2])
            numbers = self._numbers[members]
            return self._of_group(numbers, hypotheses.in_images, on_progress)

        return by_optics_group(self._optics, chosen, hypotheses, of_group)

    def _of_group(
        self,
        numbers: NDArray[np.intp],
        hypotheses: HypothesesInImages,
        on_progress: Callable[[float], None] | None,
    ) -> Statistics:
        """Statistics of patches under the same projections."""
        layout = batch_layout(len(numbers), hypotheses[0], self._brightest)
        client = self._data.client
        with _answering(client):
            given = _submit(client, "projections", given_hypotheses, hypotheses)
            tasks = [
                _submit(
                    client,
                    "expectation",
                    sums_of_blocks,
                    layout,
                    pieces,
                    given,
                    on=address,
                )
                for address, portion in _portions(client, layout)
                for pieces in [self._data.select(numbers[portion])]
            ]
            sums = tasks
            while len(sums) > 1:  # neighbours first: they are on the same worker
                pairs = zip(sums[::2], sums[1::2], strict=False)
                added = [_submit(client, "sum", added_sums, *pair) for pair in pairs]
                sums = added + sums[2 * len(added) :]
            _follow(tasks, on_progress)
            return statistics_of_sums(layout, sums[0].result(), *hypotheses)


def _submit(
    client: Client,
    name: str,
    work: Callable[..., object],
    *arguments: object,
    on: str | None = None,
) -> Future[Any]:
    """Ask for a task, on a certain worker if it is there and has nothing else to do."""
    return client.submit(
        at_work,
        __version__,
        work,
        *arguments,
        key=f"{name}-{uuid4()}",
        workers=on,
        allow_other_workers=on is not None,
    )


def _follow(
    tasks: list[Future[Any]], on_progress: Callable[[float], None] | None
) -> None:
    """Report the share of the tasks that are done, until all are."""
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


def _portions(client: Client, layout: BatchLayout) -> Iterator[tuple[str, slice]]:
    """What patches of a batch each worker is to take: whole blocks, in a few tasks."""
    length = layout.block_length
    for address, n_threads, first, end in _shares(client, layout.n_blocks):
        n_blocks = end - first
        n_tasks = max(1, min(_TASKS, n_blocks // n_threads))
        bounds = np.linspace(first, end, n_tasks + 1).astype(int).tolist()
        for start, stop in pairwise(bounds):
            if start < stop:
                yield address, slice(start * length, stop * length)


def _refuse_versions(client: Client) -> None:
    """Refuse workers that have another version of this package."""
    found = client.run(version, _PACKAGE, on_error="return")
    for address, theirs in found.items():
        if theirs != __version__:
            what = "none" if isinstance(theirs, PackageNotFoundError) else theirs
            raise expected(f"worker {address}", f"{_PACKAGE} {__version__}", what)


@contextmanager
def _answering(client: Client) -> Iterator[None]:
    """Say in one line that the cluster is lost."""
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
