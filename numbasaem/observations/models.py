"""The observation models by their names."""

from __future__ import annotations

from numbasaem.errors import expected

from .patch_model import PatchModel
from .protocol import ObservationModel
from .window_model import WindowModel

MODELS: dict[str, ObservationModel] = {"patch": PatchModel(), "window": WindowModel()}
"""Every model that `Settings.model` may name."""


def observation_model(name: str) -> ObservationModel:
    """Observation model of a name.

    Parameters
    ----------
    name : str
        As in `Settings.model`.

    Returns
    -------
    ObservationModel
        The model.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in MODELS:
        raise expected("model", " or ".join(MODELS), repr(name))
    return MODELS[name]
