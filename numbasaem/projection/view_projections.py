"""Projections in views times in-plane angles, made of steerable features."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import expected
from numbasaem.geometry.wigner import real_wigner

from .operator import rotated_coefficients
from .steerable_basis import SteerableBasis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from numbasaem.geometry.ball_functions import BallFunctions
    from numbasaem.geometry.view_grid import ViewGrid

LARGEST_MATRIX = 600
"""Number of coefficients up to which an M-step forms its matrix.

The matrix tells exactly what no view constrains. For 580 coefficients (15 pixels) and
4,600 rotations it took a second. Without it 900 took 0.5 s in place of 2.5 and 1,600
took 1 s in place of 6; where one view in three has all the weight, four times as long.
"""
_TURNED_BYTES = 2_000_000
"""Bytes of turned coefficients that are worked on at a time: they fit into a cache."""


class ViewProjections:
    """Projections in views times in-plane angles, as coefficients of features.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes, M of them, side L.
    views : ViewGrid
        The rotations, K of them; opposite views share their coefficients p, and q but
        for its sign.
    point_spreads : float64, shape (G, 2L - 1, 2L - 1), optional
        Point spread of each of G optics groups, as in :class:`SteerableBasis`.

    Attributes
    ----------
    basis : BallFunctions
        The same functions.
    views : ViewGrid
        The same views.
    features : SteerableBasis
        What the projections are made of.
    groups : range
        Numbers of the optics groups whose projections these are.
    """

    def __init__(
        self,
        functions: BallFunctions,
        views: ViewGrid,
        point_spreads: NDArray[np.float64] | None = None,
    ) -> None:
        self.basis, self.views = functions, views
        self.features = SteerableBasis(functions, point_spreads)
        self.groups = range(len(self.features.expansions))
        self._wigner = real_wigner(views.view_rotations[::2], functions.ell_max)

    @property
    def n_pairs(self) -> int:
        """Pairs of opposite views."""
        return int(self.views.n_views) // 2

    @property
    def n_rotations(self) -> int:
        """K."""
        return len(self.views)

    @property
    def n_groups(self) -> int:
        """G, 1 without optics groups."""
        return len(self.groups)

    @property
    def n_features(self) -> int:
        """2H, features of an image."""
        return 2 * self.features.n_half

    def at(self, views: ViewGrid) -> ViewProjections:
        """Projections of the same volumes in other rotations.

        Parameters
        ----------
        views : ViewGrid
            The rotations.

        Returns
        -------
        ViewProjections
            Made of the same features.
        """
        other = copy(self)
        other.views = views
        with threadpool_limits(1):  # the same bits wherever they are made
            other._wigner = real_wigner(views.view_rotations[::2], self.basis.ell_max)
        vars(other).pop("_waves", None)
        return other

    def of_group(self, number: int) -> ViewProjections:
        """Projections as one optics group shows them.

        Parameters
        ----------
        number : int
            Number of the group.

        Returns
        -------
        ViewProjections
            Of that group alone, made of the same features.
        """
        alone = copy(self)
        alone.groups = self.groups[number : number + 1]
        return alone

    def coefficients(self, volume_coefficients: ArrayLike) -> NDArray[np.float64]:
        """Coefficients p and q of the projections of a volume at psi = 0.

        Parameters
        ----------
        volume_coefficients : array, shape (M,)
            Real volume coefficients.

        Returns
        -------
        float64, shape (G * n_pairs, 2H)
            Of the first view of each pair, one optics group after the other.

        Raises
        ------
        InputError
            If there are not M coefficients.
        """
        x = np.asarray(volume_coefficients, dtype=np.float64)
        if x.shape != (self.basis.n_coefficients,):
            raise expected("x", f"shape ({self.basis.n_coefficients},)", x.shape)
        turned = rotated_coefficients(self.basis, self._wigner, x)
        expansions = self.features.expansions
        return np.concatenate([turned @ expansions[g].T for g in self.groups])

    def adjoint(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over pairs of Q_d^T times a vector; adjoint of :meth:`coefficients`.

        Parameters
        ----------
        coefficients : float64, shape (G * n_pairs, 2H)
            One for each pair and optics group.

        Returns
        -------
        float64, shape (M,)
            The sum.
        """
        turned = np.zeros((self.n_pairs, self.basis.n_coefficients))
        parts = np.split(coefficients, self.n_groups)
        for group, part in zip(self.groups, parts, strict=True):
            turned += part @ self.features.expansions[group]
        result = np.empty(self.basis.n_coefficients)
        for wigner, block, target in zip(
            self._wigner,
            self.basis.blocks(turned),
            self.basis.blocks(result),
            strict=True,
        ):
            target[:] = np.einsum("dij,dis->js", wigner, block)
        return result

    def matrices(self, pairs: slice, group: int = 0) -> NDArray[np.float64]:
        """Matrices Q_d from volume coefficients to p and q.

        Parameters
        ----------
        pairs : slice
            Which pairs.
        group : int
            Optics group, 0 to G - 1.

        Returns
        -------
        float64, shape (n_pairs, 2H, M)
            Of the first view of each of these pairs.
        """
        expansion = self.features.expansions[self.groups[group]]
        n_pairs = len(range(self.n_pairs)[pairs])
        result = np.empty((n_pairs, *expansion.shape))
        for wigner, block, target in zip(
            self._wigner,
            self.basis.blocks(expansion),
            self.basis.blocks(result),
            strict=True,
        ):
            target[:] = np.einsum("dij,fis->dfjs", wigner[pairs], block)
        return result

    def mean_power(self, volume_coefficients: ArrayLike) -> float:
        """Mean square of the pixels of all projections of a volume.

        Parameters
        ----------
        volume_coefficients : array, shape (M,)
            Real volume coefficients.

        Returns
        -------
        float
            Over the L x L pixels.
        """
        energies = self.energies(self.coefficients(volume_coefficients))
        return float(energies.mean()) / self.basis.size**2

    def energies(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """||P||**2 of each projection on the pixels.

        Parameters
        ----------
        coefficients : float64, shape (G * n_pairs, 2H)
            By :meth:`coefficients`.

        Returns
        -------
        float64, shape (G * n_views, n_angles)
            Of the rotations, views slowest.
        """
        gram = self.features.gram
        energies = np.empty((len(coefficients), 2, self.views.n_angles))
        for pairs in self._batches(len(coefficients)):
            turned = self._turned(coefficients[pairs])
            energies[pairs] = ((turned @ gram) * turned).sum(axis=-1)
        return energies.reshape(-1, self.views.n_angles)

    def gram_product(
        self, weight: NDArray[np.float64], coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Product of every G_d of :meth:`weighted_gram` and a vector of its pair.

        Parameters
        ----------
        weight : float64, shape (G * n_views, n_angles)
            Weight of each rotation.
        coefficients : float64, shape (G * n_pairs, 2H)
            Vectors, one for each pair.

        Returns
        -------
        float64, shape (G * n_pairs, 2H)
            The products.
        """
        gram, (cosine, sine) = self.features.gram, self._waves
        n_half, n_angles = self.features.n_half, self.views.n_angles
        weight_of_pairs = weight.reshape(len(coefficients), 2, n_angles, 1)
        products = np.empty_like(coefficients)
        for pairs in self._batches(len(coefficients)):
            turned = self._turned(coefficients[pairs])
            seen = (turned.reshape(-1, 2 * n_half) @ gram).reshape(turned.shape)
            seen *= weight_of_pairs[pairs]
            p, q = seen[..., :n_half], seen[..., n_half:]
            along = _over_angles(p, cosine) + _over_angles(q, sine)
            back = _over_angles(q, cosine) - _over_angles(p, sine)
            products[pairs, :n_half] = along[:, 0] + along[:, 1]
            products[pairs, n_half:] = back[:, 0] - back[:, 1]
        return products

    @cached_property
    def _waves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cos N psi and sin N psi of all angles, for each radial vector."""
        phases = self.views.angles[:, np.newaxis] * self.features.orders
        return np.cos(phases), np.sin(phases)

    def _batches(self, n_pairs: int) -> Iterator[slice]:
        """Pairs whose coefficients at all angles are worked on at a time."""
        step = max(1, _TURNED_BYTES // (16 * self.views.n_angles * self.n_features))
        for start in range(0, n_pairs, step):
            yield slice(start, start + step)

    def _turned(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coefficients of both views of n pairs at all angles, (n, 2, n_angles, 2H)."""
        cosine, sine = self._waves
        n_half = self.features.n_half
        p, q = np.split(coefficients[:, np.newaxis], 2, axis=-1)
        turned = np.empty((len(coefficients), 2, *cosine.shape[:1], 2 * n_half))
        for view, side in enumerate((q, -q)):
            turned[:, view, :, :n_half] = p * cosine - side * sine
            turned[:, view, :, n_half:] = p * sine + side * cosine
        return turned

    def mean_gram(self, weights: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Average over all turns of the molecule of its projections' Gram matrix.

        Parameters
        ----------
        weights : float64, shape (G,)
            Weight of each optics group.

        Returns
        -------
        list of float64, shape (S(ell), S(ell)) for entry ell
            Blocks of sum_g W_g E_g^T G E_g, averaged over all rotations: one for each
            degree, the same for all its orders. E are the features' expansions.
        """
        blocks = self.basis.blocks
        means = [np.zeros((count, count)) for count in self.basis.radial_counts]
        for group, weight in zip(self.groups, weights, strict=True):
            expansion = self.features.expansions[group]
            of_degrees = zip(
                means,
                blocks(expansion),
                blocks(self.features.gram @ expansion),
                strict=True,
            )
            for ell, (mean, block, seen) in enumerate(of_degrees):
                product = np.tensordot(block, seen, axes=((0, 1), (0, 1)))
                mean += weight / (2 * ell + 1) * (product + product.T) / 2
        return means

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


def _over_angles(
    of_angles: NDArray[np.float64], waves: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum over angles of features times waves, (n, 2, n_angles, H) by (n_angles, H)."""
    return np.asarray(np.einsum("dvaf,af->dvf", of_angles, waves))


@dataclass(frozen=True)
class OperatorBytes:
    """Memory that :class:`ViewProjections` and what refers to them take.

    Attributes
    ----------
    n_features : int
        2H, about.
    statistics : int
        Bytes of sums of features and weights of all rotations.
    at_most : int
        Bytes of the operator and of the equations of an M-step.
    """

    n_features: int
    statistics: int
    at_most: int


def operator_bytes(
    functions: BallFunctions, views: ViewGrid, n_groups: int
) -> OperatorBytes:
    """Bytes that projections in views and angles take, before they are made.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes.
    views : ViewGrid
        The rotations.
    n_groups : int
        Number of optics groups, 1 without any.

    Returns
    -------
    OperatorBytes
        Of as many radial vectors of each order as there are radial functions of the
        degrees from it on, or rings of pixels if that is less.
    """
    n_coefficients, n_pairs = functions.n_coefficients, views.n_views // 2
    counts = np.array(functions.radial_counts)
    orders = np.arange(len(counts))
    n_rings = functions.size**2 // 8 + 1
    n_half = sum(
        min(n_groups * int(counts[order::2].sum()), n_rings) for order in orders
    )
    n_features = 2 * n_half
    wigner = n_pairs * int(((2 * orders + 1) ** 2).sum())
    bases = n_groups * n_features * n_coefficients
    images = n_features * (functions.size**2 + n_features)
    of_matrix = n_coefficients <= LARGEST_MATRIX
    equations = 4 * n_features * n_coefficients
    equations += (3 if of_matrix else 1) * n_coefficients**2
    sums = n_groups * (n_pairs * n_features + len(views))
    turned = 3 * max(_TURNED_BYTES // 8, 2 * views.n_angles * n_features)
    at_most = wigner + bases + images + equations + 4 * sums + turned
    return OperatorBytes(n_features, 8 * sums, 8 * at_most)
