"""Windows on the workers of a Dask cluster: micrographs stay there, statistics travel.

Statistics of windows do not add up exactly. So workers return those of each block, and
they are added up here in the order of the blocks, as without workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from .dask import (
    answering,
    await_workers,
    follow,
    portions,
    stored_micrographs,
    submit,
    without_arrays,
)
from .dask_window_tasks import (
    KeepPixels,
    SeenMicrograph,
    SentHypotheses,
    StoredTile,
    statistics_of_blocks,
)
from .dask_workers import StoredFile, handed_on
from .window_data import (
    TileObservations,
    TileSet,
    WindowSet,
    load_windows,
    name_of,
)
from .window_tiles import reach_of

if TYPE_CHECKING:
    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.autocorrelation.moments import Autocorrelations
    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings

    from .feature_statistics import FeatureStatistics
    from .hypotheses import Hypotheses
    from .pixel_sums import PixelSums
    from .protocol import ChangePixels
    from .window_data import Windows


@dataclass(frozen=True)
class RemoteWindowSet(TileSet):
    """Which tiles there are, of micrographs on workers' disks.

    Attributes
    ----------
    client : distributed.Client
        Connection to the workers.
    pieces : list of (StoredFile, int)
        File of each micrograph and its number therein.
    n_whole : list of intp, shape (n_tiles of the micrograph,)
        Number of whole windows of each tile, by micrograph.
    """

    client: Client
    pieces: list[tuple[StoredFile, int]]
    n_whole: list[NDArray[np.intp]]

    def part(
        self, chosen: NDArray[np.intp] | None, threads: int | None
    ) -> RemoteWindows:
        """Tiles of one run; see :meth:`WindowSet.part`. Threads are the workers'."""
        micrographs = [
            SeenMicrograph(
                *piece, self.reach, None if seen.all() else np.packbits(seen)
            )
            for piece, seen in zip(self.pieces, self.seen_tiles(chosen), strict=True)
        ]
        windows = StoredWindows(
            self.client, micrographs, self._whole_windows(micrographs)
        )
        return RemoteWindows(
            self.client, windows, self.size, self.reach, self.pixel_sums, self.optics
        )

    def _whole_windows(
        self, micrographs: Sequence[SeenMicrograph]
    ) -> list[NDArray[np.intp]]:
        """Number of whole windows of each tile, by micrograph, as a run sees them."""
        n_whole = list(self.n_whole)
        partly = []
        for number, micrograph in enumerate(micrographs):
            if micrograph.seen is None:
                continue
            if micrograph.seen.any():
                partly.append(number)
            else:
                n_whole[number] = np.zeros_like(n_whole[number])
        with answering(self.client):
            tasks = [
                submit(
                    self.client, "windows", SeenMicrograph.n_whole, micrographs[number]
                )
                for number in partly
            ]
            for number, counts in zip(partly, self.client.gather(tasks), strict=True):
                n_whole[number] = counts
        return n_whole


@dataclass(frozen=True)
class SentWindowSet(WindowSet):
    """Tiles of windows in the memory of this process, which sends them to workers.

    Attributes
    ----------
    client : distributed.Client
        Connection to the workers.
    """

    client: Client

    def part(  # type: ignore[override]
        self, chosen: NDArray[np.intp] | None, threads: int | None
    ) -> RemoteWindows:
        """Tiles of one run; see :meth:`WindowSet.part`. Threads are the workers'."""
        here = super().part(chosen, None)
        return RemoteWindows(
            self.client, here, self.size, self.reach, self.pixel_sums, self.optics
        )


def load_remotely(
    client: Client,
    inputs: Sequence[Input],
    settings: Settings,
    on_progress: OnProgress,
    change: ChangePixels | None = None,
) -> TileSet:
    """Have the workers read and prepare the micrographs.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    inputs : sequence of arrays and MicrographFile
        As in :func:`load_windows`. Workers read files themselves; where there is an
        array among them, they are sent the tiles they need.
    settings : Settings
        Size, preparation and pixel size.
    on_progress : callable
        Called with what is being done and the share of it that is done.
    change : callable, optional
        As in the local one; micrographs are then read and changed here, and sent.

    Returns
    -------
    TileSet
        The micrographs.

    Raises
    ------
    InputError
        As :func:`load_windows`, or if a worker has another version of this package or
        the cluster is lost.
    """
    await_workers(client, on_progress)
    files = without_arrays(inputs)
    if files is None or change is not None:
        data = load_windows(inputs, settings, on_progress, change)
        known = {field.name: getattr(data, field.name) for field in fields(data)}
        return SentWindowSet(**known, client=client)
    stored = stored_micrographs(
        client,
        files,
        settings,
        lambda pixel_size: KeepPixels(settings.size, reach_of(settings, pixel_size)),
        on_progress,
    )
    n_tiles = [len(n_whole) for n_whole in stored.told]
    return RemoteWindowSet(
        **stored.for_data_set,
        micrograph=np.repeat(np.arange(len(n_tiles)), n_tiles),
        size=settings.size,
        reach=reach_of(settings, stored.pixel_size),
        client=client,
        pieces=stored.pieces,
        n_whole=stored.told,
    )


@dataclass(frozen=True)
class StoredWindows:
    """Tiles of one run in micrographs that workers keep.

    Attributes
    ----------
    client : distributed.Client
        Connection to the workers.
    micrographs : list of SeenMicrograph
        The micrographs.
    n_whole : list of intp, shape (n_tiles of the micrograph,)
        Number of windows that the run may see in each tile, by micrograph.
    """

    client: Client
    micrographs: list[SeenMicrograph]
    n_whole: list[NDArray[np.intp]]

    def tile(self, micrograph: int, number: int) -> StoredTile:
        """Where a worker finds a tile; see :meth:`Windows.tile`."""
        return StoredTile(self.micrographs[micrograph], number)

    def autocorrelations(self) -> Autocorrelations:
        """Autocorrelations of the usable pixels; see :class:`Observations`."""
        names = [(name_of(number),) for number in range(len(self.micrographs))]
        return self._sum(SeenMicrograph.autocorrelations, names)

    def first_two_orders(self) -> Autocorrelations:
        """First two orders of the usable pixels; see :class:`TileObservations`."""
        nothing = [()] * len(self.micrographs)
        return self._sum(SeenMicrograph.first_two_orders, nothing)

    def _sum(
        self,
        work: Callable[..., Autocorrelations | None],
        arguments: Sequence[tuple[str, ...]],
    ) -> Autocorrelations:
        """Add up what workers take of each micrograph, with arguments of its own."""
        client = self.client
        with answering(client):
            tasks = [
                submit(
                    client,
                    "autocorrelations",
                    work,
                    self.micrographs[number],
                    *arguments[number],
                    on=address,
                )
                for address, share in portions(client, len(arguments), shared=True)
                for number in range(len(arguments))[share]
            ]
            of_each = (task.result() for task in tasks)
            # In the order of the micrographs: the same bits wherever they are.
            total: Autocorrelations = reduce(
                add, (part for part in of_each if part is not None)
            )
            return total


class RemoteWindows(TileObservations):
    """Tiles of one run, which workers sum up; see :class:`Observations`.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    windows : Windows or StoredWindows
        The tiles, here or where a worker finds them.
    size, reach, sums, optics
        As in :class:`TileObservations`.
    """

    def __init__(
        self,
        client: Client,
        windows: Windows | StoredWindows,
        size: int,
        reach: int,
        sums: Sequence[PixelSums],
        optics: OpticsGroups | None = None,
    ) -> None:
        super().__init__(windows.n_whole, size, reach, sums, optics)
        self._client, self._windows = client, windows

    def compile(self, operator: Any) -> None:
        """Leave compiling to the workers; see :class:`Observations`."""

    def autocorrelations(self) -> Autocorrelations:
        """Autocorrelations where the pixels are; see :class:`Observations`."""
        return self._windows.autocorrelations()

    def first_two_orders(self) -> Autocorrelations:
        """First two orders where the pixels are; see :class:`TileObservations`."""
        return self._windows.first_two_orders()

    def _of_blocks(
        self,
        blocks: Sequence[NDArray[np.intp]],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None,
    ) -> Iterator[FeatureStatistics]:
        """Blocks that are worked on at the same time."""
        client = self._client
        sent = SentHypotheses.of(hypotheses, self._point_spreads, self._reach)
        with answering(client):
            given = submit(client, "hypotheses", handed_on, sent)
            tasks = [
                submit(
                    client,
                    "expectation",
                    statistics_of_blocks,
                    [
                        [self._windows.tile(*self._places[number]) for number in block]
                        for block in blocks[portion]
                    ],
                    given,
                    on=address,
                )
                for address, portion in portions(client, len(blocks), shared=True)
            ]
            follow(tasks, on_progress)
            for task in tasks:  # one by one: those of all may be large
                yield from task.result()
