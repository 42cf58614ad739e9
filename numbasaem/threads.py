"""How many threads the compiled kernels run on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numba

from numbasaem.errors import expected

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def running_threads(threads: int | None) -> Iterator[int]:
    """Run kernels on that many threads, and on as many as before afterwards.

    Parameters
    ----------
    threads : int or None
        Threads to use; None leaves the number as it is.

    Yields
    ------
    int
        Threads in use.

    Raises
    ------
    InputError
        If `threads` is below 1 or above what Numba was started with.
    """
    before = numba.get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS
    if threads is not None and not 1 <= threads <= most:
        raise expected("threads", f"a number from 1 to {most}", threads)
    numba.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        numba.set_num_threads(before)
