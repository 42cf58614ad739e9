"""What the workers of a Dask cluster do for any model: keep data, take tasks."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Mapping
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
from numbasaem.io import unchanged
from numbasaem.micrographs.pixel_sizes import PixelSizes
from numbasaem.micrographs.reading import prepared_micrographs, source_of_file
from numbasaem.threads import running_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.micrographs.copies import Identity
    from numbasaem.micrographs.optics_groups import PointSpread
    from numbasaem.micrographs.preparation import Preparation, Prepared
    from numbasaem.micrographs.sources import MicrographFile

    from .pixel_sums import PixelSums

Result = TypeVar("Result")
_one_thread = ThreadPoolExecutor(1, "numbasaem")
"""Thread of a worker: one task at a time has all of its threads."""


@dataclass(frozen=True)
class KeptMicrograph:
    """What a worker keeps of a micrograph, and what it tells of that.

    Attributes
    ----------
    arrays : mapping of str to array
        Arrays that it keeps on its disk.
    pixel_sums : PixelSums
        Sums over the pixels that the model sees.
    details : object
        What else the model has to know.
    """

    arrays: Mapping[str, NDArray[Any]]
    pixel_sums: PixelSums
    details: Any = None


Keep = Callable[["Prepared"], KeptMicrograph]
"""Function from a prepared micrograph to what a worker keeps of it.

A frozen dataclass: what is kept on disk goes by its `repr`.
"""


@dataclass(frozen=True)
class MicrographFacts:
    """What a worker tells of a micrograph that it keeps.

    Attributes
    ----------
    pixel_sums, details
        As in :class:`KeptMicrograph`.
    point_spread, identity, excluded_share
        As in :class:`numbasaem.micrographs.preparation.Prepared`.
    """

    pixel_sums: PixelSums
    details: Any
    point_spread: PointSpread | None
    identity: Identity | None
    excluded_share: float


@dataclass(frozen=True)
class StoredFile:
    """What a worker has to know to come by the micrographs of a file.

    Attributes
    ----------
    file : MicrographFile
        The file, by its absolute path.
    preparation : Preparation
        What is done to each micrograph.
    pixel_size : float or None
        Pixel size that it has to agree with, angstrom.
    keep : callable
        What is kept of each prepared micrograph.
    sha256 : str or None
        Fingerprint that it has to have; None before it is known.
    """

    file: MicrographFile
    preparation: Preparation
    pixel_size: float | None
    keep: Keep
    sha256: str | None = None

    def load(self, scratch: Path) -> tuple[dict[str, Any], list[MicrographFacts]]:
        """Prepare the micrographs of the file and keep on disk what is needed of them.

        Parameters
        ----------
        scratch : Path
            Folder of the worker.

        Returns
        -------
        source : dict
            Fingerprint of the file.
        facts : list of MicrographFacts
            Of each micrograph.

        Raises
        ------
        InputError
            If the file cannot be read or prepared, or has changed.
        """
        with unchanged(self.file.path):
            return self._load(scratch)

    def _load(self, scratch: Path) -> tuple[dict[str, Any], list[MicrographFacts]]:
        source = source_of_file(self.file)
        if self.sha256 not in (None, source["sha256"]):
            what = "the content that the run began with"
            raise expected(self.file.path, what, "another")
        folder = replace(self, sha256=source["sha256"]).folder(scratch)
        pixel_sizes = PixelSizes(self.pixel_size)
        prepared = prepared_micrographs(self.file, self.preparation, pixel_sizes)
        facts = []
        with TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as part:
            for number, micrograph in enumerate(prepared):
                kept = self.keep(micrograph)
                for name, array in kept.arrays.items():
                    np.save(_path(Path(part), number, name), array)
                facts.append(
                    MicrographFacts(
                        kept.pixel_sums,
                        kept.details,
                        micrograph.point_spread,
                        micrograph.identity,
                        micrograph.excluded_share,
                    )
                )
            if not folder.exists():
                os.rename(part, folder)
        return source, facts

    def array(self, number: int, name: str, scratch: Path) -> NDArray[Any]:
        """Array that is kept of a micrograph, from disk or else from the file again.

        Parameters
        ----------
        number : int
            Number of the micrograph in the file.
        name : str
            Name of the array.
        scratch : Path
            Folder of the worker.

        Returns
        -------
        array
            Read-only, on disk.

        Raises
        ------
        InputError
            As :meth:`load`.
        """
        folder = self.folder(scratch)
        if not folder.exists():
            self.load(scratch)
        array: NDArray[Any] = np.load(_path(folder, number, name), mmap_mode="r")
        return array

    def folder(self, scratch: Path) -> Path:
        """Folder in which a worker keeps the arrays.

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


def _path(folder: Path, number: int, name: str) -> Path:
    """File of an array of a micrograph."""
    return folder / f"{number}-{name}.npy"


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


def handed_on(given: Result, _: Path) -> Result:
    """Hand on what each worker gets once an iteration, from one another.

    Parameters
    ----------
    given : object
        What many tasks take.

    Returns
    -------
    object
        The same.
    """
    return given


def register_size(of_type: type[Result], size: Callable[[Result], int]) -> None:
    """Tell Dask how large objects are that it may have to move.

    Parameters
    ----------
    of_type : type
        Their type.
    size : callable
        Function from one of them to its bytes on the way.
    """
    sizeof.register(of_type, size)


def _on_threads(
    n_threads: int, work: Callable[..., Result], *arguments: object
) -> Result:
    with running_threads(n_threads), threadpool_limits(n_threads):
        return work(*arguments)
