"""The patch model, the paper's: patches that show any part of one particle, or none."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.micrographs.preparation import preparation_bytes
from numbasaem.projection.operator import ProjectionOperator, operator_bytes
from numbasaem.volume.basis import VolumeBasis

from .image_statistics import MATRIX_BYTES, ImageStatistics, statistics_bytes
from .patch_blocks import block_bytes
from .patch_data import load_patches
from .protocol import DataMemory, ObservationModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.preparation import InputShape
    from numbasaem.micrographs.reading import Input
    from numbasaem.schedule import Stage
    from numbasaem.settings import Settings

    from .protocol import ChangePixels, DataSet


class PatchModel(ObservationModel):
    """Patches that show any part of one particle, or none."""

    fastest = 8.0
    keeps_centre = False
    held_iterations = 0
    minibatch = 4000
    """So many that every coefficient is seen from all sides."""
    brightest: float | None = None
    statistics = ImageStatistics

    def load(
        self,
        inputs: Sequence[Input],
        settings: Settings,
        on_progress: OnProgress,
        client: Client | None = None,
        change: ChangePixels | None = None,
    ) -> DataSet:
        """Cut micrographs into patches; see :class:`ObservationModel`."""
        if client is None:
            return load_patches(inputs, settings, on_progress, change)
        from .dask_patches import load_remotely  # Dask is optional.

        return load_remotely(client, inputs, settings, on_progress, change)

    def memory(
        self, settings: Settings, shapes: Sequence[InputShape], n_groups: int
    ) -> DataMemory:
        """Memory of the patches; see :class:`ObservationModel`."""
        size = settings.size
        n_patches = sum(
            shape.n_micrographs * prod(n // size for n in shape.prepared)
            for shape in shapes
        )
        patches = 4 * n_patches * size**2
        n_rotations = len(ViewGrid(settings.schedule[-1].n_rotations))
        return DataMemory(
            reading=patches + max(patches, preparation_bytes(settings, shapes)),
            held=patches * (2 if settings.halves else 1),
            statistics=statistics_bytes(n_groups * n_rotations, size),
            projections=max(
                _projection_bytes(stage, size, n_groups) for stage in settings.schedule
            ),
            # A copy of the patch, and the checks of it.
            chosen=size**2 * (4 + 4 + 1),
            thread=block_bytes(n_rotations, size),
            n_observations=n_patches,
            patches_each=1.0,
        )

    def projections(
        self,
        basis: VolumeBasis,
        views: ViewGrid,
        point_spreads: NDArray[np.float64] | None = None,
    ) -> ProjectionOperator:
        """Projections as images; see :class:`ObservationModel`."""
        return ProjectionOperator(basis, views.rotations, point_spreads)


def _projection_bytes(stage: Stage, size: int, n_groups: int) -> int:
    """Bytes of the projections, the operator and the normal equations of a stage."""
    basis, n_rotations = (
        VolumeBasis(size, stage.ell_max),
        len(ViewGrid(stage.n_rotations)),
    )
    n_coefficients, n_pixels = basis.n_coefficients, size**2
    images = 6 * n_groups * n_rotations * n_pixels
    energies = 4 * n_rotations * (2 * size - 1) ** 2
    samples = size**3 * ((stage.ell_max + 1) ** 2 + sum(basis.radial_counts))
    matrix = n_pixels * n_coefficients
    chunk = max(matrix, min(MATRIX_BYTES // 8, n_rotations * matrix))
    equations = 4 * chunk + 3 * n_coefficients**2
    operator = operator_bytes(basis, n_rotations, n_groups)
    return operator + 8 * (images + max(energies, equations, samples))
