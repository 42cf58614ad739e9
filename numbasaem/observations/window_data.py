"""Tiles of micrographs in the memory of this process, for the window model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected
from numbasaem.micrographs.reading import MicrographReader

from .patch_data import projections_through
from .pixel_expectation import PixelExpectation, compile_window_kernels
from .pixel_sums import pixel_sums, variance_and_brightest
from .protocol import DataSet
from .shift_prior import visible_shifts
from .statistics import by_optics_group
from .window_tiles import Regions, pixels_of, region_windows, tiles_of, whole_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.micrographs.preparation import Prepared
    from numbasaem.micrographs.reading import Input
    from numbasaem.projection.operator import ProjectionOperator
    from numbasaem.settings import Settings
    from numbasaem.volume.basis import VolumeBasis

    from .pixel_sums import PixelSums
    from .protocol import ChangePixels
    from .statistics import Statistics

TILES_AT_ONCE = 8
"""Tiles held with their margins at a time."""
_SMALLEST_EMPTY = 1e-6
"""Share of neighbourhoods, so that the prior can move away from either end."""


@dataclass(frozen=True)
class WindowSet(DataSet):
    """Tiles of windows of all micrographs, in the memory of this process.

    Attributes
    ----------
    prepared : list of Prepared
        The micrographs; `micrograph` counts their tiles.
    size : int
        L, side of a window, pixels.
    """

    prepared: list[Prepared]
    size: int

    def halves(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Two halves of the micrographs, or the upper and lower tiles of a single one.

        Parameters
        ----------
        seed : int
            Of the random split.

        Returns
        -------
        two intp arrays
            Numbers of the tiles in each half.
        """
        if len(self.prepared) > 1:
            return super().halves(seed)
        first, second = np.array_split(np.arange(len(self.micrograph)), 2)
        return first, second

    def part(self, chosen: NDArray[np.intp] | None, threads: int | None) -> Windows:
        """Tiles of one run, which sees no pixel of the others; see :class:`DataSet`."""
        usable = [~micrograph.excluded for micrograph in self.prepared]
        if chosen is not None:
            is_chosen = np.isin(np.arange(len(self.micrograph)), chosen)
            for number, live in enumerate(usable):
                shape, own = live.shape, np.zeros_like(live)
                tiles = tiles_of(shape, self.size)
                for tile, of_run in zip(
                    tiles, is_chosen[self.micrograph == number], strict=True
                ):
                    own[pixels_of(tile, shape, self.size)] = of_run
                live &= own
        pixels = [micrograph.pixels for micrograph in self.prepared]
        sums = self.pixel_sums
        return Windows(pixels, usable, self.size, sums, threads, self.optics)


def empty_probability(shift_prior: NDArray[np.float64]) -> float:
    """Probability of an empty neighbourhood: all that windows take of a shift prior.

    Parameters
    ----------
    shift_prior : float64, shape (2L, 2L)
        rho of equation (17).

    Returns
    -------
    float
        Between 0 and 1, away from both.
    """
    occupied = visible_shifts(shift_prior).sum()
    return float(np.clip(1 - occupied, _SMALLEST_EMPTY, 1 - _SMALLEST_EMPTY))


def load_windows(
    inputs: Sequence[Input],
    settings: Settings,
    on_progress: OnProgress,
    change: ChangePixels | None = None,
) -> WindowSet:
    """Read and prepare micrographs for the window model.

    Parameters
    ----------
    inputs, settings, on_progress, change
        As in :meth:`ObservationModel.load`.

    Returns
    -------
    WindowSet
        The micrographs.

    Raises
    ------
    InputError
        If a micrograph cannot be read or prepared, or pixel sizes differ or are
        missing.
    """
    reader, size = MicrographReader(settings), settings.size
    prepared = list(reader.prepared(inputs, on_progress))
    if change is not None:
        prepared = [
            replace(micrograph, pixels=change(micrograph.pixels))
            for micrograph in prepared
        ]
    n_tiles = [len(tiles_of(micrograph.pixels.shape, size)) for micrograph in prepared]
    return WindowSet(
        prepared=prepared,
        size=size,
        micrograph=np.repeat(np.arange(len(prepared)), n_tiles),
        pixel_size=reader.pixel_size,
        sources=reader.sources,
        pixel_sums=[
            pixel_sums(micrograph.pixels[~micrograph.excluded].reshape(-1, 1, 1))
            for micrograph in prepared
        ],
        optics=reader.optics,
    )


class Windows:
    """Tiles of micrographs in the memory of this process; see :class:`Observations`.

    Parameters
    ----------
    micrographs : sequence of float32 arrays, shape (rows, columns)
        Pixels.
    usable : sequence of bool arrays, shape (rows, columns)
        Pixels that the run may see; others are as good as not there.
    size : int
        L, side of a window.
    sums : sequence of PixelSums
        Of all micrographs, also where the run sees a part of them.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    optics : OpticsGroups, optional
        Groups of the micrographs.
    """

    def __init__(
        self,
        micrographs: Sequence[NDArray[np.float32]],
        usable: Sequence[NDArray[np.bool_]],
        size: int,
        sums: Sequence[PixelSums],
        threads: int | None = None,
        optics: OpticsGroups | None = None,
    ) -> None:
        self._micrographs, self._size, self._threads = micrographs, size, threads
        self._whole = [whole_windows(pixels, size) for pixels in usable]
        self._tiles = [
            (number, tile)
            for number, pixels in enumerate(micrographs)
            for tile in tiles_of((len(pixels), pixels.shape[1]), size)
            if self._whole[number][tile].any()
        ]
        if not self._tiles:
            found = "none in a run's micrographs or half micrograph"
            raise expected("micrographs", f"{size} x {size} usable pixels", found)
        owners = np.array([number for number, _ in self._tiles])
        self._optics = None if optics is None else optics.take(owners)
        self.variance, _ = variance_and_brightest(sums)
        n_windows = sum(int(whole.sum()) for whole in self._whole)
        self.patches_each = n_windows / size**2 / len(self._tiles)

    def __len__(self) -> int:
        """How many tiles there are."""
        return len(self._tiles)

    def compile(self) -> None:
        """Compile the kernels; see :class:`Observations`."""
        compile_window_kernels(self._size, whole_square=self._optics is not None)

    def projections(self, basis: VolumeBasis, n_rotations: int) -> ProjectionOperator:
        """Projections as the windows see them; see :class:`Observations`."""
        return projections_through(self._optics, basis, n_rotations)

    def expectation(
        self,
        chosen: NDArray[np.intp],
        images: NDArray[np.float64],
        shift_prior: NDArray[np.float64],
        noise_variance: float,
        rotation_prior: NDArray[np.float64] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of the chosen tiles; see :class:`Observations`.

        Of the shift prior only the probability of empty matters.
        """
        empty = empty_probability(shift_prior)

        def of_group(
            members: NDArray[np.intp], images: NDArray[np.float64]
        ) -> Statistics:
            e_step = PixelExpectation(images, noise_variance, empty, rotation_prior)
            parts = []
            for first in range(0, len(members), TILES_AT_ONCE):
                regions = self._regions(members[first : first + TILES_AT_ONCE])
                parts.append(e_step.statistics(regions, self._threads)[0])
                if on_progress is not None:
                    on_progress(min(1.0, (first + TILES_AT_ONCE) / len(members)))
            return reduce(add, parts)

        return by_optics_group(self._optics, chosen, images, of_group)

    def _regions(self, chosen: NDArray[np.intp]) -> Regions:
        """Copy tiles with the margin of their neighbourhoods, what is there of it."""
        n_windows, margin = region_windows(self._size), self._size - 1
        n_pixels = n_windows + margin
        pixels = np.zeros((len(chosen), n_pixels, n_pixels), np.float32)
        whole = np.zeros((len(chosen), n_windows, n_windows), bool)
        counting = np.zeros_like(whole)
        for at, number in enumerate(chosen):
            micrograph, (rows, columns) = self._tiles[number]
            corner = rows.start - margin, columns.start - margin
            _paste(self._micrographs[micrograph], corner, pixels[at])
            _paste(self._whole[micrograph], corner, whole[at])
            inside = np.ix_(
                margin + np.arange(rows.stop - rows.start),
                margin + np.arange(columns.stop - columns.start),
            )
            counting[at][inside] = whole[at][inside]
        return Regions(pixels, whole, counting)


def _paste(
    source: NDArray[np.generic], corner: tuple[int, int], target: NDArray[np.generic]
) -> None:
    """Copy what `target` covers of `source` when its first entry lies at `corner`."""
    here, there = [], []
    for start, n_source, n_target in zip(
        corner, source.shape, target.shape, strict=True
    ):
        low, high = max(start, 0), min(start + n_target, n_source)
        there.append(slice(low, high))
        here.append(slice(low - start, high - start))
    target[tuple(here)] = source[tuple(there)]
