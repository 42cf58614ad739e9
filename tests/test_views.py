"""The prior of view directions, learned with the volume."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from numbasaem import Settings, reconstruct, simulate
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.geometry.views import view_kernel
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.patch_data import Patches, load_patches
from numbasaem.reconstruction.driver import Callbacks, run_all
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.journal import Journal
from numbasaem.reconstruction.starts import random_start
from numbasaem.reconstruction.state import RunState
from numbasaem.reconstruction.view_prior import moved_view_weights, rotation_prior
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.phantom import folded_chain
from tests.helpers import Interruption, noise

SIZE = 9


def micrographs(preferred: float) -> list[NDArray[np.float32]]:
    plan = SimulationSettings(
        size=SIZE, pixels=500, snr=5, ell_max=4, preferred=preferred, seed=2
    )
    return simulate(folded_chain(SIZE), plan).micrographs


def run(preferred: float, settings: Settings) -> RunState:
    data = load_patches(micrographs(preferred), settings, lambda *_: None)
    journal = Journal(None, False, {})
    silent = Callbacks(None, lambda *_: None)
    run_all(journal, {"full": data.part(None, None)}, settings, silent)
    return journal.runs["full"]


def learning(**changes: object) -> Settings:
    return Settings(
        size=SIZE,
        model="patch",
        ell_max=(4,),
        iterations=(25,),
        rotations=216,
        batching="full",
        starts=1,
        halves=False,
        views="learned",
    ).model_copy(update=changes)


def largest_share(prior: NDArray[np.float64]) -> float:
    """Largest probability of any cone of 60 degrees, a quarter of the sphere."""
    directions = ViewGrid(len(prior)).rotations[:, 2]
    return float(((directions @ directions.T > 0.5) @ prior).max())


@pytest.mark.parametrize("n", [8, 24, 150])
def test_kernel__is_a_distribution_about_each_direction(n: int) -> None:
    kernel = view_kernel(ViewGrid(n), ViewGrid(n))
    np.testing.assert_allclose(kernel.sum(axis=0), 1)
    assert (np.diag(kernel) == kernel.max(axis=0)).all()


def test_kernel__carries_a_prior_to_a_finer_grid() -> None:
    finer = view_kernel(ViewGrid(600), ViewGrid(216)) @ weights_towards_z(216)
    np.testing.assert_allclose(finer.sum(), 1)
    assert finer[ViewGrid(600).directions[:, 2] > 0.5].sum() > 0.9


def weights_towards_z(n_rotations: int) -> NDArray[np.float64]:
    """Weights of view directions within 37 degrees of the axis and of no others."""
    weights = (ViewGrid(n_rotations).directions[:, 2] > 0.8).astype(float)
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize("n_rotations", [100, 216, 600])
def test_moved_weights__stay_with_their_view_directions(n_rotations: int) -> None:
    moved = moved_view_weights(
        weights_towards_z(216), ViewGrid(216), ViewGrid(n_rotations)
    )
    assert moved.shape == (ViewGrid(n_rotations).n_views,)
    np.testing.assert_allclose(moved.sum(), 1)
    within_60_degrees = ViewGrid(n_rotations).directions[:, 2] > 0.5
    assert moved[within_60_degrees].sum() > 0.9


class PatchesThatListen(Patches):
    """Patches that keep the prior of the first E-step and end the run with it."""

    rotation_prior: NDArray[np.float64] | None = None

    def expectation(
        self, chosen: object, hypotheses: Hypotheses, *_: object
    ) -> ImageStatistics:
        self.rotation_prior = hypotheses.rotation_prior
        raise Interruption


def test_next_stage__begins_with_the_views_that_were_learned() -> None:
    """On more rotations than the stage before, which has done all its iterations."""
    settings = learning(ell_max=(3, 4), iterations=(5, 5), rotations=(100, 216))
    data = PatchesThatListen(noise(8, SIZE, SIZE))
    state = random_start(data, settings, 0, 0)
    state.iteration = 5
    state.view_weights = weights_towards_z(100)
    with pytest.raises(Interruption):
        next(iterations(state, data, settings, n_stages=2))
    assert state.stage == 1
    assert data.rotation_prior is not None
    assert data.rotation_prior.shape == (len(ViewGrid(216)),)
    assert largest_share(data.rotation_prior) > 0.6  # a quarter if all were alike


def test_likelihood__never_falls_while_views_are_learned() -> None:
    rows = run(0.7, learning(over_relaxation=1.0)).history
    likelihoods = np.array([row.log_likelihood_per_patch for row in rows])
    q = np.array([row.q_per_patch for row in rows])
    assert np.diff(likelihoods).min() > -1e-5
    assert (q <= likelihoods + 1e-6).all()  # the entropy of the posterior is left out


def test_prior__finds_the_preferred_views_and_no_others() -> None:
    """Of the particles, 77 % lie within 60 degrees of the axis; the grid blurs it."""
    settings = learning()
    views = ViewGrid(216)
    uneven = rotation_prior(run(0.7, settings), views, settings)
    even = rotation_prior(run(0.0, settings), views, settings)
    assert uneven is not None
    assert even is not None
    assert largest_share(uneven) > 0.5
    assert largest_share(even) < 0.35


def test_reconstruct__takes_views_from_settings() -> None:
    plan = learning(iterations=(2,), halves=True)
    assert reconstruct(micrographs(0.0), plan).settings.views == "learned"
