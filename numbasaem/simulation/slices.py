"""Volumes at their own size: projected by slices of their transform, or downsampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from numbasaem.micrographs.fourier_crop import fourier_crop

# What a volume of 200 voxels per axis can afford.
SLICE_ACCURACY = 1e-4
"""Relative accuracy of the Fourier transform at the points of a slice."""
SLICE_OVERSAMPLING = 1.25
"""Factor by which the transform's grid is oversampled."""


def project_slices(
    volume: NDArray[np.floating], rotations: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Project a volume by the Fourier slice theorem, equation (1).

    The transform of a projection is a slice through that of the volume; it is taken
    below half a cycle per pixel in every direction.

    Parameters
    ----------
    volume : ndarray, shape (n, n, n)
        The map, ``volume[z, y, x]``, zero outside the ball of radius ``n // 2``.
    rotations : ndarray, shape (K, 3, 3)
        The rotation of each projection.

    Returns
    -------
    ndarray, shape (K, n, n), float32
        Projections, ``image[y, x]``.
    """
    import finufft

    n = len(volume)
    ky, kx = np.meshgrid(fft.fftfreq(n, 1 / n), np.arange(n // 2 + 1), indexing="ij")
    band = 4 * (kx**2 + ky**2) < n**2
    slices = np.zeros((len(rotations), *band.shape), dtype=np.complex64)
    # R f has the transform f_hat(R^T xi), and xi has no z component.
    rows = np.asarray(rotations)[:, :2]
    turned = np.stack([kx[band], ky[band]], -1) @ rows * (2 * np.pi / n)
    x, y, z = turned.reshape(-1, 3).T.astype(np.float32, order="C")
    values = finufft.nufft3d2(
        z,
        y,
        x,
        volume.astype(np.complex64),
        eps=SLICE_ACCURACY,
        isign=-1,
        upsampfac=SLICE_OVERSAMPLING,
    )
    centre = np.exp(-2j * np.pi / n * (n // 2) * (kx + ky)[band])
    slices[:, band] = values.reshape(len(rotations), -1) * centre.astype(np.complex64)
    return np.asarray(fft.irfft2(slices, s=(n, n), axes=(1, 2)), dtype=np.float32)


def downsampled(volume: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """Fourier-crop a volume so that its projections keep their values.

    A projection sums voxels along a line, and after cropping a line has fewer.

    Parameters
    ----------
    volume : ndarray, shape (n, n, n)
        The map.
    size : int
        Voxels per axis, at most n.

    Returns
    -------
    ndarray, shape (size, size, size), float64
        The map in voxels of ``n / size`` of the old ones.
    """
    cropped = fourier_crop(np.asarray(volume, dtype=np.float64), size)
    return np.asarray(cropped * (len(volume) / size), dtype=np.float64)
