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

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .model import AutocorrelationModel

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
_FINEST = 1e-6
"""Least error of a value, over the root mean square of its order: rounding."""
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
) -> AutocorrelationFit:
    r"""Fit volume, density and noise variance to autocorrelations.

    Parameters
    ----------
    moments : Autocorrelations
        Autocorrelations of micrographs whose particles keep 2 L - 1 apart.
    basis : VolumeBasis
        Functions that span the volume, of the same size.
    n_starts : int
        Number of random first volumes; the fit that is closest is taken.
    seed : int
        Seed of their random numbers.

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
    with threadpool_limits(1):  # products are small, and bits the same anywhere
        problem = _Problem(moments, model_of(basis))
        fits = [
            _fit_from(problem, basis, random_stream(seed, Stream.MOMENTS, number))
            for number in range(n_starts)
        ]
        misfits = tuple(problem.misfit(unknowns) for unknowns in fits)
    best = int(np.argmin(misfits))
    coefficients, density, noise_variance = problem.split(fits[best])
    fit = AutocorrelationFit(
        coefficients, density, noise_variance, misfits[best], misfits
    )
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
        problem = _Problem(moments, model_of(basis, n_orders=2))
        generator = random_stream(seed, Stream.MOMENTS, 0)
        unknowns = _fit_of_two_orders(problem, basis, generator)
        misfit = problem.misfit(unknowns)
    return AutocorrelationFit(*problem.split(unknowns), misfit, (misfit,))


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


class _Problem:
    """Residuals of the model's orders, in as few numbers as there are invariants.

    An order's values, in units of their errors, are a matrix times rho times its
    invariants, and noise. Of the matrix Q R only R is kept, and of the data Q^T a and
    what no volume explains.
    """

    def __init__(self, moments: Autocorrelations, model: AutocorrelationModel) -> None:
        self.model = model
        self._n_values = 0
        self._unexplained = 0.0
        self._factors: list[NDArray[np.float64]] = []
        self._targets: list[NDArray[np.float64]] = []
        self._pixel_power = moments.second[0]
        self.second, self.first = moments.second[1:], moments.first
        errors = moments.by_order(moments.errors)
        values = moments.by_order(moments.values)
        noise = noise_in_orders(moments.size, moments.first)
        # The model may have fewer orders.
        for order, value, error, of_noise in zip(
            model.orders, values, errors, noise, strict=False
        ):
            self._n_values += value.size
            least = _FINEST * np.sqrt(np.mean(value**2))
            scale = 1 / np.maximum(error, least)
            matrix = np.column_stack([order.to_values, of_noise * self._pixel_power])
            orthogonal, factor = np.linalg.qr(matrix * scale[:, np.newaxis])
            target = orthogonal.T @ (value * scale)
            self._factors.append(factor)
            self._targets.append(target)
            rest = np.sum((value * scale) ** 2) - np.sum(target**2)
            self._unexplained += max(float(rest), 0.0)

    def split(
        self, unknowns: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float, float]:
        """Volume coefficients, with zeros for degrees to come, density and noise.

        The last two unknowns are the logarithm of the density and the noise variance
        over the mean square of the pixels.
        """
        coefficients = np.zeros(self.model.functions.n_coefficients)
        coefficients[: len(unknowns) - 2] = unknowns[:-2]
        noise_variance = float(unknowns[-1] * self._pixel_power)
        return coefficients, float(np.exp(unknowns[-2])), noise_variance

    def misfit(self, unknowns: NDArray[np.float64]) -> float:
        """Root mean square difference of all values, in standard deviations."""
        explained = np.sum(self.residuals(unknowns, len(self._factors)) ** 2)
        return float(np.sqrt((explained + self._unexplained) / self._n_values))

    def residuals(
        self, unknowns: NDArray[np.float64], n_orders: int
    ) -> NDArray[np.float64]:
        """Differences of the first orders, in standard deviations."""
        coefficients, density, _ = self.split(unknowns)
        invariants = self.model.invariants(coefficients)[:n_orders]
        parts = [
            factor @ np.append(density * mean, unknowns[-1]) - target
            for factor, target, mean in zip(
                self._factors, self._targets, invariants, strict=False
            )
        ]
        return np.concatenate(parts)

    def jacobian(
        self, unknowns: NDArray[np.float64], n_orders: int
    ) -> NDArray[np.float64]:
        """Derivatives of :meth:`residuals` by the unknowns."""
        coefficients, density, _ = self.split(unknowns)
        n_used = len(unknowns) - 2
        parts = []
        for factor, mean, derivative in zip(
            self._factors[:n_orders],
            self.model.invariants(coefficients),
            self.model.derivatives(coefficients),
            strict=False,
        ):
            of_invariants = density * factor[:, :-1]
            columns = [
                of_invariants @ derivative[:, :n_used],
                of_invariants @ mean,
                factor[:, -1],
            ]
            parts.append(np.column_stack(columns))
        return np.concatenate(parts)


def noise_in_orders(size: int, first: float) -> list[NDArray[np.float64]]:
    """What white noise of variance 1 adds to the values of each order.

    Parameters
    ----------
    size : int
        L, side of a particle's box in pixels.
    first : float
        First order a_1.

    Returns
    -------
    list of float64, shapes (1,), (n_lags,) and (n_pairs,)
        Nothing, delta_u and a_1 (delta_u + delta_v + delta_{u - v}).
    """
    lags = lags_within(size)
    second = np.zeros(len(lags.single))
    second[0] = 1
    return [np.zeros(1), second, first * lags.repeated]


def _fit_from(
    problem: _Problem, basis: VolumeBasis, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Unknowns that one random start leads to, degree by degree."""
    unknowns = _fit_of_two_orders(problem, basis, generator)
    for degree in range(min(_FIRST_DEGREE, basis.ell_max), basis.ell_max + 1):
        unknowns = _with_degree(unknowns, basis, degree, generator)
        steps = _LAST_STEPS if degree == basis.ell_max else _STEPS
        unknowns = _solved(problem, unknowns, 3, steps)
    return unknowns


def _fit_of_two_orders(
    problem: _Problem, basis: VolumeBasis, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Unknowns, of the march's first degree, closest to the first two orders."""
    first = min(_FIRST_DEGREE, basis.ell_max)
    return _solved(problem, _start(problem, basis, generator, first), 2, _STEPS)


def _start(
    problem: _Problem,
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
    return np.concatenate([height * volume, [np.log(density), 0.5]])


def _with_degree(
    unknowns: NDArray[np.float64],
    basis: VolumeBasis,
    degree: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Unknowns with small random coefficients for what a degree adds."""
    volume, rest = unknowns[:-2], unknowns[-2:]
    n_new = VolumeBasis(basis.size, degree).n_coefficients - volume.size
    deviation = _NEW_DEGREE * np.sqrt(np.mean(volume**2))
    return np.concatenate([volume, deviation * generator.standard_normal(n_new), rest])


def _solved(
    problem: _Problem, unknowns: NDArray[np.float64], n_orders: int, steps: int
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
