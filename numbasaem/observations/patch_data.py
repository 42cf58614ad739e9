"""Patches of micrographs in the memory of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.errors import expected
from numbasaem.micrographs.reading import MicrographReader
from numbasaem.projection.operator import ProjectionOperator

from .image_statistics import ImageStatistics
from .patch_blocks import batch_layout
from .patch_cutting import cut_live_patches
from .patch_expectation import compile_kernels, partial_sums, statistics_of_sums
from .pixel_sums import PixelSums, pixel_sums, variance_and_brightest
from .protocol import DataSet
from .statistics import by_optics_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.autocorrelation.moments import Autocorrelations
    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings
    from numbasaem.volume.basis import VolumeBasis

    from .hypotheses import Hypotheses
    from .protocol import ChangePixels
    from .statistics import Statistics


@dataclass(frozen=True)
class PatchSet(DataSet):
    """Patches of all micrographs, in the memory of this process.

    Attributes
    ----------
    patches : float32, shape (n_patches, L, L)
        All patches, micrograph by micrograph.
    """

    patches: NDArray[np.float32]

    def part(self, chosen: NDArray[np.intp] | None, threads: int | None) -> Patches:
        """Patches of one run; see :class:`DataSet`."""
        numbers = slice(None) if chosen is None else chosen
        optics = None
        if self.optics is not None:
            optics = self.optics.take(self.micrograph[numbers])
        return Patches(self.patches[numbers], self.pixel_sums, threads, optics)


def load_patches(
    inputs: Sequence[Input],
    settings: Settings,
    on_progress: OnProgress,
    change: ChangePixels | None = None,
) -> PatchSet:
    """Cut every micrograph into patches, holding one micrograph at a time.

    Parameters
    ----------
    inputs, settings, on_progress, change
        As in :meth:`ObservationModel.load`.

    Returns
    -------
    PatchSet
        The patches, without those that touch an excluded area.

    Raises
    ------
    InputError
        If a micrograph cannot be read or prepared, or pixel sizes differ or are
        missing.
    """
    reader = MicrographReader(settings)
    prepared = reader.prepared(inputs, on_progress)
    pieces = list(cut_live_patches(prepared, settings.size, change))
    return PatchSet(
        patches=np.concatenate(pieces),
        micrograph=np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces]),
        pixel_size=reader.pixel_size,
        sources=reader.sources,
        pixel_sums=[pixel_sums(piece) for piece in pieces],
        optics=reader.optics,
    )


class Patches:
    """Patches of a run in the memory of this process; see :class:`Observations`.

    Parameters
    ----------
    patches : float32, shape (n_patches, L, L)
        Patches of the run.
    sums : sequence of PixelSums, optional
        Sums over all micrographs, where the run sees a part of them.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    optics : OpticsGroups, optional
        Groups of the patches.
    """

    patches_each = 1.0

    def __init__(
        self,
        patches: NDArray[np.float32],
        sums: Sequence[PixelSums] | None = None,
        threads: int | None = None,
        optics: OpticsGroups | None = None,
    ) -> None:
        self._patches = patches
        self._threads = threads
        self._optics = optics
        self.variance, self._brightest = variance_and_brightest(
            sums or [pixel_sums(patches)]
        )

    def __len__(self) -> int:
        """Number of patches."""
        return len(self._patches)

    def projections(self, basis: VolumeBasis, views: ViewGrid) -> ProjectionOperator:
        """Projections as the patches see them; see :class:`Observations`."""
        return ProjectionOperator(basis, views.rotations, spreads_of(self._optics))

    def autocorrelations(self) -> Autocorrelations:
        """Refuse: patches cut particles; see :class:`Observations`."""
        raise expected("start", "random with patches", "moments")

    def compile(self, operator: Any) -> None:
        """Compile the kernels; see :class:`Observations`."""
        size = self._patches.shape[1]
        compile_kernels(size, whole_square=self._optics is not None)

    def expectation(
        self,
        chosen: NDArray[np.intp],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of the chosen patches; see :class:`Observations`."""

        def of_group(members: NDArray[np.intp], hypotheses: Hypotheses) -> Statistics:
            images = hypotheses.images
            if not len(members):
                return ImageStatistics.of_nothing(*images.shape[:2])
            layout = batch_layout(len(members), images, self._brightest)
            given = hypotheses.in_images
            patches = self._patches[members]
            sums = partial_sums(layout, patches, *given, self._threads, on_progress)
            return statistics_of_sums(layout, sums, *given)

        return by_optics_group(self._optics, chosen, hypotheses, of_group)


def spreads_of(optics: OpticsGroups | None) -> NDArray[np.float64] | None:
    """Point spread of each optics group.

    Parameters
    ----------
    optics : OpticsGroups or None
        Groups of the data; None if the volume is seen as it is.

    Returns
    -------
    float64, shape (G, 2L - 1, 2L - 1), or None
        Point spreads.
    """
    return None if optics is None else optics.point_spreads
