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

from numbasaem.geometry.grids import disc, lattice, offsets

from .operator import disc_profiles
from .point_spread import image_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.geometry.ball_functions import BallFunctions

_CUT = 1e-5
"""Smallest singular value of the radial profiles that is kept, over the largest."""


class SteerableBasis:
    """Features of images, and how the projections along z are made of them.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes, M of them, side L.
    point_spreads : float64, shape (G, 2L - 1, 2L - 1), optional
        Point spread of each of G optics groups. Of each, its mean over all directions
        counts, and what it leaves in the disc.

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
    expansions : float64, shape (G, 2H, M)
        p and q of the projections along z of the functions, as each optics group shows
        them; G is 1 without any.

    Notes
    -----
    The radial vectors of an order are those of a singular value decomposition of the
    profiles, in all optics groups, of all functions of abs(m) = N at the pixels of the
    disc.
    """

    def __init__(
        self,
        functions: BallFunctions,
        point_spreads: NDArray[np.float64] | None = None,
    ) -> None:
        size = self.size = functions.size
        y, x = lattice(offsets(size), 2)
        inside = disc(size)
        angle = np.arctan2(y, x)[inside]
        _, ring = np.unique((y**2 + x**2)[inside], return_inverse=True)
        filters: list[NDArray[np.float64] | None] = [None]
        if point_spreads is not None:
            pixels = np.flatnonzero(inside)
            filters = [
                image_filter(spread)[np.ix_(pixels, pixels)] for spread in point_spreads
            ]
        parts = []
        for order, (cosines, sines, sharp) in enumerate(disc_profiles(functions)):
            if len(cosines) == 0:
                break  # nor are there functions of higher orders
            profiles = [
                sharp
                if of_group is None
                else _seen_through(of_group, sharp, order * angle, ring)
                for of_group in filters
            ]
            parts.append((cosines, sines, *_radial_vectors(order, np.array(profiles))))
        # Kernels are told of counts that do not grow from one order to the next.
        kept = [len(radial) for *_, radial, _ in parts]
        self.counts = tuple(np.maximum.accumulate(kept[::-1])[::-1].tolist())
        self.n_half: int = sum(self.counts)
        images = np.zeros((2, self.n_half, size, size))
        shape = len(filters), 2, self.n_half, functions.n_coefficients
        expansions = np.zeros(shape)
        start = 0
        for order, (cosines, sines, radial, mixtures) in enumerate(parts):
            rows = slice(start, start + len(radial))
            images[0, rows, inside] = (radial * np.cos(order * angle)).T
            expansions[:, 0, rows, cosines] = mixtures.transpose(1, 0, 2)
            if order > 0:
                images[1, rows, inside] = (radial * np.sin(order * angle)).T
                expansions[:, 1, rows, sines] = mixtures.transpose(1, 0, 2)
            start += self.counts[order]
        self.images = images.reshape(2 * self.n_half, size * size)
        self.expansions = expansions.reshape(len(filters), 2 * self.n_half, -1)

    @cached_property
    def orders(self) -> NDArray[np.intp]:
        """Angular order of each radial vector, intp of shape (H,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def gram(self) -> NDArray[np.float64]:
        """Inner products of the features' images, float64 of shape (2H, 2H)."""
        return np.asarray(self.images @ self.images.T)


def _seen_through(
    disc_filter: NDArray[np.float64],
    profiles: NDArray[np.float64],
    phase: NDArray[np.float64],
    ring: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Radial profiles of an order behind a filter of the disc's pixels."""
    cosine, sine = np.cos(phase), np.sin(phase)
    along = ((profiles * cosine) @ disc_filter.T) * cosine
    across = ((profiles * sine) @ disc_filter.T) * sine
    mean = np.array([np.bincount(ring, row) for row in along + across])
    return np.asarray((mean / np.bincount(ring))[:, ring])


def _radial_vectors(
    order: int, profiles: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal radial vectors of an order, and the profiles as sums of them.

    The profiles of n functions in G groups, (G, n, n_pixels), are mixtures, (G, n,
    n_vectors), of the vectors, (n_vectors, n_pixels).
    """
    n_groups, n_functions, n_pixels = profiles.shape
    harmonic = np.sqrt(2) * (-1.0) ** order if order > 0 else 1.0
    flat = harmonic * profiles.reshape(-1, n_pixels)
    left, values, vectors = np.linalg.svd(flat, full_matrices=False)
    kept = values > _CUT * values.max(initial=0)
    mixtures = (left * values)[:, kept]
    return vectors[kept], mixtures.reshape(n_groups, n_functions, -1)
