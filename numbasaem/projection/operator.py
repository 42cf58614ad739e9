"""Projections of a rotated volume, (9) and (16), and their inner products.

One operator serves simulation, expectation and maximization: the coefficients are
rotated and multiplied by one fixed matrix, the projections of all basis functions
seen along z.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbasaem.errors import expected
from numbasaem.geometry.ball_functions import BallFunctions
from numbasaem.geometry.grids import NYQUIST, disc, lattice, offsets
from numbasaem.geometry.rotations import check_rotations
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.geometry.wigner import real_wigner

from .coupling import coupling_coefficients
from .disc_basis import DiscBasis
from .point_spread import image_filter

_CHUNK_BYTES = 100_000_000
"""Largest number of bytes of Wigner matrices and coefficients worked on at once."""


def image_basis(basis: BallFunctions) -> NDArray[np.float64]:
    r"""Projections along z of every basis function.

    Parameters
    ----------
    basis : BallFunctions
        Functions that span the volumes.

    Returns
    -------
    float64, shape (L * L, M), read-only
        Rows are the pixels of image[y, x] row by row, columns are in the order of
        ``basis.indices``. Zero outside the disc of L // 2 pixels.

    Notes
    -----
    Equation (16) at the identity rotation. With real harmonics the function
    (ell, m, s), N = abs(m), projects to

    .. math:: c^2 (-1)^{(\ell-N)/2} \sum_n 2\pi\gamma_{N,n} \beta_{\ell,s;N,n}
              \frac{R_{N,n}(r)}{\sqrt{2\pi}}
              \begin{cases} \sqrt{2}\,(-1)^N \cos N\varphi & m > 0 \\ 1 & m = 0 \\
              \sqrt{2}\,(-1)^N \sin N\varphi & m < 0 \end{cases}

    where :math:`2\pi\gamma = \alpha / i^N`, and to zero where ell + N is odd. Here
    c = 1/2 cycle per pixel is the c of (6) and stands for the printed
    :math:`c / 2\pi`, whose c is an angular frequency.
    """
    return _image_basis(basis.size, basis.ell_max)


@lru_cache(maxsize=8)
def _image_basis(size: int, ell_max: int) -> NDArray[np.float64]:
    """Build :func:`image_basis`; a basis is determined by size and degree."""
    basis = BallFunctions(size, ell_max)
    y, x = lattice(offsets(size), 2)
    inside = disc(size)
    angle = np.arctan2(y, x)[inside]
    matrix = np.zeros((size * size, basis.n_coefficients))
    for order, (cosines, sines, profiles) in enumerate(disc_profiles(basis)):
        for signed_order, columns in {order: cosines, -order: sines}.items():
            images = profiles * _longitude_factor(signed_order, angle)
            matrix[np.ix_(inside.ravel(), columns)] = images.T
    matrix.flags.writeable = False
    return matrix


def disc_profiles(
    basis: BallFunctions,
) -> list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]]:
    """Radial profiles of the projections along z, by their angular order N.

    Parameters
    ----------
    basis : BallFunctions
        Functions that span the volumes.

    Returns
    -------
    list of tuples, one for each N from 0 to l_max
        Columns of the functions with m = N, of those with m = -N, and the profiles of
        both at the pixels of the disc, float64 of shape (n, n_pixels): projections are
        these times the real harmonic at the equator, sqrt(2) (-1)^N cos N phi for
        m = N > 0, sqrt(2) (-1)^N sin N phi for m = -N, and 1 for N = 0.
    """
    disc_basis = DiscBasis(basis.size)
    y, x = lattice(offsets(basis.size), 2)
    radius = np.hypot(x, y)[disc(basis.size)] / disc_basis.radius
    degrees = range(basis.ell_max + 1)
    coupling = coupling_coefficients(
        [basis.radial_zeros(ell) for ell in degrees], disc_basis
    )
    first_row = np.cumsum([0, *basis.radial_counts])
    ell, m, s = basis.indices.T
    rows = first_row[ell] + s - 1
    by_order = []
    for order in degrees:
        modes = disc_basis.radial_modes(order)
        scale = NYQUIST**2 * np.sqrt(2 * np.pi) * modes.hankel_eigenvalues
        radial = (coupling[order] * scale) @ modes.evaluate(radius)
        even = (ell + order) % 2 == 0
        cosines, sines = (np.flatnonzero((m == n) & even) for n in (order, -order))
        sign = 1 - (ell[cosines] - order) % 4  # 1, -1 as ell - N is 0, 2 modulo 4
        profiles = sign[:, np.newaxis] * radial[rows[cosines]]
        by_order.append((cosines, sines, profiles))
    return by_order


def _longitude_factor(m: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real spherical harmonic over Y_ell^abs(m), on the equator at longitude 0."""
    if m == 0:
        return np.ones_like(angle)
    wave = np.cos(m * angle) if m > 0 else np.sin(-m * angle)
    factor: NDArray[np.float64] = np.sqrt(2) * (-1.0) ** m * wave
    return factor


class ProjectionOperator:
    """Projections in a fixed set of orientations.

    Parameters
    ----------
    basis : BallFunctions
        Functions that span the volumes.
    rotations : array, shape (K, 3, 3)
        Rotation matrices on (x, y, z) columns.
    point_spreads : float64, shape (G, 2L - 1, 2L - 1), optional
        Point spread of each of G optics groups, with which projections are convolved
        before they are cropped to their box; the images of the groups follow each
        other, G K in all.

    Attributes
    ----------
    basis : BallFunctions
        Functions that span the volumes, M coefficients, side L.
    n_rotations : int
        Number of orientations K.
    n_groups : int
        Number of optics groups G, 1 without any.
    disc : bool, shape (L * L,)
        Pixels that any projection reaches; all others are zero.

    Raises
    ------
    InputError
        If `rotations` are not rotation matrices.

    Notes
    -----
    With F the :func:`image_basis` and D the Wigner matrices of rotation k, the
    L^2 x M matrix of the k-th projection is Phi_k = F D_k; a point spread acts on the
    columns of F.
    """

    def __init__(
        self,
        basis: BallFunctions,
        rotations: ArrayLike,
        point_spreads: NDArray[np.float64] | None = None,
    ) -> None:
        checked = check_rotations(rotations)
        self.basis = basis
        self.n_rotations = len(checked)
        self._wigner = real_wigner(checked, basis.ell_max)
        sharp = image_basis(basis)
        self._image_bases = (
            [sharp]
            if point_spreads is None
            else [image_filter(spread) @ sharp for spread in point_spreads]
        )
        self.n_groups = len(self._image_bases)
        reached = [image_basis.any(axis=1) for image_basis in self._image_bases]
        self.disc: NDArray[np.bool_] = np.any(reached, axis=0)

    def at(self, views: ViewGrid) -> ProjectionOperator:
        """Projections of the same volumes in other rotations.

        Parameters
        ----------
        views : ViewGrid
            The rotations.

        Returns
        -------
        ProjectionOperator
            Behind the same point spreads.
        """
        other = copy(self)
        other.n_rotations = len(views)
        other._wigner = real_wigner(views.rotations, self.basis.ell_max)
        return other

    def of_group(self, number: int) -> ProjectionOperator:
        """Projections as one optics group shows them.

        Parameters
        ----------
        number : int
            Number of the group.

        Returns
        -------
        ProjectionOperator
            Of that group alone; what depends on the rotations is shared.
        """
        alone = copy(self)
        alone._image_bases = [self._image_bases[number]]
        alone.n_groups = 1
        return alone

    def mean_power(self, coefficients: ArrayLike) -> float:
        """Mean square of the pixels of all projections of a volume.

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real volume coefficients.

        Returns
        -------
        float
            Over the L x L pixels.
        """
        return float(np.mean(self.project(coefficients) ** 2))

    def project(self, coefficients: ArrayLike) -> NDArray[np.float64]:
        """Project a volume in every orientation, equation (16).

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real volume coefficients.

        Returns
        -------
        float64, shape (G K, L, L)
            Projections.

        Raises
        ------
        InputError
            If there are not M coefficients.
        """
        x = np.asarray(coefficients, dtype=np.float64)
        if x.shape != (self.basis.n_coefficients,):
            raise expected(
                "coefficients", f"shape ({self.basis.n_coefficients},)", x.shape
            )
        rotated = rotated_coefficients(self.basis, self._wigner, x)
        size = self.basis.size
        views = [rotated @ image_basis.T for image_basis in self._image_bases]
        return np.concatenate(views).reshape(-1, size, size)

    def adjoint(self, images: ArrayLike) -> NDArray[np.float64]:
        """Sum over orientations of Phi_k^T times an image, as in (30).

        Parameters
        ----------
        images : array, shape (G K, L, L)
            Images.

        Returns
        -------
        float64, shape (M,)
            The sum.

        Raises
        ------
        InputError
            If there is not one L x L image per group and orientation.
        """
        stack = np.asarray(images, dtype=np.float64)
        size = self.basis.size
        shape = (self.n_groups * self.n_rotations, size, size)
        if stack.shape != shape:
            raise expected("images", f"shape {shape}", stack.shape)
        by_group = stack.reshape(self.n_groups, self.n_rotations, size**2)
        rotated = np.zeros((self.n_rotations, self.basis.n_coefficients))
        for group, image_basis in zip(by_group, self._image_bases, strict=True):
            rotated += group @ image_basis
        result = np.empty(self.basis.n_coefficients)
        for wigner, turned, block in zip(
            self._wigner,
            self.basis.blocks(rotated),
            self.basis.blocks(result),
            strict=True,
        ):
            block[:] = np.tensordot(wigner, turned, ([0, 1], [0, 1]))
        return result

    def matrices(
        self,
        start: int = 0,
        stop: int | None = None,
        pixels: NDArray[np.bool_] | slice = slice(None),
        group: int = 0,
    ) -> NDArray[np.float64]:
        """Matrices Phi_k of a range of orientations.

        Parameters
        ----------
        start, stop : int
            Orientations ``start <= k < stop``; all from `start` on if `stop` is left
            out.
        pixels : bool, shape (L * L,), or slice
            Rows to take, such as those of `disc`; all by default.
        group : int
            Optics group, 0 to G - 1.

        Returns
        -------
        float64, shape (stop - start, n_pixels, M)
            Matrices, pixels row by row. Ask for as many orientations as memory holds.
        """
        chosen = range(self.n_rotations)[start:stop]
        image_basis = self._image_bases[group][pixels]
        n_pixels, n_coefficients = image_basis.shape
        result = np.empty((len(chosen), n_pixels, n_coefficients))
        for wigner, views, block in zip(
            self._wigner,
            self.basis.blocks(image_basis),
            self.basis.blocks(result),
            strict=True,
        ):
            _, n_orders, n_radial = views.shape
            # (k, m, m') @ (m', pixel * s): one product per orientation.
            flat = views.transpose(1, 0, 2).reshape(n_orders, n_pixels * n_radial)
            turned = wigner[start:stop].transpose(0, 2, 1) @ flat
            turned = turned.reshape(len(chosen), n_orders, n_pixels, n_radial)
            block[:] = turned.transpose(0, 2, 1, 3)
        return result


def rotated_coefficients(
    functions: BallFunctions,
    wigner: Sequence[NDArray[np.float64]],
    coefficients: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Coefficients of a volume in every orientation.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes, M of them.
    wigner : sequence of float64, shape (K, 2 ell + 1, 2 ell + 1)
        Matrices of the orientations for each degree, as of :func:`real_wigner`.
    coefficients : float64, shape (M,)
        Those of the volume.

    Returns
    -------
    float64, shape (K, M)
        Those of the rotated volumes.
    """
    rotated = np.empty((len(wigner[0]), coefficients.size))
    for matrices, block, turned in zip(
        wigner, functions.blocks(coefficients), functions.blocks(rotated), strict=True
    ):
        turned[:] = matrices @ block
    return rotated


def operator_bytes(functions: BallFunctions, n_rotations: int, n_groups: int) -> int:
    """Bytes that a :class:`ProjectionOperator` takes at its most.

    Parameters
    ----------
    functions : BallFunctions
        Functions that span the volumes.
    n_rotations : int
        Number of orientations.
    n_groups : int
        Number of optics groups, 1 without any.

    Returns
    -------
    int
        Bytes of the Wigner matrices and of one image basis for each group, and as much
        again for the sharp image basis and for copies while all are built and applied.
    """
    wigner = sum((2 * ell + 1) ** 2 for ell in range(functions.ell_max + 1))
    image_basis = functions.size**2 * functions.n_coefficients
    return 2 * 8 * (n_rotations * wigner + n_groups * image_basis)


def project(
    basis: BallFunctions, coefficients: ArrayLike, rotations: ArrayLike
) -> NDArray[np.float64]:
    """Project a volume in any number of orientations, equation (16).

    Parameters
    ----------
    basis : BallFunctions
        Functions that span the volumes, M coefficients, side L.
    coefficients : array, shape (M,)
        Real volume coefficients.
    rotations : array, shape (K, 3, 3)
        Rotation matrices on (x, y, z) columns.

    Returns
    -------
    float64, shape (K, L, L)
        Integrals along z of the rotated volume, zero outside the disc of L // 2 pixels.

    Raises
    ------
    InputError
        If the coefficients or the rotations do not fit.

    See Also
    --------
    ProjectionOperator : keeps what depends on the rotations alone.
    """
    checked = check_rotations(rotations)
    images = np.empty((len(checked), basis.size, basis.size))
    wigner_entries = sum((2 * ell + 1) ** 2 for ell in range(basis.ell_max + 1))
    entries = wigner_entries + basis.n_coefficients
    step = max(1, _CHUNK_BYTES // (8 * entries))
    for start in range(0, len(checked), step):
        chunk = slice(start, start + step)
        images[chunk] = ProjectionOperator(basis, checked[chunk]).project(coefficients)
    return images


def projection_matrices(
    basis: BallFunctions, rotations: ArrayLike
) -> NDArray[np.float64]:
    """Matrices Phi_k from coefficients to projections.

    They take 8 K L^2 M bytes, 117 MB for K = 552, L = 11 and degree 10.

    Parameters
    ----------
    basis : BallFunctions
        Functions that span the volumes, M coefficients, side L.
    rotations : array, shape (K, 3, 3)
        Rotation matrices on (x, y, z) columns.

    Returns
    -------
    float64, shape (K, L * L, M)
        Matrices; pixels of image[y, x] row by row.

    Raises
    ------
    InputError
        If `rotations` are not rotation matrices.
    """
    return ProjectionOperator(basis, rotations).matrices()
