"""The window model's E-step as it is called: posterior, priors, limits, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from numbasaem.errors import InputError
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.kernels.windows import steerable_statistics as kernels
from numbasaem.kernels.windows.neighbourhoods import neighbourhood_sums
from numbasaem.observations.exponents import LARGEST_EXPONENT, TOLERANCE
from numbasaem.observations.feature_statistics import FeatureStatistics
from numbasaem.observations.window_expectation import (
    WindowExpectation,
    window_expectation,
)
from numbasaem.projection.view_projections import ViewProjections
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
    assert_same_statistics,
    programs_of_other_widths,
    windows_in_pixels,
)

SIZE = 5
BASIS, VIEWS = VolumeBasis(SIZE, 2), ViewGrid(16)


def problem(shape: tuple[int, int] = (37, 45), snr: float = 1.0) -> dict[str, Any]:
    """A micrograph of particles far apart under noise of variance 1, and priors."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal(BASIS.n_coefficients)
    images = BASIS.project(x, VIEWS.rotations)
    scale = np.sqrt(snr / np.mean(images**2))
    micrograph = generator.standard_normal(shape)
    for y in range(1, shape[0] - SIZE, 3 * SIZE):
        for x_ in range(2, shape[1] - SIZE, 3 * SIZE):
            image = scale * images[(x_ + y) % len(images)]
            micrograph[y : y + SIZE, x_ : x_ + SIZE] += image
    return {
        "micrograph": micrograph.astype(np.float32),
        "basis": BASIS,
        "x": scale * x,
        "views": VIEWS,
        "noise_variance": 1.0,
        "empty_prior": 0.6,
        "rotation_prior": generator.dirichlet(np.ones(len(VIEWS))),
    }


def in_pixels(given: dict[str, Any], **more: Any) -> tuple[Any, np.ndarray]:
    names = "micrograph", "noise_variance", "empty_prior", "rotation_prior"
    images = BASIS.project(given["x"], VIEWS.rotations)
    return windows_in_pixels(images=images, **{n: given[n] for n in names}, **more)


# --- neighbourhoods --------------------------------------------------------------


@pytest.mark.parametrize("reach", [1, 2, SIZE, 9, 16, 20, 30])
def test_neighbourhood_sums__any_range(reach: int) -> None:
    generator = np.random.default_rng(2)
    exponent = generator.integers(0, 1000, (2, 20, 17)).astype(np.int32)
    significand = generator.random(exponent.shape)
    significand[:, 3:9, 2:13] = exponent[:, 3:9, 2:13] = 0
    for region in range(2):
        found = np.empty(exponent.shape[1:], np.float32)
        sums, exponents = np.empty(found.shape), np.empty(found.shape, np.int64)
        given = significand[region], exponent[region]
        neighbourhood_sums(reach, *given, sums, exponents, found)
        values = significand[region] * 2.0 ** exponent[region]
        wanted = np.log2(1 + reference.neighbourhood_sums(reach, values))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


# --- the whole step --------------------------------------------------------------


@pytest.mark.parametrize("reach", [2, SIZE, 9])
def test_statistics__of_a_prior_and_a_distance(reach: int) -> None:
    given = problem()
    found, positions = window_expectation(**given, least_distance=reach)
    wanted, posterior = in_pixels(given, reach=reach)
    assert_close(positions, posterior, 1e-4)
    for name in ("rotation_mass", "shift_mass"):
        assert_close(getattr(found, name), getattr(wanted, name), 1e-4)
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-5)


def test_compile__nothing_is_left_to_compile() -> None:
    basis = VolumeBasis(6, 2)
    operator, x = ViewProjections(basis, VIEWS), np.ones(basis.n_coefficients)
    WindowExpectation(operator, x, 1.0, 0.5, None, 6).compile()
    dispatchers: Any = (
        kernels.steered_evidence,
        kernels.accumulate_steered,
    )
    compiled = [set(dispatcher.signatures) for dispatcher in dispatchers]
    given = problem() | {"basis": basis, "x": x}
    window_expectation(**given)
    assert [set(dispatcher.signatures) for dispatcher in dispatchers] == compiled


def test_mask__only_whole_windows() -> None:
    given = problem()
    mask = np.ones(given["micrograph"].shape, bool)
    mask[20:23, 30:34] = mask[:, 41:] = False
    whole = np.ones([n - SIZE + 1 for n in mask.shape], bool)
    for y, x in np.argwhere(~mask):
        whole[max(0, y - SIZE + 1) : y + 1, max(0, x - SIZE + 1) : x + 1] = False
    wanted, posterior = in_pixels(given, whole=whole)
    given["micrograph"][~mask] = np.nan
    found, positions = window_expectation(**given, mask=mask)
    assert_close(positions, posterior, 1e-4)
    assert found.patch_energy == pytest.approx(wanted.patch_energy, rel=1e-5)
    assert found.n_patches == wanted.n_patches
    assert (positions[:, 41 - SIZE + 1 :] == 0).all()


def test_strong_signal__no_overflow() -> None:
    given = problem(snr=400.0)
    found, positions = window_expectation(**given)
    assert np.isfinite(found.log_likelihood)
    centres = np.zeros(positions.shape, bool)
    centres[1 : 37 - SIZE : 3 * SIZE, 2 : 45 - SIZE : 3 * SIZE] = True
    np.testing.assert_allclose(positions[centres], 1, atol=1e-4)
    assert positions[~centres].sum() < 1e-3
    # float32 gives exponents of some thousands to a few parts in ten thousand
    assert found.view_weight.sum() == pytest.approx(centres.sum(), rel=1e-3)


def test_likelihood__right_as_far_as_it_may_be_steep() -> None:
    given = problem(shape=(2 * SIZE - 1, 2 * SIZE - 1))
    image = BASIS.project(given["x"], VIEWS.rotations)[5]
    given["rotation_prior"] = np.arange(len(VIEWS)) == 5
    given["micrograph"][:] = 0
    # a particle that is alone, just below the largest exponent
    given["micrograph"][1 : SIZE + 1, 2 : SIZE + 2] = image
    images = BASIS.project(given["x"], VIEWS.rotations)
    strongest = np.square(images).sum(axis=(1, 2)).max()
    energy = np.square(image).sum()
    variance = strongest / (1.9 * LARGEST_EXPONENT)
    found, positions = window_expectation(**given | {"noise_variance": variance})
    evidence = energy / (2 * variance)
    prior = np.log(0.4 / (2 * SIZE - 1) ** 2)
    half = SIZE // 2
    centres = given["micrograph"][half : half + SIZE, half : half + SIZE].astype(float)
    gaussian = np.square(centres).sum() / variance
    gaussian += SIZE**2 * np.log(2 * np.pi * variance)
    wanted = evidence + prior - gaussian / 2
    assert found.log_likelihood == pytest.approx(wanted, abs=2 * TOLERANCE)
    assert positions[1, 2] == pytest.approx(1, abs=1e-6)
    with pytest.raises(
        InputError, match=r"micrograph and images: .* order of the noise"
    ):
        window_expectation(**given | {"noise_variance": 0.5 * variance})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"micrograph": np.zeros(9)}, "micrograph: expected shape"),
        ({"micrograph": np.zeros((4, 9))}, "at least 5 x 5 pixels"),
        ({"micrograph": np.full((9, 9), np.nan)}, "finite pixels"),
        ({"micrograph": np.full((9, 9), 1e6)}, "of the order of the noise"),
        ({"mask": np.ones((3, 3))}, "mask: expected shape"),
        ({"mask": np.zeros((37, 45), bool)}, "usable pixels"),
        ({"x": np.zeros(3)}, "x: expected shape"),
        ({"x": np.full(BASIS.n_coefficients, np.inf)}, "x: expected finite"),
        ({"noise_variance": 0.0}, "noise_variance: expected a positive"),
        ({"empty_prior": 1.0}, "empty_prior: expected a probability"),
        ({"rotation_prior": np.ones(16)}, "rotation_prior: expected a sum of 1"),
        ({"least_distance": 0.5}, "least_distance: expected 1 to 45 pixels"),
        ({"threads": 0}, "threads: expected"),
    ],
)
def test_bad_input__told(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        window_expectation(**problem() | change)


def test_evidence__is_that_of_the_map_off_its_centre() -> None:
    # Wide empty boxes about small particles, whose map may stand anywhere in the box.
    size, views = 11, ViewGrid(200)
    basis = VolumeBasis(size, 6)
    chain = np.pad(folded_chain(7), 2)
    sample = simulate(chain, size=size, pixels=256, snr=0.5, ell_max=6)
    evidence = []
    for offset in (0, 1, 2):
        x = basis.expand(np.roll(chain, offset, axis=0))
        stats, _ = window_expectation(
            sample.micrographs[0], basis, x, views, sample.noise_variance, 0.5
        )
        evidence.append(stats.evidence / stats.n_patches)
    assert evidence[0] > 1
    assert evidence[1:] == pytest.approx([evidence[0]] * 2, rel=0.02)


def test_full_passes__objective_does_not_fall() -> None:
    size, views = 7, ViewGrid(48)
    sample = simulate(folded_chain(size), size=size, pixels=128, snr=2, ell_max=3)
    basis = VolumeBasis(size, 3)
    operator = ViewProjections(basis, views)
    truth = basis.expand(folded_chain(size))
    x = np.random.default_rng(0).standard_normal(len(truth))
    x *= np.linalg.norm(truth) / np.linalg.norm(x)
    variance, empty = sample.noise_variance, 0.5
    objective = []
    for _ in range(8):
        stats, _ = window_expectation(
            sample.micrographs[0], basis, x, views, variance, empty
        )
        objective.append(stats.log_likelihood / stats.n_patches)
        x = maximization(basis, views, stats)
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
from numbasaem import ViewGrid, VolumeBasis, window_expectation
from numbasaem.kernels import llvm as vectors
given = dict(np.load(sys.argv[1]))
for name in ("noise_variance", "empty_prior"):
    given[name] = float(given[name])
found, positions = window_expectation(
    basis=VolumeBasis(5, 2), views=ViewGrid(16), **given
)
np.savez(sys.argv[2], lanes=vectors.LANES, positions=positions, **vars(found))
"""


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """The same step, started first, so that it compiles while other tests run."""
    folder = tmp_path_factory.mktemp("widths")
    given = problem(shape=(20, 60))
    arrays = {name: given[name] for name in given.keys() - {"basis", "views"}}
    with programs_of_other_widths(folder, PROGRAM, arrays) as programs:
        yield programs


@pytest.mark.parametrize("lanes", WIDTHS)
def test_statistics__same_for_any_vector_width(lanes: int, programs: Programs) -> None:
    process, path = programs[lanes]
    assert process.wait(timeout=300) == 0
    found = dict(np.load(path))
    wanted, positions = window_expectation(**problem(shape=(20, 60)))
    assert found.pop("lanes") == lanes
    assert_close(found.pop("positions"), positions)
    assert_same_statistics(FeatureStatistics(**found), wanted, 1e-5)
