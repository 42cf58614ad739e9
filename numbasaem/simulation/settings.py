"""What to simulate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

SMALLEST_SIZE = 5
"""Smallest side of a projection, pixels."""
VOLTAGE = 300.0
"""Voltage of the microscope, kV."""


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate.

    Attributes
    ----------
    size : int
        Side L of a projection in the micrograph, pixels.
    pixels : int
        Side N of a micrograph, at least 2L.
    snr : float
        Signal-to-noise ratio (4); infinity leaves the noise out. With
        ``method="original"`` it is that of the full-size micrograph.
    micrographs : int
        Number of micrographs.
    spacing : {"separated", "arbitrary"}
        ``separated``: squares of side 2L-1 around the particles do not overlap, (5) on
        at least one axis. ``arbitrary``: squares of side L do not.
    density : float, optional
        Share of the area under projections, ``T L² / N²``; random placement stops when
        no further particle fits, and that is where it goes when None.
    method : {"expanded", "original"}
        ``expanded``: the volume at size L, expanded by (6), is the truth exactly.
        ``original``: the volume is projected at its own size, and the micrograph
        downsampled.
    ell_max : int
        Degree of the expansion.
    seed : int
        Seed of every random number. Micrograph i does not depend on how many follow.
    pixel_size : float
        Angstrom per pixel of the micrographs as written.
    defocus : (float, float), optional
        Lowest and highest defocus of a micrograph, angstrom, at 300 kV; without it
        there is no lens. The lens takes from the particles, not from `snr`, which is
        that of their projections.
    noise_like : path-like, optional
        Micrograph whose radial power spectrum, over frequencies in cycles per pixel,
        the noise has; white without it.
    preferred : float
        Share of the particles that are seen within 30 degrees of the molecule's z axis.

    Raises
    ------
    InputError
        If one of them cannot be used.

    Examples
    --------
    >>> SimulationSettings(size=11, pixels=220, snr=5, density=0.1).requested
    40
    """

    size: int
    pixels: int
    snr: float
    micrographs: int = 1
    spacing: Literal["separated", "arbitrary"] = "separated"
    density: float | None = None
    method: Literal["expanded", "original"] = "expanded"
    ell_max: int = 10
    seed: int = 0
    pixel_size: float = 1.0
    defocus: tuple[float, float] | None = None
    noise_like: PathLike | None = None
    preferred: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        self._require_integer("size", SMALLEST_SIZE)
        self._require_integer("pixels", 2 * self.size)
        self._require_integer("micrographs", 1)
        self._require_integer("ell_max", 0)
        self._require_integer("seed", 0)
        if not self.snr > 0:
            raise expected("snr", "a positive number", self.snr)
        if not 0 < self.pixel_size < np.inf:
            raise expected("pixel_size", "a positive number", self.pixel_size)
        if self.spacing not in ("separated", "arbitrary"):
            raise expected("spacing", "separated or arbitrary", self.spacing)
        if self.method not in ("expanded", "original"):
            raise expected("method", "expanded or original", self.method)
        if self.density is not None and not 0 < self.density <= 1:
            raise expected("density", "a number above 0 and up to 1", self.density)
        if self.defocus is not None and not (
            0 < self.defocus[0] <= self.defocus[1] < np.inf
        ):
            wanted = "two numbers of angstrom above 0 that do not fall"
            raise expected("defocus", wanted, self.defocus)
        if not 0 <= self.preferred <= 1:
            raise expected("preferred", "a share from 0 to 1", self.preferred)
        if self.requested == 0:
            wanted = "enough for one particle per micrograph"
            raise expected("density", wanted, self.density)

    @property
    def requested(self) -> int | None:
        """Number T of particles per micrograph that `density` asks for."""
        if self.density is None:
            return None
        return round(self.density * self.pixels**2 / self.size**2)

    def _require_integer(self, name: str, least: int) -> None:
        """Refuse a setting that is no integer or too small."""
        value = getattr(self, name)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            raise expected(name, f"an integer of at least {least}", value)
