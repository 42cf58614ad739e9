"""Between a molecule and the pixels: the lens, and the colour of the noise.

A micrograph is filtered so that its noise is white. Projections are taken through all
that particles have then been through, and cropped to their box.

For the lens the micrograph's filter is the sign of the contrast transfer function: it
changes no noise and brings a particle's fringes back to it. Particles have then been
through the absolute value of that function. For coloured noise the filter is one over
the root of the spectrum, and particles have been through this filter alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, signal

from numbasaem.geometry.grids import disc

from .noise_spectrum import RadialSpectrum
from .optics_groups import PointSpread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .ctf import ContrastTransferFunction

_LEAST_GRID = 256
"""Smallest side of the grid of frequencies that a point spread is computed on."""


def flip_phases_and_whiten(
    pixels: NDArray[np.float32],
    excluded: NDArray[np.bool_],
    size: int,
    ctf: tuple[ContrastTransferFunction, float] | None = None,
    whiten: bool = False,
) -> tuple[NDArray[np.float32], PointSpread]:
    """Flip the phases that the lens has turned, and make noise white.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        Micrograph.
    excluded : bool, shape (rows, columns)
        Pixels that tell nothing of the noise.
    size : int
        L, side of a particle's box.
    ctf : (ContrastTransferFunction, float), optional
        Contrast transfer function and angstrom per pixel.
    whiten : bool
        Whether to divide by the root of the micrograph's radial power spectrum. What
        particles add to the spectrum counts as noise.

    Returns
    -------
    pixels : float32, shape (rows, columns)
        Corrected pixels, of the same standard deviation if made white.
    PointSpread
        What particles in them have been through.
    """
    spectrum = fft.rfft2(pixels)
    rows, columns = pixels.shape
    frequencies = fft.fftfreq(rows)[:, None], fft.rfftfreq(columns)[None]
    n = max(_LEAST_GRID, 8 * size)
    fine = fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None]
    response = np.ones((n, n // 2 + 1))
    if ctf is not None:
        transfer, pixel_size = ctf
        y, x = (f / pixel_size for f in frequencies)
        contrast = transfer(y, x)
        if columns % 2 == 0:  # Nyquist stands for both of its signs.
            contrast[:, -1] += transfer(-y[:, 0], x[:, -1])
        spectrum[contrast < 0] *= -1
        response *= np.abs(transfer(*(f / pixel_size for f in fine)))
    if whiten:
        power = RadialSpectrum(pixels, excluded)
        spectrum *= power(*frequencies).astype(np.float32) ** -0.5
        response *= power(*fine) ** -0.5
    result = fft.irfft2(spectrum, pixels.shape)
    if whiten:
        scale = float(np.std(pixels, dtype=np.float64))
        scale /= max(float(np.std(result, dtype=np.float64)), np.finfo(float).tiny)
        result *= np.float32(scale)
        response *= scale
    near = np.arange(1 - size, size)
    whole = fft.irfft2(response, (n, n))
    values = whole[np.ix_(near, near)]
    share = _share_outside(values, float(np.vdot(whole, whole)))
    return result, PointSpread(values, share)


def _share_outside(point_spread: NDArray[np.float64], energy: float) -> float:
    """Share of energy outside the box; `energy` is that of all displacements."""
    size = (len(point_spread) + 1) // 2
    in_disc = disc(size).astype(np.float64)
    # Number of pairs of a pixel in the disc and one in the box, by their displacement.
    pairs = np.rint(signal.correlate(np.ones((size, size)), in_disc))
    inside = float(np.vdot(pairs, np.square(point_spread)))
    whole = max(float(in_disc.sum()) * energy, np.finfo(float).tiny)
    return 1 - inside / whole
