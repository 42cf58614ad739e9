"""What particles around a particle add to autocorrelations, and fits that allow it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from numbasaem import VolumeBasis, autocorrelations, simulate
from numbasaem.autocorrelation.fit import (
    autocorrelations_of_volume,
    fit_autocorrelations,
)
from numbasaem.autocorrelation.lags import Lags, lags_within
from numbasaem.autocorrelation.model import AutocorrelationModel
from numbasaem.autocorrelation.surroundings import (
    pair_matrices,
    surrounding_functions,
)
from numbasaem.errors import RunWarning
from numbasaem.volume.phantom import folded_chain
from tests.helpers import Array, all_rotations, assert_close, random_coefficients

SIZE = 5
PLACES = ((5, 2), (-5, -2))
"""Displacements of particles that occur, each as often: g, even."""


def with_particle(image: Array, place: tuple[int, int] = (0, 0)) -> Array:
    """A micrograph, 5 L a side, with one particle off its middle."""
    micrograph = np.zeros((5 * SIZE, 5 * SIZE))
    y, x = (5 * SIZE // 2 + along - SIZE // 2 for along in place)
    micrograph[y : y + SIZE, x : x + SIZE] = image
    return micrograph


def at_lags(micrograph: Array, lags: Lags) -> Array:
    """Copies of a micrograph, shifted by each lag."""
    return np.array(
        [np.roll(micrograph, (-y, -x), (0, 1)).ravel() for y, x in lags.single]
    )


def pair_sums(a: Array, b: Array, lags: Lags) -> tuple[Array, Array]:
    """Sums of a pixel of each of two, and of two of the first, one of the second."""
    first, second = lags.first, lags.second
    inside = (a[0] * a) @ b.T
    third = inside[first, second] + inside[second, first]
    third += ((b[0] * a) @ a.T)[first, second]
    return b @ a[0], third


def test_pair_matrices__match_sums_over_all_pairs() -> None:
    basis = VolumeBasis(SIZE, 2)
    x = random_coefficients(basis)
    lags = lags_within(SIZE)
    (views, weights), (other_views, other_weights) = map(all_rotations, (4, 2))
    others = basis.project(x, other_views)
    neighbours = [
        (weight, at_lags(with_particle(image, place), lags))
        for weight, image in zip(other_weights, others, strict=True)
        for place in PLACES
    ]
    second = np.zeros(len(lags.single))
    third = np.zeros(len(lags.first))
    for weight, image in zip(weights, basis.project(x, views), strict=True):
        particle = at_lags(with_particle(image), lags)
        for other_weight, neighbour in neighbours:
            of_two, of_three = pair_sums(particle, neighbour, lags)
            second += weight * other_weight * of_two
            third += weight * other_weight * of_three
    mean = np.tensordot(other_weights, others, 1)
    around = np.array([with_particle(mean, place) for place in PLACES]).sum(axis=0)
    model = AutocorrelationModel(basis)
    invariants = model.invariants(x)
    matrices = pair_matrices(model, around[np.newaxis])
    assert_close(matrices[1][:, 0] @ invariants[0], second, 1e-10)
    assert_close(matrices[2][:, 0] @ invariants[1], third, 1e-10)


def test_surrounding_functions__rise_to_one_beyond_the_particle() -> None:
    functions = surrounding_functions(SIZE)
    middle = 2 * SIZE
    round_ones, squares = np.split(functions, 2)
    profile = round_ones.sum(axis=0)[middle, middle:]
    assert profile[SIZE // 2] == 0
    assert np.all(np.diff(profile) >= 0)
    np.testing.assert_allclose(profile[SIZE:], 1, atol=1e-12)
    along, across = squares[:, middle, middle:], squares[:, middle:, middle]
    np.testing.assert_allclose(along, across)
    np.testing.assert_allclose(along, round_ones[:, middle, middle:])
    diagonal = np.arange(middle, 4 * SIZE)
    assert_close(squares[:, diagonal, diagonal], -round_ones[:, diagonal, diagonal])


def test_fit__finds_what_a_particle_sees_of_others() -> None:
    basis = VolumeBasis(7, 2)
    x = basis.expand(folded_chain(7))
    alone = autocorrelations_of_volume(basis, x, 0.006, 0.2)
    around = np.array([0.3, 1.2, 0.9, 0.0, 0.2, -0.1])
    model = AutocorrelationModel(basis)
    functions = surrounding_functions(7)
    pairs = [
        0.006 * alone.first * np.tensordot(matrix, around, (1, 0)) @ below
        for matrix, below in zip(
            pair_matrices(model, functions)[1:], model.invariants(x), strict=False
        )
    ]
    added = np.concatenate([[0.0], *pairs]) * alone.n_pixels
    moments = replace(alone, sums=alone.sums + added)
    fit = fit_autocorrelations(moments, basis, n_starts=1, surroundings=True)
    assert not fit.stalled
    assert fit.density == pytest.approx(0.006, rel=1e-2)
    np.testing.assert_allclose(fit.surroundings, around, atol=0.02)
    with pytest.warns(RunWarning, match="stalled"):
        without = fit_autocorrelations(moments, basis, n_starts=1)
    assert without.surroundings == ()


def test_fit__explains_a_micrograph_of_touching_particles() -> None:
    sample = simulate(
        folded_chain(7),
        size=7,
        pixels=900,
        snr=5,
        ell_max=2,
        spacing="arbitrary",
        density=0.4,
    )
    moments = autocorrelations(sample.micrographs, 7)
    basis = VolumeBasis(7, 2)
    fit = fit_autocorrelations(moments, basis, n_starts=1, surroundings=True)
    assert not fit.stalled
    density = sample.placed[0] / sample.micrographs[0].size
    assert fit.density == pytest.approx(density, rel=0.02)
    assert fit.noise_variance == pytest.approx(sample.noise_variance, rel=0.02)
    with pytest.warns(RunWarning, match="stalled"):
        without = fit_autocorrelations(moments, basis, n_starts=1)
    assert without.noise_variance > 1.1 * sample.noise_variance
    needed = fit_autocorrelations(moments, basis, n_starts=1, surroundings=None)
    assert needed.surroundings == fit.surroundings


def test_pair_matrices__of_no_functions_take_no_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fits of two orders, with which every run begins, have none at any size."""
    monkeypatch.delattr("numbasaem.autocorrelation.surroundings._PairSums")
    model = AutocorrelationModel(VolumeBasis(SIZE, 2))
    matrices = pair_matrices(model, surrounding_functions(SIZE)[:0])
    for order, matrix in zip(model.orders, matrices, strict=True):
        assert matrix.shape[:2] == (len(order.to_values), 0)
