"""The E-step against brute force over every shift and rotation, and its invariances."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, cast

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem.errors import InputError
from numbasaem.kernels.patches import direct, portable, spectral
from numbasaem.kernels.patches import statistics as kernels
from numbasaem.kernels.patches.energies import visible_energies
from numbasaem.observations import patch_blocks
from numbasaem.observations.exponents import (
    LARGEST_EXPONENT,
    TOLERANCE,
    strongest_patch,
)
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.patch_expectation import (
    compile_kernels,
    expectation,
    shift_posterior,
)
from tests import reference
from tests.helpers import (
    ROUNDING,
    WIDTHS,
    Programs,
    assert_close,
    assert_identical_statistics,
    assert_same_statistics,
    programs_of_other_widths,
)

Array = NDArray[np.float64]
SIZE = 5


def random_prior(size: int, generator: np.random.Generator) -> Array:
    prior = generator.random((2 * size, 2 * size))
    return prior / prior.sum()


def problem(
    n_patches: int = 11,
    n_rotations: int = 4,
    size: int = SIZE,
    snr: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Patches that show shifted images under noise of variance 1, and priors."""
    generator = np.random.default_rng(seed)
    images = np.sqrt(snr) * generator.standard_normal((n_rotations, size, size))
    shifts = generator.integers(0, 2 * size, (n_patches, 2))
    shown = [
        reference.shifted_view(images[p % n_rotations], (shift[0], shift[1]))
        for p, shift in enumerate(shifts)
    ]
    noise = generator.standard_normal((n_patches, size, size))
    return {
        "patches": (np.reshape(shown, noise.shape) + noise).astype(np.float32),
        "images": images,
        "shift_prior": random_prior(size, generator),
        "noise_variance": 1.0,
        "rotation_prior": generator.dirichlet(np.ones(n_rotations)),
    }


def brute_force(given: dict[str, Any]) -> ImageStatistics:
    sums = reference.accumulate_statistics(**given)
    patches = np.asarray(given["patches"], dtype=float)
    visible_weight, weighted_patch, shift_mass, rotation_mass, log_likelihood = sums
    return ImageStatistics(
        visible_weight=visible_weight,
        weighted_patch=weighted_patch,
        shift_mass=shift_mass,
        rotation_mass=rotation_mass,
        log_likelihood=log_likelihood,
        patch_energy=np.sum(patches**2),
        n_patches=len(patches),
    )


# --- one operation at a time -----------------------------------------------------


@numba.njit
def direct_operations(side, lanes, operands):
    weighed, added_weights, boxed, adjoined, added = operands
    direct.weigh(side, lanes, weighed)
    direct.add_weights(side, lanes, added_weights)
    direct.box_sums(side, lanes, boxed)
    direct.adjoint(side, lanes, adjoined)
    direct.add_lanes(side, lanes, added)


def portable_operations(side, lanes, operands):
    # as plain Python: they are compiled where the processor has no vectors, see below
    weighed, added_weights, boxed, adjoined, added = operands
    portable.weigh.py_func(side, lanes, weighed)
    portable.add_weights.py_func(side, lanes, added_weights)
    portable.box_sums.py_func(side, lanes, boxed)
    portable.adjoint.py_func(side, lanes, adjoined)
    portable.add_lanes.py_func(side, lanes, added)


@numba.njit
def spectral_operations(side, lanes, operands):
    transformed, weighed, adjoined = operands
    spectral.patch_spectrum(side, lanes, transformed)
    spectral.weigh(side, lanes, weighed)
    spectral.adjoint(side, lanes, adjoined)


GUARD = 3
"""Elements before and after each operand, which no operation may touch."""


def operand(values: Array) -> NDArray[np.float32]:
    """Flat float32 values between guards of NaN."""
    guard = np.full(GUARD, np.nan)
    return np.concatenate([guard, values.ravel(), guard]).astype(np.float32)


def flat(*arrays: NDArray[np.float32]) -> tuple[object, ...]:
    return tuple(item for array in arrays for item in (array, GUARD))


def inner(array: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    assert np.isnan(array[:GUARD]).all()
    assert np.isnan(array[-GUARD:]).all()
    return array[GUARD:-GUARD].reshape(shape)


def as_float32(values: NDArray[np.floating]) -> Array:
    """The nearest float32 values, as the operations see them."""
    return values.astype(np.float32).astype(float)


def weighing_problem(
    size: int, lanes: int, generator: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Patches, two templates, biases and levels; some exponents below the flush."""
    n = 2 * size - 1
    return (
        as_float32(generator.standard_normal((size, size, lanes))),
        as_float32(generator.standard_normal((2, size, size))),
        as_float32(-generator.exponential(15.0, (2, n, n))),
        as_float32(generator.standard_normal(lanes)),
    )


def assert_weighed(wanted, weight, total, peak) -> None:
    wanted_weight, wanted_total, wanted_peak = wanted
    assert (wanted_weight == 0).any()
    # an exponent of 50 is rounded to 2**-20 or so, and the flush is a step
    doubtful = np.isclose(wanted_weight, 2.0**-50, rtol=1e-4) | (
        (wanted_weight == 0) & (weight <= 2.0**-50 * 1.0001)
    )
    np.testing.assert_allclose(
        np.where(doubtful, 0, weight), np.where(doubtful, 0, wanted_weight), rtol=2e-5
    )
    np.testing.assert_array_equal(weight[wanted_weight < 2.0**-51], 0)
    assert_close(total, wanted_total, 2e-5)
    assert_close(peak, wanted_peak, 1e-5)


@pytest.mark.parametrize(
    ("operations", "size", "lanes"),
    [
        (direct_operations, 5, 8),
        (direct_operations, 6, 4),
        (direct_operations, 11, 16),
        (portable_operations, 5, 8),
        (portable_operations, 6, 3),
    ],
)
def test_operations__match_plain_loops(operations, size: int, lanes: int) -> None:
    generator = np.random.default_rng(size)
    n, n_pixels = 2 * size - 1, -(-2 * size**2 // lanes) * lanes
    patch, template, bias, level = weighing_problem(size, lanes, generator)
    mass = as_float32(generator.random((n * n, lanes)))
    weight = as_float32(generator.random((2, n, n, lanes)))
    images = as_float32(generator.standard_normal((n_pixels, lanes)))
    scale = as_float32(generator.random(lanes))
    total = as_float32(generator.standard_normal(n_pixels))

    powers = operand(np.zeros((2, n, n, lanes)))
    totals, peak = operand(np.zeros((2, lanes))), operand(np.zeros(lanes))
    rows = operand(np.zeros((n, size, lanes)))
    visible, weighted = (operand(np.zeros((size, size, lanes))) for _ in range(2))
    masses, added = operand(mass), operand(total)
    given = (operand(a) for a in (patch, template, bias, level))
    operations(
        (0,) * size,
        (0,) * lanes,
        (
            flat(*given, powers, totals, peak),
            flat(operand(weight), masses),
            flat(operand(weight), rows, visible),
            flat(operand(patch), operand(weight), weighted),
            flat(operand(images), operand(scale), added),
        ),
    )

    assert_weighed(
        reference.weigh(patch, template, bias, level),
        inner(powers, weight.shape),
        inner(totals, (2, lanes)),
        inner(peak, (lanes,)),
    )
    wanted = reference.add_weights(weight.reshape(2, n * n, lanes), mass)
    assert_close(inner(masses, wanted.shape), wanted, 1e-6)
    first = weight[0]
    assert_close(inner(visible, patch.shape), reference.box_sums(first), 1e-6)
    assert_close(inner(weighted, patch.shape), reference.adjoint(patch, first), 1e-6)
    wanted = reference.add_lanes(images, scale, total)
    assert_close(inner(added, wanted.shape), wanted, 1e-6)


@numba.njit
def weigh_on_disc(side, lanes, operands):
    direct.weigh_disc(side, lanes, operands)


@pytest.mark.parametrize(("size", "lanes"), [(5, 8), (6, 4)])
def test_weigh_disc__matches_plain_loops(size: int, lanes: int) -> None:
    generator, n = np.random.default_rng(size), 2 * size - 1
    patch, template, bias, level = weighing_problem(size, lanes, generator)
    given = [operand(a) for a in (patch, reference.on_disc(template), bias, level)]
    powers = operand(np.zeros((2, n, n, lanes)))
    totals, peak = operand(np.zeros((2, lanes))), operand(np.zeros(lanes))
    weigh_on_disc((0,) * size, (0,) * lanes, flat(*given, powers, totals, peak))
    assert_weighed(
        reference.weigh_disc(patch, template, bias, level),
        inner(powers, (2, n, n, lanes)),
        inner(totals, (2, lanes)),
        inner(peak, (lanes,)),
    )


@pytest.mark.parametrize(("size", "lanes"), [(5, 8), (6, 4), (8, 8), (11, 16), (13, 8)])
def test_spectral_operations__match_plain_loops(size: int, lanes: int) -> None:
    generator = np.random.default_rng(size)
    n, side = 2 * size - 1, spectral.transform_side(size)
    assert side >= n
    patch, template, bias, level = weighing_problem(size, lanes, generator)
    weight = as_float32(generator.random((2, n, n, lanes)))

    spectrum = operand(np.zeros((side, side, 2, lanes)))
    powers = operand(np.zeros((2, n, n, lanes)))
    totals, peak = operand(np.zeros((2, lanes))), operand(np.zeros(lanes))
    weighted = [operand(np.zeros((size, size, lanes))) for _ in range(2)]
    scratch = operand(np.zeros(spectral.scratch_length(size, lanes)))
    as_template = template.astype(np.float32)
    spectra = operand(as_float32(spectral.template_spectra(as_template)))
    given = (spectra, operand(bias), operand(level))
    spectral_operations(
        (0,) * size,
        (0,) * lanes,
        (
            flat(operand(patch), spectrum, scratch),
            flat(spectrum, *given, powers, totals, peak, scratch),
            flat(spectrum, operand(weight), *weighted, scratch),
        ),
    )

    columns = inner(spectrum, (side, side, 2, lanes))
    transformed = reference.patch_spectrum(patch, side)
    assert_close(columns[:, :, 0] + 1j * columns[:, :, 1], transformed, 1e-6)
    assert_weighed(
        reference.weigh(patch, template, bias, level),
        inner(powers, weight.shape),
        inner(totals, (2, lanes)),
        inner(peak, (lanes,)),
    )
    for r in range(2):
        wanted = reference.adjoint(patch, weight[r])
        assert_close(inner(weighted[r], patch.shape), wanted, 1e-6)


@pytest.mark.parametrize("size", [5, 6, 11])
def test_visible_energies__match_plain_loops(size: int) -> None:
    images = np.random.default_rng(0).standard_normal((2, size, size))
    images[1, : size // 2] = 0
    found, wanted = np.empty((2, 2, 2 * size - 1, 2 * size - 1))
    visible_energies(images, found)
    reference.visible_energies(images, wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * wanted.max())
    assert (found >= 0).all()


# --- the whole E-step ------------------------------------------------------------


@pytest.mark.parametrize("snr", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("size", [5, 6])
def test_expectation__matches_brute_force(size: int, snr: float) -> None:
    given = problem(size=size, snr=snr, n_patches=19, n_rotations=5)
    assert_same_statistics(expectation(**given), brute_force(given))


@pytest.mark.parametrize("snr", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("size", [5, 8])
def test_expectation__of_projections_on_the_disc(size: int, snr: float) -> None:
    given = problem(size=size, snr=snr, n_patches=19, n_rotations=5)
    squares = (np.arange(size) - size // 2) ** 2
    disc = np.add.outer(squares, squares) <= (size // 2) ** 2
    on_disc = given | {"images": given["images"] * disc}
    assert_same_statistics(expectation(**on_disc), brute_force(on_disc))
    # a single pixel outside of it counts as well
    on_disc["images"][2, 0, 0] = 3 * np.sqrt(snr)
    assert_same_statistics(expectation(**on_disc), brute_force(on_disc))


@pytest.mark.parametrize("whole_square", [False, True])
def test_compile_kernels__nothing_is_left_to_compile(whole_square: bool) -> None:
    size, dispatcher = 7, cast(Any, kernels.accumulate_statistics)
    images = np.zeros((3, size, size))
    images[:, 1:, 1:] = 1
    images[1, 0, 0] = whole_square
    squares = (np.arange(size) - size // 2) ** 2
    on_disc = np.add.outer(squares, squares) <= (size // 2) ** 2
    compile_kernels(size, whole_square)
    compiled = set(dispatcher.signatures)
    prior = random_prior(size, np.random.default_rng(0))
    expectation(images, images if whole_square else images * on_disc, prior, 1.0)
    assert set(dispatcher.signatures) == compiled


@pytest.mark.parametrize("snr", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("size", [5, 8])
def test_expectation__through_spectra_matches_brute_force(
    monkeypatch: pytest.MonkeyPatch, size: int, snr: float
) -> None:
    monkeypatch.setattr(patch_blocks, "FOURIER_FROM", 0)
    given = problem(size=size, snr=snr, n_patches=19, n_rotations=5)
    assert_same_statistics(expectation(**given), brute_force(given))


@pytest.mark.parametrize("n_patches", [3, 40])
def test_expectation__routes_agree(
    monkeypatch: pytest.MonkeyPatch, n_patches: int
) -> None:
    given = problem(n_patches, n_rotations=7, size=15, snr=1.0)
    through_spectra = expectation(**given)
    monkeypatch.setattr(patch_blocks, "FOURIER_FROM", 99)
    assert_same_statistics(through_spectra, expectation(**given), 3 * ROUNDING)


@pytest.mark.slow
def test_expectation__size_of_a_large_molecule() -> None:
    # the first L whose transforms are longer than 96; a few shifts, for brevity
    size, places = 49, [(0, 0), (48, 48), (50, 50), (1, 97), (70, 3), (49, 0)]
    generator = np.random.default_rng(0)
    images = 0.05 * generator.standard_normal((2, size, size))
    patches = generator.standard_normal((3, size, size)).astype(np.float32)
    prior, rotation_prior = np.zeros((2 * size, 2 * size)), np.array([0.3, 0.7])
    prior[tuple(np.transpose(places))] = generator.dirichlet(np.ones(len(places)))
    found = expectation(patches, images, prior, 1.0, rotation_prior)

    seen = [[reference.shifted_view(image, at) for at in places] for image in images]
    distance = np.square(patches[:, None, None] - np.array(seen)).sum(axis=(3, 4))
    states = np.outer(rotation_prior, [prior[at] for at in places])
    joint = np.log(states) - (distance + size**2 * np.log(2 * np.pi)) / 2
    evidence = np.logaddexp.reduce(joint, axis=(1, 2))
    weight = np.exp(joint - evidence[:, None, None])
    assert found.log_likelihood == pytest.approx(evidence.sum(), rel=1e-7)
    assert_close(found.rotation_mass, weight.sum(axis=(0, 2)))
    mass = [found.shift_mass[at] for at in places]
    assert_close(mass, weight.sum(axis=(0, 1)))
    # only the first of these shifts shows all pixels; each shows a rectangle of them
    for k in range(2):
        visible, weighted = np.zeros((2, size, size))
        for number, (s_y, s_x) in enumerate(places):
            rows, columns = ((np.arange(size) + s) % (2 * size) for s in (s_y, s_x))
            shown = np.ix_(rows[rows < size], columns[columns < size])
            moved = np.tensordot(weight[:, k, number], patches, 1)
            visible[shown] += weight[:, k, number].sum()
            weighted[shown] += moved[np.ix_(rows < size, columns < size)]
        assert_close(found.visible_weight[k], visible)
        assert_close(found.weighted_patch[k], weighted)


@pytest.mark.parametrize("n_rotations", [1, 2, 3])
@pytest.mark.parametrize("n_patches", [1, 8, 17])
def test_expectation__any_number_of_patches_and_rotations(
    n_patches: int, n_rotations: int
) -> None:
    given = problem(n_patches, n_rotations)
    assert_same_statistics(expectation(**given), brute_force(given))


def test_expectation__uniform_rotation_prior_is_the_default() -> None:
    given = problem(n_rotations=3)
    stated = expectation(**given | {"rotation_prior": [1 / 3] * 3})
    assert_same_statistics(
        expectation(**given | {"rotation_prior": None}), stated, 1e-15
    )


def test_expectation__rotation_of_prior_zero_is_never_taken() -> None:
    given = problem(n_rotations=3) | {"rotation_prior": np.array([0.5, 0.0, 0.5])}
    found = expectation(**given)
    assert_same_statistics(found, brute_force(given))
    assert found.rotation_mass[1] == 0
    assert not found.visible_weight[1].any()


def test_expectation__shift_of_prior_zero_is_never_taken() -> None:
    given = problem(snr=100.0)
    prior = np.array(given["shift_prior"])
    prior[::2, 1:] = 0
    given["shift_prior"] = prior / prior.sum()
    found = expectation(**given)
    assert_same_statistics(found, brute_force(given))
    np.testing.assert_array_equal(found.shift_mass[prior == 0], 0)


@pytest.mark.parametrize("snr", [1.0, 100.0])
def test_expectation__patch_is_never_empty(snr: float) -> None:
    given = problem(snr=snr)
    prior = np.array(given["shift_prior"])
    prior[SIZE] = prior[:, SIZE] = 0
    given["shift_prior"] = prior / prior.sum()
    found = expectation(**given)
    assert_same_statistics(found, brute_force(given))
    assert found.empty_mass == 0


def test_expectation__patch_is_always_empty() -> None:
    given = problem()
    prior = np.zeros((2 * SIZE, 2 * SIZE))
    prior[SIZE, 0], prior[3, SIZE] = 0.75, 0.25
    given["shift_prior"] = prior
    found = expectation(**given)
    assert_same_statistics(found, brute_force(given))
    np.testing.assert_array_equal(found.visible_weight, 0)
    np.testing.assert_array_equal(found.weighted_patch, 0)
    np.testing.assert_allclose(found.rotation_mass, 11 * given["rotation_prior"])


def test_expectation__takes_no_choice_of_one() -> None:
    assert "precision" not in inspect.signature(expectation).parameters


def test_expectation__no_patches() -> None:
    found = expectation(**problem(n_patches=0))
    for field in fields(ImageStatistics):
        assert not np.any(getattr(found, field.name))


def test_expectation__constant_patch_of_zeros() -> None:
    given = problem(n_patches=9)
    given["patches"] = np.zeros((9, SIZE, SIZE), np.float32)
    found = expectation(**given)
    assert_same_statistics(found, brute_force(given))
    np.testing.assert_array_equal(found.weighted_patch, 0)


@pytest.mark.parametrize("shift", [(0, 0), (2, 3), (8, 1), (6, 9)])
def test_expectation__finds_the_only_shift_and_rotation(shift: tuple[int, int]) -> None:
    given = problem(n_patches=3, n_rotations=3, snr=1e4)
    images = np.asarray(given["images"])
    prior = np.full((2 * SIZE, 2 * SIZE), 1 / (2 * SIZE) ** 2)
    patches = np.stack([reference.shifted_view(images[1], shift)] * 3)
    found = expectation(patches, images, prior, 1.0)
    assert found.shift_mass[shift] == pytest.approx(3, rel=1e-6)
    assert found.rotation_mass[1] == pytest.approx(3, rel=1e-6)
    seen = found.visible_weight[1] > 1.5
    np.testing.assert_allclose(found.weighted_patch[1], 3 * images[1] * seen, rtol=1e-5)


@pytest.mark.parametrize("factor", [1e-6, 7.0, 1e6])
def test_expectation__units_of_the_pixels_do_not_matter(factor: float) -> None:
    given = problem()
    scaled = given | {
        "patches": np.asarray(given["patches"]) * np.float32(factor),
        "images": np.asarray(given["images"]) * factor,
        "noise_variance": factor**2,
    }
    before, after = expectation(**given), expectation(**scaled)
    for name in ("visible_weight", "shift_mass", "rotation_mass"):
        assert_close(getattr(after, name), getattr(before, name))
    assert_close(after.weighted_patch / factor, before.weighted_patch)
    change = -after.n_patches * SIZE**2 * np.log(factor)
    assert_close(after.log_likelihood, before.log_likelihood + change)


def test_expectation__reflected_problem_is_reflected() -> None:
    given = problem(snr=4.0)
    prior = np.asarray(given["shift_prior"])
    mirrored = (-np.arange(2 * SIZE)) % (2 * SIZE)
    reflected = given | {
        "patches": np.asarray(given["patches"])[:, ::-1],
        "images": np.asarray(given["images"])[:, ::-1],
        "shift_prior": prior[mirrored],
    }
    before, after = expectation(**given), expectation(**reflected)
    assert_close(after.visible_weight[:, ::-1], before.visible_weight)
    assert_close(after.weighted_patch[:, ::-1], before.weighted_patch)
    assert_close(after.shift_mass[mirrored], before.shift_mass)


@pytest.mark.parametrize("snr", [0.01, 1.0, 1e4])
def test_expectation__posterior_sums_to_one(snr: float) -> None:
    found = expectation(**problem(n_patches=600, snr=snr))
    assert found.shift_mass.sum() == pytest.approx(600, rel=1e-6)
    assert found.rotation_mass.sum() == pytest.approx(600, rel=1e-6)
    visible_mass = np.zeros((SIZE, SIZE))
    for y, x in np.ndindex(SIZE, SIZE):
        rows, columns = (np.arange(z - SIZE + 1, z + 1) % (2 * SIZE) for z in (y, x))
        visible_mass[y, x] = found.shift_mass[np.ix_(rows, columns)].sum()
    assert_close(found.visible_weight.sum(axis=0), visible_mass)


def test_expectation__blocks_of_patches() -> None:
    given = problem(n_patches=521)
    patches = np.asarray(given["patches"])
    found = expectation(**given)
    parts = [expectation(**given | {"patches": p}) for p in np.split(patches, [7, 300])]
    assert_same_statistics(found, parts[0] + parts[1] + parts[2])
    assert found.n_patches == 521


@pytest.mark.parallel
def test_expectation__threads_do_not_change_a_bit() -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    given = problem(n_patches=1100)
    before = numba.get_num_threads()
    alone, together = (expectation(**given, threads=n) for n in (1, 2))
    assert_identical_statistics(alone, together)
    assert numba.get_num_threads() == before


def test_expectation__leaves_its_input_alone() -> None:
    given = problem()
    kept = {name: np.copy(value) for name, value in given.items()}
    expectation(**given)
    for name, value in given.items():
        np.testing.assert_array_equal(value, kept[name])


def test_expectation__converts_type_and_layout() -> None:
    given = problem()
    patches = np.asarray(given["patches"])
    wanted = expectation(**given)
    wide = np.repeat(patches.astype(float), 2, axis=2)
    for layout in (wide[:, :, ::2], np.asfortranarray(patches), patches.tolist()):
        assert_identical_statistics(expectation(**given | {"patches": layout}), wanted)


def test_expectation__says_how_far_it_is() -> None:
    told: list[float] = []
    expectation(**problem(n_patches=1100), threads=1, on_progress=told.append)
    assert told == pytest.approx([block / 18 for block in range(1, 19)])


@pytest.mark.parametrize("snr", [0.01, 1.0, 30.0])
def test_expectation__loses_no_more_than_allowed(snr: float) -> None:
    given = problem(n_patches=40, n_rotations=30, snr=snr)
    dense = expectation(**given)
    given_each = [given | {"patches": [p]} for p in np.asarray(given["patches"])]
    for one in given_each:
        exact, pruned = expectation(**one), expectation(**one, lost_mass=1e-4)
        lost = exact.visible_weight - pruned.visible_weight
        assert lost.min() >= -1e-6
        # a shift shows a pixel at most once
        assert lost.sum(axis=0).max() <= 1e-4 + 1e-6
        assert_close(pruned.shift_mass, exact.shift_mass, 1e-7)
        assert pruned.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-9)
    pruned = expectation(**given, lost_mass=1e-4)
    lost = dense.visible_weight.sum(axis=0) - pruned.visible_weight.sum(axis=0)
    assert lost.max() <= 40 * 1e-4


@pytest.mark.parametrize("snr", [1.0, 100.0, 1e4])
def test_expectation__no_denormal_results(snr: float) -> None:
    given = problem(n_patches=40, snr=snr)
    found = expectation(**given)
    smallest = float(np.finfo(np.float32).tiny)
    table = shift_posterior(**given)
    for values in (*(getattr(found, f.name) for f in fields(found)), table):
        size = np.abs(values)
        assert not ((size > 0) & (size < smallest)).any()


def steep_problem(size: int, share: float) -> dict[str, Any]:
    """One patch that shows its particle, log-weights a share of the largest allowed."""
    given = problem(1, n_rotations=2, size=size)
    image, prior = given["images"][:1], np.zeros((2 * size, 2 * size))
    prior[0, 0], prior[1, 0], prior[size, size] = 0.5, 0.4, 0.1
    energy = strongest_patch(image.astype(np.float32)) ** 2
    shown = image + np.sqrt(energy / LARGEST_EXPONENT) * given["patches"]
    return given | {
        "patches": shown.astype(np.float32),
        "images": np.concatenate([image, image * 0.7]),
        "shift_prior": prior,
        "noise_variance": energy / (2 * share * LARGEST_EXPONENT),
    }


@pytest.mark.parametrize("size", [5, 11, 13])
def test_expectation__steep_likelihood_is_right(size: int) -> None:
    given = steep_problem(size, share=0.98)
    found = expectation(**given)
    joint = [
        np.log(given["shift_prior"][shift] * given["rotation_prior"][k])
        - np.square(given["patches"] - reference.shifted_view(image, shift)).sum()
        / (2 * given["noise_variance"])
        for k, image in enumerate(given["images"])
        for shift in ((0, 0), (1, 0), (size, size))
    ]
    constant = size**2 / 2 * np.log(2 * np.pi * given["noise_variance"])
    wanted = np.logaddexp.reduce(joint) - constant
    assert found.log_likelihood == pytest.approx(wanted, abs=2 * TOLERANCE)
    assert found.rotation_mass == pytest.approx([1, 0], abs=1e-6)


def test_expectation__likelihood_too_steep_for_float32() -> None:
    with pytest.raises(InputError, match="pixels of the order of the noise") as error:
        expectation(**steep_problem(SIZE, share=1.1))
    assert "patches and images: " in str(error.value)
    assert "at most 5.6e+05, found 6.2e+05 at noise_variance" in str(error.value)


def test_expectation__bright_patch_under_faint_images_is_exact_enough() -> None:
    given = problem()
    given["patches"][3, 1, 2] = 1e5
    found = expectation(**given)
    assert found.rotation_mass.sum() == pytest.approx(11, rel=1e-6)


def test_shift_posterior__matches_brute_force() -> None:
    given = problem(n_patches=19)
    joint = reference.joint_log_probabilities(**given)
    weight, _ = reference.posterior(joint)
    found = shift_posterior(**given)
    assert found.shape == (19, 2 * SIZE, 2 * SIZE)
    assert_close(found, weight.sum(axis=1))


def test_shift_posterior__agrees_with_the_sums() -> None:
    given = problem(n_patches=600, snr=10.0)
    found = shift_posterior(**given)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert_close(found.sum(axis=0), expectation(**given).shift_mass)


def test_statistics__sum_needs_the_same_images() -> None:
    one = expectation(**problem(n_rotations=2))
    with pytest.raises(InputError, match=r"statistics: expected [a-z_]+ of shape"):
        one + expectation(**problem(n_rotations=4))
    with pytest.raises(TypeError):
        one + 1  # type: ignore[operator]


PROGRAM = """
import sys
import numpy as np
from numbasaem.observations.patch_expectation import expectation
from numbasaem.kernels import llvm as vectors
given = dict(np.load(sys.argv[1]))
given["noise_variance"] = float(given["noise_variance"])
found = expectation(**given)
np.savez(sys.argv[2], lanes=vectors.LANES, **vars(found))
"""


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """The same E-step, started first, so that it compiles while other tests run."""
    folder = tmp_path_factory.mktemp("widths")
    given = problem(n_patches=37, n_rotations=5)
    with programs_of_other_widths(folder, PROGRAM, given) as programs:
        yield programs


@pytest.mark.parametrize("lanes", WIDTHS)
def test_expectation__other_vector_widths_agree(programs, lanes: int) -> None:
    process, path = programs[lanes]
    assert process.wait(timeout=300) == 0
    found = dict(np.load(path))
    assert found.pop("lanes") == lanes
    assert_same_statistics(
        ImageStatistics(**found), expectation(**problem(n_patches=37, n_rotations=5))
    )


# --- what is refused ---------------------------------------------------------------


def with_pixel(value: float) -> NDArray[np.float64]:
    patches = np.zeros((2, SIZE, SIZE))
    patches[1, 2, 3] = value
    return patches


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"patches": np.zeros((3, SIZE, 6))}, r"patches: expected shape \(P, 5, 5\)"),
        ({"patches": np.zeros((SIZE, SIZE))}, r"patches: expected shape"),
        ({"patches": with_pixel(np.nan)}, "patches: expected finite pixels"),
        ({"patches": with_pixel(-np.inf)}, "patches: expected finite pixels"),
        ({"patches": with_pixel(1e39)}, "patches: expected finite pixels"),
        ({"images": np.zeros((2, SIZE, 6))}, r"images: expected shape \(K, L, L\)"),
        ({"images": np.zeros((SIZE, SIZE))}, r"images: expected shape \(K, L, L\)"),
        ({"images": np.zeros((0, SIZE, SIZE))}, "images: expected at least one"),
        ({"images": np.zeros((1, 129, 129))}, "images: expected at most 128 x 128"),
        ({"images": with_pixel(np.nan)}, "images: expected finite pixels"),
        ({"shift_prior": np.full((5, 5), 1 / 25)}, r"shift_prior: .* \(10, 10\)"),
        ({"shift_prior": np.full((10, 10), 0.02)}, "shift_prior: expected a sum of 1"),
        ({"shift_prior": np.full((10, 10), np.nan)}, "shift_prior: expected prob"),
        ({"rotation_prior": [1.0]}, r"rotation_prior: expected shape \(4,\)"),
        ({"rotation_prior": [1.5, -0.5, 0, 0]}, "rotation_prior: expected prob"),
        ({"noise_variance": -1.0}, "noise_variance: expected a positive number"),
        ({"noise_variance": 0.0}, "noise_variance: expected a positive number"),
        ({"noise_variance": np.nan}, "noise_variance: expected a positive number"),
        ({"threads": 0}, "threads: expected a number from 1"),
        ({"threads": 100_000}, "threads: expected a number from 1"),
        ({"lost_mass": 1.0}, "lost_mass: expected a share"),
        ({"lost_mass": np.nan}, "lost_mass: expected a share"),
    ],
)
def test_expectation__unusable_input(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        expectation(**problem() | changed)
    assert len(str(error.value).splitlines()) == 1
