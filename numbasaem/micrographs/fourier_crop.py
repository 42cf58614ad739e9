"""Samples at another distance, nothing aliased: cropped in Fourier space, or anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from numbasaem.errors import expected


def fourier_crop(
    array: NDArray[np.floating], size: int | Sequence[int]
) -> NDArray[np.floating]:
    """Downsample an image or volume by keeping its lowest frequencies.

    The mean is kept, and what lay at index ``n // 2`` of an axis of n samples lies at
    ``m // 2`` of m. The field of view stays the same, so pixels grow by ``n / m``.

    Parameters
    ----------
    array : array, any shape
        Real samples.
    size : int or sequence of int
        Target length of all axes, or one for each axis; at most the present one.

    Returns
    -------
    float32 if `array` is, else float64, shape `size`
        Real samples.

    Raises
    ------
    InputError
        If `size` does not fit the dimensions of `array` or exceeds them.
    """
    shape = (size,) * array.ndim if isinstance(size, int) else tuple(size)
    fits = len(shape) == array.ndim and all(
        1 <= m <= n for m, n in zip(shape, array.shape, strict=False)
    )
    if not fits:
        raise expected("size", f"lengths from 1 to {array.shape}", shape)
    for axis, length in enumerate(shape):
        array = fourier_crop_axis(array, length, axis)
    return array


def resampled(
    array: NDArray[np.floating], step: float, size: int
) -> NDArray[np.float64]:
    """Sample a square image or a cubic volume at another distance, in another box.

    What lay at index ``n // 2`` of an axis of n samples lies at ``size // 2``.
    Frequencies that either sampling cannot hold are left out.

    Parameters
    ----------
    array : array, shape (n, n) or (n, n, n)
        Real samples.
    step : float
        Distance of the new samples, in units of that of the old.
    size : int
        Number of new samples along each axis.

    Returns
    -------
    float64, shape (size, size) or (size, size, size)
        Real samples; the mean over the outermost old ones where the new box is wider.
    """
    before = len(array)
    offsets = np.arange(before) - before // 2
    places = step * (np.arange(size) - size // 2)
    # 1 + 1e-9: a frequency that is Nyquist of the new samples is kept despite rounding.
    highest = min(before / 2, before / (2 * step) * (1 + 1e-9))
    frequency = np.arange(int(highest) + 1)
    weight = np.where((frequency == 0) | (2 * frequency == before), 1, 2) / before
    at_new, at_old = (
        np.exp(2j * np.pi / before * np.multiply.outer(where, frequency))
        for where in (places, offsets)
    )
    interpolation = (weight * at_new @ at_old.conj().T).real
    outside = (places < offsets[0] - 0.5) | (places > offsets[-1] + 0.5)
    interpolation[outside] = 0
    level = _border_mean(array) if outside.any() else 0.0
    samples = np.asarray(array, dtype=np.float64) - level
    for axis in range(array.ndim):
        samples = np.moveaxis(np.tensordot(interpolation, samples, (1, axis)), 0, axis)
    return np.ascontiguousarray(samples + level)


def _border_mean(array: NDArray[np.floating]) -> float:
    """Mean over the outermost samples."""
    border = np.ones(array.shape, dtype=bool)
    border[(slice(1, -1),) * array.ndim] = False
    return float(array[border].mean(dtype=np.float64))


def fourier_crop_axis(
    array: NDArray[np.floating], length: int, axis: int
) -> NDArray[np.floating]:
    """Downsample one axis as :func:`fourier_crop` does.

    Parameters
    ----------
    array : array, any shape
        Real samples.
    length : int
        Target length of the axis, at most the present one.
    axis : int
        Axis to shorten.

    Returns
    -------
    float32 if `array` is, else float64, shape of `array`
        Real samples, `length` of them along `axis`.
    """
    before = array.shape[axis]
    if before == length:
        return array
    kept = length // 2 + 1
    spectrum = np.moveaxis(fft.rfft(array, axis=axis), axis, -1)[..., :kept]
    # Moves the origin of phase from the old centre to the new one.
    frequency = np.arange(kept)
    turns = frequency * (before // 2 / before - length // 2 / length)
    spectrum = spectrum * np.exp(2j * np.pi * turns).astype(spectrum.dtype)
    if length % 2 == 0:
        # +1/2 and -1/2 cycle per sample become one real term: their sum.
        spectrum[..., -1] = 2 * spectrum[..., -1].real
    shorter = fft.irfft(spectrum, n=length, axis=-1)
    shorter *= shorter.dtype.type(length / before)
    return np.moveaxis(shorter, -1, axis)
