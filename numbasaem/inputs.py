"""Micrographs as they are given, turned into patches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import expected
from .io.mrc import read_micrographs, read_shape
from .patches import cut_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .settings import Settings

_FAINTEST = 1e-15
"""Squares of fainter pixels, or of brighter ones than its inverse, leave float32."""

Micrographs = Sequence["NDArray[np.floating] | str | os.PathLike[str]"]
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class PatchSet:
    """Patches of all micrographs and where they came from.

    Attributes
    ----------
    patches : float32, shape (n_patches, L, L)
        All patches, micrograph by micrograph.
    micrograph : intp, shape (n_patches,)
        Number of each patch's micrograph.
    pixel_size : float or None
        Angstrom per pixel, where it is known.
    sources : list of dict
        Name, size in bytes and SHA-256 of each input.
    """

    patches: NDArray[np.float32]
    micrograph: NDArray[np.intp]
    pixel_size: float | None
    sources: list[dict[str, Any]]

    def halves(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Two independent halves of the micrographs, or of a single one's patches.

        Parameters
        ----------
        seed : int
            Of the random split.

        Returns
        -------
        two intp arrays
            Numbers of the patches in each half.
        """
        n_micrographs = int(self.micrograph.max()) + 1
        several = n_micrographs > 1
        units = self.micrograph if several else np.arange(len(self.patches))
        order = np.random.default_rng([seed, 2]).permutation(int(units.max()) + 1)
        chosen = np.isin(units, order[: len(order) // 2])
        return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def load_patches(
    micrographs: Micrographs,
    settings: Settings,
    on_progress: OnProgress,
) -> PatchSet:
    """Cut every micrograph into patches, holding one micrograph at a time.

    Parameters
    ----------
    micrographs : sequence of 2-D arrays or paths
        Micrographs, or MRC files of them (a stack is several).
    settings : Settings
        Patch size, contrast and pixel size.
    on_progress : callable
        Called with what is being done and the share of it that is done.

    Returns
    -------
    PatchSet
        The patches.

    Raises
    ------
    InputError
        If there is no micrograph, one cannot be read, is too small, constant or not
        finite, or pixel sizes differ.
    """
    _check_list(micrographs)
    pieces: list[NDArray[np.float32]] = []
    sources: list[dict[str, Any]] = []
    pixel_sizes: dict[str, float] = {}
    for number, item in enumerate(micrographs):
        on_progress("reading micrographs", number / len(micrographs))
        source, images, pixel_size = _opened(item, number)
        sources.append(source)
        name = source["name"]
        if pixel_size is not None:
            pixel_sizes[name] = pixel_size
        for image in images:
            pieces.append(_patches(name, image, settings))
    if settings.pixel_size is None and len(set(pixel_sizes.values())) > 1:
        found = ", ".join(f"{size:g} A" for size in sorted(set(pixel_sizes.values())))
        raise expected("micrographs", "one pixel size, or --pixel-size", found)
    counts = [len(piece) for piece in pieces]
    return PatchSet(
        patches=np.concatenate(pieces),
        micrograph=np.repeat(np.arange(len(pieces)), counts),
        pixel_size=settings.pixel_size or next(iter(pixel_sizes.values()), None),
        sources=sources,
    )


def input_shapes(
    micrographs: Micrographs,
) -> list[tuple[int, int, int]]:
    """Shapes of micrographs, without reading them.

    Parameters
    ----------
    micrographs : sequence of 2-D arrays or paths
        Micrographs, or MRC files of them (a stack is several).

    Returns
    -------
    list of (int, int, int)
        Micrographs, rows and columns of each input.

    Raises
    ------
    InputError
        If there is no micrograph or one is not there, not MRC or not two-dimensional.
    """
    _check_list(micrographs)
    shapes = []
    for number, item in enumerate(micrographs):
        if isinstance(item, str | os.PathLike):
            shapes.append(read_shape(item))
        elif np.ndim(item) == 2:
            shapes.append((1, *np.shape(item)))
        else:
            found = f"{np.ndim(item)} dimensions"
            raise expected(f"micrographs[{number}]", "a 2-D array", found)
    return shapes


def _check_list(micrographs: object) -> None:
    if isinstance(micrographs, str | os.PathLike):
        raise expected("micrographs", "a list of them", micrographs)
    if len(micrographs) == 0:  # type: ignore[arg-type]
        raise expected("micrographs", "at least one", "none")


def _opened(
    item: NDArray[np.floating] | str | os.PathLike[str], number: int
) -> tuple[dict[str, Any], Sequence[NDArray[np.floating]], float | None]:
    """Fingerprint, images and pixel size of one input."""
    if isinstance(item, str | os.PathLike):
        images, pixel_size = read_micrographs(item)
        return _fingerprint(Path(item).resolve()), images, pixel_size
    array, name = np.ascontiguousarray(item), f"micrographs[{number}]"
    if array.dtype.kind not in "iuf":
        raise expected(name, "real numbers", f"an array of {array.dtype}")
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(array.data)
    source = {"name": name, "size": array.nbytes, "sha256": digest.hexdigest()}
    return source, [array], None


def _fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise expected(path, "a file that can be read", error.strerror) from error
    return {"name": str(path), "size": size, "sha256": digest}


def _patches(
    name: str, image: NDArray[np.floating], settings: Settings
) -> NDArray[np.float32]:
    """Patches of one image, after the checks every image has to pass."""
    smallest = 2 * settings.size
    if image.ndim != 2 or min(image.shape) < smallest:
        raise expected(name, f"at least {smallest} pixels a side", image.shape)
    with np.errstate(over="ignore"):
        pixels = np.asarray(image, dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise expected(name, "finite pixels", "NaN, infinity or beyond float32")
    if pixels.min() == pixels.max():
        raise expected(name, "pixels that vary", "a constant image")
    brightest = max(float(pixels.max()), -float(pixels.min()))
    if not _FAINTEST < brightest < 1 / _FAINTEST:
        wanted = f"pixels between {_FAINTEST:g} and {1 / _FAINTEST:g}"
        raise expected(name, wanted, f"up to {brightest:.3g}")
    patches = cut_patches(pixels, settings.size)
    return -patches if settings.invert else patches
