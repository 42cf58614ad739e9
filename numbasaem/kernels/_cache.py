"""Cache of the package's compiled functions, in a folder of their own.

Numba's own setting of a folder holds for every library of the process. Here each
compiled function of the package has a cache that finds its folder by itself.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

from numbasaem.errors import warn

_STATES_KEPT = 8
"""Number of states of the sources, this one included, whose functions are kept."""
_SEAL = hashlib.sha256().digest_size
"""Number of bytes before a function's code."""
_STATE_NAME = re.compile(r"[0-9a-f]{16}")


def enabled() -> bool:
    """Whether compiled functions are kept at all."""
    return os.environ.get("NUMBASAEM_CACHE", "1") != "0"


@cache
def _state() -> str:
    """Name of the state of the sources.

    Numba notices a change in a function's own file, not in a function that it calls:
    hence a folder for each state.
    """
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return state.hexdigest()[:16]


def folder() -> Path | None:
    """Folder of the compiled functions of these sources.

    Returns
    -------
    Path or None
        Inside the folder set for Numba, if one is, else in the user's folder of
        caches; None if the user has no such folder. It need not exist.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one would be another in every working folder: its standard ignores it.
    base = numba.config.CACHE_DIR or (chosen if os.path.isabs(chosen) else "")
    try:
        home = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "numbasaem" / _state()


def _remove_old_states(current: Path) -> None:
    """Remove all but the newest folders of other states of the sources.

    A process that still runs on one of them has its functions in memory.
    """
    others = [
        path
        for path in current.parent.iterdir()
        if _STATE_NAME.fullmatch(path.name) and path != current
    ]
    others.sort(key=lambda path: path.stat().st_mtime)
    for path in others[: 1 - _STATES_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Place of one function's files."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        self._py_file = py_file
        self._line = py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        # Modules of one name stand in different rooms.
        return str((folder() or Path()) / Path(self._py_file).parent.name)

    def get_source_stamp(self) -> str:
        return _state()

    def get_disambiguator(self) -> str:
        return str(self._line)

    def ensure_cache_path(self) -> None:
        current = folder()
        if current is None:
            raise FileNotFoundError("no home folder")
        fresh = not current.exists()
        current.mkdir(parents=True, exist_ok=True)
        if fresh:
            with suppress(OSError):  # Another process may be doing the same.
                _remove_old_states(current)
        super().ensure_cache_path()

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator:
        return cls(py_func, py_file)


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Files(caching.IndexDataCacheFile):  # type: ignore[misc]
    """Files of one function; code follows its SHA-256, for damaged code would run."""

    def _save_data(self, name: str, data: Any) -> None:
        code = self._dump(data)
        with self._open_for_write(self._data_path(name)) as stream:
            stream.write(hashlib.sha256(code).digest() + code)

    def _load_data(self, name: str) -> Any:
        content = Path(self._data_path(name)).read_bytes()
        seal, code = content[:_SEAL], content[_SEAL:]
        if hashlib.sha256(code).digest() != seal:
            raise ValueError(f"{name} is damaged")
        return pickle.loads(code)


class KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """Cache of one function; if it fails, the function is compiled anew."""

    _impl_class = _Implementation
    _complained = False

    def __init__(self, py_func: Any) -> None:
        super().__init__(py_func)
        locator = self._impl.locator
        self._cache_file = _Files(
            self.cache_path, self._impl.filename_base, locator.get_source_stamp()
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Compiled function of a signature, or None where there is none."""
        if folder() is None:
            return None
        try:
            return super().load_overload(sig, target_context)
        except OSError:  # Keeping the function anew says what is wrong.
            return None
        except Exception as error:  # Whatever bytes were read in place of the code.
            self._complain("compiled anew what could not be read", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; in place of a damaged index, a new one."""
        try:
            try:
                super().save_overload(sig, data)
            except OSError:
                raise
            except Exception:
                self.flush()
                super().save_overload(sig, data)
        except Exception as error:
            self._complain("no compiled functions kept", error)
            self.disable()

    @staticmethod
    def _complain(message: str, error: Exception) -> None:
        """Say once in a process what is wrong."""
        if not KernelCache._complained:
            KernelCache._complained = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warn(f"{folder() or 'cache'}: {message} ({reason})")
