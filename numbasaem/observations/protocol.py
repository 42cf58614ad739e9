"""What a reconstruction asks of an observation model and of its data.

A model is one object, found by its name in :mod:`numbasaem.observations.models`. It
holds all that differs between models: nothing else asks for a model's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from numbasaem.random_streams import Stream, random_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.autocorrelation.fit import AutocorrelationFit
    from numbasaem.autocorrelation.moments import Autocorrelations
    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.micrographs.preparation import InputShape
    from numbasaem.micrographs.reading import Input
    from numbasaem.projection.operator import ProjectionOperator
    from numbasaem.projection.view_projections import ViewProjections
    from numbasaem.settings import Settings
    from numbasaem.volume.basis import VolumeBasis

    from .hypotheses import Hypotheses
    from .pixel_sums import PixelSums
    from .statistics import Statistics

ChangePixels = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""Function from the pixels of a prepared micrograph to those that the model sees."""


class Observations(Protocol):
    """Data of one run.

    Attributes
    ----------
    variance : float
        Variance of all pixels of all runs: the noise variance that a run starts from.
    patches_each : float
        Number of patches that an observation is worth, on average.
    """

    variance: float
    patches_each: float

    def __len__(self) -> int:
        """Number of observations to choose from."""

    def projections(
        self, basis: VolumeBasis, views: ViewGrid
    ) -> ProjectionOperator | ViewProjections:
        """Projections in the rotations of a grid, as the data see them.

        Parameters
        ----------
        basis : VolumeBasis
            Basis of the volume.
        views : ViewGrid
            The rotations.

        Returns
        -------
        ProjectionOperator or ViewProjections
            Projections of each optics group of the data.
        """

    def compile(self, operator: Any) -> None:
        """Compile what :meth:`expectation` runs, so that its first call is not slow.

        Parameters
        ----------
        operator : ProjectionOperator or ViewProjections
            Of :meth:`projections`.
        """

    def autocorrelations(self) -> Autocorrelations:
        """First, second and third autocorrelations of all pixels of the run.

        Returns
        -------
        Autocorrelations
            Sums over the micrographs.

        Raises
        ------
        InputError
            If these data cannot tell them, or are too few.
        """

    def expectation(
        self,
        chosen: NDArray[np.intp],
        hypotheses: Hypotheses,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of some observations: the E-step.

        Parameters
        ----------
        chosen : intp, shape (n,)
            Their numbers, ascending.
        hypotheses : Hypotheses
            What may explain them, in projections by :meth:`projections`.
        on_progress : callable, optional
            Called with the share that is done.

        Returns
        -------
        Statistics
            Sums over the chosen observations.
        """


@dataclass(frozen=True)
class DataSet:
    """Observations of all micrographs and where they came from.

    Each observation model has a class of its own, whose method `part` hands a run its
    share.

    Attributes
    ----------
    micrograph : intp, shape (n_observations,)
        Number of each observation's micrograph.
    pixel_size : float or None
        Angstrom per pixel, where it is known.
    sources : list of dict
        Name, size in bytes and SHA-256 of each input, and the pixel size of files.
    pixel_sums : list of PixelSums
        Sums over the pixels of each micrograph.
    optics : OpticsGroups or None
        Groups of the micrographs, where their point spreads are known.
    """

    micrograph: NDArray[np.intp]
    pixel_size: float | None
    sources: list[dict[str, Any]]
    pixel_sums: list[PixelSums]
    optics: OpticsGroups | None

    @property
    def n_micrographs(self) -> int:
        """Number of micrographs that were read."""
        return len(self.pixel_sums)

    def halves(self, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Two independent halves of the micrographs, or of a single one's patches.

        Parameters
        ----------
        seed : int
            Seed of the random split.

        Returns
        -------
        first, second : intp, shape (n_observations of the half,)
            Numbers of the observations in each half.
        """
        several = self.n_micrographs > 1
        units = self.micrograph if several else np.arange(len(self.micrograph))
        order = random_stream(seed, Stream.HALVES).permutation(int(units.max()) + 1)
        first = np.isin(units, order[: len(order) // 2])
        return np.flatnonzero(first), np.flatnonzero(~first)

    def part(
        self, chosen: NDArray[np.intp] | None, threads: int | None
    ) -> Observations:
        """Observations of one run.

        Parameters
        ----------
        chosen : intp, shape (n,), or None
            Their numbers; None is all.
        threads : int or None
            Threads to work on them; all that Numba may use if None.

        Returns
        -------
        Observations
            Observations that the run sees.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class DataMemory:
    """Memory that a model's data and its E-step take, in bytes.

    Attributes
    ----------
    reading : int
        Memory while the micrographs are read: two copies and the largest file.
    held : int
        Memory of all observations and their halves.
    statistics : int
        Memory of one set of statistics.
    projections : int
        Memory of the projections of a stage, and of the equations of its M-step.
    chosen : int
        Memory of each observation of a minibatch.
    thread : int
        Work space of one block.
    n_observations : int
        Number of observations in all micrographs.
    patches_each : float
        Number of patches that an observation is worth.
    """

    reading: int
    held: int
    statistics: int
    projections: int
    chosen: int
    thread: int
    n_observations: int
    patches_each: float


class ObservationModel(ABC):
    """A way to look at micrographs.

    Attributes
    ----------
    fastest : float
        Fastest pace of the volume that is safe, in units of the pace of EM.
    keeps_centre : bool
        Whether a volume that has left the middle of its box is brought back, since the
        model takes no notice of where in the box it is.
    held_iterations : int
        Number of first iterations of a run that keep the first empty probability: under
        a volume that explains nothing, all patches look empty.
    minibatch : int
        Fewest patches that a minibatch is worth, unless the settings state its share.
    brightest : float or None
        Power of the projections that the prior of the volume expects, over that of the
        pixels; None is no prior, as in the paper.
    statistics : type
        Class of its statistics, a dataclass.
    keeps_distance : bool
        Whether the setting `least_distance` tells which particles exclude each other;
        otherwise those closer than L pixels do.
    """

    fastest: float
    keeps_centre: bool
    held_iterations: int
    minibatch: int
    brightest: float | None
    statistics: type[Statistics]
    keeps_distance: bool = False

    @abstractmethod
    def load(
        self,
        inputs: Sequence[Input],
        settings: Settings,
        on_progress: OnProgress,
        client: Client | None = None,
        change: ChangePixels | None = None,
    ) -> DataSet:
        """Read and prepare micrographs, and make observations of them.

        Parameters
        ----------
        inputs : sequence of arrays and MicrographFile
            As :func:`numbasaem.micrographs.reading.list_inputs` lists them.
        settings : Settings
            Size, preparation and pixel size.
        on_progress : callable
            Called with what is being done and the share of it that is done.
        client : distributed.Client, optional
            Workers of a Dask cluster that are to hold the data.
        change : callable, optional
            Function from the pixels of a prepared micrograph to those that the model
            sees.

        Returns
        -------
        DataSet
            The observations, without those that touch an excluded area.

        Raises
        ------
        InputError
            If a micrograph cannot be used, or the cluster is lost.
        """

    def first_fit(self, data: Observations) -> AutocorrelationFit | None:
        """Find what explains the first two autocorrelations of a run's data.

        Parameters
        ----------
        data : Observations
            Data of the run.

        Returns
        -------
        AutocorrelationFit or None
            Density and noise variance. None if nothing explains them, or if the model
            does not look at whole particles, as most do not.
        """
        return None

    @abstractmethod
    def memory(
        self, settings: Settings, shapes: Sequence[InputShape], n_groups: int
    ) -> DataMemory:
        """Memory that data of such micrographs take in this process.

        Parameters
        ----------
        settings : Settings
            Settings of the reconstruction.
        shapes : sequence of InputShape
            Shapes of the inputs.
        n_groups : int
            Largest number of optics groups that there may be.

        Returns
        -------
        DataMemory
            Memory at its peak.
        """

    @abstractmethod
    def projections(
        self,
        basis: VolumeBasis,
        views: ViewGrid,
        point_spreads: NDArray[np.float64] | None = None,
    ) -> ProjectionOperator | ViewProjections:
        """Projections in the form that the E-step of this model takes.

        Parameters
        ----------
        basis : VolumeBasis
            Basis of the volume, side L.
        views : ViewGrid
            The rotations, K of them.
        point_spreads : float64, shape (G, 2L - 1, 2L - 1), optional
            Point spread of each of G optics groups.

        Returns
        -------
        ProjectionOperator or ViewProjections
            Projections of each group.
        """
