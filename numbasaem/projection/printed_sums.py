"""Sums over the pixels of a patch as they are printed, (33) and (35)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def patch_inner_product(
    patch: NDArray[np.float64],
    shift: tuple[int, int],
    projection_matrix: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Inner products of a patch with the shifted projections of the basis, q of (33).

    Parameters
    ----------
    patch : float64, shape (L, L)
        Pixels of the patch.
    shift : (int, int)
        (s_y, s_x), each in 0 ... 2L - 1.
    projection_matrix : float64, shape (L * L, M)
        Phi of one orientation.

    Returns
    -------
    float64, shape (M,)
        q, one inner product for each coefficient.
    """
    size = len(patch)
    in_patch, in_projection = _overlap(size, shift)
    in_view = projection_matrix.reshape(size, size, -1)[in_projection]
    result: NDArray[np.float64] = np.einsum("ij,ijm->m", patch[in_patch], in_view)
    return result


def shifted_gram(
    shift: tuple[int, int], projection_matrix: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inner products of the shifted projections with each other, g of (35).

    Parameters
    ----------
    shift : (int, int)
        (s_y, s_x), each in 0 ... 2L - 1.
    projection_matrix : float64, shape (L * L, M)
        Phi of one orientation.

    Returns
    -------
    float64, shape (M, M)
        g, symmetric.
    """
    n_pixels, n_coefficients = projection_matrix.shape
    size = round(n_pixels**0.5)
    _, in_projection = _overlap(size, shift)
    in_view = projection_matrix.reshape(size, size, -1)[in_projection].reshape(
        -1, n_coefficients
    )
    return in_view.T @ in_view


def _overlap(
    size: int, shift: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Pixels of the patch, and those of the projection that lie on them under (19).

    A shift s < L shows the projection from pixel s on; a shift s > L moves the
    projection 2L - s pixels into the patch; at s = L nothing is in view.
    """
    in_patch, in_projection = zip(
        *(
            (slice(0, size - s), slice(s, size))
            if s <= size
            else (slice(2 * size - s, size), slice(0, s - size))
            for s in shift
        ),
        strict=True,
    )
    return (in_patch[0], in_patch[1]), (in_projection[0], in_projection[1])
