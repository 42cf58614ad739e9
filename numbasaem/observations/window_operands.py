"""Projections in steerable features, in the form that the window kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.grids import disc
from numbasaem.kernels.layout import HIDDEN
from numbasaem.kernels.llvm import LANES
from numbasaem.kernels.windows.steerable import GROUP, counts_in_types

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.projection.view_projections import ViewProjections


class WindowOperands:
    """What the kernels are told of a volume's projections and of their features.

    Parameters
    ----------
    operator : ViewProjections
        Projections in the rotations.
    coefficients : float64, shape (n_pairs, 2H)
        Those of the volume, in units of the exponent.
    exponents : float64, shape (n_views, n_angles)
        Base-2 logarithm of the weight of each rotation in a window without pixels.

    Attributes
    ----------
    counts : tuple
        Radial vectors of each order, which the kernels are compiled for.
    lanes : tuple
        Lanes of a vector, which the kernels are compiled for.
    images : float32, shape (n_groups, n_pixels, GROUP)
        Features' images on the pixels of the disc.
    coefficients : float32, shape (n_pairs, 2H)
        As given.
    waves : float32, shape (n_angles / 4, 2 * n_orders)
        Cosines and then sines of the orders at the angles of the first quarter.
    bias : float32, shape (n_pairs, 2, n_angles / 4, 4)
        Exponents, the angles in fours.
    """

    def __init__(
        self,
        operator: ViewProjections,
        coefficients: NDArray[np.float64],
        exponents: NDArray[np.float64],
    ) -> None:
        features, views = operator.features, operator.views
        self._n_angles = views.n_angles
        self.counts = counts_in_types(features.counts)
        self.lanes = (0,) * LANES
        on_disc = disc(features.size).ravel()
        self.images = images_in_groups(features.images[:, on_disc])
        self.coefficients = coefficients.astype(np.float32)
        quarter = views.angles[: views.n_angles // 4, np.newaxis]
        phases = quarter * np.arange(len(features.counts))
        waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
        self.waves = waves.astype(np.float32)
        in_fours = np.maximum(exponents, HIDDEN)[:, self._fours]
        shape = operator.n_pairs, 2, *self._fours.shape
        self.bias = in_fours.reshape(shape).astype(np.float32)

    @property
    def _fours(self) -> NDArray[np.intp]:
        """Numbers of the angles psi, -psi, pi - psi and pi + psi of a quarter."""
        n = self._n_angles
        a = np.arange(n // 4)
        return np.stack([a, n - 1 - a, n // 2 - 1 - a, n // 2 + a], axis=1)

    def by_angle(self, in_fours: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put values that the kernels hold in fours in the order of the rotations.

        Parameters
        ----------
        in_fours : float64, shape (n_pairs, 2, n_angles / 4, 4)
            Values in the order of `bias`.

        Returns
        -------
        float64, shape (n_views, n_angles)
            The same values.
        """
        n_views = 2 * len(in_fours)
        of_rotations = np.empty((n_views, self._n_angles))
        of_rotations[:, self._fours] = in_fours.reshape(n_views, -1, 4)
        return of_rotations


def images_in_groups(images: NDArray[np.float64]) -> NDArray[np.float32]:
    """Images of the features in the groups that the kernels take.

    Parameters
    ----------
    images : float64, shape (n_images, n_pixels)
        The images.

    Returns
    -------
    float32, shape (n_groups, n_pixels, GROUP)
        The same; the last group is filled up with zeros.
    """
    n_images, n_pixels = images.shape
    n_groups = -(-n_images // GROUP)
    filled = np.zeros((n_groups * GROUP, n_pixels), np.float32)
    filled[:n_images] = images
    groups = filled.reshape(n_groups, GROUP, n_pixels)
    return np.ascontiguousarray(groups.transpose(0, 2, 1))
