"""Micrographs as they are given, turned into patches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.aliases import OnProgress, PathLike
from numbasaem.errors import expected, warn
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.observations.protocol import Patches, PixelSums, pixel_sums
from numbasaem.observations.window_data import Windows, pixels_of, tiles_of
from numbasaem.random_streams import Stream, random_stream

from .ctf import ContrastTransfer, group_point_spreads
from .preparation import Preparation, Prepared, preparation_of
from .sources import MicrographFile, list_micrographs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.settings import Settings

    from .ctf import OpticsGroups, PointSpread

Micrographs = Sequence["NDArray[np.floating] | PathLike | MicrographFile"]

_SAME_PIXEL_SIZE = 1e-3
"""Headers hold float32: sizes that agree to this are the same."""

_MUCH_OUTSIDE = 0.1


@dataclass(frozen=True)
class DataSet:
    """Which patches there are and where they came from.

    Attributes
    ----------
    micrograph : intp, shape (n_patches,)
        Number of each patch's micrograph.
    pixel_size : float or None
        Angstrom per pixel of the patches, where it is known.
    sources : list of dict
        Name, size in bytes and SHA-256 of each input, and the pixel size of files.
    pixel_sums : list of PixelSums
        Of each micrograph.
    optics : OpticsGroups or None
        Groups of the micrographs, where their point spreads are known.
    """

    micrograph: NDArray[np.intp]
    pixel_size: float | None
    sources: list[dict[str, Any]]
    pixel_sums: list[PixelSums]
    optics: OpticsGroups | None

    def halves(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Two independent halves of the micrographs, or of a single one's patches.

        Parameters
        ----------
        seed : int
            Of the random split.

        Returns
        -------
        two intp arrays
            Numbers of the patches in each half.
        """
        several = len(self.pixel_sums) > 1
        units = self.micrograph if several else np.arange(len(self.micrograph))
        order = random_stream(seed, Stream.HALVES).permutation(int(units.max()) + 1)
        chosen = np.isin(units, order[: len(order) // 2])
        return np.flatnonzero(chosen), np.flatnonzero(~chosen)


@dataclass(frozen=True)
class PatchSet(DataSet):
    """Patches of all micrographs, in the memory of this process.

    Attributes
    ----------
    patches : float32, shape (n_patches, L, L)
        All patches, micrograph by micrograph.
    """

    patches: NDArray[np.float32]

    def part(self, chosen: NDArray[np.intp] | None, threads: int | None) -> Patches:
        """Patches of one run.

        Parameters
        ----------
        chosen : intp, shape (n,), or None
            Their numbers; None is all.
        threads : int or None
            Threads to work on them.

        Returns
        -------
        Patches
            What the run sees.
        """
        numbers = slice(None) if chosen is None else chosen
        optics = None
        if self.optics is not None:
            optics = self.optics.take(self.micrograph[numbers])
        return Patches(self.patches[numbers], self.pixel_sums, threads, optics)


@dataclass(frozen=True)
class WindowSet(DataSet):
    """Tiles of windows of all micrographs, in the memory of this process.

    Attributes
    ----------
    prepared : list of Prepared
        The micrographs; `micrograph` counts their tiles.
    size : int
        L, side of a window, pixels.
    """

    prepared: list[Prepared]
    size: int

    def halves(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Two halves of the micrographs, or the upper and lower tiles of a single one.

        Parameters
        ----------
        seed : int
            Of the random split.

        Returns
        -------
        two intp arrays
            Numbers of the tiles in each half.
        """
        if len(self.prepared) > 1:
            return super().halves(seed)
        first, second = np.array_split(np.arange(len(self.micrograph)), 2)
        return first, second

    def part(self, chosen: NDArray[np.intp] | None, threads: int | None) -> Windows:
        """Tiles of one run, which sees no pixel of the others.

        Parameters
        ----------
        chosen : intp, shape (n,), or None
            Their numbers; None is all.
        threads : int or None
            Threads to work on them.

        Returns
        -------
        Windows
            What the run sees.
        """
        usable = [~one.dead for one in self.prepared]
        if chosen is not None:
            seen = np.isin(np.arange(len(self.micrograph)), chosen)
            for number, live in enumerate(usable):
                shape, own = live.shape, np.zeros_like(live)
                tiles = tiles_of(shape, self.size)
                for tile, one in zip(
                    tiles, seen[self.micrograph == number], strict=True
                ):
                    own[pixels_of(tile, shape, self.size)] = one
                live &= own
        pixels = [one.pixels for one in self.prepared]
        sums = self.pixel_sums
        return Windows(pixels, usable, self.size, sums, threads, self.optics)


@dataclass(frozen=True)
class InputShape:
    """Shape of one input.

    Attributes
    ----------
    n_micrographs : int
        How many it holds.
    given : tuple of int
        Rows and columns.
    prepared : tuple of int
        Rows and columns after downsampling.
    """

    n_micrographs: int
    given: tuple[int, ...]
    prepared: tuple[int, ...]


def load_patches(
    micrographs: Micrographs,
    settings: Settings,
    on_progress: OnProgress,
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> PatchSet:
    """Cut every micrograph into patches, holding one micrograph at a time.

    Parameters
    ----------
    micrographs : sequence of 2-D arrays or paths
        Micrographs, files of them (a stack is several), patterns of file names, or one
        STAR list.
    settings : Settings
        Patch size, preparation and pixel size.
    on_progress : callable
        Called with what is being done and the share of it that is done.
    change : callable, optional
        Takes the pixels of each prepared micrograph to those that are cut.

    Returns
    -------
    PatchSet
        The patches, without those that touch a dead area.

    Raises
    ------
    InputError
        If there is no micrograph, one cannot be read or prepared, or pixel sizes differ
        or are missing.
    """
    reading = _Reading(settings)
    prepared = reading.prepared(micrographs, on_progress)
    pieces = list(live_patches(prepared, settings.size, change))
    counts = [len(piece) for piece in pieces]
    return PatchSet(
        patches=np.concatenate(pieces),
        micrograph=np.repeat(np.arange(len(pieces)), counts),
        pixel_size=reading.pixel_size,
        sources=reading.sources,
        pixel_sums=[pixel_sums(piece) for piece in pieces],
        optics=reading.optics,
    )


def load_windows(
    micrographs: Micrographs,
    settings: Settings,
    on_progress: OnProgress,
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> WindowSet:
    """Read and prepare micrographs for the window model.

    Parameters
    ----------
    micrographs, settings, on_progress, change
        As in :func:`load_patches`.

    Returns
    -------
    WindowSet
        The micrographs.

    Raises
    ------
    InputError
        As :func:`load_patches`.
    """
    reading, size = _Reading(settings), settings.size
    prepared = list(reading.prepared(micrographs, on_progress))
    if change is not None:
        prepared = [replace(one, pixels=change(one.pixels)) for one in prepared]
    n_tiles = [len(tiles_of(one.pixels.shape, size)) for one in prepared]
    return WindowSet(
        prepared=prepared,
        size=size,
        micrograph=np.repeat(np.arange(len(prepared)), n_tiles),
        pixel_size=reading.pixel_size,
        sources=reading.sources,
        pixel_sums=[
            pixel_sums(one.pixels[~one.dead].reshape(-1, 1, 1)) for one in prepared
        ],
        optics=reading.optics,
    )


class _Reading:
    """Micrographs of a run one after the other, and what comes to be known of them."""

    def __init__(self, settings: Settings) -> None:
        self._given = settings.pixel_size
        self._preparation = preparation_of(settings)
        self._pixel_sizes = PixelSizes(settings.pixel_size)
        self.sources: list[dict[str, Any]] = []
        self._seen: list[PointSpread | None] = []

    def prepared(
        self, micrographs: Micrographs, on_progress: OnProgress
    ) -> Iterator[Prepared]:
        """Read and prepare each, and note its source and point spread."""
        for one in self._each(micrographs, on_progress):
            self._seen.append(one.point_spread)
            if one.dead.any():
                share = 100 * float(one.dead.mean())
                name = self.sources[-1]["name"]
                warn(f"{name}: {share:.1f} % of the area is left out")
            yield one

    def _each(
        self, micrographs: Micrographs, on_progress: OnProgress
    ) -> Iterator[Prepared]:
        items = list_inputs(micrographs)
        for number, item in enumerate(items):
            on_progress("reading micrographs", number / len(items))
            if isinstance(item, MicrographFile):
                pixel_size = self._given or item.header()[1]
                source = source_of_file(item) | {"pixel_size": pixel_size}
                self.sources.append(source)
                yield from prepared_micrographs(
                    item, self._preparation, self._pixel_sizes
                )
            else:
                name = _name(number)
                self.sources.append(_source_of_array(name, item))
                yield self._preparation(name, item, self._given)

    @property
    def optics(self) -> OpticsGroups | None:
        """Groups of the micrographs, once all are read."""
        return optics_of(self._seen)

    @property
    def pixel_size(self) -> float | None:
        """Angstrom per pixel, once all are read."""
        return self._preparation.pixel_size or self._pixel_sizes.common


def optics_of(seen: Sequence[PointSpread | None]) -> OpticsGroups | None:
    """Put micrographs into optics groups, and say what their boxes do not hold.

    Parameters
    ----------
    seen : sequence of PointSpread or None
        Of each micrograph.

    Returns
    -------
    OpticsGroups or None
        None if the micrographs have no point spreads.
    """
    known = [one for one in seen if one is not None]
    if not known:
        return None
    largest = max(one.share_outside for one in known)
    if largest > _MUCH_OUTSIDE:
        warn(
            f"up to {100 * largest:.0f} % of a particle's energy leaves its box; less "
            "with a larger `size` at the same pixel size"
        )
    return group_point_spreads([one.values for one in known])


def live_patches(
    prepared: Iterable[Prepared],
    size: int,
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Cut micrographs into patches.

    Parameters
    ----------
    prepared : iterable of Prepared
        Micrographs.
    size : int
        L, side of a patch, pixels.
    change : callable, optional
        Takes the pixels of each to those that are cut.

    Yields
    ------
    float32, shape (n_patches, L, L)
        Patches of each micrograph, without those that touch a dead area.
    """
    for one in prepared:
        live = one.live_patches(size)
        pixels = one.pixels if change is None else change(one.pixels)
        yield cut_patches(pixels, size)[live]


def input_shapes(micrographs: Micrographs, settings: Settings) -> list[InputShape]:
    """Shapes of micrographs, without reading their pixels.

    Parameters
    ----------
    micrographs : sequence of 2-D arrays or paths
        As in :func:`load_patches`.
    settings : Settings
        Downsampling and pixel size.

    Returns
    -------
    list of InputShape
        One for each file or array.

    Raises
    ------
    InputError
        If there is no micrograph or one is not there, not an image or too small.
    """
    preparation = preparation_of(settings)
    shapes = []
    for number, item in enumerate(list_inputs(micrographs)):
        if isinstance(item, MicrographFile):
            where = str(item.path)
            (count, *given), found = item.header()
            pixel_size = settings.pixel_size or found
        else:
            where, count, given = _name(number), 1, list(np.shape(item))
            if len(given) != 2:
                raise expected(where, "a 2-D array", f"{len(given)} dimensions")
            pixel_size = settings.pixel_size
        prepared = preparation.prepared_shape(where, tuple(given), pixel_size)
        shapes.append(InputShape(count, tuple(given), prepared))
    return shapes


class PixelSizes:
    """The one pixel size of all micrographs.

    Parameters
    ----------
    given : float or None
        Angstrom per pixel, if the user says so; files that disagree are overruled, and
        the log says so once.
    """

    def __init__(self, given: float | None) -> None:
        self.common = given
        self._given = given is not None
        self._said = False

    def of(self, path: object, found: float | None) -> float:
        """Pixel size of a file.

        Parameters
        ----------
        path : path-like
            The file, as errors name it.
        found : float or None
            Angstrom per pixel that the file states.

        Returns
        -------
        float
            Angstrom per pixel that holds.

        Raises
        ------
        InputError
            If it is unknown or another than that of the files before.
        """
        if self._given:
            assert self.common is not None
            if not self._said and (found is None or self._differs(found)):
                stated = "none" if found is None else f"{found:g} A"
                warn(
                    f"{path}: pixel size {self.common:g} A as given, in place of "
                    f"{stated} in the header"
                )
                self._said = True
            return self.common
        if found is None:
            what = "a pixel size (CELLA) above 0 in the header, or `pixel_size`"
            raise expected(path, what, "0 or none")
        if self.common is None:
            self.common = found
        if self._differs(found):
            what = f"the pixel size of the others, {self.common:g} A, or `pixel_size`"
            raise expected(path, what, f"{found:g} A")
        return self.common

    def _differs(self, found: float) -> bool:
        assert self.common is not None
        return abs(found / self.common - 1) > _SAME_PIXEL_SIZE


def prepared_micrographs(
    file: MicrographFile, preparation: Preparation, pixel_sizes: PixelSizes
) -> Iterator[Prepared]:
    """Read and prepare the micrographs of a file, one at a time.

    Parameters
    ----------
    file : MicrographFile
        The file.
    preparation : Preparation
        What to do.
    pixel_sizes : PixelSizes
        What the file has to agree with.

    Yields
    ------
    Prepared
        Each micrograph.

    Raises
    ------
    InputError
        If the file cannot be read or prepared or its pixel size is unusable.
    """
    sections, found = file.open()
    pixel_size = pixel_sizes.of(file.path, found)
    for number, image in enumerate(sections, start=1):
        several = len(sections) > 1
        where = f"{file.path} section {number}" if several else str(file.path)
        yield preparation(where, image, pixel_size, file.lens)


def list_inputs(
    micrographs: Micrographs,
) -> list[NDArray[np.floating] | MicrographFile]:
    """List arrays as they are, and the files that paths stand for.

    Parameters
    ----------
    micrographs : sequence of 2-D arrays or paths
        As in :func:`load_patches`.

    Returns
    -------
    list of arrays and MicrographFile
        At least one.

    Raises
    ------
    InputError
        If there is none, or a path stands for none.
    """
    if isinstance(micrographs, str | os.PathLike):
        raise expected("micrographs", "a list of them", micrographs)
    if len(micrographs) == 0:
        raise expected("micrographs", "at least one", "none")
    if all(isinstance(item, str | os.PathLike) for item in micrographs):
        return list(list_micrographs(micrographs).files)  # type: ignore[arg-type]
    items: list[NDArray[np.floating] | MicrographFile] = []
    for item in micrographs:
        if isinstance(item, MicrographFile):
            items.append(item)
            continue
        if isinstance(item, str | os.PathLike):
            items += list_micrographs([item]).files
        else:
            items.append(np.ascontiguousarray(item))
    return items


def _name(number: int) -> str:
    """Name of an array, as errors and records have it."""
    return f"micrographs[{number}]"


def source_of_file(file: MicrographFile) -> dict[str, Any]:
    """Tell a file from all others.

    Parameters
    ----------
    file : MicrographFile
        The file.

    Returns
    -------
    dict
        Name, size in bytes and SHA-256, and the lens if that is known.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        with file.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        what = "a file that can be read"
        raise expected(file.path, what, error.strerror) from error
    source = {"name": str(file.path.resolve()), "size": size, "sha256": digest}
    return source if file.lens is None else source | {"lens": asdict(file.lens)}


def file_of_source(source: Mapping[str, Any]) -> MicrographFile:
    """File that a source names; the inverse of :func:`source_of_file`.

    Parameters
    ----------
    source : mapping
        As a run has kept it.

    Returns
    -------
    MicrographFile
        The file, its pixel size and its lens as they were.
    """
    path, lens = Path(source["name"]), source.get("lens")
    return MicrographFile(
        path,
        path.name,
        source.get("pixel_size"),
        lens=None if lens is None else ContrastTransfer(**lens),
    )


def _source_of_array(name: str, array: NDArray[np.floating]) -> dict[str, Any]:
    """Name, size and SHA-256 of an array's numbers, type and shape."""
    if array.dtype.kind not in "iuf":
        raise expected(name, "real numbers", f"an array of {array.dtype}")
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(array.data)
    return {"name": name, "size": array.nbytes, "sha256": digest.hexdigest()}
