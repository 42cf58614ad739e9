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
    patch
        Shape (L, L).
    shift
        (s_y, s_x), each in 0 ... 2L - 1.
    projection_matrix
        Shape (L * L, M). Phi of one orientation.

    Returns
    -------
    ndarray
        Shape (M,).
    """
    size = len(patch)
    here, there = _overlap(size, shift)
    in_view = projection_matrix.reshape(size, size, -1)[there]
    result: NDArray[np.float64] = np.einsum("ij,ijm->m", patch[here], in_view)
    return result


def shifted_gram(
    shift: tuple[int, int], projection_matrix: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inner products of the shifted projections with each other, g of (35).

    Parameters
    ----------
    shift
        (s_y, s_x), each in 0 ... 2L - 1.
    projection_matrix
        Shape (L * L, M). Phi of one orientation.

    Returns
    -------
    ndarray
        Shape (M, M), symmetric.
    """
    n_pixels, n_coefficients = projection_matrix.shape
    size = round(n_pixels**0.5)
    _, there = _overlap(size, shift)
    in_view = projection_matrix.reshape(size, size, -1)[there].reshape(
        -1, n_coefficients
    )
    return in_view.T @ in_view


def _overlap(
    size: int, shift: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Pixels of the patch that see the projection under (19), and what they see.

    A shift s < L shows the projection from pixel s on; a shift s > L moves the
    projection 2L - s pixels into the patch; at s = L nothing is in view.
    """
    here, there = zip(
        *(
            (slice(0, size - s), slice(s, size))
            if s <= size
            else (slice(2 * size - s, size), slice(0, s - size))
            for s in shift
        ),
        strict=True,
    )
    return (here[0], here[1]), (there[0], there[1])
