"""State of a run and the record of its iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RunPlace:
    """Where a run stands among all the runs of a reconstruction.

    Attributes
    ----------
    run : str
        Name of the run, as in :class:`Iteration`.
    n_before : int
        Number of iterations done before those of this run, over all runs.
    total : int
        Number of iterations planned, over all runs.
    """

    run: str = "full"
    n_before: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration of a run, as it is recorded and reported.

    Attributes
    ----------
    run : str
        "full", "half1" or "half2"; with "-start0" and so on for the random starts
        that are tried first.
    stage, n_stages : int
        Stage of frequency marching, from 0, and the number of stages.
    ell_max : int
        Highest degree of the stage.
    iteration, n_iterations : int
        Iteration within the stage, from 1, and the number of iterations in it.
    total_done, total : int
        Number of iterations done and planned, over all runs and stages.
    evidence_per_patch : float
        Log-likelihood of the patches seen less that of white noise alone, under the
        estimate before the iteration; see :attr:`Statistics.evidence`.
    log_likelihood_per_patch : float
        Log-likelihood of the patches seen; it fluctuates with the energy of their
        pixels.
    held_out_evidence_per_patch : float or None
        The same of data that no step sees, under the mean of the latest volumes, after
        the iteration; None where none are held out.
    q_per_patch : float
        Q of equation (25) per patch, at the estimate before the iteration.
    noise_variance : float
        Noise variance after the iteration.
    empty_fraction : float
        Share of patches without a particle.
    volume_change : float
        Relative change of the volume's coefficients.
    seconds : float
        Wall time of the iteration.
    n_unconstrained : int
        Number of dimensions of the volume that no patch of the iteration constrains.
    """

    run: str
    stage: int
    n_stages: int
    ell_max: int
    iteration: int
    n_iterations: int
    total_done: int
    total: int
    evidence_per_patch: float
    held_out_evidence_per_patch: float | None
    log_likelihood_per_patch: float
    q_per_patch: float
    noise_variance: float
    empty_fraction: float
    volume_change: float
    seconds: float
    n_unconstrained: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a run has found, at one moment.

    Attributes
    ----------
    volume_coefficients : float64, shape (M,)
        Volume, in the basis of the current stage.
    shift_prior : float64, shape (2L, 2L)
        Its rho.
    noise_variance : float
        Its sigma**2.
    """

    volume_coefficients: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float


@dataclass
class RunState:
    """Everything a run needs to go on exactly as if it had never stopped.

    Attributes
    ----------
    volume_coefficients : float64, shape (M,)
        Current estimate, in the basis of the current stage.
    shift_prior : float64, shape (2L, 2L)
        Current rho.
    noise_variance : float
        Current sigma**2.
    view_mass : float64, shape (n_views,)
        Posterior of each view direction, summed over the particles in the patches of
        the current stage's iterations.
    view_weights : float64, shape (n_views,)
        Current prior of view directions, as weights of the columns of
        :func:`numbasaem.geometry.views.view_kernel`.
    generator : numpy.random.Generator
        Draws the minibatches.
    stage, iteration : int
        Current stage, and the number of iterations done in it.
    step : float
        Pace of the volume, where it is adapted, in units of EM's: below 1 the length of
        its steps, above it what momentum makes of steps of EM.
    em_step : float64, shape (M,)
        Last step of EM in the current stage; zero before the first.
    last_move : float64, shape (M,)
        Last move of the volume in the current stage; zero before the first.
    mean_volume : float64, shape (M,)
        Mean of the latest volumes, which forgets with the factor 0.8 an iteration.
    best : Estimate or None
        What held-out data liked best in the current stage; None where none are held out
        or before the first iteration.
    minibatches : dict
        State of the batching scheme.
    history : list of Iteration
        What happened so far.
    """

    volume_coefficients: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    view_mass: NDArray[np.float64]
    view_weights: NDArray[np.float64]
    generator: np.random.Generator
    stage: int
    iteration: int
    step: float
    em_step: NDArray[np.float64]
    last_move: NDArray[np.float64]
    mean_volume: NDArray[np.float64]
    best: Estimate | None
    minibatches: dict[str, object]
    history: list[Iteration]
