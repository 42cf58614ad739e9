"""The patch model, the paper's: patches that show any part of one particle, or none."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from numbasaem.micrographs.preparation import preparation_bytes

from .patch_blocks import block_bytes
from .patch_data import load_patches
from .patch_positions import positions_on_four_grids
from .protocol import DataMemory, ObservationModel, Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.preparation import InputShape
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings

    from .protocol import ChangePixels, DataSet


class PatchModel(ObservationModel):
    """Patches that show any part of one particle, or none."""

    longest_step = 8.0
    held_iterations = 0

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
        from .dask import load_remotely  # Dask is optional.

        return load_remotely(client, inputs, settings, on_progress)

    def memory(self, settings: Settings, shapes: Sequence[InputShape]) -> DataMemory:
        """Memory of the patches; see :class:`ObservationModel`."""
        size = settings.size
        n_patches = sum(
            shape.n_micrographs * prod(n // size for n in shape.prepared)
            for shape in shapes
        )
        patches = 4 * n_patches * size**2
        return DataMemory(
            reading=patches + max(patches, preparation_bytes(settings, shapes)),
            held=patches * (2 if settings.halves else 1),
            # A copy of the patch, and the checks of it.
            chosen=size**2 * (4 + 4 + 1),
            thread=block_bytes(settings.schedule[-1].n_rotations, size),
            n_observations=n_patches,
            patches_each=1.0,
        )

    def positions(
        self,
        pixels: NDArray[np.float32],
        images: NDArray[np.float64],
        shift_prior: NDArray[np.float64],
        noise_variance: float,
        rotation_prior: NDArray[np.float64] | None = None,
        threads: int | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Positions:
        """Most probable shifts of patches; see :class:`ObservationModel`."""
        hypotheses = images, shift_prior, noise_variance, rotation_prior
        return positions_on_four_grids(pixels, *hypotheses, threads, on_progress)
