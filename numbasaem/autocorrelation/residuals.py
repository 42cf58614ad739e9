"""Differences between autocorrelations and what a volume leads to, and derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .lags import lags_within
from .surroundings import pair_matrices, surrounding_functions, with_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import AutocorrelationModel
    from .moments import Autocorrelations

_FINEST = 1e-6
"""Least error of a value, over the root mean square of its order: rounding."""


class Residuals:
    """Residuals of the model's orders, in as few numbers as there are invariants.

    An order's values, in units of their errors, are a matrix times rho times its
    invariants, and noise. Of the matrix Q R only R is kept, and of the data Q^T a and
    what no volume explains. With surroundings, their numbers q_k times the invariants
    of the order below count as more invariants.

    Unknowns are the volume coefficients of a degree, q_k over a_1, the logarithm of
    the density and the noise variance over the mean square of the pixels.
    """

    def __init__(
        self,
        moments: Autocorrelations,
        model: AutocorrelationModel,
        surroundings: bool = False,
    ) -> None:
        self.model = model
        functions = surrounding_functions(moments.size)[: None if surroundings else 0]
        self.n_around = len(functions)
        pairs = pair_matrices(model, functions * moments.first)
        self._n_tail = self.n_around + 2
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
        for order, of_pairs, value, error, of_noise in zip(
            model.orders, pairs, values, errors, noise, strict=False
        ):
            self._n_values += value.size
            least = _FINEST * np.sqrt(np.mean(value**2))
            scale = 1 / np.maximum(error, least)
            matrix = np.column_stack(
                [
                    order.to_values,
                    of_pairs.reshape(len(value), -1),
                    of_noise * self._pixel_power,
                ]
            )
            orthogonal, factor = np.linalg.qr(matrix * scale[:, np.newaxis])
            target = orthogonal.T @ (value * scale)
            self._factors.append(factor)
            self._targets.append(target)
            rest = np.sum((value * scale) ** 2) - np.sum(target**2)
            self._unexplained += max(float(rest), 0.0)

    def split(
        self, unknowns: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float, float]:
        """Volume coefficients, with zeros for degrees to come, density and noise."""
        coefficients = np.zeros(self.model.functions.n_coefficients)
        volume = self.volume(unknowns)
        coefficients[: len(volume)] = volume
        noise_variance = float(unknowns[-1] * self._pixel_power)
        return coefficients, float(np.exp(unknowns[-2])), noise_variance

    def volume(self, unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Volume coefficients of the unknowns' degree."""
        return unknowns[: -self._n_tail]

    def around(self, unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Surroundings q_k over a_1, shape (K,)."""
        return unknowns[-self._n_tail : -2]

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
        products = with_pairs(invariants, self.around(unknowns))
        parts = [
            factor @ np.append(density * product, unknowns[-1]) - target
            for factor, target, product in zip(
                self._factors, self._targets, products, strict=False
            )
        ]
        return np.concatenate(parts)

    def jacobian(
        self, unknowns: NDArray[np.float64], n_orders: int
    ) -> NDArray[np.float64]:
        """Derivatives of :meth:`residuals` by the unknowns."""
        coefficients, density, _ = self.split(unknowns)
        n_used = len(self.volume(unknowns))
        around = self.around(unknowns)
        invariants = self.model.invariants(coefficients)
        below: NDArray[np.float64] = np.zeros(0)
        parts = []
        for factor, mean, product, derivative in zip(
            self._factors[:n_orders],
            invariants,
            with_pairs(invariants, around),
            with_pairs(self.model.derivatives(coefficients), around),
            strict=False,
        ):
            of_invariants = density * factor[:, :-1]
            of_pairs = of_invariants[:, len(mean) :]
            columns = [
                of_invariants @ derivative[:, :n_used],
                of_pairs.reshape(len(factor), len(around), len(below)) @ below,
                of_invariants @ product,
                factor[:, -1],
            ]
            parts.append(np.column_stack(columns))
            below = mean
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
