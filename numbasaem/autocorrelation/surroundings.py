r"""What the particles around a particle add to autocorrelations.

Rotations of different particles are independent, so a particle sees the others, on the
average, as an image Q about its centre: the mean projection spread out over where other
particles are. Two pixels in different particles, and of
three pixels two in one particle and the third in another, add

.. math::
   a_2[u] &\mathrel{+}= \rho \sum_x E[P(x)]\, Q(x+u) \\
   a_3[u, v] &\mathrel{+}= \rho \sum_x E[P(x) P(x+u)]\, Q(x+v)
      + E[P(x) P(x+v)]\, Q(x+u) + E[P(x+u) P(x+v)]\, Q(x).

What three different particles add is left out. Q = sum_k q_k phi_k, in hat functions of
the distance from the centre, and in the same times cos 4 phi, since positions whose
distance counts along axes, as those of simulated particles, are no discs. As the
particle turns, the products of its features that stay are those of the order below: a_2
is a matrix times q_k times the first order's invariants, a_3 one times q_k times the
second's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.grids import lattice, offsets

from .lags import lags_within
from .model import shifted_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import AutocorrelationModel

_FREE_OF_OTHERS = 0.5
"""Distance from a particle's centre, in boxes, within which no other shows."""
_REACH = 1.25
"""Distance of the last knot, in boxes.

Lags lead up to 1.5 boxes away, but so few there that they do not tell one more.
"""
_KNOTS_A_BOX = 4
"""Knots in the length of a box."""


def surrounding_functions(size: int) -> NDArray[np.float64]:
    """Hat functions of the distance r from a particle's centre.

    Parameters
    ----------
    size : int
        L, side of a particle's box in pixels.

    Returns
    -------
    float64, shape (K, 4L + 1, 4L + 1)
        Images about their centres. The first half are 1 at their knot and 0 at the
        others; their sum rises from 0 at half a box to 1, and stays. The other half are
        the same times cos 4 phi.
    """
    n_steps = round((_REACH - _FREE_OF_OTHERS) * _KNOTS_A_BOX)
    knots = size * np.linspace(_FREE_OF_OTHERS, _REACH, n_steps + 1)
    y, x = lattice(offsets(4 * size + 1), 2)
    radii, angle = np.hypot(y, x), np.arctan2(y, x)
    hats = np.array([np.interp(radii, knots, hat) for hat in np.eye(len(knots))[1:]])
    return np.concatenate([hats, hats * np.cos(4 * angle)])


def pair_matrices(
    model: AutocorrelationModel, functions: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Matrices from the invariants of the order below to what pairs add.

    Parameters
    ----------
    model : AutocorrelationModel
        Model of one particle.
    functions : float64, shape (K, side, side)
        Images of phi_k about their centres, `side` at least 4L + 1 and odd.

    Returns
    -------
    list of float64, shape (n_values, K, n_invariants of the order below)
        For each of the model's orders; the first has no order below it, and no pairs.
        Without functions they are empty.
    """
    orders = model.orders
    if not len(functions):  # the sums take the memory of a third order
        return [np.zeros((len(order.to_values), 0, 0)) for order in orders]
    sums = _PairSums(model, functions)
    matrices = [np.zeros((1, len(functions), 0))]
    of_order = (sums.of_feature, sums.of_product)
    for below, of_each in zip(orders[:-1], of_order, strict=False):
        columns = [of_each(product) for product in below.factors.tolist()]
        matrices.append(np.stack(columns, axis=-1))
    return matrices


def with_pairs(
    of_orders: list[NDArray[np.float64]], around: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Append to each order's invariants those of pairs: q_k times the order's below.

    Parameters
    ----------
    of_orders : list of float64, shape (n_invariants, ...)
        Invariants of each order, from the first, or their derivatives.
    around : float64, shape (K,)
        Surroundings q_k.

    Returns
    -------
    list of float64, shape (n_invariants + K n_invariants of the order below, ...)
        Factors of a matrix and of :func:`pair_matrices` beside it.
    """
    result = []
    below = of_orders[0][:0]
    for of_order in of_orders:
        pairs = np.multiply.outer(around, below).reshape(-1, *below.shape[1:])
        result.append(np.concatenate([of_order, pairs]))
        below = of_order
    return result


class _PairSums:
    """Sums over pixels x of a particle's features and of functions around it."""

    def __init__(
        self, model: AutocorrelationModel, functions: NDArray[np.float64]
    ) -> None:
        size = model.functions.size
        self._model, self._lags = model, lags_within(size)
        self._centres, self._shifted = shifted_features(model.images, self._lags)
        from_centre = functions.shape[1] // 2 - size // 2
        y, x = np.array(np.nonzero(model.images.any(axis=0))) + from_centre
        lags = self._lags.single
        ahead = functions[:, y + lags[:, :1], x + lags[:, 1:]]
        behind = functions[:, y - lags[:, :1], x - lags[:, 1:]]
        self._around = np.stack([ahead, behind])
        numbers = {tuple(lag): number for number, lag in enumerate(lags.tolist())}
        between = lags[self._lags.second] - lags[self._lags.first]
        self._between = np.array([numbers[tuple(lag)] for lag in between.tolist()])

    def of_feature(self, product: list[int]) -> NDArray[np.float64]:
        """Sums of F_f(x) phi_k(x + u), shape (n_lags, K)."""
        (feature,) = product
        return np.asarray((self._around[0] @ self._centres[feature].real).T)

    def of_product(self, product: list[int]) -> NDArray[np.float64]:
        """Sums of F_f F_g phi_k at x, x + u and x + v in any order, (n_pairs, K)."""
        one, other = product
        orders = [(one, other)] if one == other else [(one, other), (other, one)]
        weighted = sum(self._centres[f] * self._shifted[g] for f, g in orders)
        # Numbers of the lags: from F to F, then from the first F to phi, or back.
        ahead, behind = self._around @ np.real(weighted).T
        first, second = self._lags.first, self._lags.second
        total = ahead[:, second, first] + ahead[:, first, second]
        total += behind[:, first, self._between]
        own_conjugate = (one, other) == self._model.conjugate((one, other))
        factor = 1 if own_conjugate else 2
        return np.asarray(factor * total.T)
