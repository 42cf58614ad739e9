"""Contrast transfer functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class ContrastTransferFunction:
    """Contrast transfer function of a micrograph, by RELION's conventions.

    Attributes
    ----------
    defocus_u, defocus_v : float
        Defocus along the principal axes, angstrom; underfocus is positive.
    defocus_angle : float
        Angle from x towards y to the axis of `defocus_u`, degrees.
    voltage : float
        Voltage of the microscope, kV.
    spherical_aberration : float
        Spherical aberration, mm.
    amplitude_contrast : float
        Share of amplitude contrast, 0 to 1.
    phase_shift : float
        Phase shift of a phase plate, degrees.
    b_factor : float
        B factor, square angstrom; the envelope is exp(-b_factor / 4 * frequency**2).

    Raises
    ------
    InputError
        If a value is not finite or out of its range.

    Examples
    --------
    >>> ctf = ContrastTransferFunction(defocus_u=15_000, defocus_v=15_000)
    >>> round(float(ctf(0.0, 0.0)), 3), round(float(ctf(0.0, 0.04)), 3)
    (0.1, 1.0)
    """

    defocus_u: float
    defocus_v: float
    defocus_angle: float = 0.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift: float = 0.0
    b_factor: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no microscope has."""
        for name, value in vars(self).items():
            if not np.isfinite(value):
                raise expected(name, "a finite number", value)
        if not self.voltage > 0:
            raise expected("voltage", "a number of kV above 0", self.voltage)
        if not 0 <= self.amplitude_contrast <= 1:
            wanted = "a share from 0 to 1"
            raise expected("amplitude_contrast", wanted, self.amplitude_contrast)

    @property
    def wavelength(self) -> float:
        """De Broglie wavelength of the electrons, angstrom."""
        volts = 1000 * self.voltage
        return float(12.2642596 / np.sqrt(volts * (1 + 0.978475598e-6 * volts)))

    def __call__(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Evaluate the contrast transfer function.

        Parameters
        ----------
        y, x : array, shapes that broadcast
            Frequencies along the axes, cycles per angstrom.

        Returns
        -------
        float64, shape of `y` and `x` together
            Values from -1 to 1; positive at low frequencies under focus: a bright
            particle stays bright.
        """
        rows, columns = np.asarray(y, np.float64), np.asarray(x, np.float64)
        square = rows**2 + columns**2
        angle = np.arctan2(rows, columns) - np.radians(self.defocus_angle)
        mean = (self.defocus_u + self.defocus_v) / 2
        defocus = mean + (self.defocus_u - self.defocus_v) / 2 * np.cos(2 * angle)
        aberration = 1e7 * self.spherical_aberration * self.wavelength**2 / 2
        phase = np.pi * self.wavelength * square * (defocus - aberration * square)
        constant = np.radians(self.phase_shift) + np.arcsin(self.amplitude_contrast)
        envelope = np.exp(-self.b_factor / 4 * square)
        return np.asarray(np.sin(phase + constant) * envelope, dtype=np.float64)
