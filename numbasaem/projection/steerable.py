r"""Projections as steerable features: turning them in their plane is a phase.

A projection of angular orders N = 0 ... l_max is the sum over N and n of
u_{N,n}(r) (p_{N,n} cos N phi + q_{N,n} sin N phi). Turned by psi it has the inner
product

.. math:: \sum_N re_N \cos N\psi + im_N \sin N\psi, \quad
          re_N = \sum_n p c + q s, \quad im_N = \sum_n p s - q c

with an image whose features are c = <W, u cos N phi> and s = <W, u sin N phi>.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected
from numbasaem.geometry.grids import disc, lattice, offsets
from numbasaem.geometry.wigner import real_wigner

from .operator import disc_profiles

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from numbasaem.geometry.ball_functions import BallFunctions
    from numbasaem.geometry.view_grid import ViewGrid

_CUT = 1e-5
"""Smallest singular value of the radial profiles that is kept, over the largest."""


class SteerableBasis:
    """Features of images, and how the projections along z are made of them.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes, M of them, side L.

    Attributes
    ----------
    size : int
        L.
    counts : tuple of int
        Radial vectors of each order N, from 0.
    n_half : int
        H, all radial vectors: those of cos N phi; those of sin N phi follow them.
    images : float64, shape (2H, L * L)
        u_{N,n}(r) cos N phi, then u_{N,n}(r) sin N phi, on the pixels, zero outside the
        disc and for sin at N = 0. Rows are the vectors of one order after the other.
    expansion : float64, shape (2H, M)
        p and q of the projections along z of the functions.

    Notes
    -----
    The radial vectors of an order are those of a singular value decomposition of the
    profiles of all functions of abs(m) = N at the pixels of the disc.
    """

    def __init__(self, functions: BallFunctions) -> None:
        size = self.size = functions.size
        y, x = lattice(offsets(size), 2)
        inside = disc(size)
        angle = np.arctan2(y, x)[inside]
        parts = [
            (cosines, sines, *_radial_vectors(order, profiles))
            for order, (cosines, sines, profiles) in enumerate(disc_profiles(functions))
        ]
        # Kernels are told of counts that do not grow from one order to the next.
        kept = [len(radial) for *_, radial, _ in parts]
        self.counts = tuple(np.maximum.accumulate(kept[::-1])[::-1].tolist())
        self.n_half = sum(self.counts)
        images = np.zeros((2, self.n_half, size, size))
        expansion = np.zeros((2, self.n_half, functions.n_coefficients))
        start = 0
        for order, (cosines, sines, radial, mixture) in enumerate(parts):
            rows = slice(start, start + len(radial))
            images[0, rows, inside] = (radial * np.cos(order * angle)).T
            expansion[0, rows, cosines] = mixture.T
            if order > 0:
                images[1, rows, inside] = (radial * np.sin(order * angle)).T
                expansion[1, rows, sines] = mixture.T
            start += self.counts[order]
        self.images = images.reshape(2 * self.n_half, size * size)
        self.expansion = expansion.reshape(2 * self.n_half, -1)

    @cached_property
    def orders(self) -> NDArray[np.intp]:
        """Angular order of each radial vector, intp of shape (H,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def gram(self) -> NDArray[np.float64]:
        """Inner products of the features' images, float64 of shape (2H, 2H)."""
        return np.asarray(self.images @ self.images.T)


def _radial_vectors(
    order: int, profiles: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal radial vectors of an order, and the profiles as sums of them."""
    harmonic = np.sqrt(2) * (-1.0) ** order if order > 0 else 1.0
    left, values, vectors = np.linalg.svd(harmonic * profiles, full_matrices=False)
    kept = values > _CUT * values.max(initial=0)
    return vectors[kept], (left * values).T[kept]


class ViewProjections:
    """Projections in views times in-plane angles, as coefficients of features.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes, M of them, side L.
    views : ViewGrid
        The rotations, K of them; opposite views share their coefficients p, and q but
        for its sign.

    Attributes
    ----------
    basis : BallFunctions
        The same functions.
    views : ViewGrid
        The same views.
    features : SteerableBasis
        What the projections are made of.
    """

    def __init__(self, functions: BallFunctions, views: ViewGrid) -> None:
        self.basis, self.views = functions, views
        self.features = SteerableBasis(functions)
        self._wigner = real_wigner(views.view_rotations[::2], functions.ell_max)

    @property
    def n_pairs(self) -> int:
        """Pairs of opposite views."""
        n_views: int = self.views.n_views
        return n_views // 2

    def coefficients(self, volume_coefficients: ArrayLike) -> NDArray[np.float64]:
        """Coefficients p and q of the projections of a volume at psi = 0.

        Parameters
        ----------
        volume_coefficients : array, shape (M,)
            Real volume coefficients.

        Returns
        -------
        float64, shape (n_pairs, 2H)
            Of the first view of each pair.

        Raises
        ------
        InputError
            If there are not M coefficients.
        """
        x = np.asarray(volume_coefficients, dtype=np.float64)
        if x.shape != (self.basis.n_coefficients,):
            raise expected("x", f"shape ({self.basis.n_coefficients},)", x.shape)
        turned = np.empty((self.n_pairs, x.size))
        for wigner, block, target in zip(
            self._wigner, self.basis.blocks(x), self.basis.blocks(turned), strict=True
        ):
            target[:] = wigner @ block
        return np.asarray(turned @ self.features.expansion.T)

    def adjoint(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over pairs of Q_d^T times a vector; adjoint of :meth:`coefficients`.

        Parameters
        ----------
        coefficients : float64, shape (n_pairs, 2H)
            One for each pair.

        Returns
        -------
        float64, shape (M,)
            The sum.
        """
        turned = coefficients @ self.features.expansion
        result = np.empty(self.basis.n_coefficients)
        for wigner, block, target in zip(
            self._wigner,
            self.basis.blocks(turned),
            self.basis.blocks(result),
            strict=True,
        ):
            target[:] = np.einsum("dij,dis->js", wigner, block)
        return result

    def matrices(self, start: int, stop: int) -> NDArray[np.float64]:
        """Matrices Q_d from volume coefficients to p and q.

        Parameters
        ----------
        start, stop : int
            Pairs.

        Returns
        -------
        float64, shape (stop - start, 2H, M)
            Of the first view of each pair.
        """
        expansion = self.features.expansion
        result = np.empty((stop - start, *expansion.shape))
        for wigner, block, target in zip(
            self._wigner,
            self.basis.blocks(expansion),
            self.basis.blocks(result),
            strict=True,
        ):
            target[:] = np.einsum("dij,fis->dfjs", wigner[start:stop], block)
        return result

    def energies(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """||P||**2 of each projection on the pixels.

        Parameters
        ----------
        coefficients : float64, shape (n_pairs, 2H)
            By :meth:`coefficients`.

        Returns
        -------
        float64, shape (n_views, n_angles)
            Of the rotations, views slowest.
        """
        n_half, gram = self.features.n_half, self.features.gram
        phases = self.views.angles[:, np.newaxis] * self.features.orders
        cosine, sine = np.cos(phases), np.sin(phases)
        energies = np.empty((self.n_pairs, 2, self.views.n_angles))
        for pair, both in enumerate(coefficients):
            for mirrored in (0, 1):
                p, q = both[:n_half], (1, -1)[mirrored] * both[n_half:]
                turned = np.hstack([p * cosine - q * sine, p * sine + q * cosine])
                energies[pair, mirrored] = np.einsum("af,af->a", turned @ gram, turned)
        return energies.reshape(self.views.n_views, -1)

    def weighted_gram(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gram matrix of a pair's projections, weighted and turned back to psi = 0.

        Parameters
        ----------
        weight : float64, shape (2, n_angles)
            Weight of each angle of both views of a pair.

        Returns
        -------
        float64, shape (2H, 2H)
            G_d = sum_psi m_{d,psi} T(psi)^T G T(psi), the mirrored view's with the sign
            of q turned.
        """
        features = self.features
        n_half, gram = features.n_half, features.gram
        orders = np.arange(len(features.counts))
        cosine, sine = (
            wave(self.views.angles[:, np.newaxis] * orders) for wave in (np.cos, np.sin)
        )
        cc, cs, sc, ss = (
            gram[rows, columns]
            for rows in (slice(n_half), slice(n_half, None))
            for columns in (slice(n_half), slice(n_half, None))
        )
        pick = np.ix_(features.orders, features.orders)
        result = np.zeros_like(gram)
        for sign, of_angle in zip((1.0, -1.0), weight, strict=True):
            scaled_c, scaled_s = (of_angle[:, None] * wave for wave in (cosine, sine))
            c_c, c_s = (scaled_c.T @ cosine)[pick], (scaled_c.T @ sine)[pick]
            s_c, s_s = (scaled_s.T @ cosine)[pick], (scaled_s.T @ sine)[pick]
            result[:n_half, :n_half] += c_c * cc + c_s * cs + s_c * sc + s_s * ss
            result[n_half:, n_half:] += s_s * cc - s_c * cs - c_s * sc + c_c * ss
            mixed = -c_s * cc + c_c * cs - s_s * sc + s_c * ss
            result[:n_half, n_half:] += sign * mixed
            result[n_half:, :n_half] += sign * mixed.T
        return result
