"""Coefficients that carry a volume's radial functions into the image disc, (15)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import sph_harm_y

from numbasaem.geometry.special_functions import normalized_bessel
from numbasaem.kernels.coupling import bessel_to_pswf

from .disc_basis import DiscBasis


def coupling_coefficients(
    radial_zeros: Sequence[NDArray[np.float64]], disc: DiscBasis
) -> tuple[NDArray[np.float64], ...]:
    r"""Coefficients beta of (15) for every angular index up to the largest degree.

    Parameters
    ----------
    radial_zeros : sequence of float64, shape (S(ell),) for entry ell
        Zeros u of the spherical Bessel function of degree ell that the volume uses.
    disc : DiscBasis
        PSWFs of the image.

    Returns
    -------
    tuple of float64, shape (n_radial, n_modes) for entry N
        Coefficients: rows are the pairs (ell, s), ell slowest; columns are the PSWFs
        (N, n). The coefficient of -N is (-1)^N times that of N.

    Notes
    -----
    With orthonormal PSWFs the expansion (13) of the projection has

    .. math:: \beta_{\ell,s;N,n} = \sqrt{2\pi}\, Y_\ell^N(\pi/2, 0)
              \int_0^1 j_{\ell,s}(k) R_{N,n}(k)\, k\, dk.

    The printed :math:`\sqrt{8\pi} / \alpha_{N,n}` belongs to functions scaled as
    in (12), which are not orthonormal; the product of coefficient and function is
    the same. The first line of (14) agrees with neither: its constant should be
    :math:`4 / (\sqrt{8\pi}\, \alpha_{N,n})`.
    """
    ell_max = len(radial_zeros) - 1
    degree = np.repeat(np.arange(ell_max + 1), [len(zeros) for zeros in radial_zeros])
    bessel = np.concatenate(
        [
            normalized_bessel(ell, zeros, disc.nodes)
            for ell, zeros in enumerate(radial_zeros)
        ]
    )
    values = [disc.radial_modes(n).evaluate(disc.nodes) for n in range(ell_max + 1)]
    n_modes = [len(block) for block in values]
    coupling = np.empty((len(bessel), sum(n_modes)))
    bessel_to_pswf(
        bessel,
        degree,
        np.concatenate(values),
        np.repeat(np.arange(ell_max + 1), n_modes),
        _equator(ell_max),
        disc.node_weights,
        coupling,
    )
    return tuple(np.split(coupling, np.cumsum(n_modes)[:-1], axis=1))


def _equator(ell_max: int) -> NDArray[np.float64]:
    """Tabulate the harmonics (8) at colatitude pi/2, longitude 0, entry [ell, N]."""
    ell, order = np.indices((ell_max + 1, ell_max + 1))
    # SciPy leaves orders above the degree undefined; no integral uses them.
    values = sph_harm_y(ell, np.minimum(order, ell), np.pi / 2, 0.0).real
    result: NDArray[np.float64] = np.where(order <= ell, values, 0.0)
    return result
