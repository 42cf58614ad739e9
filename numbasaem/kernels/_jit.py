"""The package's only compiler settings.

Every compiled function goes through :func:`kernel` or :func:`parallel_kernel` and
states its floating-point flags: `FAST` for plain sums and products, `STRICT` where
the order of operations or a NaN decides (recurrences, log-sum-exp).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

Flags = frozenset[str]
FAST: Flags = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})
"""Reassociation without `nnan`/`ninf`, so NaN and infinity keep their meaning."""
STRICT: Flags = frozenset()
"""IEEE arithmetic in the order written."""


def _cache_folder() -> Path:
    """Per-user folder of compiled kernels, so that read-only installs work.

    Numba notices a change in a kernel's own file, not in a function that it calls:
    hence a folder for each state of the sources.
    """
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path.home() / ".cache"
    return home / "numbasaem" / state.hexdigest()[:16]


def _cache_enabled() -> bool:
    """Whether compiled kernels are kept; prepares the folder when they are."""
    if os.environ.get("NUMBASAEM_CACHE", "1") == "0":
        return False
    if "NUMBA_CACHE_DIR" in os.environ:
        return True
    folder = _cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return False
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return True


CACHE = _cache_enabled()

# Numba reads NUMBA_CACHE_DIR when it is first imported, hence after the lines above.
import numba  # noqa: E402

if CACHE:
    numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]


def kernel(flags: Flags) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Compile a serial function with the given floating-point flags."""
    return numba.njit(
        cache=CACHE, nogil=True, error_model="numpy", fastmath=set(flags) or False
    )


def parallel_kernel(flags: Flags) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Compile a function whose `prange` loops run on all threads set in Numba."""
    return numba.njit(
        cache=CACHE,
        nogil=True,
        error_model="numpy",
        fastmath=set(flags) or False,
        parallel=True,
    )
