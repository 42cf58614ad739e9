"""Kernels in a process that was forked from one that had run them.

GNU's OpenMP cannot go on there: Numba ends such a process, and a pool would start new
ones for ever. An error is raised in place of it.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import numba
from numba.core.registry import CPUDispatcher

from numbasaem.errors import expected

_parallel: list[Any] = []
"""All functions that run on several threads."""


class _Refusing(CPUDispatcher):  # type: ignore[misc]
    """A function that can no longer be called."""

    def __call__(self, *arguments: Any, **more: Any) -> NoReturn:
        wanted = (
            "a process of its own for the work: multiprocessing's context 'spawn' or "
            "'forkserver'"
        )
        raise expected("kernels", wanted, "a fork of a process that has run them")


def refuse_after_fork(dispatcher: Any) -> None:
    """Have a parallel function raise where it would end a forked process.

    Parameters
    ----------
    dispatcher : Dispatcher
        The compiled function.
    """
    if isinstance(dispatcher, CPUDispatcher):
        _parallel.append(dispatcher)


def _in_child() -> None:
    try:
        layer = numba.threading_layer()
    except ValueError:  # No threads have been started yet.
        return
    if layer == "omp":
        for dispatcher in _parallel:
            dispatcher.__class__ = _Refusing


os.register_at_fork(after_in_child=_in_child)
