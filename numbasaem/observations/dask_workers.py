"""What the workers of a Dask cluster do: cut files into patches, sum up blocks."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np
from dask.sizeof import sizeof
from distributed import get_worker
from threadpoolctl import threadpool_limits

from numbasaem import __version__
from numbasaem.errors import InputError, expected
from numbasaem.micrographs.pixel_sizes import PixelSizes
from numbasaem.micrographs.reading import prepared_micrographs, source_of_file
from numbasaem.threads import running_threads

from .exact_sums import PACKED_BYTES, PartialSums
from .patch_cutting import cut_live_patches
from .patch_expectation import partial_sums
from .pixel_sums import PixelSums, pixel_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.micrographs.copies import Identity
    from numbasaem.micrographs.optics_groups import PointSpread
    from numbasaem.micrographs.preparation import Preparation
    from numbasaem.micrographs.sources import MicrographFile

    from .exact_sums import BatchLayout

Result = TypeVar("Result")
_one_thread = ThreadPoolExecutor(1, "numbasaem")
"""Thread of a worker: one task at a time has all of its threads."""


@dataclass(frozen=True)
class StoredFile:
    """What a worker has to know to come by the patches of a file."""

    file: MicrographFile
    preparation: Preparation
    pixel_size: float | None
    sha256: str | None = None

    def load(
        self, scratch: Path
    ) -> tuple[
        dict[str, Any], list[PixelSums], list[PointSpread | None], list[Identity | None]
    ]:
        """Cut the micrographs of the file and keep their patches on disk.

        Parameters
        ----------
        scratch : Path
            Folder of the worker.

        Returns
        -------
        source : dict
            Fingerprint of the file.
        sums : list of PixelSums
            Of each micrograph.
        point_spreads : list of PointSpread or None
            Of each micrograph.
        identities : list of Identity or None
            What each micrograph is recognised by.

        Raises
        ------
        InputError
            If the file cannot be read or prepared, or has changed.
        """
        source = source_of_file(self.file)
        if self.sha256 not in (None, source["sha256"]):
            what = "the content that the run began with"
            raise expected(self.file.path, what, "another")
        kept = replace(self, sha256=source["sha256"]).folder(scratch)
        pixel_sizes = PixelSizes(self.pixel_size)
        prepared = prepared_micrographs(self.file, self.preparation, pixel_sizes)
        sums, point_spreads, identities = [], [], []
        with TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as part:
            for number, micrograph in enumerate(prepared):
                (patches,) = cut_live_patches([micrograph], self.preparation.size)
                np.save(Path(part, f"{number}.npy"), patches)
                sums.append(pixel_sums(patches))
                point_spreads.append(micrograph.point_spread)
                identities.append(micrograph.identity)
            if not kept.exists():
                os.rename(part, kept)
        return source, sums, point_spreads, identities

    def folder(self, scratch: Path) -> Path:
        """Where a worker keeps the patches, one array a micrograph.

        Parameters
        ----------
        scratch : Path
            Folder of the worker.

        Returns
        -------
        Path
            A folder in it.
        """
        return scratch / hashlib.sha256(repr(self).encode()).hexdigest()


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
        kept = self.file.folder(scratch)
        if not kept.exists():
            self.file.load(scratch)
        stored = np.load(kept / f"{self.number}.npy", mmap_mode="r")
        chosen: NDArray[np.float32] = stored[np.flatnonzero(np.unpackbits(self.packed))]
        return chosen


HypothesesInImages = tuple[
    "NDArray[np.float64]", "NDArray[np.float64]", float, "NDArray[np.float64] | None"
]


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


def at_work(wanted: str, work: Callable[..., Result], *arguments: object) -> Result:
    """Do a task on all threads of this worker; what goes wrong names the host.

    Parameters
    ----------
    wanted : str
        Version of this package that the task was made with.
    work : callable
        The task; it is called with the arguments and the worker's folder.
    *arguments : object
        Its arguments.

    Returns
    -------
    object
        What the task returns.

    Raises
    ------
    InputError
        If the worker has another version, or the task cannot be done.
    """
    worker = get_worker()
    n_threads = min(worker.state.nthreads, numba.config.NUMBA_NUM_THREADS)
    scratch = Path(worker.local_directory)
    try:
        if __version__ != wanted:
            raise expected(
                f"worker {worker.address}", f"numbasaem {wanted}", __version__
            )
        task = partial(_on_threads, n_threads, work, *arguments, scratch)
        return _one_thread.submit(task).result()
    except InputError as error:
        found = f"{error.found} (on {socket.gethostname()})"
        raise expected(error.where, error.wanted, found) from None
    except OSError as error:
        found = f"{error} (on {socket.gethostname()})"
        raise expected(f"worker {worker.address}", "its files", found) from None


def given_hypotheses(hypotheses: HypothesesInImages, _: Path) -> HypothesesInImages:
    """Hand on what each worker gets once an iteration, from one another.

    Parameters
    ----------
    hypotheses : HypothesesInImages
        Projections and what goes with them.

    Returns
    -------
    HypothesesInImages
        The same.
    """
    return hypotheses


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


def _on_threads(
    n_threads: int, work: Callable[..., Result], *arguments: object
) -> Result:
    with running_threads(n_threads), threadpool_limits(n_threads):
        return work(*arguments)


def _bytes_on_the_way(sums: PartialSums) -> int:
    """What Dask counts when sums travel."""
    return PACKED_BYTES * sums.counts.size + sums.of_blocks.nbytes


sizeof.register(PartialSums, _bytes_on_the_way)
