"""Settings in a file, such as the one beside each result."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from numbasaem.aliases import PathLike
from numbasaem.errors import expected
from numbasaem.setting_checks import contrast_in_place_of_invert
from numbasaem.settings import Settings


def read_settings(path: PathLike) -> dict[str, Any]:
    """Read settings from a TOML file, such as the one beside each result.

    Parameters
    ----------
    path : path-like
        The file; its names are those of :class:`Settings`.

    Returns
    -------
    dict
        Values by name, to be given to :class:`Settings`, which checks them.

    Raises
    ------
    InputError
        If the file cannot be read, is no TOML, has a name that is no setting, or two
        names that contradict each other.
    """
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise expected(path, "settings in TOML", error) from error
    values = contrast_in_place_of_invert(values)
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        raise expected(path, "names of settings", ", ".join(unknown))
    return values
