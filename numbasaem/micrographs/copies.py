"""Micrographs that are listed twice, under whatever name and in whatever format.

The noise of a micrograph is its own. So two that share their noise are one exposure:
the same file again, a compressed or converted copy, a section of a stack, a copy that
is rounded, scaled, of the other sign, mirrored or turned, or one of other weights of
its frames. Held in both halves of the data, noise would foretell itself. What is
shifted or cropped is not recognised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from numbasaem.errors import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Identity = tuple[str, tuple[int, ...], "NDArray[np.float32] | None"]
"""Name, rows and columns, and :func:`noise_sample` of a micrograph."""

_MOST_POINTS = 32
"""Largest number of points a side that are compared: 1024 tell all noise apart."""
_LEAST_CORRELATION = 0.5
"""Least correlation of noise that is shared; that of others is 0, give or take 0.04."""
_LEAST_DEVIATIONS = 8.0
"""Least correlation in units of one over the root of the number of points."""
_AS_GOOD_AS_EQUAL = 0.95
"""Correlation that counts as shared however few the points are."""


def noise_sample(pixels: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Sample the noise of a micrograph, to recognise it by.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        The micrograph as it was read.

    Returns
    -------
    float32, shape (n_rows, n_columns), or None
        Ranks of how far pixels stand out from their neighbours, at places that the
        middle mirrors into one another; of mean 0 and sum of squares 1. None where
        nothing stands out.
    """
    y, x = _places(pixels.shape[0])[:, None], _places(pixels.shape[1])[None]
    neighbours = (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)
    around = np.mean([pixels[place] for place in neighbours], axis=0, dtype=np.float64)
    excess = pixels[y, x] - around
    # Ranks, for a hot pixel of the camera would outweigh all noise.
    ranks = stats.rankdata(excess).reshape(excess.shape)
    ranks -= ranks.mean()
    norm = float(np.linalg.norm(ranks))
    return (ranks / norm).astype(np.float32) if norm > 0 else None


def _places(n_pixels: int) -> NDArray[np.intp]:
    """Places along an axis that its middle mirrors into one another."""
    n_places = min(_MOST_POINTS, (n_pixels - 2) // 2 * 2)
    spread = np.linspace(1, n_pixels - 2, n_places)
    lower = np.rint(spread[: n_places // 2]).astype(np.intp)
    return np.concatenate([lower, n_pixels - 1 - lower[::-1]])


class Copies:
    """Micrographs read so far, which tell whether another one is a copy."""

    def __init__(self) -> None:
        # By their shape: names, and samples one after the other.
        self._names: dict[tuple[int, ...], list[str]] = {}
        self._samples: dict[tuple[int, ...], NDArray[np.float32]] = {}

    def is_original(
        self, identity: Identity | None, number: int, source: dict[str, Any]
    ) -> bool:
        """Tell whether a micrograph is a copy of none before, and note it if it is.

        Parameters
        ----------
        identity : Identity or None
            What the micrograph is recognised by, if it is known.
        number : int
            Its number in its file, from 0.
        source : dict
            In/out: description of the file; under `copies` goes a copy by the number of
            its section, from 1, with the name of the micrograph that is used.

        Returns
        -------
        bool
            False for a copy.

        Warns
        -----
        RunWarning
            If it is a copy.
        """
        original = self.original_of(identity)
        if original is not None:
            source.setdefault("copies", {})[str(number + 1)] = original
        return original is None

    def original_of(self, identity: Identity | None) -> str | None:
        """Name the micrograph that another one is a copy of, and say that it is.

        Parameters
        ----------
        identity : Identity or None
            What the micrograph is recognised by, if it is known.

        Returns
        -------
        str or None
            Name of the first micrograph of the same noise; None if there is none, and
            this one is remembered.

        Warns
        -----
        RunWarning
            If it is a copy.
        """
        if identity is None:
            return None
        where, shape, sample = identity
        if sample is None:
            return None
        least = max(_LEAST_CORRELATION, _LEAST_DEVIATIONS / np.sqrt(sample.size))
        for known_shape, turned in _orientations(shape, sample):
            if known_shape not in self._names:
                continue
            number = len(self._names[known_shape])
            correlations = np.abs(self._samples[known_shape][:number] @ turned.ravel())
            best = int(correlations.argmax())
            if correlations[best] >= min(least, _AS_GOOD_AS_EQUAL):
                original = self._names[known_shape][best]
                warn(
                    f"{where}: left out, for its noise is that of {original} "
                    f"(correlation {correlations[best]:.2f}), which is used"
                )
                return original
        self._remember(where, shape, sample)
        return None

    def _remember(
        self, where: str, shape: tuple[int, ...], sample: NDArray[np.float32]
    ) -> None:
        names = self._names.setdefault(shape, [])
        samples = self._samples.get(shape, np.empty((1, sample.size), np.float32))
        if len(names) == len(samples):
            samples = np.concatenate([samples, np.empty_like(samples)])
        samples[len(names)] = sample.ravel()
        self._samples[shape] = samples
        names.append(where)


def _orientations(
    shape: tuple[int, ...], sample: NDArray[np.float32]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.float32]]]:
    """Shape and sample of a micrograph, turned and mirrored in all eight ways."""
    for of_shape, straight in ((shape, sample), (shape[::-1], sample.T)):
        for rows in (straight, straight[::-1]):
            yield of_shape, rows
            yield of_shape, rows[:, ::-1]
