"""Micrographs as they are given: files and arrays, read and prepared in turn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import OnProgress, PathLike
from numbasaem.errors import expected, warn
from numbasaem.io import unchanged

from .copies import Copies
from .ctf import ContrastTransferFunction
from .optics_groups import group_point_spreads
from .pixel_sizes import PixelSizes, stated_pixel_size
from .preparation import InputShape, Preparation, Prepared, preparation_of
from .sizes import size_for
from .sources import MicrographFile, list_micrographs

if TYPE_CHECKING:
    from numbasaem.settings import Settings

    from .optics_groups import OpticsGroups, PointSpread

Input = NDArray[np.floating] | MicrographFile
"""Input of a run: a micrograph's pixels, or a file of one or more micrographs."""
Micrographs = Sequence[Input | PathLike]
"""Micrographs as a user names them; see :func:`list_inputs`."""

_MUCH_OUTSIDE = 0.1
"""Share of a particle's energy outside its box above which a user is warned."""


class MicrographReader:
    """Micrographs of a run one after the other, and what comes to be known of them.

    Parameters
    ----------
    settings : Settings
        Preparation and pixel size.

    Attributes
    ----------
    sources : list of dict
        Name, size in bytes and SHA-256 of each input read so far, the pixel size of
        files, and under `copies` the micrographs that are left out, by the number of
        their section, with the name of the one that is used in their place.
    """

    def __init__(self, settings: Settings) -> None:
        self._preparation = preparation_of(settings)
        self._pixel_sizes = PixelSizes(settings.pixel_size)
        self._copies = Copies()
        self.sources: list[dict[str, Any]] = []
        self._point_spreads: list[PointSpread | None] = []

    def prepared(
        self, inputs: Sequence[Input], on_progress: OnProgress
    ) -> Iterator[Prepared]:
        """Read and prepare each micrograph, and note its source and point spread.

        Parameters
        ----------
        inputs : sequence of arrays and MicrographFile
            As :func:`list_inputs` lists them.
        on_progress : callable
            Called with what is being done and the share of it that is done.

        Yields
        ------
        Prepared
            Each micrograph that is no copy of an earlier one.

        Raises
        ------
        InputError
            If one cannot be read or prepared, or pixel sizes differ or are missing.

        Warns
        -----
        RunWarning
            If a micrograph or a part of it is left out.
        """
        for micrograph in self._each(inputs, on_progress):
            self._point_spreads.append(micrograph.point_spread)
            warn_of_excluded(self.sources[-1]["name"], micrograph.excluded_share)
            yield micrograph

    def _each(
        self, inputs: Sequence[Input], on_progress: OnProgress
    ) -> Iterator[Prepared]:
        for number, item in enumerate(inputs):
            on_progress("reading micrographs", number / len(inputs))
            if isinstance(item, MicrographFile):
                with unchanged(item.path):
                    pixel_size = self._pixel_sizes.of(item, item.header()[1])
                    source = source_of_file(item) | {"pixel_size": pixel_size}
                    yield from self._originals(
                        source,
                        prepared_micrographs(
                            item, self._preparation, self._pixel_sizes
                        ),
                    )
            else:
                name = _name(number)
                source = _source_of_array(name, item)
                prepared = self._preparation(name, item, self._pixel_sizes.given)
                yield from self._originals(source, [prepared])

    def _originals(
        self, source: dict[str, Any], micrographs: Iterable[Prepared]
    ) -> Iterator[Prepared]:
        """Those of an input that are no copies, once the input is noted."""
        self.sources.append(source)
        for section, micrograph in enumerate(micrographs):
            if self._copies.is_original(micrograph.identity, section, source):
                yield micrograph

    @property
    def optics(self) -> OpticsGroups | None:
        """Groups of the micrographs, once all are read."""
        return optics_of(self._point_spreads)

    @property
    def pixel_size(self) -> float | None:
        """Angstrom per pixel, once all are read."""
        return self._preparation.pixel_size or self._pixel_sizes.common


def warn_of_excluded(name: str, share: float) -> None:
    """Warn if a part of a micrograph is left out.

    Parameters
    ----------
    name : str
        Name of its file or array.
    share : float
        Share of its area.

    Warns
    -----
    RunWarning
        If there is such a part.
    """
    if share > 0:
        warn(f"{name}: {100 * share:.1f} % of the area is left out")


def optics_of(point_spreads: Sequence[PointSpread | None]) -> OpticsGroups | None:
    """Put micrographs into optics groups, and warn where boxes hold too little.

    Parameters
    ----------
    point_spreads : sequence of PointSpread or None
        Point spread of each micrograph.

    Returns
    -------
    OpticsGroups or None
        None if the micrographs have no point spreads.
    """
    known = [spread for spread in point_spreads if spread is not None]
    if not known:
        return None
    largest = max(spread.share_outside for spread in known)
    if largest > _MUCH_OUTSIDE:
        warn(
            f"up to {100 * largest:.0f} % of a particle's energy leaves its box; less "
            "with a larger `size` at the same pixel size"
        )
    return group_point_spreads([spread.values for spread in known])


def input_shapes(inputs: Sequence[Input], settings: Settings) -> list[InputShape]:
    """Shapes of micrographs, without reading their pixels.

    Parameters
    ----------
    inputs : sequence of arrays and MicrographFile
        As :func:`list_inputs` lists them.
    settings : Settings
        Downsampling and pixel size.

    Returns
    -------
    list of InputShape
        One for each file or array.

    Raises
    ------
    InputError
        If one is not there, not an image or too small, or its contrast transfer
        function is wanted and unknown.
    """
    preparation = preparation_of(settings)
    shapes = []
    for number, item in enumerate(inputs):
        if isinstance(item, MicrographFile):
            where = str(item.path)
            _refuse_unknown_lens(item, preparation)
            count, *shape = item.header()[0]
        else:
            where, count, shape = _name(number), 1, list(np.shape(item))
            if len(shape) != 2:
                raise expected(where, "a 2-D array", f"{len(shape)} dimensions")
        pixel_size = _pixel_size(item, settings)
        prepared = preparation.prepared_shape(where, tuple(shape), pixel_size)
        shapes.append(InputShape(count, tuple(shape), prepared))
    return shapes


def _pixel_size(item: Input, settings: Settings) -> float | None:
    """Angstrom per pixel of an input, as given or as its list or header states it."""
    if settings.pixel_size is not None or not isinstance(item, MicrographFile):
        return settings.pixel_size
    return stated_pixel_size(item, item.header()[1])


def with_size(settings: Settings, inputs: Sequence[Input]) -> Settings:
    """Settings with a size, made of the particle's diameter where there is none.

    Parameters
    ----------
    settings : Settings
        Settings as the user gave them.
    inputs : sequence of arrays and MicrographFile
        As :func:`list_inputs` lists them; all have the pixel size of the first.

    Returns
    -------
    Settings
        The same, or with a size in place of the resolution.

    Raises
    ------
    InputError
        If the pixel size is unknown, or :func:`~numbasaem.micrographs.sizes.size_for`
        refuses diameter or resolution.
    """
    diameter = settings.particle_diameter
    if settings.has_size or diameter is None:
        return settings
    first = inputs[0]
    pixel_size = _pixel_size(first, settings)
    if pixel_size is None:
        where = first.path if isinstance(first, MicrographFile) else _name(0)
        raise expected(where, "a pixel size, or `pixel_size`", "none")
    size = size_for(diameter, pixel_size, settings.resolution)
    return settings.changed(size=size, resolution=None)


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
        Pixel sizes that the file has to agree with.

    Yields
    ------
    Prepared
        Each micrograph.

    Raises
    ------
    InputError
        If the file cannot be read or prepared, its pixel size is unusable, or its
        contrast transfer function is wanted and unknown.
    """
    _refuse_unknown_lens(file, preparation)
    sections, in_header = file.open()
    pixel_size = pixel_sizes.of(file, in_header)
    for number, image in enumerate(sections, start=1):
        several = len(sections) > 1
        where = f"{file.path} section {number}" if several else str(file.path)
        yield preparation(where, image, pixel_size, file.ctf)


def _refuse_unknown_lens(file: MicrographFile, preparation: Preparation) -> None:
    """Refuse a file without the contrast transfer function that is asked for."""
    if preparation.ctf and file.ctf is None:
        wanted = "its defocus in a list of micrographs, or `ctf=False`"
        raise expected(file.path, wanted, file.ctf_fault)


def list_inputs(micrographs: Micrographs) -> list[Input]:
    """List arrays as they are, and the files that paths stand for.

    Parameters
    ----------
    micrographs : sequence of array, shape (rows, columns), or of paths
        Micrographs, files of them (a stack is several), patterns of file names, or one
        STAR list.

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
    items: list[Input] = []
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
    """Describe a file so that it can be told from all others.

    Parameters
    ----------
    file : MicrographFile
        The file.

    Returns
    -------
    dict
        Name, size in bytes and SHA-256, and the contrast transfer function if that is
        known.

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
        wanted = "a file that can be read"
        raise expected(file.path, wanted, error.strerror) from error
    # Of a link its own name: that of its target may lack the suffix.
    source = {"name": str(file.path.absolute()), "size": size, "sha256": digest}
    return source if file.ctf is None else source | {"ctf": asdict(file.ctf)}


def file_of_source(
    source: Mapping[str, Any],
    moved: tuple[str, Path] | None = None,
    folder: Path | None = None,
) -> MicrographFile:
    """File that a source names; the inverse of :func:`source_of_file`.

    Parameters
    ----------
    source : mapping
        As a run has kept it.
    moved : (str, Path), optional
        Folder of the run when it began, and now: the file is sought first where it then
        lies, in case it was moved along.
    folder : Path, optional
        Folder that the file is in now, directly or under some of its former folders.

    Returns
    -------
    MicrographFile
        The file, its pixel size and its contrast transfer function as they were.

    Raises
    ------
    InputError
        If `folder` does not have it.
    """
    path, ctf = Path(source["name"]), source.get("ctf")
    if folder is not None:
        parts = path.parts[1:]
        places = [Path(folder, *parts[n:]) for n in range(len(parts))]
    elif moved is not None:
        before, now = moved
        relative = os.path.relpath(path, before)
        places = [Path(os.path.abspath(now / relative)), path]
    else:
        places = [path]
    found = next((place for place in places if place.exists()), None)
    if folder is not None and found is None:
        raise expected(folder, f"{path.name} in it", "no such file")
    path = found or path
    return MicrographFile(
        path,
        path.name,
        source.get("pixel_size"),
        ctf=None if ctf is None else ContrastTransferFunction(**ctf),
    )


def _source_of_array(name: str, array: NDArray[np.floating]) -> dict[str, Any]:
    """Name, size and SHA-256 of an array's numbers, type and shape."""
    if array.dtype.kind not in "iuf":
        raise expected(name, "real numbers", f"an array of {array.dtype}")
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(array.data)
    return {"name": name, "size": array.nbytes, "sha256": digest.hexdigest()}
