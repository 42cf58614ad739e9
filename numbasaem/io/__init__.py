"""Files in and out: MRC, STAR and atomic models; each appears whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system answers that cannot have the disk hold something."""
_CANNOT_SYNC_FOLDER = _CANNOT_SYNC | {errno.EBADF, errno.EISDIR, errno.EACCES}
"""The same of a folder: many shares sync files alone, or do not let one be opened."""


@contextmanager
def written_whole(path: PathLike, previous: Path | None = None) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` if all went well.

    A file that a killed program left under that name is overwritten.

    Parameters
    ----------
    path : path-like
        The file to write; one that exists is replaced.
    previous : Path, optional
        Name to keep the replaced file under.

    Yields
    ------
    Path
        Where to write: in the same folder, with the same suffix.

    Raises
    ------
    InputError
        If the file cannot be written there.
    """
    target = Path(path)
    part = target.with_name(f".part.{target.name}")
    try:
        yield part
        _flush(part, _CANNOT_SYNC)
        if previous is not None and target.exists():
            target.replace(previous)
        part.replace(target)
        _flush(target.parent, _CANNOT_SYNC_FOLDER)
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror or error}"
        raise expected(target, "a file that can be written", found) from error
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Refuse a file that was written to while it was read, fingerprint and pixels.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    None
        While it is read.

    Raises
    ------
    InputError
        If its length, its time of change or the file itself is another in the end.
    """
    before = _stamp(path)
    yield
    if _stamp(path) != before:
        wanted = "a file that stays as it is while it is read"
        raise expected(path, wanted, "one that was written to")


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file: its number, length and time."""
    try:
        status = path.stat()
    except OSError as error:
        wanted = "a file that can be read"
        raise expected(path, wanted, error.strerror) from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _flush(path: Path, passed_over: set[int]) -> None:
    """Have the disk hold what was written to a file, or renamed in a folder.

    Errors of the numbers in `passed_over` are: the file is there and whole without.
    """
    try:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in passed_over:
            raise
