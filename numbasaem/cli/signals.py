"""SIGINT and SIGTERM as an exception, once; a second one ends the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal in a command that can go on later; its text says how."""


HANDLED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_on_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt in the main thread when a signal comes.

    Compiled code runs on until it returns, at the latest after a block of patches. From
    the first signal on, signals have their default effect again: the next one ends the
    process at once.

    Yields
    ------
    list of int
        Number of the signal, once it has come.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in HANDLED}

    def stop(number: int, frame: FrameType | None) -> None:
        for handled in HANDLED:
            signal.signal(handled, signal.SIG_DFL)
        received.append(number)
        raise KeyboardInterrupt

    for number in HANDLED:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
