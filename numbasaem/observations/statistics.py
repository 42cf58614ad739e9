"""Sufficient statistics of the E-step, and what the M-step asks of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from numbasaem.errors import expected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from numbasaem.micrographs.optics_groups import OpticsGroups

    from .hypotheses import Hypotheses


@dataclass(frozen=True, kw_only=True)
class Statistics(ABC):
    """Sufficient statistics of a set of patches; those of two sets add up.

    :class:`ImageStatistics` keeps those of patches, :class:`FeatureStatistics` those of
    windows. The M-step uses nothing but what they have in common.

    Attributes
    ----------
    shift_mass : float64, shape (2L, 2L)
        Posterior of each shift of equation (17), summed over patches. The shifts that
        leave a patch empty are one state; they share its mass as they share its prior.
    rotation_mass : float64, shape (K,)
        Posterior of each rotation, summed over patches; of what is empty as its prior
        is.
    log_likelihood : float
        Sum over patches of log p(I_p), natural, Gaussian constant included.
    patch_energy : float
        Sum over patches of ||I_p||**2.
    n_patches : float
        Number of patches seen; in the window model, that of windows over L**2.

    Examples
    --------
    >>> from numbasaem import expectation
    >>> patches = np.random.default_rng(0).random((6, 5, 5), dtype=np.float32)
    >>> prior = np.full((10, 10), 0.01)
    >>> halves = (patches[:3], patches[3:])
    >>> first, second = (expectation(half, patches, prior, 1.0) for half in halves)
    >>> isinstance(first, Statistics), (first + second).n_patches
    (True, 6)
    """

    shift_mass: NDArray[np.float64]
    rotation_mass: NDArray[np.float64]
    log_likelihood: float
    patch_energy: float
    n_patches: float

    counts: ClassVar[frozenset[str]] = frozenset({"log_likelihood", "n_patches"})
    """Names of the sums that stay when the same patches count several times."""
    of_each_group: ClassVar[tuple[str, ...]]
    """Names of the arrays that hold one part for each optics group."""

    def __add__(self, other: Statistics) -> Self:
        """Statistics of both sets of patches together."""
        if type(other) is not type(self):
            return NotImplemented
        sums = {}
        for name, own in self._sums().items():
            added = getattr(other, name)
            if np.shape(own) != np.shape(added):
                wanted = f"{name} of shape {np.shape(own)}"
                raise expected("statistics", wanted, f"shape {np.shape(added)}")
            sums[name] = own + added
        return replace(self, **sums)

    def scaled(self, factor: float) -> Self:
        """Statistics of the same patches, each counted `factor` times.

        Parameters
        ----------
        factor : float
            Factor of all sums but those that `counts` names.

        Returns
        -------
        Statistics
            Statistics with their sums multiplied.
        """
        sums = self._sums()
        scaled = {name: factor * sums[name] for name in sums.keys() - self.counts}
        return replace(self, **scaled)

    @classmethod
    def of_groups(cls, groups: Sequence[Self]) -> Self:
        """Statistics of optics groups, each under its own views of the volume.

        Parameters
        ----------
        groups : sequence of Statistics
            One for each group.

        Returns
        -------
        Statistics
            Statistics of all patches, the parts of the groups one after the other.
        """
        set_aside: dict[str, Any] = dict.fromkeys(cls.of_each_group, np.zeros(()))
        first, *others = (replace(group, **set_aside) for group in groups)
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(group, name) for group in groups])
            for name in cls.of_each_group
        }
        return replace(sum(others, start=first), **joined)

    def _sums(self) -> dict[str, Any]:
        """All that adds up, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def size(self) -> int:
        """L, side of a patch, pixels."""
        return len(self.shift_mass) // 2

    @property
    def n_pixels(self) -> float:
        """Number of pixels of the patches."""
        return self.n_patches * self.size**2

    @property
    def empty_mass(self) -> float:
        """Posterior expected number of patches that hold no particle."""
        size = self.size
        return float(
            self.shift_mass[size].sum()
            + self.shift_mass[:, size].sum()
            - self.shift_mass[size, size]
        )

    @property
    def evidence(self) -> float:
        """Log-likelihood less that of the likeliest white noise without particles.

        Minibatches can be compared by it: it fluctuates a hundred times less than the
        log-likelihood, since the energy of the pixels drops out. Minus infinity if all
        pixels are zero.
        """
        if self.patch_energy <= 0:
            return -math.inf
        variance = self.patch_energy / self.n_pixels
        white = -self.n_pixels * (1 + math.log(2 * math.pi * variance)) / 2
        return self.log_likelihood - white

    @property
    @abstractmethod
    def particle_mass(self) -> float:
        """Posterior expected number of particles, as far as they are in view."""

    @property
    @abstractmethod
    def pixels_in_view(self) -> float:
        """Number of pixels of a particle's disc that a patch shows, on average."""

    @abstractmethod
    def normal_matrix(self, operator: Any) -> NDArray[np.float64]:
        """Matrix A of the linear equations (29).

        Parameters
        ----------
        operator : ProjectionOperator or ViewProjections
            Projections in the rotations that these statistics refer to.

        Returns
        -------
        float64, shape (M, M)
            A = sum_k Phi_k^T diag(m_k) Phi_k, equation (34); positive semidefinite.

        Raises
        ------
        InputError
            If the statistics are of other rotations or another size.

        Notes
        -----
        On one thread, so that the sum is the same bits wherever it is taken.
        """

    @abstractmethod
    def normal_product(
        self, operator: Any, coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Product of the matrix A of (29) and a vector, without the matrix.

        Parameters
        ----------
        operator : ProjectionOperator or ViewProjections
            Projections in the rotations that these statistics refer to.
        coefficients : float64, shape (M,)
            The vector.

        Returns
        -------
        float64, shape (M,)
            The product.

        Raises
        ------
        InputError
            As :meth:`normal_matrix`.
        """

    @abstractmethod
    def right_side(self, operator: Any) -> NDArray[np.float64]:
        """Right side y of the linear equations (29).

        Parameters
        ----------
        operator : ProjectionOperator or ViewProjections
            Projections in the rotations that these statistics refer to.

        Returns
        -------
        float64, shape (M,)
            y = sum_k Phi_k^T b_k, equation (30).

        Raises
        ------
        InputError
            As :meth:`normal_matrix`.
        """

    @abstractmethod
    def explained_energy(
        self, operator: Any, coefficients: NDArray[np.float64]
    ) -> float:
        """Energy of the patches that a volume explains.

        Parameters
        ----------
        operator : ProjectionOperator or ViewProjections
            Projections in the rotations that these statistics refer to.
        coefficients : float64, shape (M,)
            The volume.

        Returns
        -------
        float
            2 x.y - x^T A x: `patch_energy` less this is the expected squared residual.
        """


def by_optics_group(
    optics: OpticsGroups | None,
    chosen: NDArray[np.intp],
    hypotheses: Hypotheses,
    statistics_of: Callable[[NDArray[np.intp], Hypotheses], Statistics],
) -> Statistics:
    """Statistics of observations, each under the projections of its optics group.

    Parameters
    ----------
    optics : OpticsGroups or None
        Groups of all observations; None if there are none.
    chosen : intp, shape (n,)
        Numbers of the observations.
    hypotheses : Hypotheses
        What may explain them, in the projections of all groups.
    statistics_of : callable
        Function from observations, maybe none, and the hypotheses of one group to
        statistics.

    Returns
    -------
    Statistics
        Statistics of all.
    """
    if optics is None:
        return statistics_of(chosen, hypotheses)
    group_of_chosen = optics.group[chosen]
    groups = [
        statistics_of(chosen[group_of_chosen == number], hypotheses.of_group(number))
        for number in range(len(optics.point_spreads))
    ]
    return type(groups[0]).of_groups(groups)
