"""The package's only compiler settings.

Every compiled function goes through :func:`kernel` or :func:`parallel_kernel` and
states its floating-point flags: `FAST` for plain sums and products, `STRICT` where
the order of operations or a NaN decides (recurrences, log-sum-exp).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

from ._cache import KernelCache, enabled
from ._fork import refuse_after_fork

_P = ParamSpec("_P")
_R = TypeVar("_R")

Flags = frozenset[str]
FAST: Flags = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})
"""Flags that allow reassociation, but let NaN and infinity keep their meaning."""
STRICT: Flags = frozenset()
"""No flags: IEEE arithmetic in the order written."""


def _compiled(
    function: Callable[_P, _R], flags: Flags, parallel: bool
) -> Callable[_P, _R]:
    """Numba's dispatcher for a function, with the package's own cache."""
    dispatcher: Callable[_P, _R] = numba.njit(
        nogil=True,
        error_model="numpy",
        fastmath=set(flags) or False,
        parallel=parallel,
    )(function)
    if enabled() and not numba.config.DISABLE_JIT:
        dispatcher._cache = KernelCache(function)  # type: ignore[attr-defined]
    return dispatcher


def kernel(flags: Flags) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Compile a serial function with the given floating-point flags."""
    return lambda function: _compiled(function, flags, parallel=False)


def parallel_kernel(flags: Flags) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Compile a function whose `prange` loops run on all threads set in Numba."""

    def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
        dispatcher = _compiled(function, flags, parallel=True)
        refuse_after_fork(dispatcher)
        return dispatcher

    return compiled
