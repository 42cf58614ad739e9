"""Compiled functions are kept in a folder of their own, and do without it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numba
import pytest

from numbasaem.errors import RunWarning
from numbasaem.kernels import _cache
from numbasaem.kernels._jit import STRICT, kernel
from numbasaem.machine import describe


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty folder of caches of a user who has set nothing."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(_cache.KernelCache, "_complained", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NUMBASAEM_CACHE", raising=False)
    return tmp_path


def doubled(x):
    return 2 * x


def compiled() -> Callable[[float], float]:
    """The function as a new process would have it."""
    return kernel(STRICT)(doubled)


def n_hits(function: Callable[[float], float]) -> int:
    return sum(function.stats.cache_hits.values())  # type: ignore[attr-defined]


def test_cache__second_process_reads_what_the_first_compiled(caches: Path) -> None:
    first, second = compiled(), compiled()
    assert (first(3.0), n_hits(first)) == (6, 0)
    assert (second(3.0), n_hits(second)) == (6, 1)
    assert _cache.folder() in list((caches / "numbasaem").iterdir())


def test_cache__other_libraries_keep_their_own(caches: Path) -> None:
    program = (
        "import numba; before = numba.config.CACHE_DIR\n"
        "import os, numbasaem.kernels.wigner\n"
        "assert numba.config.CACHE_DIR == before\n"
        "assert 'NUMBA_CACHE_DIR' not in os.environ"
    )
    variables = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    subprocess.run([sys.executable, "-c", program], check=True, env=variables)


def test_cache__folder_set_for_numba_wins(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(caches / "chosen"))
    compiled()(3.0)
    assert list(caches.rglob("*.nbi"))
    assert [path.name for path in caches.iterdir()] == ["chosen"]


def test_cache__turned_off(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBASAEM_CACHE", "0")
    assert compiled()(3.0) == 6
    assert not list(caches.iterdir())
    assert describe()["kernel cache"] == "off"


def test_cache__folder_is_told(caches: Path) -> None:
    assert describe()["kernel cache"].startswith(str(caches / "numbasaem"))


def test_cache__old_states_go(caches: Path) -> None:
    home = caches / "numbasaem"
    names = [f"{number:016x}" for number in range(12)]
    for age, name in enumerate(names):
        (home / name).mkdir(parents=True)
        (home / name / "code.nbc").write_bytes(b"code")
        os.utime(home / name, (1e9 - age, 1e9 - age))
    (home / "notes").mkdir()
    compiled()(3.0)
    kept = {path.name for path in home.iterdir()}
    assert kept == {*names[:7], "notes", _cache._state()}


@pytest.mark.parametrize("damage", [b"", b"\x80\x05garbage", b"no pickle at all"])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_cache__damaged_file(caches: Path, kind: str, damage: bytes) -> None:
    compiled()(3.0)
    (path,) = caches.rglob(f"*.{kind}")
    path.write_bytes(damage)
    with pytest.warns(RunWarning) as told:
        assert compiled()(3.0) == 6
    assert len(told) == 1
    assert len(str(told[0].message).splitlines()) == 1
    # and it is whole again
    again = compiled()
    assert (again(3.0), n_hits(again)) == (6, 1)


def test_cache__flipped_bit(caches: Path) -> None:
    """Code that is not what was compiled does not run."""
    compiled()(3.0)
    (path,) = caches.rglob("*.nbc")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(RunWarning, match=r"compiled anew .*\.nbc is damaged\)"):
        assert compiled()(3.0) == 6
    again = compiled()
    assert (again(3.0), n_hits(again)) == (6, 1)


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_cache__folder_in_place_of_a_file(caches: Path, kind: str) -> None:
    compiled()(3.0)
    (path,) = caches.rglob(f"*.{kind}")
    path.unlink()
    path.mkdir()
    with pytest.warns(RunWarning) as told:
        assert compiled()(3.0) == 6
    assert len(told) == 1


@pytest.mark.parametrize("name", ["ENOSPC", "EROFS", "EDQUOT", "EACCES"])
def test_cache__disk_that_takes_nothing(
    caches: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(self: object, path: str) -> NoReturn:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(_cache._Files, "_open_for_write", full)
    with pytest.warns(RunWarning, match="no compiled functions kept") as told:
        assert compiled()(3.0) == 6
    assert len(told) == 1


def test_cache__relative_folder_is_ignored(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(caches))
    assert _cache.folder() == caches / ".cache" / "numbasaem" / _cache._state()


def test_cache__without_a_home_nothing_is_read(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the same names in the working folder are of anybody."""
    compiled()(3.0)
    (index,) = caches.rglob("*.nbi")
    monkeypatch.chdir(index.parent.parent)
    monkeypatch.setattr(_cache, "folder", lambda: None)
    function = compiled()
    with pytest.warns(RunWarning, match="no home folder"):
        assert function(3.0) == 6
    assert n_hits(function) == 0


def test_cache__unwritable_folder(caches: Path) -> None:
    (caches / "numbasaem").write_text("a file where a folder should be")
    with pytest.warns(RunWarning, match="no compiled functions kept") as told:
        assert compiled()(3.0) == compiled()(3.0) == 6
    assert len(told) == 1


def test_cache__no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(RunWarning, match="no home folder") as told:
        assert compiled()(3.0) == 6
    assert len(told) == 1
    assert describe()["kernel cache"] == "none"
