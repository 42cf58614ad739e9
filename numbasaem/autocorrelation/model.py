r"""Autocorrelations that a volume leads to, and how they change with it.

A particle alone, in a uniformly random rotation, with rho particles a pixel and white
noise of variance sigma^2, gives

.. math::
   a_1 &= \rho\, E \sum_x P(x) \\
   a_2[u] &= \rho\, E \sum_x P(x) P(x+u) + \sigma^2 \delta_u \\
   a_3[u, v] &= \rho\, E \sum_x P(x) P(x+u) P(x+v)
                + \sigma^2 a_1 (\delta_u + \delta_v + \delta_{u-v}).

In steerable features P = sum_f c_f F_f, with F_f = u(r) exp(i N phi) and N of either
sign, turning P in its plane multiplies c_f by a phase. So of all products c_f c_g c_h
only those with N_f + N_g + N_h = 0 are left on the average, and of these the real
part, since the view from behind has the conjugate coefficients. A third
autocorrelation is a fixed matrix times these few hundred *invariants* of each view,
averaged over views. The matrix holds the sums over pixels, exactly as they are on the
lattice; invariants are polynomials of degree 3 l_max in the view direction, whose mean
a Gauss-Legendre rule gives exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement, permutations
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from numbasaem.geometry.wigner import real_wigner
from numbasaem.projection.steerable_basis import SteerableBasis

from .lags import lags_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.geometry.ball_functions import BallFunctions

    from .lags import Lags

Indices = tuple[int, ...]


@dataclass(frozen=True)
class Invariants:
    """Products of an order's features that stay when the image turns.

    Attributes
    ----------
    factors : intp, shape (n_invariants, order)
        Numbers of the features of each product.
    to_values : float64, shape (n_values, n_invariants)
        Sums over pixels: from the products' real parts to the autocorrelation of one
        particle at each lag.
    """

    factors: NDArray[np.intp]
    to_values: NDArray[np.float64]


class AutocorrelationModel:
    """First, second and third order of one particle, as functions of its volume.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes, M of them, side L.
    n_orders : int
        Number of orders; the tables of the third take long for large boxes.

    Attributes
    ----------
    functions : BallFunctions
        The same.
    images : complex128, shape (n_features, L, L)
        Features, each with its conjugate, on the pixels; zero outside of their disc.
    orders : tuple of Invariants
        Those of the first, the second and the third order, or of as many as asked for.
    """

    def __init__(self, functions: BallFunctions, n_orders: int = 3) -> None:
        self.functions = functions
        features = SteerableBasis(functions)
        half = features.n_half
        # Feature f < H is u exp(i N phi), feature H + f its conjugate.
        images = features.images[:half] + 1j * features.images[half:]
        self._angular = np.concatenate([features.orders, -features.orders])
        # At N = 0 the feature is its own conjugate.
        self._used = np.flatnonzero(
            (np.arange(2 * half) < half) | (self._angular != 0)
        ).tolist()
        self.images = np.concatenate([images, images.conj()]).reshape(
            2 * half, functions.size, functions.size
        )
        directions, self._weights = view_rule(n_orders * functions.ell_max)
        self._matrices = _coefficient_matrices(functions, features, directions)
        sums = _LatticeSums(self.images, lags_within(functions.size))
        self.orders = tuple(
            self._invariants(order, sums) for order in range(1, n_orders + 1)
        )

    def values(self, coefficients: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Autocorrelations of one particle, averaged over its rotations.

        Parameters
        ----------
        coefficients : float64, shape (M,)
            Volume coefficients.

        Returns
        -------
        list of float64, shapes (1,), (n_lags,) and (n_pairs,)
            Sums over the pixels of the particle, of each order of the model.
        """
        return [
            order.to_values @ mean
            for order, mean in zip(
                self.orders, self.invariants(coefficients), strict=True
            )
        ]

    def invariants(
        self, coefficients: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Mean invariants of each order.

        Parameters
        ----------
        coefficients : float64, shape (M,)
            Volume coefficients.

        Returns
        -------
        list of float64, shape (n_invariants,)
            Real parts of the products of features, averaged over views.
        """
        c = self._features(coefficients)
        return [
            np.asarray(self._weights @ c[:, order.factors].prod(axis=2).real)
            for order in self.orders
        ]

    def derivatives(
        self, coefficients: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Derivatives of the mean invariants by the volume coefficients.

        Parameters
        ----------
        coefficients : float64, shape (M,)
            Volume coefficients.

        Returns
        -------
        list of float64, shape (n_invariants, M)
            For each order.
        """
        c = self._features(coefficients)
        return [self._derivatives(order.factors, c) for order in self.orders]

    def _features(self, coefficients: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Coefficients c_f of every view, shape (n_views, 2H)."""
        return np.asarray(self._matrices @ coefficients)

    def _derivatives(
        self, factors: NDArray[np.intp], c: NDArray[np.complex128]
    ) -> NDArray[np.float64]:
        """Product rule: each factor's matrix, weighted by the others' product."""
        result = np.zeros((len(factors), self.functions.n_coefficients))
        for place in range(factors.shape[1]):
            others = np.delete(factors, place, axis=1)
            weights = c[:, others].prod(axis=2) * self._weights[:, np.newaxis]
            for feature in np.unique(factors[:, place]):
                rows = np.flatnonzero(factors[:, place] == feature)
                matrix = self._matrices[:, feature]
                result[rows] += (weights[:, rows].T @ matrix).real
        return result

    def _invariants(self, order: int, sums: _LatticeSums) -> Invariants:
        """Choose the products of an order, and sum their features over pixels."""
        factors = [
            product
            for product in combinations_with_replacement(self._used, order)
            if self._angular[list(product)].sum() == 0
            and product <= self.conjugate(product)
        ]
        to_values = np.zeros((sums.n_values(order), len(factors)))
        for column, product in enumerate(factors):
            own_conjugate = product == self.conjugate(product)
            for ordered in sorted(set(permutations(product))):
                to_values[:, column] += sums.of(ordered)
            to_values[:, column] *= 1 if own_conjugate else 2
        return Invariants(np.array(factors, np.intp), to_values)

    def conjugate(self, product: Indices) -> Indices:
        """Find the features of the conjugate of a product.

        Parameters
        ----------
        product : tuple of int
            Numbers of its features.

        Returns
        -------
        tuple of int
            Numbers of their conjugates, in ascending order.
        """
        half = len(self._angular) // 2
        partners = (
            f if self._angular[f] == 0 else (f + half) % (2 * half) for f in product
        )
        return tuple(sorted(partners))


@lru_cache(maxsize=2)
def model_of(functions: BallFunctions, n_orders: int = 3) -> AutocorrelationModel:
    """Make the model of a basis, or take the one made before.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes.
    n_orders : int
        Number of orders.

    Returns
    -------
    AutocorrelationModel
        The model.
    """
    return AutocorrelationModel(functions, n_orders)


class _LatticeSums:
    """Sums over pixels x of F_f(x), F_f(x) F_g(x + u) or F_f(x) F_g(x + u) F_h(x + v).

    Only their real parts are made. Features are zero outside of their disc.
    """

    def __init__(self, images: NDArray[np.complex128], lags: Lags) -> None:
        self._lags = lags
        self._images = images
        twice = (2 * images.shape[1],) * 2
        self._spectra = np.fft.fft2(images, twice)
        self._spectra_of_conjugates = np.fft.fft2(images.conj(), twice)

    @cached_property
    def _in_disc(self) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        """Each image in the disc, and at a lag from each pixel of it."""
        return shifted_features(self._images, self._lags)

    def n_values(self, order: int) -> int:
        return (1, len(self._lags.single), len(self._lags.first))[order - 1]

    def of(self, product: Indices) -> NDArray[np.float64]:
        order = len(product)
        return (self._of_one, self._of_two, self._of_three)[order - 1](*product)

    def _of_one(self, first: int) -> NDArray[np.float64]:
        return np.asarray(self._images[first].sum(keepdims=True).real.ravel())

    def _of_two(self, first: int, second: int) -> NDArray[np.float64]:
        spectrum = self._spectra_of_conjugates[first].conj() * self._spectra[second]
        y, x = self._lags.single.T
        return np.asarray(np.fft.ifft2(spectrum).real[y, x])

    def _of_three(self, first: int, second: int, third: int) -> NDArray[np.float64]:
        centres, at_lags = self._in_disc
        weighted = at_lags[second] * centres[first]
        shifted = at_lags[third]
        table = weighted.real @ shifted.real.T - weighted.imag @ shifted.imag.T
        return np.asarray(table[self._lags.first, self._lags.second])


def shifted_features(
    images: NDArray[np.complex128], lags: Lags
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Take features at the pixels x where any of them is, and at all x + u.

    Parameters
    ----------
    images : complex128, shape (n_features, L, L)
        Features on the pixels.
    lags : Lags
        Lags u.

    Returns
    -------
    centres : complex128, shape (n_features, n_pixels)
        F_f(x), pixels in the order of rows.
    shifted : complex128, shape (n_features, n_lags, n_pixels)
        F_f(x + u); zero outside of the box.
    """
    size = images.shape[1]
    y, x = np.nonzero(images.any(axis=0))
    padded = np.pad(images, ((0, 0), (0, size), (size, size)))
    rows = y + lags.single[:, :1]
    columns = x + size + lags.single[:, 1:]
    return images[:, y, x], padded[:, rows, columns]


def view_rule(degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotations to views of a hemisphere, whose weighted sum is the mean over all.

    Parameters
    ----------
    degree : int
        Highest degree of a polynomial in the view direction, the same in opposite
        directions, whose mean is exact.

    Returns
    -------
    rotations : float64, shape (n_views, 3, 3)
        A rotation to each view.
    weights : float64, shape (n_views,)
        Weights; their sum is 1.
    """
    heights, weights = np.polynomial.legendre.leggauss(2 * (degree // 4 + 1))
    upper = heights > 0
    longitudes = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    tilt, longitude = np.meshgrid(np.arccos(heights[upper]), longitudes, indexing="ij")
    euler = np.stack([longitude, tilt, np.zeros_like(tilt)], axis=-1).reshape(-1, 3)
    rotations = Rotation.from_euler("ZYZ", euler).inv().as_matrix()
    return rotations, np.repeat(weights[upper] / (degree + 1), degree + 1)


def _coefficient_matrices(
    functions: BallFunctions, features: SteerableBasis, rotations: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Matrices from volume coefficients to c_f of every view, (n_views, 2H, M).

    An image is the sum over N of u (p cos N phi + q sin N phi), so c is (p - i q) / 2
    for N > 0 and p for N = 0.
    """
    half = features.n_half
    expansion = features.expansions[0]
    complex_expansion = expansion[:half] - 1j * expansion[half:]
    complex_expansion[features.orders > 0] /= 2
    matrices = np.empty((len(rotations), half, functions.n_coefficients), complex)
    for wigner, block, turned in zip(
        real_wigner(rotations, functions.ell_max),
        functions.blocks(complex_expansion),
        functions.blocks(matrices),
        strict=True,
    ):
        turned[:] = np.einsum("vab,fas->vfbs", wigner, block)
    return np.concatenate([matrices, matrices.conj()], axis=1)
