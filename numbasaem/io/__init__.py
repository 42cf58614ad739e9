"""Files in and out: MRC, STAR and atomic models; each appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from numbasaem.errors import expected


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when all went well.

    Parameters
    ----------
    path : path-like
        The file to write; one that exists is replaced.

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
    part = target.with_name(f".{os.getpid()}.part.{target.name}")
    try:
        yield part
        with open(part, "r+b") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror or error}"
        raise expected(target, "a file that can be written", found) from error
    finally:
        with suppress(OSError):
            part.unlink()
