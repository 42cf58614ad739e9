"""What may explain the data: the projections of a volume, and how likely each is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Hypotheses:
    """Projections of a volume in all rotations, their priors, and the noise.

    Attributes
    ----------
    operator : ProjectionOperator or ViewProjections
        Projections in K rotations, as each optics group shows them.
    volume_coefficients : float64, shape (M,)
        Current estimate of the volume.
    shift_prior : float64, shape (2L, 2L)
        rho of equation (17); windows use the probability of empty alone.
    noise_variance : float
        sigma**2 of the pixels.
    rotation_prior : float64, shape (K,), or None
        Probability of each rotation; None is the uniform prior.
    """

    operator: Any
    volume_coefficients: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    rotation_prior: NDArray[np.float64] | None = None

    @cached_property
    def images(self) -> NDArray[np.float64]:
        """Projections, float64 of shape (n_groups * K, L, L), group by group."""
        return np.asarray(self.operator.project(self.volume_coefficients))

    @property
    def in_images(
        self,
    ) -> tuple[
        NDArray[np.float64], NDArray[np.float64], float, NDArray[np.float64] | None
    ]:
        """Projections, shift prior, noise variance and rotation prior."""
        return self.images, self.shift_prior, self.noise_variance, self.rotation_prior

    def of_group(self, number: int) -> Hypotheses:
        """What may explain the data of one optics group.

        Parameters
        ----------
        number : int
            Number of the group.

        Returns
        -------
        Hypotheses
            The same, in its projections alone.
        """
        return replace(self, operator=self.operator.of_group(number))
