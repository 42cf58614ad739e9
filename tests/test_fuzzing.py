"""Damaged files and odd settings: the package's own error or none, and nothing else.

NUMBASAEM_FUZZ_CASES is the number of cases of each test.
"""

from __future__ import annotations

import gzip
import os
import string
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numbasaem import cli
from numbasaem.errors import InputError
from numbasaem.io.mrc import read_header, read_micrographs, read_volume, write_volume
from numbasaem.io.relion import read_fsc, read_particles, write_fsc, write_particles
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.settings import Settings

fuzzed = settings(
    max_examples=int(os.environ.get("NUMBASAEM_FUZZ_CASES", "60")),
    deadline=5000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Damage = Callable[[bytes], bytes]
NUMBERS = [0, 1, 2, 3, 255, 1024, 2**15, 2**20 - 1, 2**20, 2**31 - 1, -1, -(2**31)]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Draw bytes changed, numbers put in place, a piece cut out or put in, an end."""
    places = st.floats(0, 1) | st.floats(0, 0.02)
    changes = draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=20))
    words = draw(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(NUMBERS))))
    start, length = draw(places), draw(st.integers(0, 40))
    put_in = draw(st.binary(max_size=40))
    end = draw(st.just(1.0) | st.floats(0, 1))

    def damage(whole: bytes) -> bytes:
        data = bytearray(whole)
        for place, value in changes:
            data[int(place * (len(data) - 1))] = value
        for word, number in words:
            data[4 * word : 4 * word + 4] = number.to_bytes(4, "little", signed=True)
        first = int(start * len(data))
        data[first : first + length] = put_in
        return bytes(data[: int(end * len(data))])

    return damage


# --- nothing but the error ---------------------------------------------------------


_FORBIDDEN = {
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.system",
    "pickle.find_class",
    "socket.connect",
    "subprocess.Popen",
}
_watched: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in _FORBIDDEN:
        _watched.append(f"{event} {arguments}")
    elif event == "open" and arguments[2] is not None:
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        if arguments[2] & writing:
            _watched.append(f"{event} {arguments}")


sys.addaudithook(_watch)


@contextmanager
def only_reading() -> Iterator[None]:
    """No file is written and no program started in the block."""
    global _watched
    _watched = []
    try:
        yield
        found = _watched
    finally:
        _watched = None
    assert found == []


def check(path: Path, content: bytes, *readers: Callable[[Path], object]) -> None:
    """Let every reader have the file; only an error of ours may come out."""
    path.write_bytes(content)
    for read in readers:
        with only_reading(), warnings.catch_warnings(), suppress(InputError):
            read(path)
    assert list(path.parent.iterdir()) == [path]


def a_volume(path: Path) -> bytes:
    write_volume(path, np.random.default_rng(0).standard_normal((8, 8, 8)), 1.5)
    return path.read_bytes()


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@given(damage=damages())
@fuzzed
def test_mrc(tmp_path: Path, compress: bool, damage: Damage) -> None:
    path = tmp_path / "a.mrc"
    whole = a_volume(path)
    content = gzip.compress(damage(whole)) if compress else damage(whole)
    check(path, content, read_micrographs, read_volume, read_header)
    if compress:
        check(path, damage(gzip.compress(whole)), read_micrographs, read_volume)


@given(damage=damages())
@fuzzed
def test_star_of_particles(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "a.star"
    write_particles(
        path,
        micrograph_names=["a.mrc", "../../b.mrc", "/etc/passwd"],
        coordinates=np.arange(6.0).reshape(3, 2),
        pixel_size=1.5,
        angles=np.zeros((3, 3)),
    )
    check(path, damage(path.read_bytes()), read_particles, read_fsc)


@given(damage=damages())
@fuzzed
def test_star_of_a_correlation(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "a.star"
    write_fsc(path, np.linspace(1, 0, 6), 1.5, 11)
    check(path, damage(path.read_bytes()), read_particles, read_fsc)


@given(text=st.text(st.sampled_from("loop_data#;'\"_ \n\t.rln1\\\0é"), max_size=300))
@fuzzed
def test_star_of_any_text(tmp_path: Path, text: str) -> None:
    check(tmp_path / "a.star", text.encode(), read_particles, read_fsc)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("run")
    pixels = np.random.default_rng(0).standard_normal((40, 40))
    small = Settings(
        size=5, ell_max=(2,), iterations=(2,), rotations=12, starts=1, halves=False
    )
    reconstruct([pixels], small, out=folder)
    return (folder / "run.h5").read_bytes()


@given(damage=damages())
@fuzzed
def test_checkpoint(tmp_path: Path, checkpoint: bytes, damage: Damage) -> None:
    path = tmp_path / "run.h5"
    content = damage(checkpoint)
    check(path, content, load_checkpoint)
    if content != checkpoint:
        with pytest.raises(InputError):
            load_checkpoint(path)


# --- settings ----------------------------------------------------------------------


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers(-3, 12) | st.floats(), max_size=4)
    | st.sampled_from(["stochastic", "incremental", "online", "full"])
)


@given(
    given_=st.dictionaries(
        st.sampled_from([*Settings.model_fields, "sise"]), VALUES, max_size=6
    )
)
@fuzzed
def test_settings(given_: dict[str, Any]) -> None:
    with only_reading(), suppress(InputError):
        made = Settings(**{"size": 11} | given_)
        assert Settings(**made.model_dump(mode="json")) == made


FLAGS = ("halves",)
OPTIONS = [
    "--" + name.replace("_", "-") for name in Settings.model_fields if name not in FLAGS
]


@given(
    options=st.dictionaries(
        st.sampled_from(OPTIONS),
        st.text(string.printable, max_size=8)
        | st.integers().map(str)
        | st.floats().map(str),
        max_size=4,
    )
)
@fuzzed
def test_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, str]
) -> None:
    given_ = ({"--size": "11"} | options).items()
    assert_refused(tmp_path, capsys, *(f"{name}={text}" for name, text in given_))


SETTINGS = Settings(
    size=11, threads=1, max_memory=0.5, particle_diameter=120.0, noise_variance=1.5
)


@given(damage=damages())
@fuzzed
def test_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Damage
) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(damage(SETTINGS.to_toml().encode()))
    with only_reading():
        assert_refused(tmp_path, capsys, f"--settings={path}")


@given(
    values=st.dictionaries(
        st.sampled_from([*Settings.model_fields, "sise", "a.b"]),
        st.text(string.printable, max_size=12)
        | st.sampled_from(["1e999", "nan", "[[", "{a = 1}", "2001-01-01", "9" * 5000]),
        max_size=6,
    )
)
@fuzzed
def test_toml_of_any_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, str]
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("".join(f"{name} = {text}\n" for name, text in values.items()))
    with only_reading():
        assert_refused(tmp_path, capsys, f"--settings={path}")


def assert_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> None:
    """The command ends with one line and has written nothing."""
    nowhere, out = folder / "nowhere.mrc", folder / "run"
    command = ["reconstruct", str(nowhere), "--out", str(out), *options]
    assert cli.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("numbasaem: ")
    assert not out.exists()
