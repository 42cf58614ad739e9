"""Whether a molecule could have been picked one by one: its strength, and the limit."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import InputError
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.micrographs.pixel_sizes import PixelSizes
from numbasaem.micrographs.preparation import preparation_of
from numbasaem.micrographs.reading import (
    file_of_source,
    input_shapes,
    prepared_micrographs,
)
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.settings import Settings
from numbasaem.volume.basis import VolumeBasis

from .checkpoint import load_checkpoint
from .current_stage import basis_of, grid_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_N_ROTATIONS = 216
"""Number of rotations over which a particle's strength is averaged."""


@dataclass(frozen=True)
class Detectability:
    """How strong a particle is, and how strong it has to be.

    Attributes
    ----------
    strength : float
        d, standard deviations of the noise; see :func:`particle_strength`.
    n_positions : int
        N, pixels of a prepared micrograph.
    n_rotations : int
        K, rotations of the last stage.

    Examples
    --------
    >>> print(Detectability(5.0, 2992**2, 552))
    strength of a particle 5.0 standard deviations, detection limit 6.3: below it, too \
weak to be picked one by one
    """

    strength: float
    n_positions: int
    n_rotations: int

    @property
    def limit(self) -> float:
        """Least strength at which particles stand out of the noise."""
        return detection_limit(self.n_positions, self.n_rotations)

    @property
    def is_pickable(self) -> bool:
        """Whether the molecule could have been picked one by one."""
        return self.strength >= self.limit

    def __str__(self) -> str:
        """Put strength, limit and what follows into a line."""
        outcome = "below it, too weak to be picked one by one"
        if self.is_pickable:
            outcome = "could have been picked one by one"
        return (
            f"strength of a particle {self.strength:.1f} standard deviations, "
            f"detection limit {self.limit:.1f}: {outcome}"
        )


def detection_limit(n_positions: int, n_rotations: int) -> float:
    """Strength from which a particle stands out of all the noise of a micrograph.

    Parameters
    ----------
    n_positions : int
        N, places where a particle is sought.
    n_rotations : int
        K, rotations in which it is.

    Returns
    -------
    float
        d, standard deviations of the noise.

    Notes
    -----
    The likeliest maximum of n = N K independent standard normal variables, by extreme
    value theory: b - (ln ln n + ln 4 pi) / (2 b) with b = sqrt(2 ln n). As high a
    correlation with the true map is met in noise alone. This is the limit of picking
    without a false particle in the micrograph, not that of ranking candidates: a list
    that is allowed false ones holds weaker particles.

    Examples
    --------
    >>> round(detection_limit(2992**2, 552), 1)
    6.3
    """
    logarithm = log(max(n_positions * n_rotations, 3))
    highest = sqrt(2 * logarithm)
    return highest - (log(logarithm) + log(4 * pi)) / (2 * highest)


def particle_strength(
    basis: VolumeBasis,
    volume_coefficients: ArrayLike,
    noise_variance: float,
    point_spread: NDArray[np.float64] | None = None,
) -> float:
    """Strength of a particle in standard deviations of the noise.

    Parameters
    ----------
    basis : VolumeBasis
        Basis of the volume.
    volume_coefficients : array, shape (M,)
        The volume, in the units of the micrographs.
    noise_variance : float
        sigma**2 of the micrographs' pixels.
    point_spread : float64, shape (2L - 1, 2L - 1), optional
        What the micrograph shows of a point.

    Returns
    -------
    float
        d: the norm of the projections, root mean square over views, over sigma. By the
        definition of the signal-to-noise ratio, equation (4), it is L sqrt(SNR).
    """
    spreads = None if point_spread is None else point_spread[np.newaxis]
    operator = ProjectionOperator(basis, ViewGrid(_N_ROTATIONS).rotations, spreads)
    images = operator.project(np.asarray(volume_coefficients, dtype=np.float64))
    energy = float(np.mean(np.sum(images**2, axis=(1, 2))))
    return sqrt(energy / noise_variance)


def detectability(folder: Path) -> Detectability | None:
    """Tell whether the molecule of a run could have been picked one by one.

    Parameters
    ----------
    folder : Path
        Output folder of a finished reconstruction.

    Returns
    -------
    Detectability or None
        From the map found, as the first micrograph shows it; None if that is gone.

    Raises
    ------
    InputError
        If the folder holds no readable run.
    """
    description, runs = load_checkpoint(folder / "run.h5")
    settings, state = Settings(**description["settings"]), runs["full"]
    moved = (description["folder"], folder) if "folder" in description else None
    file = file_of_source(description["sources"][0], moved)
    spread = None
    try:
        (shape,) = input_shapes([file], settings)
        if settings.ctf or settings.whiten:
            sizes = PixelSizes(settings.pixel_size)
            micrographs = prepared_micrographs(file, preparation_of(settings), sizes)
            spread = next(micrographs).point_spread
    except InputError:
        return None
    basis = basis_of(state, settings)
    strength = particle_strength(
        basis,
        state.volume_coefficients,
        state.noise_variance,
        None if spread is None else spread.values,
    )
    rows, columns = shape.prepared
    return Detectability(strength, rows * columns, len(grid_of(state, settings)))
