"""Micrographs and volumes in MRC files (MRC2014; CCP4 maps too)."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import InputError, expected, warn

from . import written_whole
from .sections import Image, Sections, checked_samples

Spacing = float | tuple[float, ...] | None
"""Angstrom between samples as a header states them.

One number if it is the same along each axis, else one for each, x first; None where the
header does not say.
"""

HEADER_BYTES = 1024
"""Length of a header, bytes, without its extension."""
DTYPE_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
"""Types of the samples by the modes that are read."""
IMOD_STAMP = slice(152, 156), 1146047817
"""Bytes of a header that IMOD marks as its own, and the number it writes there."""
IMOD_FLAGS = slice(156, 160)
"""Bytes of a header that hold IMOD's flags."""
SIGNED_BYTES, HALF_BYTES = 1, 16
"""Flags of IMOD: samples of mode 0 are signed; each byte holds two of them."""
MACHINE_STAMP = slice(212, 214)
"""Bytes of a header that tell the byte order."""
ORDER_OF_STAMP = {b"\x11\x11": ">", b"DD": "<", b"DA": "<"}
"""Byte orders by the machine stamps of MRC2014."""
SAME_LENGTH = 1e-3
"""Largest relative difference of equal lengths: headers hold float32."""
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
"""Functions that open compressed files, by the first bytes of these."""


def read_micrographs(path: PathLike) -> tuple[Sections, Spacing]:
    """Open the micrographs of one file: one, or every section of a stack.

    Parameters
    ----------
    path : path-like
        An ``.mrc``, ``.mrcs`` or ``.map`` file of mode 0, 1, 2, 6 or 12, compressed by
        gzip or bzip2 or not. Of one that is not compressed, a section is in memory.

    Returns
    -------
    micrographs : Sections
        The sections, ``image[y, x]`` in float32, square or not, each read when it is
        asked for.
    pixel_size : Spacing
        Angstrom per pixel; both sides, x first, where the header has them unequal.

    Raises
    ------
    InputError
        If the file is missing, is not MRC, is cut short or of another mode; when a
        section is read, if it is constant, has a pixel that is not finite, or is no
        longer there.
    """
    header, stored = _read(path)
    size = _spacing(header, ("x", "y"))
    return Sections(path, len(stored), stored.__getitem__), size


def read_header(path: PathLike) -> tuple[tuple[int, int, int], Spacing]:
    """Read shape and pixel size of the micrographs of one file, not their pixels.

    Parameters
    ----------
    path : path-like
        As in :func:`read_micrographs`.

    Returns
    -------
    shape : (int, int, int)
        Micrographs, rows and columns.
    pixel_size : Spacing
        As of :func:`read_micrographs`.

    Raises
    ------
    InputError
        If the file is missing or is not MRC.
    """
    header, _ = _read(path, samples=False)
    return _shape(header), _spacing(header, ("x", "y"))


def read_volume(path: PathLike) -> tuple[Image, float | None]:
    """Read a cubic volume.

    Axes stored in another order are turned into ``volume[z, y, x]``, and the log says
    so. The origin and the start indices of the header are not used: the centre is index
    ``size // 2``.

    Parameters
    ----------
    path : path-like
        An ``.mrc`` or ``.map`` file of mode 0, 1, 2, 6 or 12, compressed by gzip or
        bzip2 or not.

    Returns
    -------
    volume : float32, shape (L, L, L)
        The map, ``volume[z, y, x]``.
    voxel_size : float or None
        Angstrom per voxel; None where the header does not say.

    Raises
    ------
    InputError
        If the file cannot be read as MRC, is not a cube of cubic voxels, or is constant
        or not finite.
    """
    header, stored = _read(path)
    shape = _shape(header)
    if len(set(shape)) != 1:
        raise expected(path, "a cubic volume", f"{shape} voxels (z, y, x)")
    axes = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if axes == [0, 0, 0]:  # Files older than these header words.
        axes = [3, 2, 1]
    if sorted(axes) != [1, 2, 3]:
        raise expected(path, "axes MAPC, MAPR, MAPS that are 1, 2, 3", axes[::-1])
    if axes != [3, 2, 1]:
        stored_as = ", ".join(map(str, axes[::-1]))
        warn(f"{path}: axes MAPC, MAPR, MAPS are {stored_as}; permuted")
    values = np.stack([stored[number] for number in range(len(stored))])
    volume = values.transpose([axes.index(axis) for axis in (3, 2, 1)])
    size = _spacing(header, ("x", "y", "z"))
    if isinstance(size, tuple):
        raise expected(path, "the same sampling along each axis", spacing_text(size))
    return checked_samples(str(path), volume, "voxels"), size


def spacing_text(lengths: tuple[float, ...]) -> str:
    """Put unequal sides of a pixel or voxel into words.

    Parameters
    ----------
    lengths : tuple of float
        Angstrom along each axis.

    Returns
    -------
    str
        Such as "1.2 x 1 angstrom".
    """
    return " x ".join(f"{length:.4g}" for length in lengths) + " angstrom"


def write_micrograph(
    path: PathLike, micrograph: NDArray[np.floating], pixel_size: float
) -> None:
    """Write a micrograph as MRC2014, mode 2.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    micrograph : array, shape (Ny, Nx)
        The pixels, ``image[y, x]``.
    pixel_size : float
        Angstrom per pixel.

    Raises
    ------
    InputError
        If the file cannot be written or the array is not an image.
    """
    _write(path, micrograph, pixel_size, ndim=2)


def write_volume(
    path: PathLike, volume: NDArray[np.floating], voxel_size: float
) -> None:
    """Write a volume as MRC2014, mode 2.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    volume : array, shape (L, L, L)
        The voxels, ``volume[z, y, x]``.
    voxel_size : float
        Angstrom per voxel.

    Raises
    ------
    InputError
        If the file cannot be written or the array is not a volume.
    """
    _write(path, volume, voxel_size, ndim=3)


def _write(
    path: PathLike, array: NDArray[np.floating], length: float, ndim: int
) -> None:
    """Write finite samples, `length` angstrom apart."""
    import mrcfile

    if array.ndim != ndim or 0 in array.shape:
        raise expected(path, f"an array of {ndim} dimensions", f"shape {array.shape}")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(stored).all():
        raise expected(path, "finite values to write", "NaN, infinity or overflow")
    with written_whole(path) as part, mrcfile.new(str(part), overwrite=True) as file:
        file.set_data(stored)
        file.voxel_size = length
        # The library's own label carries the time: equal data give equal files.
        file.header.label[0] = b"numbasaem"


class _StoredSections:
    """Samples of a file that is not compressed; each section is read when asked for.

    They are not mapped into memory: of a file that shrinks meanwhile that would end the
    program without a word, and of one that is written to it would change the data of a
    run under way.
    """

    def __init__(self, path: PathLike, header: Any) -> None:
        self._path = path
        self._dtype, self._shape, self._begin, end = _layout(header)
        length = Path(path).stat().st_size
        if length < end:
            found = f"{length} bytes"
            raise expected(path, f"{end} bytes for {self._shape} samples", found)

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, number: int) -> NDArray[np.generic]:
        n_samples = self._shape[1] * self._shape[2]
        begin = self._begin + number * n_samples * self._dtype.itemsize
        try:
            samples = np.fromfile(self._path, self._dtype, n_samples, offset=begin)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        if len(samples) < n_samples:
            wanted = "a file that stays as it is while it is read"
            raise expected(self._path, wanted, "one that is shorter than before")
        return samples.reshape(self._shape[1:])


_Stored = NDArray[np.generic] | _StoredSections


def _unreadable(path: PathLike, error: OSError) -> InputError:
    """Error of a file that the operating system does not read."""
    found = f"{type(error).__name__}: {error.strerror or error}"
    return expected(path, "a file that can be read", found)


def _read(path: PathLike, samples: bool = True) -> tuple[Any, _Stored]:
    """Header record and, unless left out, samples as they are stored."""
    try:
        compressed = _compression(path)
        with (compressed or open)(path, "rb") as stream:
            header = _header(path, stream.read(HEADER_BYTES))
            if not samples:
                return header, np.empty(0)
            if compressed:
                return header, _samples(path, stream, header)
        return header, _StoredSections(path, header)
    except InputError:
        raise
    # Any of these may come of damaged compressed data.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise expected(path, "a whole compressed file; copy it anew", error) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _compression(path: PathLike) -> Any:
    """Function that opens a compressed file, None for one that is not."""
    place = Path(path)
    if place.is_dir():
        raise expected(path, "an MRC file", "a folder")
    if not place.exists():
        raise expected(path, "an MRC file", "no such file")
    with open(place, "rb") as stream:
        magic = stream.read(2)
    if not magic:
        raise expected(path, "an MRC file", "an empty file")
    return COMPRESSED.get(magic)


def _header(path: PathLike, raw: bytes) -> Any:
    """Header record, in its byte order."""
    from mrcfile.dtypes import HEADER_DTYPE

    if len(raw) < HEADER_BYTES:
        found = f"{len(raw)} bytes, less than its header"
        raise expected(path, "an MRC file", found)
    headers = [
        np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        for order in _byte_orders(raw)
    ]
    # The byte order whose mode and dimensions make sense; files in the field carry
    # wrong machine stamps, and those older than MRC2014 none.
    header = next((header for header in headers if _makes_sense(header)), None)
    if header is None:
        raise expected(path, "an MRC file", "a header that is not MRC")
    if int(header["mode"]) not in DTYPE_OF_MODE:
        modes = ", ".join(map(str, DTYPE_OF_MODE))
        raise expected(path, f"MRC mode {modes}", f"mode {header['mode']}")
    if int(header["mode"]) == 0 and (_imod_flags(header) or 0) & HALF_BYTES:
        raise expected(path, "samples of whole bytes", "two in each byte (4 bits)")
    return header


def _byte_orders(raw: bytes) -> str:
    """Both byte orders, that of the machine stamp first."""
    return "><" if ORDER_OF_STAMP.get(raw[MACHINE_STAMP]) == ">" else "<>"


def _makes_sense(header: Any) -> bool:
    """Whether mode and dimensions are those of a file, not of swapped bytes."""
    in_range = all(0 < length < 1 << 20 for length in _shape(header))
    return in_range and 0 <= int(header["mode"]) <= 101


def _imod_flags(header: Any) -> int | None:
    """Flags of a header that IMOD wrote, None for one of another program."""
    raw = header.tobytes()
    number = np.dtype("i4").newbyteorder(_order(header))
    place, stamp = IMOD_STAMP
    if np.frombuffer(raw[place], number)[0] != stamp:
        return None
    return int(np.frombuffer(raw[IMOD_FLAGS], number)[0])


def _has_unsigned_bytes(header: Any) -> bool:
    """Whether samples of mode 0 are 0 to 255, by IMOD's flag or by their extremes.

    MRC2014 has them signed, as programs write them that say nothing.
    """
    flags = _imod_flags(header)
    if flags is not None:
        return not flags & SIGNED_BYTES
    return bool(header["dmin"] >= 0 and 127 < header["dmax"] <= 255)


def _layout(header: Any) -> tuple[np.dtype[Any], tuple[int, int, int], int, int]:
    """Type and shape of the samples, where they begin and where they end, in bytes."""
    code = DTYPE_OF_MODE[int(header["mode"])]
    if code == "i1" and _has_unsigned_bytes(header):
        code = "u1"
    dtype = np.dtype(code).newbyteorder(_order(header))
    shape = _shape(header)
    begin = HEADER_BYTES + max(int(header["nsymbt"]), 0)
    end = begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return dtype, shape, begin, end


def _samples(path: PathLike, stream: IO[bytes], header: Any) -> NDArray[np.generic]:
    """Samples of a compressed file, from a stream that stands behind its header."""
    dtype, shape, begin, end = _layout(header)
    # Piece by piece, so that a damaged header cannot ask for memory the file lacks.
    pieces = []
    got = HEADER_BYTES + len(stream.read(begin - HEADER_BYTES))
    while begin <= got < end and (piece := stream.read(min(end - got, 1 << 26))):
        pieces.append(piece)
        got += len(piece)
    if got < end:
        raise expected(path, f"{end} bytes for {shape} samples", f"{got} bytes")
    return np.frombuffer(b"".join(pieces), dtype).reshape(shape)


def _shape(header: Any) -> tuple[int, int, int]:
    """Sections, rows and columns."""
    return int(header["nz"]), int(header["ny"]), int(header["nx"])


def _order(header: Any) -> Literal["<", ">"]:
    """Byte order of a header and its samples, ``<`` or ``>``."""
    return "<" if header.dtype["mode"].byteorder in "<=" else ">"


def _spacing(header: Any, axes: tuple[str, ...]) -> Spacing:
    """Angstrom per sample along these axes."""
    lengths = []
    for axis in axes:
        intervals = int(header[f"m{axis}"])
        cell = float(header["cella"][axis])
        lengths.append(cell / intervals if intervals > 0 else 0.0)
    if not all(np.isfinite(lengths)) or min(lengths) <= 0:
        return None
    if max(lengths) > min(lengths) * (1 + SAME_LENGTH):
        return tuple(lengths)
    return lengths[0]
