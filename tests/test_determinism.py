"""The same bytes for any number of threads, however blocks are grouped."""

from __future__ import annotations

import functools
import operator
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest

from numbasaem import cli
from numbasaem.observations import patch_blocks, patch_expectation
from numbasaem.observations.exact_sums import PartialSums
from numbasaem.observations.patch_blocks import batch_layout
from numbasaem.observations.patch_expectation import (
    expectation,
    partial_sums,
    statistics_of_sums,
)
from numbasaem.observations.shift_prior import uniform_shift_prior
from tests.helpers import file_of_chains

SIZE = 7
FILES = ("volume.mrc", "volume_half1.mrc", "volume_half2.mrc")
OPTIONS = (
    f"--size {SIZE} --ell-max 2,3 --iterations 2,2 --rotations 48 --starts 1 "
    "--batching full"
).split()


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 3,600 patches: eight blocks, the last one short.
    return file_of_chains(tmp_path_factory.mktemp("data"), SIZE, 420)


def files(micrograph: Path, out: Path, *more: str) -> list[bytes]:
    arguments = ["reconstruct", str(micrograph), "--out", str(out), *OPTIONS, *more]
    assert cli.main(arguments) == 0
    return [(out / name).read_bytes() for name in FILES]


@pytest.mark.parallel
def test_files__same_for_any_number_of_threads(
    micrograph: Path, tmp_path: Path
) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    wanted = files(micrograph, tmp_path / "1", "--threads", "1")
    for threads in range(2, min(4, numba.config.NUMBA_NUM_THREADS) + 1):
        out = tmp_path / str(threads)
        assert files(micrograph, out, "--threads", str(threads)) == wanted


@pytest.mark.parallel
@pytest.mark.parametrize("n_patches", [16, 512, 513, 2600])
def test_statistics__same_however_blocks_are_grouped(
    monkeypatch: pytest.MonkeyPatch, n_patches: int
) -> None:
    generator = np.random.default_rng(0)
    patches = generator.standard_normal((n_patches, SIZE, SIZE))
    images = generator.standard_normal((5, SIZE, SIZE))
    problem = patches, images, uniform_shift_prior(SIZE, 0.5), 1.0
    wanted = expectation(*problem)
    for at_once in (1, 2, 3, 100):
        monkeypatch.setattr(
            patch_expectation, "running_threads", lambda _, n=at_once: nullcontext(n)
        )
        found = expectation(*problem)
        for name, value in vars(wanted).items():
            np.testing.assert_array_equal(getattr(found, name), value)


def parts_of_a_batch(scale: float) -> tuple[list[PartialSums], Callable[..., object]]:
    """Sums over five parts of a batch, and what turns their sum into statistics."""
    generator = np.random.default_rng(1)
    patches = scale * generator.standard_normal((700, SIZE, SIZE)).astype(np.float32)
    images = scale * generator.standard_normal((5, SIZE, SIZE))
    hypotheses = images, uniform_shift_prior(SIZE, 0.5), scale**2
    batch = batch_layout(len(patches), images, float(np.abs(patches).max()))
    cuts = batch.block_length * np.array([0, 1, 4, 6, 9, batch.n_blocks])
    parts = [
        partial_sums(batch, patches[first:end], *hypotheses)
        for first, end in pairwise(cuts)
    ]
    whole = expectation(patches, *hypotheses)

    def assert_same_as_whole(sums: PartialSums) -> None:
        for name, value in vars(statistics_of_sums(batch, sums, *hypotheses)).items():
            np.testing.assert_array_equal(value, getattr(whole, name))

    return parts, assert_same_as_whole


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_partial_sums__same_bits_in_any_grouping(scale: float) -> None:
    parts, assert_same_as_whole = parts_of_a_batch(scale)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        first, second, *others = (parts[i] for i in order)
        one_by_one = functools.reduce(operator.add, [first, second, *others])
        assert_same_as_whole(one_by_one)
        tail = functools.reduce(operator.add, others)
        assert_same_as_whole(tail + (second + first))


def test_partial_sums__travel_in_six_bytes_each() -> None:
    parts, assert_same_as_whole = parts_of_a_batch(1.0)
    sent = [pickle.dumps(part) for part in parts]
    assert_same_as_whole(functools.reduce(operator.add, map(pickle.loads, sent)))
    n_sums = len(parts[0].counts)
    assert all(len(one) < 6 * n_sums + 1000 for one in sent)


@pytest.mark.parametrize(
    ("size", "spectral", "length"),
    [(11, False, 512), (16, True, 512), (31, True, 224), (31, False, 32)],
)
def test_block__is_bounded_work_whatever_the_threads(
    size: int, spectral: bool, length: int
) -> None:
    block_length = patch_blocks._block_length
    assert block_length(10**6, 552, size, spectral) == length
    assert block_length(10**6, 10**9, size, spectral) == 16
    assert block_length(300, 552, size, spectral) == min(length, 64)
