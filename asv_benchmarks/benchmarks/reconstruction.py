"""Whole iterations, and what they arrive at."""

from __future__ import annotations

import numpy as np

import numbasaem
from numbasaem.observations.patch_expectation import compile_kernels
from numbasaem.volume.phantom import folded_chain

SIZE = 9


class Reconstruction:
    """A fixed number of passes over one small micrograph, from noise."""

    timeout = 600

    def setup(self) -> None:
        """Simulate, and compile."""
        self.truth = folded_chain(SIZE)
        simulation = numbasaem.simulate(
            self.truth, size=SIZE, pixels=540, snr=5.0, ell_max=6
        )
        self.micrographs = simulation.micrographs
        self.settings = numbasaem.Settings(
            size=SIZE,
            ell_max=(4, 6),
            iterations=(15, 10),
            rotations=216,
            batch_fraction=0.3,
            halves=False,
            starts=2,
        )
        compile_kernels(SIZE)

    def time_reconstruct(self) -> None:
        """Wall time."""
        numbasaem.reconstruct(self.micrographs, self.settings)

    def peakmem_reconstruct(self) -> None:
        """Peak memory of the process."""
        numbasaem.reconstruct(self.micrographs, self.settings)

    def track_mean_fsc(self) -> float:
        """Mean over the shells of the correlation with the truth, aligned."""
        result = numbasaem.reconstruct(self.micrographs, self.settings)
        aligned = numbasaem.align(result.volume, self.truth)
        shells = numbasaem.fourier_shell_correlation(aligned.volume, self.truth)
        return float(np.mean(shells))
