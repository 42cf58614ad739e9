"""What workers of a Dask cluster do for windows: keep micrographs, sum up tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.autocorrelation.moments import autocorrelations_of_pixels
from numbasaem.autocorrelation.second_order import first_two_orders
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.projection.view_projections import ViewProjections
from numbasaem.volume.basis import VolumeBasis

from .dask_workers import KeptMicrograph, StoredFile, register_size
from .feature_statistics import FeatureStatistics
from .hypotheses import Hypotheses
from .window_blocks import (
    Tile,
    block_statistics,
    place_of,
    view_projections,
    window_e_step,
)
from .window_data import usable_pixel_sums
from .window_tiles import (
    seen_pixels,
    tiles_of,
    whole_windows,
    whole_windows_of_tiles,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numbasaem.autocorrelation.moments import Autocorrelations
    from numbasaem.micrographs.preparation import Prepared

    from .window_expectation import WindowExpectation

_SMALLEST_GRID = 8
"""Number of rotations of an operator that is yet to be given those of an iteration."""


@dataclass(frozen=True)
class KeepPixels:
    """A worker keeps the pixels of a micrograph, and tells its whole windows by tile.

    Attributes
    ----------
    size : int
        L, side of a window, pixels.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
    """

    size: int
    reach: int

    def __call__(self, micrograph: Prepared) -> KeptMicrograph:
        """Keep the pixels and which are usable; see :data:`Keep`."""
        usable = ~micrograph.excluded
        whole = whole_windows(usable, self.size)
        return KeptMicrograph(
            {"pixels": micrograph.pixels, "usable": usable},
            usable_pixel_sums(micrograph),
            whole_windows_of_tiles(whole, self.size, self.reach),
        )


@dataclass(frozen=True)
class SeenMicrograph:
    """What a worker has to know to come by a micrograph as a run sees it.

    Attributes
    ----------
    file : StoredFile
        Its file.
    section : int
        Its number therein.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
    seen : uint8 array, or None
        Whether the run sees each tile, one bit for each; None is all.
    """

    file: StoredFile
    section: int
    reach: int
    seen: NDArray[np.uint8] | None

    @property
    def _size(self) -> int:
        """L, side of a window."""
        return self.file.preparation.size

    def usable(self, scratch: Path) -> NDArray[np.bool_]:
        """Pixels that the run may see.

        Parameters
        ----------
        scratch : Path
            Folder of the worker.

        Returns
        -------
        bool, shape (rows, columns)
            Whether it may, of each pixel; read-only, on disk if that is all.
        """
        usable: NDArray[np.bool_] = self.file.array(self.section, "usable", scratch)
        if self.seen is None:
            return usable
        shape = len(usable), usable.shape[1]
        n_tiles = len(tiles_of(shape, self._size, self.reach))
        seen = np.unpackbits(self.seen, count=n_tiles).astype(bool)
        return usable & seen_pixels(shape, self._size, self.reach, seen)

    def n_whole(self, scratch: Path) -> NDArray[np.intp]:
        """Count the whole windows of each tile.

        Parameters
        ----------
        scratch : Path
            Folder of the worker.

        Returns
        -------
        intp, shape (n_tiles,)
            Numbers of windows that the run may see.
        """
        whole = whole_windows(self.usable(scratch), self._size)
        return whole_windows_of_tiles(whole, self._size, self.reach)

    def autocorrelations(self, name: str, scratch: Path) -> Autocorrelations | None:
        """Take the autocorrelations of the pixels that the run may see.

        Parameters
        ----------
        name : str
            Name of the micrograph, for errors.
        scratch : Path
            Folder of the worker.

        Returns
        -------
        Autocorrelations, or None
            Those of the micrograph; None if the run sees nothing of it.

        Raises
        ------
        InputError
            If the micrograph is too small, or too little of it is seen.
        """
        usable = self.usable(scratch)
        if not usable.any():
            return None
        pixels = np.array(self.file.array(self.section, "pixels", scratch))
        return autocorrelations_of_pixels(name, pixels, ~usable, self._size)

    def first_two_orders(self, scratch: Path) -> Autocorrelations:
        """Take the first two orders of the pixels that the run may see.

        Parameters
        ----------
        scratch : Path
            Folder of the worker.

        Returns
        -------
        Autocorrelations
            Those of the micrograph.
        """
        pixels = self.file.array(self.section, "pixels", scratch)
        return first_two_orders(pixels, ~self.usable(scratch), self._size)

    def tile(self, number: int, scratch: Path) -> Tile:
        """Tile with its margins, from this worker's disk or else from the file.

        Parameters
        ----------
        number : int
            Number of the tile.
        scratch : Path
            Folder of the worker.

        Returns
        -------
        Tile
            Pixels and windows.
        """
        pixels = self.file.array(self.section, "pixels", scratch)
        shape, size = (len(pixels), pixels.shape[1]), self._size
        tile = tiles_of(shape, size, self.reach)[number]
        place = place_of(tile, shape, size, self.reach)
        whole = whole_windows(self.usable(scratch)[place.pixels], size)
        return Tile(np.array(pixels[place.pixels]), whole, place.inside)


@dataclass(frozen=True)
class StoredTile:
    """Number of a tile in a micrograph that workers keep."""

    micrograph: SeenMicrograph
    number: int


@dataclass(frozen=True, eq=False)
class SentHypotheses:
    """What projections and their priors are made of, which is less than they are.

    Attributes
    ----------
    size, ell_max : int
        L, and the highest degree of the volume's basis.
    point_spreads : float64, shape (G, 2L - 1, 2L - 1), or None
        Point spread of each optics group.
    views : ViewGrid
        The rotations.
    group : int
        Number of the optics group.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
    volume_coefficients, shift_prior, noise_variance, rotation_prior
        As in :class:`Hypotheses`.
    """

    size: int
    ell_max: int
    point_spreads: NDArray[np.float64] | None
    views: ViewGrid
    group: int
    reach: int
    volume_coefficients: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float
    rotation_prior: NDArray[np.float64] | None

    @classmethod
    def of(
        cls,
        hypotheses: Hypotheses,
        point_spreads: NDArray[np.float64] | None,
        reach: int,
    ) -> SentHypotheses:
        """What some hypotheses are made of.

        Parameters
        ----------
        hypotheses : Hypotheses
            In the projections of one optics group.
        point_spreads : float64, shape (G, 2L - 1, 2L - 1), or None
            Point spread of each optics group.
        reach : int
            As the attribute.

        Returns
        -------
        SentHypotheses
            What a worker makes them of.
        """
        operator = hypotheses.operator
        return cls(
            size=operator.basis.size,
            ell_max=operator.basis.ell_max,
            point_spreads=point_spreads,
            views=operator.views,
            group=operator.groups[0],
            reach=reach,
            volume_coefficients=hypotheses.volume_coefficients,
            shift_prior=hypotheses.shift_prior,
            noise_variance=hypotheses.noise_variance,
            rotation_prior=hypotheses.rotation_prior,
        )


@lru_cache(maxsize=1)
def _e_step(given: SentHypotheses) -> WindowExpectation:
    """E-step of the hypotheses, made once an iteration."""
    spreads = given.point_spreads
    values = None if spreads is None else spreads.tobytes()
    operator = _operator(given.size, given.ell_max, values).at(given.views)
    hypotheses = Hypotheses(
        operator.of_group(given.group),
        given.volume_coefficients,
        given.shift_prior,
        given.noise_variance,
        given.rotation_prior,
    )
    return window_e_step(hypotheses, given.reach)


@lru_cache(maxsize=1)
def _operator(size: int, ell_max: int, point_spreads: bytes | None) -> ViewProjections:
    """Projections in some rotations, made once a stage."""
    spreads = None
    if point_spreads is not None:
        side = 2 * size - 1
        spreads = np.frombuffer(point_spreads).reshape(-1, side, side)
    return view_projections(
        VolumeBasis(size, ell_max), ViewGrid(_SMALLEST_GRID), spreads
    )


def statistics_of_blocks(
    blocks: Sequence[Sequence[StoredTile | Tile]],
    given: SentHypotheses,
    scratch: Path,
) -> list[FeatureStatistics]:
    """Statistics of each of some blocks.

    Parameters
    ----------
    blocks : sequence of sequences of StoredTile and Tile
        Tiles of each block, themselves or where they are.
    given : SentHypotheses
        What may explain them.
    scratch : Path
        Folder of the worker.

    Returns
    -------
    list of FeatureStatistics
        One for each block.
    """
    e_step = _e_step(given)
    return [
        block_statistics(
            e_step,
            (
                tile
                if isinstance(tile, Tile)
                else tile.micrograph.tile(tile.number, scratch)
                for tile in block
            ),
        )
        for block in blocks
    ]


def _bytes_on_the_way(statistics: FeatureStatistics) -> int:
    """What Dask counts when statistics travel."""
    arrays = (getattr(statistics, field.name) for field in fields(statistics))
    return sum(np.asarray(array).nbytes for array in arrays)


register_size(FeatureStatistics, _bytes_on_the_way)
