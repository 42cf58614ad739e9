"""The window model's E-step against plain sums and all configurations of particles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem.errors import InputError
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.kernels.layout import SPECTRAL, TILE
from numbasaem.kernels.llvm import LANES
from numbasaem.kernels.windows import direct, portable, spectral
from numbasaem.kernels.windows import statistics as windows
from numbasaem.kernels.windows.neighbourhoods import neighbourhood_sums
from numbasaem.observations.exponents import LARGEST_EXPONENT, TOLERANCE
from numbasaem.observations.pixel_expectation import (
    PixelExpectation,
    compile_window_kernels,
    pixel_expectation,
)
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.observations.statistics import Statistics
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.reconstruction.maximization import (
    maximization,
    noise_variance,
    shift_prior_table,
)
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from tests import reference
from tests.helpers import (
    WIDTHS,
    Programs,
    assert_close,
    assert_identical_statistics,
    assert_same_statistics,
    programs_of_other_widths,
)

Array = NDArray[np.float64]
SIZE = 5
SPECTRAL_SIZE = 13


def outside_disc(size: int) -> NDArray[np.bool_]:
    squares = (np.arange(size) - size // 2) ** 2
    return np.add.outer(squares, squares) > (size // 2) ** 2


def problem(
    shape: tuple[int, int] = (52, 61),
    size: int = SIZE,
    n_rotations: int = 3,
    snr: float = 1.0,
    disc: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """A micrograph of particles far apart under noise of variance 1, and priors."""
    generator = np.random.default_rng(seed)
    images = np.sqrt(snr) * generator.standard_normal((n_rotations, size, size))
    images[:, outside_disc(size) & disc] = 0
    micrograph = generator.standard_normal(shape)
    for y in range(1, shape[0] - size, 3 * size):
        for x in range(2, shape[1] - size, 3 * size):
            micrograph[y : y + size, x : x + size] += images[(x + y) % n_rotations]
    return {
        "micrograph": micrograph.astype(np.float32),
        "images": images,
        "noise_variance": 1.0,
        "empty_prior": 0.6,
        "rotation_prior": generator.dirichlet(np.ones(n_rotations)),
    }


def plain_sums(
    given: dict[str, Any], mask: NDArray[np.bool_] | None = None
) -> tuple[Statistics, Array]:
    """Statistics from the reference, in the terms that the docstring gives."""
    pixels = given["micrograph"].astype(float)
    size, variance = given["images"].shape[1], given["noise_variance"]
    whole = np.ones([n - size + 1 for n in pixels.shape], bool)
    for y, x in np.argwhere(~mask) if mask is not None else ():
        whole[max(0, y - size + 1) : y + 1, max(0, x - size + 1) : x + 1] = False
    weight, mixture, sums = reference.accumulate_windows(
        **given | {"micrograph": pixels}, whole=whole
    )
    half = size // 2
    centres = pixels[half : half + len(whole), half : half + whole.shape[1]][whole]
    shown = reference.neighbourhood_sums(size, weight.sum(axis=2))
    empty = np.mean(np.maximum(1 - shown[whole], 0))
    mass = weight.sum(axis=(0, 1))
    n_patches = whole.sum() / size**2
    rotation = (1 - empty) * mass / mass.sum() + empty * given["rotation_prior"]
    gaussian = centres**2 / variance + np.log(2 * np.pi * variance)
    composite = np.log(mixture[whole]) / (2 * size - 1) ** 2 - gaussian / 2
    statistics = Statistics(
        visible_weight=np.ones_like(sums) * mass[:, None, None],
        weighted_patch=sums,
        shift_mass=n_patches * uniform_shift_prior(size, float(empty)),
        rotation_mass=n_patches * rotation,
        log_likelihood=composite.sum(),
        patch_energy=np.sum(centres**2),
        n_patches=n_patches,
    )
    return statistics, weight.sum(axis=2)


# --- one operation at a time -----------------------------------------------------


@numba.njit
def square_operations(side, lanes, added, weighed, summed):
    direct.add_evidence(side, lanes, added)
    direct.weigh_windows(side, lanes, weighed)
    direct.add_windows(side, lanes, summed)


@numba.njit
def disc_operations(side, lanes, added, weighed, summed):
    direct.add_evidence_disc(side, lanes, added)
    direct.weigh_windows_disc(side, lanes, weighed)
    direct.add_windows(side, lanes, summed)


def portable_operations(side, lanes, added, weighed, summed):
    # as plain Python: they are compiled where the processor has no vectors, see below
    portable.add_evidence.py_func(side, lanes, added)
    portable.weigh_windows.py_func(side, lanes, weighed)
    portable.add_windows.py_func(side, lanes, summed)


@numba.njit
def spectral_operations(side, lanes, transformed, added, weighed, summed):
    spectral.tile_spectrum(side, (0,), transformed)
    spectral.add_evidence(side, lanes, added)
    spectral.weigh_windows(side, lanes, weighed)
    spectral.add_windows(side, lanes, summed)


class Operands:
    """Arrays of one tile and one panel; exponents that range over hundreds."""

    def __init__(self, n_windows: int, size: int, lanes: int, disc: bool) -> None:
        generator = np.random.default_rng(1)

        def draw(*shape: int) -> NDArray[np.float32]:
            return generator.standard_normal(shape).astype(np.float32)

        side, self.size, self.lanes = n_windows + size - 1, size, lanes
        self.pixels = draw(side, side)
        self.template = draw(size, size, 2, lanes)
        self.template[outside_disc(size) & disc] = 0
        self.disc = disc
        self.bias = np.linspace(-90, 160, 2 * lanes, dtype=np.float32)
        self.log2_sum = 160 + 3 * draw(n_windows, n_windows)
        self.level = np.zeros((n_windows, n_windows, lanes), np.float32)
        self.total = np.zeros((n_windows, n_windows, lanes), np.float32)
        self.weight = np.zeros((n_windows, n_windows, 2, lanes), np.float32)
        self.mass = np.ones((2, lanes), np.float32)
        self.sums = np.ones((size, size, 2, lanes), np.float32)

    def run(self, operations: Any, *more: NDArray[np.float32]) -> None:
        def operands(*arrays: NDArray[np.float32]) -> tuple[Any, ...]:
            return tuple(part for a in arrays for part in (a.reshape(-1), 0))

        view, template, scratch = self.pixels, self.template, more[2:]
        first: tuple[Any, ...] = ()
        if more:
            view, template = more[0], more[1]
            first = (operands(self.pixels, view, *scratch),)
        operations(
            (0,) * self.size,
            (0,) * self.lanes,
            *first,
            operands(view, template, self.bias, self.level, self.total, *scratch),
            operands(
                view,
                template,
                self.bias,
                self.log2_sum,
                self.weight,
                self.mass,
                *scratch,
            ),
            operands(view, self.weight, self.sums, *scratch),
        )

    def check(self) -> None:
        flat = self.template.reshape(self.size, self.size, -1).astype(float)
        given = self.pixels.astype(float), flat, self.bias.astype(float)
        # pixels outside of the disc, which the operations do not read, are zero
        disc = self.disc
        evidence = reference.add_evidence_disc if disc else reference.add_evidence
        weigh = reference.weigh_windows_disc if disc else reference.weigh_windows
        wanted = evidence(*given)
        found = self.total * 2.0 ** self.level.astype(float)
        np.testing.assert_allclose(found, wanted, rtol=1e-3)
        weight = weigh(*given, self.log2_sum.astype(float))
        shares = self.weight.reshape(weight.shape)
        assert (shares[weight < 2.0**-51] == 0).all()
        assert_close(shares, weight, 1e-3)
        assert_close(self.mass.ravel() - 1, weight.sum(axis=(0, 1)), 1e-3)
        # from the weights found, whose errors were just bounded
        sums = reference.add_windows(given[0], shares.astype(float))
        assert_close(self.sums.reshape(sums.shape) - 1, sums, 1e-4)


@pytest.mark.parametrize("disc", [False, True])
def test_operations__plain_sums(disc: bool) -> None:
    operands = Operands(TILE, SIZE, max(LANES, 4), disc)
    operands.run(disc_operations if disc else square_operations)
    operands.check()


def test_portable_operations__plain_sums() -> None:
    operands = Operands(TILE, 3, 1, disc=False)
    operands.run(portable_operations)
    operands.check()


def test_spectral_operations__plain_sums() -> None:
    size, lanes = SPECTRAL_SIZE, max(LANES, 4)
    side = spectral.tile_pixels(size)
    operands = Operands(side - size + 1, size, lanes, disc=False)
    operands.bias[:] = np.linspace(-30, 60, 2 * lanes)
    operands.log2_sum -= 100
    spectra = spectral.template_spectra(operands.template[None])
    scratch = np.empty(spectral.scratch_length(size, lanes), np.float32)
    spectrum = np.empty(2 * side**2, np.float32)
    operands.run(spectral_operations, spectrum, spectra, scratch)
    real, imaginary = spectrum.reshape(side, side, 2).transpose(2, 0, 1)
    wanted = reference.tile_spectrum(operands.pixels.astype(float))
    assert_close(real + 1j * imaginary, wanted, 1e-6)
    operands.check()


@pytest.mark.parametrize("reach", [1, 2, SIZE, 9, 16, 20, 30])
def test_neighbourhood_sums__any_range(reach: int) -> None:
    generator = np.random.default_rng(2)
    exponent = generator.integers(0, 1000, (2, 20, 17)).astype(np.int32)
    significand = generator.random(exponent.shape)
    significand[:, 3:9, 2:13] = exponent[:, 3:9, 2:13] = 0
    found = np.empty(exponent.shape, np.float32)
    sums, exponents = np.empty(exponent.shape), np.empty(exponent.shape, np.int64)
    neighbourhood_sums(reach, significand, exponent, sums, exponents, found)
    for region in range(2):
        values = significand[region] * 2.0 ** exponent[region]
        wanted = np.log2(1 + reference.neighbourhood_sums(reach, values))
        np.testing.assert_allclose(found[region], wanted, rtol=1e-6, atol=1e-6)


# --- the whole step --------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"disc": True},
        {"shape": (8, 130), "snr": 0.1},
        {"n_rotations": 37, "shape": (20, 20)},
        {"size": SPECTRAL_SIZE, "shape": (20, 66), "snr": 0.1},
    ],
)
def test_statistics__plain_sums(more: dict[str, Any]) -> None:
    given = problem(**more)
    found, positions = pixel_expectation(**given)
    wanted, posterior = plain_sums(given)
    assert_same_statistics(found, wanted, 1e-4)
    assert_close(positions, posterior, 1e-4)


@pytest.mark.parametrize("disc", [False, True])
def test_compile_window_kernels__nothing_is_left_to_compile(disc: bool) -> None:
    given = problem(size=6, disc=disc)
    compile_window_kernels(6, whole_square=not disc)
    dispatchers: Any = windows.window_evidence, windows.accumulate_windows
    compiled = [set(dispatcher.signatures) for dispatcher in dispatchers]
    pixel_expectation(**given)
    assert [set(dispatcher.signatures) for dispatcher in dispatchers] == compiled


def test_mask__only_whole_windows() -> None:
    given = problem()
    mask = np.ones(given["micrograph"].shape, bool)
    mask[20:23, 30:34] = mask[:, 54:] = False
    wanted, posterior = plain_sums(given, mask)
    given["micrograph"][~mask] = np.nan
    found, positions = pixel_expectation(**given, mask=mask)
    assert_same_statistics(found, wanted, 1e-4)
    assert_close(positions, posterior, 1e-4)
    assert (positions[:, 54 - SIZE + 1 :] == 0).all()


def test_strong_signal__no_overflow() -> None:
    given = problem(snr=400.0, disc=True)
    stats, positions = pixel_expectation(**given)
    assert np.isfinite(stats.log_likelihood)
    centres = np.zeros(positions.shape, bool)
    for y in range(1, 52 - SIZE, 3 * SIZE):
        centres[y, 2 : 61 - SIZE : 3 * SIZE] = True
    np.testing.assert_allclose(positions[centres], 1, atol=1e-4)
    assert positions[~centres].sum() < 1e-3
    assert stats.visible_weight[:, 0, 0].sum() == pytest.approx(centres.sum(), rel=1e-4)


@pytest.mark.parametrize("size", [SIZE, SPECTRAL_SIZE])
def test_likelihood__right_as_far_as_it_may_be_steep(size: int) -> None:
    given = problem(shape=(2 * size - 1, 2 * size - 1), size=size, n_rotations=1)
    given["micrograph"][:] = 0
    # a particle that is alone, just below the largest exponent
    given["micrograph"][1 : size + 1, 2 : size + 2] = given["images"][0]
    energy = np.square(given["images"]).sum()
    given["noise_variance"] = energy / (1.96 * LARGEST_EXPONENT)
    found, positions = pixel_expectation(**given)
    evidence = energy / (2 * given["noise_variance"])
    prior = np.log(0.4 / (2 * size - 1) ** 2)
    half = size // 2
    centres = given["micrograph"][half : half + size, half : half + size].astype(float)
    gaussian = np.square(centres).sum() / given["noise_variance"]
    gaussian += size**2 * np.log(2 * np.pi * given["noise_variance"])
    wanted = size**2 * (evidence + prior) / (2 * size - 1) ** 2 - gaussian / 2
    assert found.log_likelihood == pytest.approx(wanted, abs=2 * TOLERANCE)
    assert positions[1, 2] == pytest.approx(1, abs=1e-6)
    given["noise_variance"] *= 0.9
    with pytest.raises(
        InputError, match=r"micrograph and images: .* order of the noise"
    ):
        pixel_expectation(**given)


@pytest.mark.parallel
def test_statistics__same_for_any_number_of_threads() -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    given = problem(shape=(300, 260))
    wanted, posterior = pixel_expectation(**given, threads=1)
    for threads in range(2, min(4, numba.config.NUMBA_NUM_THREADS) + 1):
        found, positions = pixel_expectation(**given, threads=threads)
        assert_identical_statistics(found, wanted)
        np.testing.assert_array_equal(positions, posterior)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"micrograph": np.zeros(9)}, "micrograph: expected shape"),
        ({"micrograph": np.zeros((4, 9))}, "at least 5 x 5 pixels"),
        ({"micrograph": np.full((9, 9), np.nan)}, "finite pixels"),
        ({"micrograph": np.full((9, 9), 1e6)}, "of the order of the noise"),
        ({"mask": np.ones((3, 3))}, "mask: expected shape"),
        ({"mask": np.zeros((52, 61), bool)}, "usable pixels"),
        ({"images": np.zeros((2, 3))}, "images: expected shape"),
        ({"images": np.zeros((0, 5, 5))}, "at least one rotation"),
        ({"images": np.full((3, 5, 5), np.inf)}, "images: expected finite"),
        ({"noise_variance": 0.0}, "noise_variance: expected a positive"),
        ({"empty_prior": 1.0}, "empty_prior: expected a probability"),
        ({"rotation_prior": np.ones(3)}, "rotation_prior: expected a sum of 1"),
        ({"threads": 0}, "threads: expected"),
    ],
)
def test_bad_input__told(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        pixel_expectation(**problem() | change)


# --- what the posterior is worth -------------------------------------------------


def tiny(side: int, seed: int, snr: float) -> dict[str, Any]:
    """L = 3, K = 2, particles placed under the separation (5)."""
    generator = np.random.default_rng(seed)
    images = np.sqrt(snr) * generator.standard_normal((2, 3, 3))
    micrograph = generator.standard_normal((side, side))
    for y, x in ((1, 0), (0, 6), (7, 1), (6, 9)):
        if max(y, x) <= side - 3:
            micrograph[y : y + 3, x : x + 3] += images[(x + y) % 2]
    return {
        "micrograph": micrograph.astype(np.float32),
        "images": images,
        "noise_variance": 1.0,
        "empty_prior": 0.5,
        "rotation_prior": np.array([0.3, 0.7]),
    }


def exact_posterior(given: dict[str, Any], spacing: int) -> Array:
    size, empty = given["images"].shape[1], given["empty_prior"]
    evidence = reference.window_evidence(
        given["micrograph"].astype(float),
        given["images"],
        given["noise_variance"],
        given["rotation_prior"],
    ).sum(axis=2)
    odds = (1 - empty) / empty / (2 * size - 1) ** 2
    return reference.configuration_posterior(evidence, odds, spacing)


@pytest.mark.parametrize("spacing", [3, 5])
def test_posterior__exact_where_all_positions_overlap(spacing: int) -> None:
    given = tiny(side=5, seed=0, snr=1.0)
    _, positions = pixel_expectation(**given)
    np.testing.assert_allclose(positions, exact_posterior(given, spacing), rtol=1e-5)


@pytest.mark.parametrize(("snr", "error"), [(0.2, 0.5), (6.0, 0.1)])
def test_posterior__near_that_over_all_configurations(snr: float, error: float) -> None:
    given = tiny(side=12, seed=2, snr=snr)
    _, positions = pixel_expectation(**given)
    exact = exact_posterior(given, spacing=5)
    # weak candidates are counted too often, since only overlap excludes; found ones not
    assert np.abs(positions - exact).sum() < error * exact.sum()
    np.testing.assert_allclose(positions[exact > 0.5], exact[exact > 0.5], atol=0.1)


def test_full_passes__objective_does_not_fall() -> None:
    size = 7
    sample = simulate(folded_chain(size), size=size, pixels=128, snr=2, ell_max=3)
    basis, rotations = VolumeBasis(size, 3), rotation_grid(48)
    operator = ProjectionOperator(basis, rotations)
    truth = basis.expand(folded_chain(size))
    x = np.random.default_rng(0).standard_normal(len(truth))
    x *= np.linalg.norm(truth) / np.linalg.norm(x)
    variance, empty = sample.noise_variance, 0.5
    objective = []
    for _ in range(8):
        stats, _ = pixel_expectation(
            sample.micrographs[0], operator.project(x), variance, empty
        )
        objective.append(stats.log_likelihood / stats.n_patches)
        x = maximization(basis, rotations, stats)
        variance = noise_variance(operator, x, stats)
        empty = stats.empty_mass / stats.n_patches
        assert shift_prior_table(stats).sum() == pytest.approx(1)
    assert variance == pytest.approx(sample.noise_variance, rel=0.05)
    assert np.diff(objective).min() > -1e-4
    assert objective[-1] > objective[0] + 0.1


# --- other processors ------------------------------------------------------------

PROGRAM = """
import sys
import numpy as np
from numbasaem.kernels import llvm as vectors
from numbasaem.observations.pixel_expectation import pixel_expectation
given = dict(np.load(sys.argv[1]))
for name in ("noise_variance", "empty_prior"):
    given[name] = float(given[name])
found, positions = pixel_expectation(**given)
np.savez(sys.argv[2], lanes=vectors.LANES, positions=positions, **vars(found))
"""


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """The same step, started first, so that it compiles while other tests run."""
    folder = tmp_path_factory.mktemp("widths")
    given = problem(shape=(20, 60))
    with programs_of_other_widths(folder, PROGRAM, given) as programs:
        yield programs


@pytest.mark.parametrize("lanes", WIDTHS)
def test_statistics__same_for_any_vector_width(lanes: int, programs: Programs) -> None:
    process, path = programs[lanes]
    assert process.wait(timeout=300) == 0
    found = dict(np.load(path))
    wanted, positions = pixel_expectation(**problem(shape=(20, 60)))
    assert found.pop("lanes") == lanes
    assert_close(found.pop("positions"), positions)
    assert_same_statistics(Statistics(**found), wanted)


def test_route__transforms_from_where_they_are_faster() -> None:
    size = spectral.faster_from(LANES)
    images = np.zeros((1, size, size))
    assert LANES == 1 or PixelExpectation(images, 1.0, 0.5).route == SPECTRAL
    assert PixelExpectation(images[:, 1:, 1:], 1.0, 0.5).route != SPECTRAL


def test_faster_from__no_transforms_without_vectors() -> None:
    assert spectral.faster_from(1) > spectral.LARGEST
    assert all(spectral.faster_from(n) <= spectral.LARGEST for n in (4, 8, 16))
