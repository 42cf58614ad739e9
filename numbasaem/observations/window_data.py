"""Tiles of micrographs for the window model, in the memory of this process or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.autocorrelation.fit import fit_two_orders
from numbasaem.autocorrelation.moments import autocorrelations_of_pixels
from numbasaem.autocorrelation.second_order import first_two_orders
from numbasaem.errors import expected
from numbasaem.micrographs.reading import MicrographReader

from .feature_statistics import FeatureStatistics
from .pixel_sums import pixel_sums, variance_and_brightest
from .protocol import DataSet
from .statistics import by_optics_group
from .window_blocks import (
    Tile,
    block_statistics,
    blocks_of,
    place_of,
    view_projections,
    window_e_step,
)
from .window_expectation import WindowExpectation
from .window_tiles import (
    reach_of,
    seen_pixels,
    tiles_of,
    whole_windows,
    whole_windows_of_tiles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.autocorrelation.fit import AutocorrelationFit
    from numbasaem.autocorrelation.moments import Autocorrelations
    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.micrographs.preparation import Prepared
    from numbasaem.micrographs.reading import Input
    from numbasaem.projection.view_projections import ViewProjections
    from numbasaem.settings import Settings
    from numbasaem.volume.basis import VolumeBasis

    from .hypotheses import Hypotheses
    from .pixel_sums import PixelSums
    from .protocol import ChangePixels
    from .statistics import Statistics

_SURE = 3
"""Standard deviations above zero at which particles show in the mean of the pixels."""


@dataclass(frozen=True)
class TileSet(DataSet):
    """Tiles of windows of all micrographs, wherever these are.

    Attributes
    ----------
    size : int
        L, side of a window, pixels.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
    """

    size: int
    reach: int

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
        if self.n_micrographs > 1:
            return super().halves(seed)
        first, second = np.array_split(np.arange(len(self.micrograph)), 2)
        return first, second

    def seen_tiles(self, chosen: NDArray[np.intp] | None) -> list[NDArray[np.bool_]]:
        """Which tiles a run sees.

        Parameters
        ----------
        chosen : intp, shape (n,), or None
            Their numbers; None is all.

        Returns
        -------
        list of bool, shape (n_tiles of the micrograph,)
            Whether the run sees each tile, by micrograph.
        """
        seen = np.full(len(self.micrograph), chosen is None)
        if chosen is not None:
            seen[chosen] = True
        bounds = np.searchsorted(self.micrograph, np.arange(1, self.n_micrographs))
        return np.split(seen, bounds)


@dataclass(frozen=True)
class WindowSet(TileSet):
    """Tiles of windows of all micrographs, in the memory of this process.

    Attributes
    ----------
    prepared : list of Prepared
        The micrographs; `micrograph` counts their tiles.
    """

    prepared: list[Prepared]

    def part(self, chosen: NDArray[np.intp] | None, threads: int | None) -> Windows:
        """Tiles of one run, which sees no pixel of the others; see :class:`DataSet`."""
        usable = [~micrograph.excluded for micrograph in self.prepared]
        for live, seen in zip(usable, self.seen_tiles(chosen), strict=True):
            if not seen.all():
                shape = len(live), live.shape[1]
                live &= seen_pixels(shape, self.size, self.reach, seen)
        pixels = [micrograph.pixels for micrograph in self.prepared]
        return Windows(
            pixels,
            usable,
            self.size,
            self.reach,
            self.pixel_sums,
            threads,
            self.optics,
        )


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
    reach = reach_of(settings, reader.pixel_size)
    n_tiles = [
        len(tiles_of(micrograph.pixels.shape, size, reach)) for micrograph in prepared
    ]
    return WindowSet(
        prepared=prepared,
        size=size,
        reach=reach,
        micrograph=np.repeat(np.arange(len(prepared)), n_tiles),
        pixel_size=reader.pixel_size,
        sources=reader.sources,
        pixel_sums=[usable_pixel_sums(micrograph) for micrograph in prepared],
        optics=reader.optics,
    )


def usable_pixel_sums(micrograph: Prepared) -> PixelSums:
    """Sum up the pixels of a micrograph that are not excluded.

    Parameters
    ----------
    micrograph : Prepared
        The micrograph.

    Returns
    -------
    PixelSums
        The sums, each pixel a patch of its own.
    """
    return pixel_sums(micrograph.pixels[~micrograph.excluded].reshape(-1, 1, 1))


def name_of(micrograph: int) -> str:
    """Name of a micrograph for errors, from its number from 0 on."""
    return f"micrograph {micrograph + 1}"


class TileObservations(ABC):
    """Tiles of a run, wherever they are; see :class:`Observations`.

    Parameters
    ----------
    n_whole : sequence of intp, shape (n_tiles,)
        Number of windows that the run may see in each tile of each micrograph.
    size : int
        L, side of a window.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
    sums : sequence of PixelSums
        Of all micrographs, also where the run sees a part of them.
    optics : OpticsGroups, optional
        Groups of the micrographs.

    Raises
    ------
    InputError
        If there is no window.
    """

    def __init__(
        self,
        n_whole: Sequence[NDArray[np.intp]],
        size: int,
        reach: int,
        sums: Sequence[PixelSums],
        optics: OpticsGroups | None = None,
    ) -> None:
        self._size, self._reach = size, reach
        places = [
            (micrograph, number)
            for micrograph, counts in enumerate(n_whole)
            for number in np.flatnonzero(counts).tolist()
        ]
        if not places:
            found = "none in a run's micrographs or half micrograph"
            raise expected("micrographs", f"{size} x {size} usable pixels", found)
        self._places: list[tuple[int, int]] = places
        owners = np.array([micrograph for micrograph, _ in places])
        self._optics = None if optics is None else optics.take(owners)
        self.variance, _ = variance_and_brightest(sums)
        n_windows = sum(int(counts.sum()) for counts in n_whole)
        self.patches_each = n_windows / size**2 / len(places)

    def __len__(self) -> int:
        """How many tiles there are."""
        return len(self._places)

    @property
    def _point_spreads(self) -> NDArray[np.float64] | None:
        return None if self._optics is None else self._optics.point_spreads

    def projections(self, basis: VolumeBasis, views: ViewGrid) -> ViewProjections:
        """Projections as the windows see them; see :class:`Observations`."""
        return view_projections(basis, views, self._point_spreads)

    @abstractmethod
    def compile(self, operator: Any) -> None:
        """Compile the kernels; see :class:`Observations`."""

    @abstractmethod
    def autocorrelations(self) -> Autocorrelations:
        """Autocorrelations of the usable pixels; see :class:`Observations`."""

    @abstractmethod
    def first_two_orders(self) -> Autocorrelations:
        """First two orders of :meth:`autocorrelations`, in a fraction of the time."""

    @cached_property
    def fit_of_two_orders(self) -> AutocorrelationFit | None:
        """Density and noise variance; see :meth:`ObservationModel.first_fit`."""
        if self._optics is not None:
            return None  # the fit knows no point spread
        orders = self.first_two_orders()
        if not orders.sums[0] > _SURE * np.sqrt(orders.scatter[0]):
            return None
        fit = fit_two_orders(orders)
        return None if fit.stalled else fit

    def expectation(
        self,
        chosen: NDArray[np.intp],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of the chosen tiles; see :class:`Observations`."""

        def of_group(members: NDArray[np.intp], hypotheses: Hypotheses) -> Statistics:
            if not len(members):
                return FeatureStatistics.of_nothing(hypotheses.operator)
            blocks = blocks_of(members)
            # In the order of the blocks: the same bits wherever they were summed up.
            return reduce(add, self._of_blocks(blocks, hypotheses, on_progress))

        return by_optics_group(self._optics, chosen, hypotheses, of_group)

    @abstractmethod
    def _of_blocks(
        self,
        blocks: Sequence[NDArray[np.intp]],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None,
    ) -> Iterable[FeatureStatistics]:
        """Statistics of each block by :func:`block_statistics`, in their order."""


class Windows(TileObservations):
    """Tiles of micrographs in the memory of this process; see :class:`Observations`.

    Parameters
    ----------
    micrographs : sequence of float32 arrays, shape (rows, columns)
        Pixels.
    usable : sequence of bool arrays, shape (rows, columns)
        Pixels that the run may see; others are as good as not there.
    size, reach, sums, optics
        As in :class:`TileObservations`.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    """

    def __init__(
        self,
        micrographs: Sequence[NDArray[np.float32]],
        usable: Sequence[NDArray[np.bool_]],
        size: int,
        reach: int,
        sums: Sequence[PixelSums],
        threads: int | None = None,
        optics: OpticsGroups | None = None,
    ) -> None:
        self._micrographs, self._usable = micrographs, usable
        self._threads = threads
        self._whole = [whole_windows(pixels, size) for pixels in usable]
        self.n_whole = [
            whole_windows_of_tiles(whole, size, reach) for whole in self._whole
        ]
        super().__init__(self.n_whole, size, reach, sums, optics)

    def compile(self, operator: Any) -> None:
        """Compile the kernels; see :class:`Observations`."""
        basis = operator.basis
        e_step = WindowExpectation(
            operator.of_group(0),
            np.ones(basis.n_coefficients),
            noise_variance=1.0,
            empty_prior=0.5,
            rotation_prior=None,
            reach=self._reach,
        )
        e_step.compile()

    def autocorrelations(self) -> Autocorrelations:
        """Autocorrelations of the usable pixels; see :class:`Observations`."""
        return reduce(
            add,
            (
                autocorrelations_of_pixels(
                    name_of(number), pixels, ~usable, self._size, self._threads
                )
                for number, (pixels, usable) in enumerate(
                    zip(self._micrographs, self._usable, strict=True)
                )
                if usable.any()
            ),
        )

    def first_two_orders(self) -> Autocorrelations:
        """First two orders of the usable pixels; see :class:`TileObservations`."""
        of_each = (
            first_two_orders(pixels, ~usable, self._size)
            for pixels, usable in zip(self._micrographs, self._usable, strict=True)
        )
        return reduce(add, of_each)

    def tile(self, micrograph: int, number: int) -> Tile:
        """Tile with its margins.

        Parameters
        ----------
        micrograph : int
            Number of its micrograph.
        number : int
            Its number therein.

        Returns
        -------
        Tile
            Views of the pixels and windows.
        """
        pixels, whole = self._micrographs[micrograph], self._whole[micrograph]
        shape, size, reach = (len(pixels), pixels.shape[1]), self._size, self._reach
        tile = tiles_of(shape, size, reach)[number]
        place = place_of(tile, shape, size, reach)
        return Tile(pixels[place.pixels], whole[place.windows], place.inside)

    def _of_blocks(
        self,
        blocks: Sequence[NDArray[np.intp]],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None,
    ) -> Iterator[FeatureStatistics]:
        """One block after the other."""
        e_step = window_e_step(hypotheses, self._reach)
        for n_done, block in enumerate(blocks, start=1):
            tiles = (self.tile(*self._places[number]) for number in block)
            yield block_statistics(e_step, tiles, self._threads)
            if on_progress is not None:
                on_progress(n_done / len(blocks))
