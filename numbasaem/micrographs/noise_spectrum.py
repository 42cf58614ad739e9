"""Colour of the noise: the radial power spectrum of a micrograph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TILE = 64
"""Pixels a side of the squares whose spectra are averaged."""
_LEAST_POWER = 0.1
"""Smallest power, over the median: what preparation took out is not blown up."""


class RadialSpectrum:
    """Radial power spectrum of a micrograph.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        Micrograph.
    excluded : bool, shape (rows, columns)
        Pixels that do not count.
    """

    def __init__(
        self, pixels: NDArray[np.float32], excluded: NDArray[np.bool_]
    ) -> None:
        side = min(_TILE, *pixels.shape)
        window = np.hanning(side)
        power = np.zeros((side, side // 2 + 1))
        n_tiles = 0
        starts = [range(0, n - side + 1, side // 2) for n in pixels.shape]
        corners = [(y, x) for y in starts[0] for x in starts[1]]
        free = [
            (y, x) for y, x in corners if not excluded[y : y + side, x : x + side].any()
        ]
        for y, x in free or corners:
            tile = pixels[y : y + side, x : x + side].astype(np.float64)
            windowed = (tile - tile.mean()) * np.outer(window, window)
            power += np.abs(fft.rfft2(windowed)) ** 2
            n_tiles += 1
        radius = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None]) * side
        shells = np.rint(radius).astype(np.intp)
        counts = np.bincount(shells.ravel())
        mean = np.bincount(shells.ravel(), power.ravel()) / counts / n_tiles
        mean[0] = mean[1]  # without its mean a tile says nothing of frequency zero
        if not mean.any():  # nothing but constant tiles
            mean[:] = 1
        self._power = np.maximum(mean, _LEAST_POWER * np.median(mean))
        self._side = side

    def __call__(
        self, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Evaluate the spectrum.

        Parameters
        ----------
        y, x : float64, shapes that broadcast
            Frequencies along the axes, cycles per pixel.

        Returns
        -------
        float64, shape of `y` and `x` together
            Power, no less than a tenth of the median; 1 of a constant micrograph.
        """
        shells = np.arange(len(self._power)) / self._side
        return np.asarray(np.interp(np.hypot(y, x), shells, self._power))
