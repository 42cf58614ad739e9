"""Patches on the workers of a Dask cluster: they stay there, statistics travel.

A batch is divided into blocks, and the sums over blocks are exact, so that the
statistics are the same bits on any workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.errors import expected
from numbasaem.projection.operator import ProjectionOperator

from .dask import (
    answering,
    await_workers,
    follow,
    portions,
    stored_micrographs,
    submit,
    without_arrays,
)
from .dask_workers import KeptMicrograph, StoredFile, handed_on, register_size
from .exact_sums import PACKED_BYTES, PartialSums
from .image_statistics import ImageStatistics
from .patch_blocks import batch_layout
from .patch_cutting import cut_live_patches
from .patch_data import load_patches, spreads_of
from .patch_expectation import partial_sums, statistics_of_sums
from .pixel_sums import pixel_sums, variance_and_brightest
from .protocol import DataSet
from .statistics import by_optics_group

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.autocorrelation.moments import Autocorrelations
    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.micrographs.preparation import Prepared
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings
    from numbasaem.volume.basis import VolumeBasis

    from .exact_sums import BatchLayout
    from .hypotheses import Hypotheses
    from .protocol import ChangePixels
    from .statistics import Statistics


HypothesesInImages = tuple[
    "NDArray[np.float64]", "NDArray[np.float64]", float, "NDArray[np.float64] | None"
]


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
    change: ChangePixels | None = None,
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
    change : callable, optional
        As in the local one; micrographs are then read and changed here, and sent.

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
    await_workers(client, on_progress)
    files = without_arrays(inputs)
    if files is None or change is not None:
        data = load_patches(inputs, settings, on_progress, change)
        starts = np.cumsum([sums.n_patches for sums in data.pixel_sums])[:-1]
        known = {field.name: getattr(data, field.name) for field in fields(DataSet)}
        return RemotePatchSet(
            **known, client=client, pieces=np.split(data.patches, starts)
        )
    stored = stored_micrographs(
        client, files, settings, lambda _: KeepPatches(settings.size), on_progress
    )
    n_patches = [sums.n_patches for sums in stored.pixel_sums]
    return RemotePatchSet(
        **stored.for_data_set,
        micrograph=np.repeat(np.arange(len(n_patches)), n_patches),
        client=client,
        pieces=stored.pieces,
    )


@dataclass(frozen=True)
class KeepPatches:
    """A worker keeps the patches of a micrograph.

    Attributes
    ----------
    size : int
        L, side of a patch, pixels.
    """

    size: int

    def __call__(self, micrograph: Prepared) -> KeptMicrograph:
        """Cut a micrograph into patches; see :data:`Keep`."""
        (patches,) = cut_live_patches([micrograph], self.size)
        return KeptMicrograph({"patches": patches}, pixel_sums(patches))


@dataclass(frozen=True)
class ChosenPatches:
    """Some patches of a micrograph in a file: one bit for each that there is."""

    file: StoredFile
    number: int
    packed: NDArray[np.uint8]

    def patches(self, scratch: Path) -> NDArray[np.float32]:
        """Patches themselves, from this worker's disk or else from the file.

        Parameters
        ----------
        scratch : Path
            Folder of the worker.

        Returns
        -------
        float32, shape (n, L, L)
            Those chosen.
        """
        stored = self.file.array(self.number, "patches", scratch)
        chosen: NDArray[np.float32] = stored[np.flatnonzero(np.unpackbits(self.packed))]
        return chosen


def sums_of_blocks(
    layout: BatchLayout,
    pieces: list[ChosenPatches | NDArray[np.float32]],
    given: HypothesesInImages,
    scratch: Path,
) -> PartialSums:
    """Sums over some blocks of a batch.

    Parameters
    ----------
    layout : BatchLayout
        The batch.
    pieces : list
        Its patches in these blocks, themselves or where they are.
    given : tuple
        Projections, shift prior, noise variance and rotation prior.
    scratch : Path
        Folder of the worker.

    Returns
    -------
    PartialSums
        Sums.
    """
    patches = [
        p.patches(scratch) if isinstance(p, ChosenPatches) else p for p in pieces
    ]
    return partial_sums(layout, np.concatenate(patches), *given)


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

    def autocorrelations(self) -> Autocorrelations:
        """Refuse: patches cut particles; see :class:`Observations`."""
        raise expected("start", "random with patches", "moments")

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
        with answering(client):
            given = submit(client, "projections", handed_on, hypotheses)
            tasks = [
                submit(
                    client,
                    "expectation",
                    sums_of_blocks,
                    layout,
                    pieces,
                    given,
                    on=address,
                )
                for address, portion in _patches_of_portions(client, layout)
                for pieces in [self._data.select(numbers[portion])]
            ]
            sums = tasks
            while len(sums) > 1:  # neighbours first: they are on the same worker
                pairs = zip(sums[::2], sums[1::2], strict=False)
                added = [submit(client, "sum", added_sums, *pair) for pair in pairs]
                sums = added + sums[2 * len(added) :]
            follow(tasks, on_progress)
            return statistics_of_sums(layout, sums[0].result(), *hypotheses)


def _patches_of_portions(
    client: Client, layout: BatchLayout
) -> Iterator[tuple[str, slice]]:
    """What patches of a batch each worker is to take: whole blocks."""
    length = layout.block_length
    for address, blocks in portions(client, layout.n_blocks):
        yield address, slice(blocks.start * length, blocks.stop * length)


def added_sums(first: PartialSums, second: PartialSums, _: Path) -> PartialSums:
    """Add the sums over two blocks.

    Parameters
    ----------
    first, second : PartialSums
        Sums over other patches each.

    Returns
    -------
    PartialSums
        Sums over all of them.
    """
    return first + second


def _bytes_on_the_way(sums: PartialSums) -> int:
    """What Dask counts when sums travel."""
    return PACKED_BYTES * sums.counts.size + sums.of_blocks.nbytes


register_size(PartialSums, _bytes_on_the_way)
