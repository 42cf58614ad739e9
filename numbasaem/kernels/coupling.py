"""Overlaps of the volume's radial functions with those of the image disc."""

from __future__ import annotations

import numba
import numpy as np

from ._jit import FAST, parallel_kernel


@parallel_kernel(FAST)
def bessel_to_pswf(
    bessel: np.ndarray,
    degree: np.ndarray,
    radial_modes: np.ndarray,
    angular_index: np.ndarray,
    equator: np.ndarray,
    node_weights: np.ndarray,
    coupling: np.ndarray,
) -> None:
    r"""Integrate every pair of a spherical Bessel function and a PSWF.

    The caller tabulates both families at the nodes of one quadrature rule.

    Parameters
    ----------
    bessel : float64, shape (n_radial, n_nodes)
        Normalized spherical Bessel functions (7).
    degree : int64, shape (n_radial,)
        Degree ell of each row of `bessel`.
    radial_modes : float64, shape (n_modes, n_nodes)
        Radial PSWFs, orthonormal under k dk.
    angular_index : int64, shape (n_modes,)
        Angular index N >= 0 of each row of `radial_modes`.
    equator : float64, shape (ell_max + 1, ell_max + 1)
        Spherical harmonics on the equator at longitude 0, entry [ell, N].
    node_weights : float64, shape (n_nodes,)
        Quadrature weights for k dk.
    coupling : float64, shape (n_radial, n_modes)
        Output: the coefficients; 0 where N > ell or ell + N is odd.

    Returns
    -------
    None
        Writes `coupling`.

    Notes
    -----
    Equation (15) for orthonormal PSWFs,

    .. math:: \beta_{\ell,s;N,n} = \sqrt{2\pi}\, Y_\ell^N(\pi/2, 0)
              \int_0^1 j_{\ell,s}(k) R_{N,n}(k)\, k\, dk.

    Cost O(n_radial n_modes n_nodes). A plain sum of products, hence the
    reassociating flags; every entry is summed by one thread.
    """
    n_radial, n_nodes = bessel.shape
    for row in numba.prange(n_radial):
        ell = degree[row]
        for mode in range(radial_modes.shape[0]):
            order = angular_index[mode]
            total = 0.0
            if order <= ell and (ell + order) % 2 == 0:
                for node in range(n_nodes):
                    product = bessel[row, node] * radial_modes[mode, node]
                    total += node_weights[node] * product
                total *= np.sqrt(2 * np.pi) * equator[ell, order]
            coupling[row, mode] = total
