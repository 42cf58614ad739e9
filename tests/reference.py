"""Slow references: every compiled function's namesake, straight from its equation.

Nothing here is compiled or clever, and nothing here imports the package: each
function is the plainest loop that says what its namesake in `numbasaem.kernels`
has to compute.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special


def bessel_to_pswf(
    bessel: NDArray[np.float64],
    degree: NDArray[np.int64],
    radial_modes: NDArray[np.float64],
    angular_index: NDArray[np.int64],
    equator: NDArray[np.float64],
    node_weights: NDArray[np.float64],
    coupling: NDArray[np.float64],
) -> None:
    """Equation (15) by the plainest sums."""
    for row, ell in enumerate(degree):
        for mode, order in enumerate(angular_index):
            coupling[row, mode] = 0.0
            if order > ell or (ell + order) % 2:
                continue
            for k, weight in enumerate(node_weights):
                product = bessel[row, k] * radial_modes[mode, k]
                coupling[row, mode] += (
                    np.sqrt(2 * np.pi) * equator[ell, order] * product * weight
                )


def complex_patch_inner_product(
    patch: NDArray[np.float64],
    shift: tuple[int, int],
    beta_hat: dict[tuple[int, int], dict[int, NDArray[np.complex128]]],
    wigner: dict[int, NDArray[np.complex128]],
    psi: dict[int, NDArray[np.complex128]],
    indices: list[tuple[int, int, int]],
) -> NDArray[np.complex128]:
    """Equation (33) in the complex coefficients of (6): one value per (ell, m, s).

    `beta_hat[ell, s][N]` is an array over n, `wigner[ell][N + ell, m + ell]` the
    rotation matrix of the coefficients, `psi[N]` a stack (n, L, L) of sampled PSWFs.
    """
    size = len(patch)
    inner = {}
    for order, images in psi.items():
        inner[order] = np.zeros(len(images), dtype=complex)
        for n, image in enumerate(images):
            padded = np.zeros((2 * size, 2 * size), dtype=complex)
            padded[:size, :size] = image
            for i in range(size):
                for j in range(size):
                    row = (i + shift[0]) % (2 * size)
                    column = (j + shift[1]) % (2 * size)
                    inner[order][n] += patch[i, j] * padded[row, column]
    values = np.zeros(len(indices), dtype=complex)
    for position, (ell, m, s) in enumerate(indices):
        for order in range(-ell, ell + 1):
            for n, beta in enumerate(beta_hat[ell, s][order]):
                values[position] += (
                    beta * wigner[ell][order + ell, m + ell] * inner[order][n]
                )
    return values


def complex_shifted_gram(
    shift: tuple[int, int],
    size: int,
    beta_hat: dict[tuple[int, int], dict[int, NDArray[np.complex128]]],
    wigner: dict[int, NDArray[np.complex128]],
    psi: dict[int, NDArray[np.complex128]],
    indices: list[tuple[int, int, int]],
) -> NDArray[np.complex128]:
    """Equation (35) in complex coefficients, arguments as in (33).

    The sums over N, n are done first, pixel by pixel, which changes nothing.
    """
    visible = np.zeros((len(indices), size, size), dtype=complex)
    for position, (ell, m, s) in enumerate(indices):
        padded = np.zeros((2 * size, 2 * size), dtype=complex)
        for order in range(-ell, ell + 1):
            for beta, image in zip(beta_hat[ell, s][order], psi[order], strict=True):
                padded[:size, :size] += beta * wigner[ell][order + ell, m + ell] * image
        for i in range(size):
            for j in range(size):
                row = (i + shift[0]) % (2 * size)
                column = (j + shift[1]) % (2 * size)
                visible[position, i, j] = padded[row, column]
    gram = np.zeros((len(indices), len(indices)), dtype=complex)
    for first in range(len(indices)):
        for second in range(len(indices)):
            gram[first, second] = np.sum(visible[first] * visible[second])
    return gram
