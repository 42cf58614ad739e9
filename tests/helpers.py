"""What several test modules share: samples, comparisons, refusals, other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from numbasaem.errors import InputError
from numbasaem.io.mrc import write_micrograph
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.observations.statistics import Statistics
from numbasaem.reconstruction.result import Result
from numbasaem.reconstruction.state import Iteration
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from tests import reference

Array = NDArray[np.float64]

# --- samples -----------------------------------------------------------------------


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """White noise of variance 1."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def random_coefficients(basis: VolumeBasis, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(basis.n_coefficients)


def all_rotations(degree: int) -> tuple[Array, Array]:
    """Rotations and weights whose sum is the mean of polynomials of a degree."""
    heights, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    turns = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    euler = [(a, np.arccos(z), b) for z in heights for a in turns for b in turns]
    of_each = np.repeat(weights, (degree + 1) ** 2)
    rotations = Rotation.from_euler("ZYZ", euler).as_matrix()
    return rotations, of_each / of_each.sum()


def gaussians(
    size: int, centres: ArrayLike, heights: ArrayLike, deviation: float
) -> Array:
    """Volume of Gaussians at offsets (x, y, z) from its centre."""
    offset = np.arange(size) - size // 2
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    volume = np.zeros((size,) * 3)
    for centre, height in zip(np.asarray(centres), np.asarray(heights), strict=True):
        squares = ((points - centre) ** 2).sum(axis=-1)
        volume += height * np.exp(-squares / (2 * deviation**2))
    return volume


def micrograph_of_chains(size: int, pixels: int) -> NDArray[np.float32]:
    """Micrograph of folded chains at SNR 10, degree 3."""
    sample = simulate(folded_chain(size), size=size, pixels=pixels, snr=10, ell_max=3)
    return sample.micrographs[0]


def file_of_chains(folder: Path, size: int, pixels: int) -> Path:
    """The same in a file of 1 angstrom a pixel."""
    path = folder / "micrograph.mrc"
    write_micrograph(path, micrograph_of_chains(size, pixels), 1.0)
    return path


# --- comparisons -------------------------------------------------------------------

ROUNDING = 1e-5
"""Share of the largest entry: float32 products summed over a block of patches."""


def assert_close(actual: Any, expected: Any, share: float = ROUNDING) -> None:
    """Each entry, to within a share of the largest."""
    largest = np.abs(expected).max() if np.size(expected) else 0.0
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=share * max(largest, 1e-30)
    )


def assert_same_statistics(
    actual: Statistics, expected: Statistics, share: float = ROUNDING
) -> None:
    """Every field, to within a share of its largest entry."""
    for field in fields(expected):
        assert_close(getattr(actual, field.name), getattr(expected, field.name), share)


def assert_identical_statistics(actual: Statistics, expected: Statistics) -> None:
    """Every field, bit by bit."""
    for field in fields(expected):
        np.testing.assert_array_equal(
            getattr(actual, field.name), getattr(expected, field.name)
        )


class GivenImages:
    """Stands for an operator whose projections, of any volume, are these."""

    def __init__(self, images: np.ndarray, n_groups: int = 1) -> None:
        self.images, self.n_groups = images, n_groups
        self.n_rotations = len(images) // n_groups

    def project(self, _: object) -> np.ndarray:
        return self.images

    def of_group(self, number: int) -> GivenImages:
        return GivenImages(np.split(self.images, self.n_groups)[number])


def hypotheses_in(
    images: np.ndarray,
    shift_prior: np.ndarray,
    noise_variance: float,
    rotation_prior: np.ndarray | None = None,
    n_groups: int = 1,
) -> Hypotheses:
    """Hypotheses of these images, whatever they are projections of."""
    operator = GivenImages(images, n_groups)
    nothing = np.zeros(0)
    return Hypotheses(operator, nothing, shift_prior, noise_variance, rotation_prior)


def windows_in_pixels(
    micrograph: np.ndarray,
    images: np.ndarray,
    noise_variance: float,
    empty_prior: float,
    rotation_prior: np.ndarray | None = None,
    reach: int | None = None,
    whole: np.ndarray | None = None,
) -> tuple[ImageStatistics, np.ndarray]:
    """Statistics of windows by the slow reference, and the posterior of positions."""
    pixels, (n_rotations, size, _) = micrograph.astype(float), images.shape
    reach = reach or size
    if whole is None:
        whole = np.ones([n - size + 1 for n in pixels.shape], bool)
    views = np.full(n_rotations, 1 / n_rotations)
    views = views if rotation_prior is None else rotation_prior
    weight, log_mixture, sums = reference.window_posterior(
        pixels, images, noise_variance, empty_prior, views, whole, reach
    )
    rows, columns = (slice(size // 2, size // 2 + n) for n in whole.shape)
    centres = pixels[rows, columns][whole]
    shown = reference.neighbourhood_sums(reach, weight.sum(axis=2))
    empty = np.mean(np.maximum(1 - shown[whole], 0))
    mass, n_patches = weight.sum(axis=(0, 1)), whole.sum() / size**2
    gaussian = centres**2 / noise_variance + np.log(2 * np.pi * noise_variance)
    vacant = empty_prior * np.exp(-log_mixture[whole]) / (2 * reach - 1) ** 2
    evidence = (weight.sum(axis=2)[whole] + vacant) * log_mixture[whole]
    occupied = (1 - empty) * mass / mass.sum()
    statistics = ImageStatistics(
        visible_weight=np.ones_like(sums) * mass[:, None, None],
        weighted_patch=sums,
        shift_mass=n_patches * uniform_shift_prior(size, float(empty)),
        rotation_mass=n_patches * (occupied + empty * views),
        log_likelihood=float((evidence - gaussian / 2).sum()),
        patch_energy=float(np.sum(centres**2)),
        n_patches=n_patches,
    )
    return statistics, weight.sum(axis=2)


def assert_same_result(actual: Result, expected: Result) -> None:
    """Bit by bit, the wall times apart."""
    np.testing.assert_array_equal(actual.volume, expected.volume)
    np.testing.assert_array_equal(actual.shift_prior, expected.shift_prior)
    assert actual.noise_variance == expected.noise_variance
    assert (actual.half_volumes is None) == (expected.half_volumes is None)
    if actual.half_volumes is not None:
        np.testing.assert_array_equal(actual.half_volumes, expected.half_volumes)
    histories = (
        [replace(row, seconds=0) for row in result.history]
        for result in (actual, expected)
    )
    for actual_row, expected_row in zip(*histories, strict=True):
        assert actual_row == expected_row


# --- refusals and interruptions ----------------------------------------------------


def refusal(work: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The one line with which the work refuses its input."""

    def use() -> None:
        result = work(*arguments, **options)
        if isinstance(result, Iterator):
            deque(result, maxlen=0)

    with pytest.raises(InputError) as error:
        use()
    (line,) = str(error.value).splitlines()
    return line


class Interruption(Exception):
    """Stands for whatever ends a program in the middle."""


def interrupted_after(n_iterations: int) -> Callable[[Iteration], None]:
    """A watcher that ends the run once so many iterations are done."""

    def interrupt(row: Iteration) -> None:
        if row.total_done == n_iterations:
            raise Interruption

    return interrupt


# --- other processes ---------------------------------------------------------------

WIDTHS = {
    1: {"NUMBASAEM_SIMD": "0"},
    4: {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+sse2"},
}
"""Vector widths, by lanes: the environment that brings them about."""

Programs = dict[int, tuple[subprocess.Popen[bytes], Path]]


@contextmanager
def programs_of_other_widths(
    folder: Path, program: str, given: dict[str, Any]
) -> Iterator[Programs]:
    """Processes of each width, and the file that each writes.

    The program reads its input from the file that its first argument names and writes
    its result to that of the second. They compile while the caller does other things.
    """
    np.savez(folder / "given.npz", **given)
    programs = {}
    for lanes, variables in WIDTHS.items():
        path = folder / f"{lanes}.npz"
        command = [sys.executable, "-c", program, str(folder / "given.npz"), str(path)]
        process = subprocess.Popen(command, env=os.environ | variables)
        programs[lanes] = process, path
    yield programs
    for process, _ in programs.values():
        process.kill()
        process.wait()
