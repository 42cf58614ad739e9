"""Prolate spheroidal wave functions (PSWFs) of the image disc, (10)-(12).

Positions are measured in disc radii, so that `radius` pixels are 1, and frequencies
in units of Nyquist. The kernel of (10) is then ``exp(i pi radius (r, k))``, the
Fourier kernel ``exp(2 pi i (xi, r))`` of images whose frequencies stay below half a
cycle per pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.special import jv, roots_legendre

from numbasaem.errors import expected

TRUNCATION = 1e-8
"""Smallest concentration ratio kept.

The relative error of a projection falls as its square: 3e-5 for 1e-2, 3e-9 for 1e-4,
3e-13 for 1e-6. At this value it is rounding alone.
"""

_SPARE_TERMS = 40


@dataclass(frozen=True)
class RadialModes:
    """Radial parts of the PSWFs that share one angular index.

    Parameters
    ----------
    angular_index : int
        N >= 0; the functions of -N have the same radial parts and eigenvalues.
    hankel_eigenvalues : float64, shape (n_modes,)
        Real eigenvalues of the finite Hankel transform, largest magnitude first.
    coefficients : float64, shape (n_modes, n_terms)
        Coefficients in the orthonormal Zernike radial polynomials.
    """

    angular_index: int
    hankel_eigenvalues: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    @property
    def eigenvalues(self) -> NDArray[np.complex128]:
        """Eigenvalues alpha of (10), i^N 2 pi times Hankel's; shape (n_modes,)."""
        factor = 2 * math.pi * 1j**self.angular_index
        return (factor * self.hankel_eigenvalues).astype(np.complex128)

    def evaluate(self, radius: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate the radial functions.

        Parameters
        ----------
        radius : float64, shape (n,)
            Distances from the centre in disc radii, at most 1.

        Returns
        -------
        float64, shape (n_modes, n)
            Value of each function at each distance.
        """
        n_terms = self.coefficients.shape[1]
        return self.coefficients @ _zernike_radial(self.angular_index, n_terms, radius)


class DiscBasis:
    r"""PSWFs of the disc inscribed in an image, in the order of their eigenvalues.

    Parameters
    ----------
    size : int
        Image side in pixels, at least 2.
    truncation : float
        T of the rule that decides which functions are kept.

    Attributes
    ----------
    radius : int
        Disc radius ``size // 2`` in pixels.
    bandlimit : float
        ``pi * radius``, the c of (10), in radians per disc radius.
    nodes, node_weights : float64, shape (n_nodes,)
        Gauss-Legendre rule on [0, 1] for integrals over ``r dr``: the weights
        contain the factor r.

    Raises
    ------
    InputError
        If `size` is below 2 or `truncation` is not positive.

    Notes
    -----
    The functions are

    .. math:: \psi_{N,n}(r, \varphi) = R_{N,n}(r) e^{iN\varphi} / \sqrt{2\pi},
              \qquad \int_0^1 R_{N,n}(r) R_{N,n'}(r)\, r\, dr = \delta_{n,n'},

    orthonormal on the unit disc as (10)-(11) ask. Taken with the same R, the
    functions printed in (12) are :math:`\alpha_{N,n} / 2` times these and so have
    norm :math:`|\alpha_{N,n}| / 2`. The radial functions solve

    .. math:: \gamma_{N,n} R_{N,n}(k) = \int_0^1 J_N(c k r) R_{N,n}(r)\, r\, dr,
              \qquad \alpha_{N,n} = 2 \pi i^N \gamma_{N,n},

    and are found as eigenvectors of the differential operator that commutes with
    this transform, a symmetric tridiagonal matrix in Zernike radial polynomials.

    Kept are the functions with :math:`\sqrt{\lambda / (1 - \lambda)} > T`, where
    :math:`\lambda_{N,n} = (c / 2\pi)^2 |\alpha_{N,n}|^2` is the share of the energy
    inside the disc, [52, Eq. (8)].
    """

    def __init__(self, size: int, truncation: float = TRUNCATION) -> None:
        if size < 2:
            raise expected("size", "an image side of at least 2 pixels", size)
        if not truncation > 0:
            raise expected("truncation", "a positive number", truncation)
        self.size = size
        self.truncation = truncation
        self.radius = size // 2
        self.bandlimit = math.pi * self.radius
        self._n_terms = math.ceil(self.bandlimit) + _SPARE_TERMS
        nodes, weights = roots_legendre(2 * self._n_terms)
        self.nodes: NDArray[np.float64] = (nodes + 1) / 2
        self.node_weights: NDArray[np.float64] = self.nodes * weights / 2
        self._modes: dict[int, RadialModes] = {}

    def radial_modes(self, angular_index: int) -> RadialModes:
        """Radial functions and eigenvalues of one angular index.

        Parameters
        ----------
        angular_index : int
            N >= 0.

        Returns
        -------
        RadialModes
            Functions kept by the truncation rule, possibly none.

        Raises
        ------
        InputError
            If `angular_index` is negative.
        """
        if angular_index < 0:
            raise expected("angular_index", "a number >= 0", angular_index)
        if angular_index not in self._modes:
            self._modes[angular_index] = self._solve(angular_index)
        return self._modes[angular_index]

    def _solve(self, angular_index: int) -> RadialModes:
        """Diagonalize the commuting operator and truncate."""
        vectors = _differential_eigenvectors(
            angular_index, self._n_terms, self.bandlimit
        )
        # Cutting the matrix off spoils the last eigenvectors, none of which is used.
        coefficients = vectors[: self._n_terms // 2]
        values = coefficients @ _zernike_radial(
            angular_index, self._n_terms, self.nodes
        )
        weighted = values * self.node_weights
        transform = jv(angular_index, self.bandlimit * np.outer(self.nodes, self.nodes))
        # A Rayleigh quotient: its error is rounding only, far below the truncation.
        hankel = np.einsum("ni,ni->n", weighted @ transform, weighted)
        concentration = (self.bandlimit * hankel) ** 2
        threshold = self.truncation**2 / (1 + self.truncation**2)
        below = np.append(concentration <= threshold, True)
        n_modes = int(np.argmax(below))
        return RadialModes(angular_index, hankel[:n_modes], coefficients[:n_modes])


def _recurrence(
    angular_index: int, n_terms: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Three-term recurrence of orthonormal Jacobi polynomials (0, N).

    Returns the diagonal (n_terms,) and the off-diagonal (n_terms - 1,) of
    multiplication by 2 r^2 - 1.
    """
    order = angular_index + 2 * np.arange(n_terms, dtype=np.float64)
    diagonal = angular_index**2 / (np.maximum(order, 1) * (order + 2))
    j = np.arange(1, n_terms)
    upper = order[1:]
    off_diagonal = 2 * j * (j + angular_index) / (upper * np.sqrt(upper**2 - 1))
    return diagonal, off_diagonal


def _zernike_radial(
    angular_index: int, n_terms: int, radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Zernike radial polynomials, orthonormal under r dr on [0, 1]: (n_terms, n)."""
    diagonal, off_diagonal = _recurrence(angular_index, n_terms)
    argument = 2 * radius**2 - 1
    values = np.empty((n_terms, len(radius)))
    values[0] = math.sqrt(2 * (angular_index + 1)) * radius**angular_index
    values[1] = (argument - diagonal[0]) * values[0] / off_diagonal[0]
    for j in range(1, n_terms - 1):
        values[j + 1] = (
            (argument - diagonal[j]) * values[j] - off_diagonal[j - 1] * values[j - 1]
        ) / off_diagonal[j]
    return values


def _differential_eigenvectors(
    angular_index: int, n_terms: int, bandlimit: float
) -> NDArray[np.float64]:
    """Eigenvectors of Slepian's operator as rows, most concentrated first."""
    diagonal, off_diagonal = _recurrence(angular_index, n_terms)
    order = angular_index + 2 * np.arange(n_terms, dtype=np.float64)
    vectors = eigh_tridiagonal(
        (order + 0.5) * (order + 1.5) + bandlimit**2 * (1 + diagonal) / 2,
        bandlimit**2 * off_diagonal / 2,
    )[1].T
    largest = np.argmax(np.abs(vectors), axis=1)
    signs = np.sign(vectors[np.arange(n_terms), largest])
    result: NDArray[np.float64] = vectors * signs[:, np.newaxis]
    return result
