"""Tiles of micrographs in the memory of this process, for the window model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.errors import expected
from numbasaem.micrographs.reading import MicrographReader
from numbasaem.projection.view_projections import ViewProjections

from .feature_statistics import FeatureStatistics
from .pixel_sums import pixel_sums, variance_and_brightest
from .protocol import DataSet
from .shift_prior import visible_shifts
from .statistics import by_optics_group
from .window_expectation import WindowExpectation
from .window_tiles import pixels_of, region_of, tiles_of, whole_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.micrographs.preparation import Prepared
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings
    from numbasaem.volume.basis import VolumeBasis

    from .hypotheses import Hypotheses
    from .pixel_sums import PixelSums
    from .protocol import ChangePixels
    from .statistics import Statistics

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
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
    """

    prepared: list[Prepared]
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
                tiles = tiles_of(shape, self.size, self.reach)
                for tile, of_run in zip(
                    tiles, is_chosen[self.micrograph == number], strict=True
                ):
                    own[pixels_of(tile, shape, self.size)] = of_run
                live &= own
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
        pixel_sums=[
            pixel_sums(micrograph.pixels[~micrograph.excluded].reshape(-1, 1, 1))
            for micrograph in prepared
        ],
        optics=reader.optics,
    )


def reach_of(settings: Settings, pixel_size: float | None) -> int:
    """Distance in pixels from which two particles may both be.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    pixel_size : float or None
        Angstrom per pixel of the prepared micrographs.

    Returns
    -------
    int
        L, unless the settings tell the least distance of particles.

    Raises
    ------
    InputError
        If that distance is below one pixel, or the pixel size is not known.
    """
    if settings.least_distance is None:
        return settings.size
    if pixel_size is None:
        wanted = "a pixel size with it, such as `pixel_size`"
        raise expected("least_distance", wanted, "none")
    if settings.least_distance < pixel_size:
        wanted = f"at least one pixel, {pixel_size:g} A"
        raise expected("least_distance", wanted, f"{settings.least_distance:g} A")
    return math.ceil(settings.least_distance / pixel_size)


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
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
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
        reach: int,
        sums: Sequence[PixelSums],
        threads: int | None = None,
        optics: OpticsGroups | None = None,
    ) -> None:
        self._micrographs, self._size, self._reach = micrographs, size, reach
        self._threads = threads
        self._whole = [whole_windows(pixels, size) for pixels in usable]
        self._tiles = [
            (number, tile)
            for number, pixels in enumerate(micrographs)
            for tile in tiles_of((len(pixels), pixels.shape[1]), size, reach)
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

    def projections(self, basis: VolumeBasis, views: ViewGrid) -> ViewProjections:
        """Projections as the windows see them; see :class:`Observations`."""
        spreads = None if self._optics is None else self._optics.point_spreads
        return ViewProjections(basis, views, spreads)

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
            e_step = window_e_step(hypotheses, self._reach)
            parts = []
            for n_done, number in enumerate(members, start=1):
                parts.append(self._of_tile(e_step, number))
                if on_progress is not None:
                    on_progress(n_done / len(members))
            return reduce(add, parts)

        return by_optics_group(self._optics, chosen, hypotheses, of_group)

    def _of_tile(self, e_step: WindowExpectation, number: int) -> FeatureStatistics:
        """Statistics of one tile, beside its neighbours."""
        micrograph, tile = self._tiles[number]
        pixels, whole = self._micrographs[micrograph], self._whole[micrograph]
        windows, covered = region_of(
            tile, (len(pixels), pixels.shape[1]), self._size, self._reach
        )
        counting = np.zeros_like(whole[windows])
        inside = tuple(
            slice(part.start - around.start, part.stop - around.start)
            for part, around in zip(tile, windows, strict=True)
        )
        counting[inside] = whole[tile]
        return e_step.statistics(
            pixels[covered], whole[windows], counting, self._threads
        )[0]


def window_e_step(hypotheses: Hypotheses, reach: int) -> WindowExpectation:
    """E-step of windows under some hypotheses.

    Parameters
    ----------
    hypotheses : Hypotheses
        What may explain the windows, in the projections of one optics group.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.

    Returns
    -------
    WindowExpectation
        The E-step.
    """
    return WindowExpectation(
        hypotheses.operator,
        hypotheses.volume_coefficients,
        hypotheses.noise_variance,
        empty_probability(hypotheses.shift_prior),
        hypotheses.rotation_prior,
        reach,
    )
