"""The control of a validation: noise that is like the data in all but structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SURROGATE_ITERATIONS = 20
"""Number of times that spectrum and pixel values are imposed in turn."""


def noise_like(
    pixels: NDArray[np.floating], reach: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Noise with spectrum, pixel values and unevenness of a micrograph.

    Even Gaussian noise of the same spectrum would be no control: noise that is stronger
    in some places, or has hot pixels, is better foretold than such noise, molecules or
    none. So the micrograph is evened, its spectrum and its pixel values are imposed in
    turn on its shuffled pixels (iterated amplitude-adjusted surrogates, Schreiber and
    Schmitz, Phys. Rev. Lett. 77, 635, 1996), and the result is made uneven again.

    Parameters
    ----------
    pixels : array, shape (rows, columns)
        Micrograph. What its particles add to spectrum and values stays.
    reach : float
        Standard deviation, pixels, of the Gaussian in which strength is averaged.
    generator : numpy.random.Generator
        Shuffles the pixels.

    Returns
    -------
    float32, shape (rows, columns)
        Noise around zero.
    """
    centred = pixels - pixels.mean(dtype=np.float64)
    strength = np.sqrt(gaussian_filter(centred**2, reach))
    strength = np.maximum(strength, np.finfo(np.float32).tiny)
    evened = centred / strength
    amplitudes = np.abs(fft.rfft2(evened))
    values = np.sort(evened, axis=None)
    noise = generator.permuted(evened.ravel()).reshape(evened.shape)
    for _ in range(_SURROGATE_ITERATIONS):
        spectrum = fft.rfft2(noise)
        spectrum *= amplitudes / np.maximum(np.abs(spectrum), np.finfo(float).tiny)
        filtered = fft.irfft2(spectrum, evened.shape)
        noise.ravel()[np.argsort(filtered, axis=None)] = values
    return (strength * noise).astype(np.float32)
