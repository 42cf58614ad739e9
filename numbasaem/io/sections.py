"""Micrographs of one file, read one at a time and checked as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

Image = NDArray[np.float32]


class Sections:
    """The micrographs of a file; each is read when it is asked for, and not kept.

    Parameters
    ----------
    path : path-like
        The file, as errors name it.
    count : int
        Number of micrographs that it holds.
    read : callable
        Function from a section's number, from 0, to its samples: array, shape (Ny, Nx).
    """

    def __init__(
        self,
        path: PathLike,
        count: int,
        read: Callable[[int], NDArray[Any]],
    ) -> None:
        self._path = path
        self._count = count
        self._read = read

    def __len__(self) -> int:
        """Number of micrographs."""
        return self._count

    def __iter__(self) -> Iterator[Image]:
        """Read the micrographs one after the other."""
        return (self[number] for number in range(self._count))

    def __getitem__(self, number: int) -> Image:
        """Read one micrograph; float32, shape (Ny, Nx).

        Raises
        ------
        InputError
            If a section is damaged, is constant or has a pixel that is not finite.
        """
        index = range(self._count)[number]
        several = self._count > 1
        where = f"{self._path} section {index + 1}" if several else str(self._path)
        return checked_samples(where, self._read(index), "pixels")


def checked_samples(where: str, array: NDArray[Any], samples: str) -> Image:
    """Convert samples to contiguous float32; refuse any not finite, or all equal.

    Parameters
    ----------
    where : str
        The file and section, as errors name it.
    array : array, any shape
        Real samples.
    samples : str
        Word for them, as errors have it.

    Returns
    -------
    float32, shape of `array`
        The same samples.

    Raises
    ------
    InputError
        If a sample is not finite or all are equal.
    """
    image = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(image)
    if not finite.all():
        nans = int(np.isnan(image).sum())
        infinite = int(image.size - finite.sum()) - nans
        counts = [f"{nans} NaN"] * (nans > 0) + [f"{infinite} infinite"] * (
            infinite > 0
        )
        raise expected(where, f"finite {samples}", " and ".join(counts))
    if image.min() == image.max():
        found = f"the constant {image.flat[0]:g}"
        raise expected(where, f"{samples} that vary", found)
    return image
