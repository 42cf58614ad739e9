"""The window model, ours: every position, with the whole particle in view."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.micrographs.preparation import preparation_bytes
from numbasaem.projection.view_projections import operator_bytes
from numbasaem.volume.basis import VolumeBasis

from .feature_statistics import FeatureStatistics
from .protocol import DataMemory, ObservationModel
from .window_blocks import view_projections
from .window_data import TileObservations, load_windows
from .window_expectation import SLAB_BYTES
from .window_tiles import tile_windows, tiles_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.autocorrelation.fit import AutocorrelationFit
    from numbasaem.micrographs.preparation import InputShape
    from numbasaem.micrographs.reading import Input
    from numbasaem.projection.view_projections import ViewProjections
    from numbasaem.settings import Settings

    from .protocol import ChangePixels, DataSet, Observations

_WINDOW_BYTES = 60
"""Bytes of each window of a tile: its evidence, sums and weights."""


class WindowModel(ObservationModel):
    """Every position of a micrograph, with the whole particle in view."""

    fastest = 10.0
    keeps_centre = True
    held_iterations = 5
    minibatch = 10_000
    """TRPV1 at SNR 0.5 came to a correlation of 0.965 so, with 4,000 to 0.935."""
    brightest = 10.0
    """Far above any particle's, so that it decides what no window tells, and no more.

    Without it a volume grows without bound in what the rotations of an iteration do not
    see, and no window resembles it in those of the next.
    """
    statistics = FeatureStatistics
    keeps_distance = True

    def load(
        self,
        inputs: Sequence[Input],
        settings: Settings,
        on_progress: OnProgress,
        client: Client | None = None,
        change: ChangePixels | None = None,
    ) -> DataSet:
        """Read and prepare micrographs; see :class:`ObservationModel`."""
        if client is None:
            return load_windows(inputs, settings, on_progress, change)
        from .dask_windows import load_remotely  # Dask is optional.

        return load_remotely(client, inputs, settings, on_progress, change)

    def first_fit(self, data: Observations) -> AutocorrelationFit | None:
        """Made once for all starts; see :class:`ObservationModel`."""
        return data.fit_of_two_orders if isinstance(data, TileObservations) else None

    def memory(
        self, settings: Settings, shapes: Sequence[InputShape], n_groups: int
    ) -> DataMemory:
        """Memory of the micrographs, and of a tile; see :class:`ObservationModel`."""
        size = settings.size
        n_pixels = sum(shape.n_micrographs * prod(shape.prepared) for shape in shapes)
        n_tiles = sum(
            shape.n_micrographs * len(tiles_of(shape.prepared, size, size))
            for shape in shapes
        )
        n_runs = 3 if settings.halves else 1
        stage = settings.schedule[-1]
        operator = operator_bytes(
            VolumeBasis(size, stage.ell_max), ViewGrid(stage.n_rotations), n_groups
        )
        side = tile_windows(size, size) + 2 * size
        return DataMemory(
            reading=5 * n_pixels + preparation_bytes(settings, shapes),
            held=(4 + 1 + 2 * n_runs) * n_pixels + _WINDOW_BYTES * side**2 + SLAB_BYTES,
            statistics=operator.statistics,
            projections=operator.at_most,
            chosen=0,
            thread=operator.statistics,
            n_observations=n_tiles,
            patches_each=max(1, n_pixels // (size**2 * n_tiles)),
        )

    def projections(
        self,
        basis: VolumeBasis,
        views: ViewGrid,
        point_spreads: NDArray[np.float64] | None = None,
    ) -> ViewProjections:
        """Projections as steerable features; see :class:`ObservationModel`."""
        return view_projections(basis, views, point_spreads)
