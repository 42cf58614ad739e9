"""Checks of what the E-step of every observation model is given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def checked_images(images: ArrayLike) -> NDArray[np.float64]:
    """Projections as the kernels take them: contiguous, square and finite.

    Parameters
    ----------
    images : array, shape (K, L, L)
        Projections, one per rotation.

    Returns
    -------
    float64, shape (K, L, L)
        The same images, without a copy where none is needed.

    Raises
    ------
    InputError
        If images are not square, there is none, or a pixel is not finite.
    """
    checked = np.ascontiguousarray(images, dtype=np.float64)
    if checked.ndim != 3 or checked.shape[1] != checked.shape[2]:
        raise expected("images", "shape (K, L, L)", f"shape {checked.shape}")
    if len(checked) == 0:
        raise expected("images", "at least one rotation", "none")
    if not np.isfinite(checked).all():
        raise expected("images", "finite pixels", "NaN or infinity")
    return checked


def checked_noise_variance(noise_variance: float) -> float:
    """Noise variance, refused if it cannot be one.

    Parameters
    ----------
    noise_variance : float
        sigma**2 of the pixels.

    Returns
    -------
    float
        The same noise variance.

    Raises
    ------
    InputError
        If it is not a finite number above 0.
    """
    if not (math.isfinite(noise_variance) and noise_variance > 0):
        raise expected("noise_variance", "a positive number", noise_variance)
    return float(noise_variance)


def checked_rotation_prior(
    rotation_prior: ArrayLike | None, n_rotations: int
) -> NDArray[np.float64]:
    """Prior of the rotations, uniform if none is given.

    Parameters
    ----------
    rotation_prior : array, shape (K,), or None
        Probability of each rotation.
    n_rotations : int
        K.

    Returns
    -------
    float64, shape (K,)
        Probabilities.

    Raises
    ------
    InputError
        If :func:`checked_probabilities` refuses it.
    """
    if rotation_prior is None:
        return np.full(n_rotations, 1 / n_rotations)
    return checked_probabilities("rotation_prior", rotation_prior, (n_rotations,))


def checked_probabilities(
    name: str, values: ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Table of probabilities, refused if it is none.

    Parameters
    ----------
    name : str
        Name of the table in errors.
    values : array, shape `shape`
        The table.
    shape : tuple of int
        Shape that it has to have.

    Returns
    -------
    float64, shape `shape`
        The same table.

    Raises
    ------
    InputError
        If it has another shape, a negative or non-finite value, or another sum than 1.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != shape:
        raise expected(name, f"shape {shape}", f"shape {table.shape}")
    if not np.isfinite(table).all() or (table < 0).any():
        raise expected(name, "probabilities", "a negative or non-finite value")
    if abs(table.sum() - 1) > 1e-6:
        raise expected(name, "a sum of 1", f"{table.sum():.6g}")
    return table
