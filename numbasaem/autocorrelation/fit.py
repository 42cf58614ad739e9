"""The volume, the density and the noise variance that explain autocorrelations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares
from threadpoolctl import threadpool_limits

from numbasaem.errors import expected, warn
from numbasaem.geometry.grids import distances, offsets
from numbasaem.random_streams import Stream, random_stream
from numbasaem.volume.basis import VolumeBasis

from .lags import lags_within
from .model import model_of
from .moments import Autocorrelations
from .residuals import Residuals, noise_in_orders

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LARGEST_MISFIT = 1.2
"""Misfit, in standard deviations, up to which a fit explains the autocorrelations.

Where the model holds it is 1, or less for autocorrelations without noise; that blocks
are few makes it 1.1.
"""
_FIRST_DEGREE = 2
"""Degree at which the march begins."""
_STEPS, _LAST_STEPS = 100, 300
"""Most steps of a fit, and of the last one of a start."""
_TOLERANCE = 1e-8
"""Relative change of the misfit, or of the unknowns, at which a fit ends."""
_BLOB_WIDTH = 0.2
"""Deviation of the Gaussian that a start is made of, in boxes."""
_RANDOM_SHARE = 0.5
"""Norm of what is random in a start, over that of the Gaussian."""
_NEW_DEGREE = 0.3
"""Deviation of a new degree's first coefficients, over that of the others."""


@dataclass(frozen=True)
class AutocorrelationFit:
    """What explains autocorrelations best.

    Attributes
    ----------
    volume_coefficients : float64, shape (M,)
        Volume coefficients x, up to a rotation and the hand.
    density : float
        Particles a pixel, rho.
    noise_variance : float
        Variance of the noise, sigma squared.
    misfit : float
        Root mean square of the differences, in standard deviations.
    misfits : tuple of float
        That of every start, in their order; the least of them is `misfit`.
    surroundings : tuple of float
        What a particle sees of others, over the mean of all pixels, in the functions
        of :mod:`numbasaem.autocorrelation.surroundings`; none where it was not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from numbasaem import AutocorrelationFit
    >>> AutocorrelationFit(np.ones(1), 0.001, 1.0, 7.0, (7.0, 9.0)).stalled
    True
    """

    volume_coefficients: NDArray[np.float64]
    density: float
    noise_variance: float
    misfit: float
    misfits: tuple[float, ...]
    surroundings: tuple[float, ...] = ()

    @property
    def stalled(self) -> bool:
        """Whether the fit leaves differences that no noise explains."""
        return self.misfit > LARGEST_MISFIT


def fit_autocorrelations(
    moments: Autocorrelations,
    basis: VolumeBasis,
    *,
    n_starts: int = 5,
    seed: int = 0,
    surroundings: bool | None = False,
) -> AutocorrelationFit:
    r"""Fit volume, density and noise variance to autocorrelations.

    Parameters
    ----------
    moments : Autocorrelations
        Autocorrelations of micrographs whose particles keep 2 L - 1 apart, or L with
        `surroundings`.
    basis : VolumeBasis
        Functions that span the volume, of the same size.
    n_starts : int
        Number of random first volumes; the fit that is closest is taken.
    seed : int
        Seed of their random numbers.
    surroundings : bool, optional
        Whether to fit, too, what a particle sees of others around it on the average;
        None: if the fit stalls without.

    Returns
    -------
    AutocorrelationFit
        The best fit.

    Raises
    ------
    InputError
        If sizes differ, there is no start, or the autocorrelations are those of fewer
        pixels than the third order has values, or of no particles.

    Warns
    -----
    RunWarning
        If even the best fit has stalled; the line says its misfit.

    Notes
    -----
    The sum over all values of ((a - model) / error)^2 is minimized by Levenberg and
    Marquardt's method with exact derivatives. The first two orders begin, which tell
    the volume up to turns of each degree, at degree 2; the third joins; then degrees
    are added one by one.

    Without `surroundings`, the noise takes what touching particles share: where boxes
    jam at SNR 5, its variance comes out a third too large.

    Examples
    --------
    >>> from numbasaem import VolumeBasis, fit_autocorrelations
    >>> from numbasaem.autocorrelation.fit import autocorrelations_of_volume
    >>> basis = VolumeBasis(size=5, ell_max=2)
    >>> x = [3.0, 1.0, 0.5, 0.2, 0.4, 0.1, 0.6, 0.3, 0.2]
    >>> moments = autocorrelations_of_volume(basis, x, density=0.005)
    >>> fit = fit_autocorrelations(moments, basis)
    >>> fit.stalled, round(fit.density, 4)
    (False, 0.005)
    """
    _check(moments, basis, n_starts)
    fit = _best_fit(moments, basis, n_starts, seed, bool(surroundings))
    if fit.stalled and surroundings is None:
        with_others = _best_fit(moments, basis, n_starts, seed, True)
        fit = min(fit, with_others, key=lambda each: each.misfit)
    if fit.stalled:
        warn(
            f"the fit of autocorrelations stalled {fit.misfit:.3g} standard deviations "
            f"from them, at best of {n_starts}: its volume does not explain them"
        )
    return fit


def fit_two_orders(moments: Autocorrelations, *, seed: int = 0) -> AutocorrelationFit:
    """Fit density and noise variance to the first two orders alone.

    Parameters
    ----------
    moments : Autocorrelations
        Autocorrelations of micrographs whose particles keep 2 L - 1 apart, of at least
        two orders; the first is above 0.
    seed : int
        Seed of the first volume's random numbers.

    Returns
    -------
    AutocorrelationFit
        The fit, with a volume of degree 2 that is known up to turns of each degree.
    """
    basis = VolumeBasis(moments.size, _FIRST_DEGREE)
    with threadpool_limits(1):
        problem = Residuals(moments, model_of(basis, n_orders=2))
        generator = random_stream(seed, Stream.MOMENTS, 0)
        unknowns = _fit_of_two_orders(problem, basis, generator)
        misfit = problem.misfit(unknowns)
    return AutocorrelationFit(*problem.split(unknowns), misfit, (misfit,))


def _best_fit(
    moments: Autocorrelations,
    basis: VolumeBasis,
    n_starts: int,
    seed: int,
    surroundings: bool,
) -> AutocorrelationFit:
    """The closest of the fits of all starts."""
    with threadpool_limits(1):  # products are small, and bits the same anywhere
        problem = Residuals(moments, model_of(basis), surroundings)
        fits = [
            _fit_from(problem, basis, random_stream(seed, Stream.MOMENTS, number))
            for number in range(n_starts)
        ]
        misfits = tuple(problem.misfit(unknowns) for unknowns in fits)
    best = int(np.argmin(misfits))
    around = tuple(problem.around(fits[best]).tolist())
    return AutocorrelationFit(
        *problem.split(fits[best]), misfits[best], misfits, around
    )


def _check(moments: Autocorrelations, basis: VolumeBasis, n_starts: int) -> None:
    if basis.size != moments.size:
        raise expected("basis", f"the size {moments.size} of the moments", basis.size)
    if n_starts < 1:
        raise expected("n_starts", "at least 1", n_starts)
    least = len(lags_within(moments.size).first)
    if moments.n_pixels < least:
        wanted = f"at least {least} pixels, one for each value of the third order"
        raise expected("moments", wanted, moments.n_pixels)
    if not moments.first > 0:
        wanted = "particles brighter than their background, 0"
        raise expected("moments", wanted, f"a mean of {moments.first:.3g}")


def _fit_from(
    problem: Residuals, basis: VolumeBasis, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Unknowns that one random start leads to, degree by degree."""
    unknowns = _fit_of_two_orders(problem, basis, generator)
    for degree in range(min(_FIRST_DEGREE, basis.ell_max), basis.ell_max + 1):
        unknowns = _with_degree(problem, unknowns, basis, degree, generator)
        steps = _LAST_STEPS if degree == basis.ell_max else _STEPS
        unknowns = _solved(problem, unknowns, 3, steps)
    return unknowns


def _fit_of_two_orders(
    problem: Residuals, basis: VolumeBasis, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Unknowns, of the march's first degree, closest to the first two orders."""
    first = min(_FIRST_DEGREE, basis.ell_max)
    return _solved(problem, _start(problem, basis, generator, first), 2, _STEPS)


def _start(
    problem: Residuals,
    basis: VolumeBasis,
    generator: np.random.Generator,
    degree: int,
) -> NDArray[np.float64]:
    """A Gaussian and random coefficients, as high as the first two orders have it."""
    functions = VolumeBasis(basis.size, degree)
    radii = distances(offsets(basis.size)) / basis.size
    blob = functions.expand(np.exp(-((radii / _BLOB_WIDTH) ** 2) / 2))
    random = generator.standard_normal(blob.size)
    random[: functions.radial_counts[0]] = 0
    norms = [float(np.linalg.norm(each)) for each in (blob, random)]
    volume = blob
    if norms[1] > 0:
        volume = blob + _RANDOM_SHARE * norms[0] / norms[1] * random
    padded = np.zeros(basis.n_coefficients)
    padded[: volume.size] = volume
    (first,), second, *_ = problem.model.values(padded)
    # a_1 goes as density times height, a_2 as density times height squared.
    ratio = np.linalg.norm(problem.second) / np.linalg.norm(second[1:])
    height = ratio * first / problem.first
    density = problem.first / (height * first)
    around = np.repeat([1.0, 0.0], problem.n_around // 2)
    return np.concatenate([height * volume, around, [np.log(density), 0.5]])


def _with_degree(
    problem: Residuals,
    unknowns: NDArray[np.float64],
    basis: VolumeBasis,
    degree: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Unknowns with small random coefficients for what a degree adds."""
    volume = problem.volume(unknowns)
    rest = unknowns[volume.size :]
    n_new = VolumeBasis(basis.size, degree).n_coefficients - volume.size
    deviation = _NEW_DEGREE * np.sqrt(np.mean(volume**2))
    return np.concatenate([volume, deviation * generator.standard_normal(n_new), rest])


def _solved(
    problem: Residuals, unknowns: NDArray[np.float64], n_orders: int, steps: int
) -> NDArray[np.float64]:
    """Unknowns closest to the first orders, as far as so many steps lead."""
    solution = least_squares(
        problem.residuals,
        unknowns,
        problem.jacobian,
        args=(n_orders,),
        x_scale="jac",
        max_nfev=steps,
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
    )
    return np.asarray(solution.x)


def autocorrelations_of_volume(
    basis: VolumeBasis,
    coefficients: ArrayLike,
    density: float,
    noise_variance: float = 0.0,
    error: float = 1e-3,
) -> Autocorrelations:
    """Autocorrelations as the model has them, without scatter.

    Parameters
    ----------
    basis : VolumeBasis
        Functions that span the volume.
    coefficients : array, shape (M,)
        Volume coefficients.
    density : float
        Particles a pixel.
    noise_variance : float
        Variance of the noise.
    error : float
        Standard deviation that each value is given, over the root mean square of its
        order.

    Returns
    -------
    Autocorrelations
        Those of a million pixels.
    """
    n_pixels = 1_000_000
    particle = model_of(basis).values(np.asarray(coefficients, np.float64))
    signal = density * np.concatenate(particle)
    values = signal + noise_variance * np.concatenate(
        noise_in_orders(basis.size, signal[0])
    )
    exact = Autocorrelations(
        basis.size, n_pixels, values * n_pixels, np.zeros(values.size)
    )
    errors = [
        np.full(order.size, error * np.sqrt(np.mean(order**2)))
        for order in exact.by_order(values)
    ]
    return replace(exact, scatter=(np.concatenate(errors) * n_pixels) ** 2)
