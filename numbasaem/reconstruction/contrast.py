"""Whether particles are brighter or darker than ice, as the data tell."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from numbasaem.assessment.fsc import is_mostly_negative
from numbasaem.errors import NumericalError, RunWarning
from numbasaem.geometry.grids import distances, offsets
from numbasaem.micrographs.sizes import molecule_pixels
from numbasaem.observations.models import observation_model
from numbasaem.schedule import rotations_for
from numbasaem.volume.basis import VolumeBasis

from .iterate import iterations
from .starts import (
    FIRST_EMPTY_PROBABILITY,
    as_strong_as_pixels,
    first_power,
    first_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed import Client
    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.micrographs.reading import Input
    from numbasaem.observations.protocol import DataSet, Observations
    from numbasaem.settings import Settings

    from .state import RunState

_DEGREES, _ITERATIONS = (0, 2), (10, 10)
"""Stages that a ball goes through, and the iterations of each."""
_SCORED_ITERATIONS = 3
"""Number of last iterations whose evidence counts."""


@dataclass(frozen=True)
class Contrast:
    """Contrast that was found.

    Attributes
    ----------
    dark, bright : float
        Evidence per patch of the likeliest volume with particles darker than ice, and
        brighter; minus infinity if no start ended in one.
    """

    dark: float
    bright: float

    @property
    def likelier(self) -> Literal["dark", "bright"]:
        """The likelier of the two; dark, as raw micrographs are, if neither is."""
        return "bright" if self.bright > self.dark else "dark"

    def __str__(self) -> str:
        """Put the finding in one line."""
        other = "bright" if self.likelier == "dark" else "dark"
        highest, second = max(self.dark, self.bright), min(self.dark, self.bright)
        if second == -math.inf:
            beside = f"no start ended in {other} ones"
        else:
            beside = f"{second:.4f} if they were {other}"
        return (
            f"particles are {self.likelier}, evidence per patch {highest:.4f}; {beside}"
        )


def load_in_contrast(
    contrast: str,
    inputs: Sequence[Input],
    settings: Settings,
    on_contrast: Callable[[Contrast], None] | None,
    on_progress: OnProgress,
    client: Client | None,
) -> tuple[DataSet, str]:
    """Read and prepare micrographs, and find the contrast if it is to be found.

    Parameters
    ----------
    contrast : str
        "dark", "bright" or "auto".
    inputs : sequence of arrays and MicrographFile
        As :func:`numbasaem.micrographs.reading.list_inputs` lists them.
    settings : Settings
        Settings of the reconstruction, but for the contrast.
    on_contrast : callable or None
        Called with the :class:`Contrast` that is found.
    on_progress : callable
        Called with what is being done and the share of it that is done.
    client : distributed.Client or None
        Workers of a Dask cluster that are to hold the data.

    Returns
    -------
    data : DataSet
        The observations, particles bright.
    contrast : str
        "dark" or "bright".

    Raises
    ------
    InputError
        If a micrograph cannot be used.
    """

    def load(contrast: str) -> DataSet:
        model = observation_model(settings.model)
        wanted = in_contrast(settings, contrast)
        return model.load(inputs, wanted, on_progress, client)

    if contrast != "auto":
        return load(contrast), contrast
    data = load("dark")
    finding = find_contrast(data.part(None, settings.threads), settings, on_progress)
    if on_contrast is not None:
        on_contrast(finding)
    if finding.likelier == "bright":
        del data  # before as much is read once more
        data = load("bright")
    return data, finding.likelier


def in_contrast(settings: Settings, contrast: str) -> Settings:
    """Settings that say the contrast.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    contrast : str
        "dark" or "bright".

    Returns
    -------
    Settings
        The same if they come to it, else others with that contrast.
    """
    if settings.contrast_or_default == contrast:
        return settings
    return settings.changed(contrast=contrast)


def other_contrast(settings: Settings) -> str:
    """Contrast that settings do not say.

    Parameters
    ----------
    settings : Settings
        Settings of a run.

    Returns
    -------
    str
        "bright" if they say "dark", else "dark".
    """
    return "bright" if settings.contrast_or_default == "dark" else "dark"


def find_contrast(
    data: Observations, settings: Settings, on_progress: OnProgress
) -> Contrast:
    """Find out whether bright or dark particles make the data likelier.

    Parameters
    ----------
    data : Observations
        All data, prepared as if particles were dark.
    settings : Settings
        Settings of the reconstruction.
    on_progress : callable
        Called with what is being done and the share of it that is done.

    Returns
    -------
    Contrast
        The finding.

    Notes
    -----
    A ball of the molecule's diameter and its negative each take the same minibatches
    through a few iterations at degrees 0 and 2. What counts is the sign of the volume
    they end in: where the data are clear, either ball comes to the right one.
    """
    trial = settings.changed(
        ell_max=_DEGREES,
        iterations=_ITERATIONS,
        rotations=tuple(rotations_for("window", degree) for degree in _DEGREES),
        batching="stochastic",
        starts=1,
        stopping=None,
    )
    evidence = {"dark": -math.inf, "bright": -math.inf}
    for number, sign in enumerate((1, -1)):

        def report(share: float, n_before: int = number) -> None:
            on_progress("finding the contrast", (n_before + share) / 2)

        state = _ball_start(data, trial, sign)
        if not _goes_on(state, data, trial, report):
            continue
        contrast = _contrast_of(state, settings.size)
        evidence[contrast] = max(evidence[contrast], _last_evidence(state))
    return Contrast(**evidence)


def _goes_on(
    state: RunState,
    data: Observations,
    settings: Settings,
    report: Callable[[float], None],
) -> bool:
    """Take a ball through all iterations; False if its numbers overflow."""
    n_iterations = settings.iterations_per_run
    with warnings.catch_warnings():
        # What befalls the wrong ball does not concern the user.
        warnings.simplefilter("ignore", RunWarning)
        try:
            for _ in iterations(state, data, settings, len(settings.schedule)):
                report(len(state.history) / n_iterations)
        except NumericalError:
            return False
    return True


def _contrast_of(state: RunState, size: int) -> Literal["dark", "bright"]:
    """Contrast of the particles of a run on data that are prepared as dark."""
    basis = VolumeBasis(size, _DEGREES[-1])
    volume = basis.evaluate(state.volume_coefficients)
    return "bright" if is_mostly_negative(volume) else "dark"


def _last_evidence(state: RunState) -> float:
    """Evidence per patch over the last iterations."""
    last = state.history[-_SCORED_ITERATIONS:]
    return float(np.mean([row.evidence_per_patch for row in last]))


def _ball_start(data: Observations, settings: Settings, sign: int) -> RunState:
    """First state of a run whose volume is a ball, bright or dark.

    Its projections have as much power as the pixels. Density and noise variance are
    guesses that favour neither sign.
    """
    basis = VolumeBasis(settings.size, settings.schedule[0].ell_max)
    ball = basis.expand(_smooth_ball(settings.size))
    volume = sign * as_strong_as_pixels(ball, data, settings)
    variance = first_power(data, settings)
    return first_state(volume, FIRST_EMPTY_PROBABILITY, variance, settings, run=0)


def _smooth_ball(size: int) -> NDArray[np.float64]:
    """Ball of the molecule's diameter whose surface is a voxel thick.

    float64, shape (size, size, size); 1 inside, 0 outside.
    """
    radius = molecule_pixels(size) / 2
    return np.clip(radius + 0.5 - distances(offsets(size)), 0.0, 1.0)
