"""Point groups: the volumes that their rotations leave as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from numbasaem.geometry.wigner import real_wigner
from numbasaem.setting_checks import check_symmetry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.geometry.ball_functions import BallFunctions

_INVARIANT = 0.5
"""Threshold between the eigenvalues 0 and 1 of an average over a group."""


def symmetry_rotations(name: str) -> NDArray[np.float64]:
    """All rotations of a point group.

    Parameters
    ----------
    name : str
        Cn and Dn have their n-fold axis along z, and Dn a two-fold one along x. T, O
        and I have two-fold, four-fold and two-fold axes along x, y and z.

    Returns
    -------
    float64, shape (n, 3, 3)
        Rotation matrices on (x, y, z) columns.

    Raises
    ------
    InputError
        If the name is not Cn, Dn, T, O or I.

    Examples
    --------
    >>> [len(symmetry_rotations(name)) for name in ("C1", "C5", "D2", "T", "O", "I")]
    [1, 5, 4, 12, 24, 60]
    """
    group = Rotation.create_group(check_symmetry(name), axis="Z")  # type: ignore[arg-type]
    return np.asarray(group.as_matrix())


def invariant_volumes(basis: BallFunctions, name: str) -> NDArray[np.float64]:
    """Orthonormal basis of the volumes with a symmetry.

    Parameters
    ----------
    basis : BallFunctions
        Functions that span all volumes, M coefficients.
    name : str
        Point group.

    Returns
    -------
    float64, shape (M, n)
        Columns are coefficients in `basis`; a symmetric volume has n unknowns.

    Raises
    ------
    InputError
        If the group is unknown.

    Notes
    -----
    The average of the Wigner matrices over a group projects onto the functions that the
    group leaves as they are. It is the same for all radial functions of a degree.

    Examples
    --------
    >>> from numbasaem import VolumeBasis
    >>> invariant_volumes(VolumeBasis(size=15, ell_max=8), "O").shape
    (326, 18)
    """
    group = symmetry_rotations(name)
    if len(group) == 1:
        return np.eye(basis.n_coefficients)
    matrices = real_wigner(group, basis.ell_max)
    blocks = []
    for matrix, n_radial in zip(matrices, basis.radial_counts, strict=True):
        values, vectors = np.linalg.eigh(matrix.mean(axis=0))
        invariant = vectors[:, values > _INVARIANT]
        blocks.append(np.kron(invariant, np.eye(n_radial)))
    return np.asarray(block_diag(*blocks))
