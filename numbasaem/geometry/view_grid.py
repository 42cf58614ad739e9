"""Rotations as views times in-plane angles."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from .rotations import check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = (1 + 5**0.5) / 2
_PLASTIC = 1.3247179572447460
"""Plastic number: its powers spread points as the golden ratio's do, independently."""
_X_HALF_TURN = np.diag([1.0, -1.0, -1.0])


class ViewGrid:
    """About n rotations: views in opposite pairs, each at the same in-plane angles.

    Parameters
    ----------
    n : int
        About how many rotations, at least 8.

    Attributes
    ----------
    n_views : int
        Views, an even number: 2i and 2i + 1 are opposite.
    n_angles : int
        In-plane angles of each view, a multiple of 4.
    step : float
        About the angle between neighbouring views, radians.

    Raises
    ------
    InputError
        If n is not a whole number of at least 8.

    Notes
    -----
    Steps are as long between views as between angles: 8 pi**2 / n is the cube of one.
    Views spiral evenly over a hemisphere, a spherical Fibonacci lattice. The projection
    in the opposite view is that in the view, mirrored in y. Angles are odd multiples of
    half a step, so that -psi, pi - psi and pi + psi are among them with each psi.

    Examples
    --------
    >>> views = ViewGrid(552)
    >>> views.n_views, views.n_angles, len(views)
    (46, 12, 552)
    """

    def __init__(self, n: int) -> None:
        check_number(n, at_least=8)
        self.step: float = (8 * math.pi**2 / n) ** (1 / 3)
        self.n_angles: int = 4 * max(1, round(2 * math.pi / self.step / 4))
        self.n_views: int = 2 * max(1, round(n / self.n_angles / 2))
        self._n, self._turn = n, np.eye(3)

    def turned(self, rotation: NDArray[np.float64]) -> ViewGrid:
        """Grid of the same steps, turned against the molecule.

        Parameters
        ----------
        rotation : float64, shape (3, 3)
            Every rotation R of the grid becomes R times this one.

        Returns
        -------
        ViewGrid
            The turned grid; its directions are those of the grid turned back.
        """
        other = ViewGrid(self._n)
        other._turn = self._turn @ rotation
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the rotations, which come of the rest."""
        derived = {"angles", "view_rotations", "rotations"}
        return {name: own for name, own in vars(self).items() if name not in derived}

    def __len__(self) -> int:
        """Number of rotations K."""
        return self.n_views * self.n_angles

    @property
    def angle_step_degrees(self) -> float:
        """Step between in-plane angles, degrees."""
        return 360 / self.n_angles

    @cached_property
    def angles(self) -> NDArray[np.float64]:
        """In-plane angles psi in radians, float64 of shape (n_angles,)."""
        steps = np.arange(self.n_angles) + 0.5
        return np.asarray(steps * 2 * np.pi / self.n_angles)

    @cached_property
    def view_rotations(self) -> NDArray[np.float64]:
        """Rotation of each view at psi = 0, float64 of shape (n_views, 3, 3)."""
        i = np.arange(self.n_views // 2)
        z = (i + 0.5) / len(i)
        longitude = 2 * np.pi * (i / _GOLDEN % 1)
        offset = 2 * np.pi / self.n_angles * (i / _PLASTIC % 1)
        euler = np.stack([longitude, np.arccos(z), offset], axis=1)
        first = Rotation.from_euler("ZYZ", euler).inv().as_matrix()
        pairs = np.stack([first, _X_HALF_TURN @ first], axis=1).reshape(-1, 3, 3)
        return np.asarray(pairs @ self._turn)

    @property
    def directions(self) -> NDArray[np.float64]:
        """Direction (x, y, z) of each view in the map, float64 of shape (n_views, 3).

        A projection is along z after the rotation R, which is R^T z in the map: the
        last row of R.
        """
        return self.view_rotations[:, 2]

    @cached_property
    def rotations(self) -> NDArray[np.float64]:
        """All rotations, views slowest, float64 of shape (K, 3, 3)."""
        turns = Rotation.from_rotvec(self.angles[:, None] * [0.0, 0.0, 1.0]).as_matrix()
        products = turns[None] @ self.view_rotations[:, None]
        return np.ascontiguousarray(products.reshape(-1, 3, 3))
