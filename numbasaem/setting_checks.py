"""Checks of settings: names of point groups, an older name, values that go together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from numbasaem.errors import expected

_POINT_GROUP = re.compile(r"(?:[CD][1-9][0-9]{0,2}|[TOI])")


def check_symmetry(name: str) -> str:
    """Check the name of a point group.

    Parameters
    ----------
    name : str
        Schoenflies symbol in either case.

    Returns
    -------
    str
        The symbol in upper case.

    Raises
    ------
    InputError
        If it is not Cn, Dn, T, O or I.
    """
    symbol = name.upper()
    if not _POINT_GROUP.fullmatch(symbol):
        raise expected("symmetry", "C1, Cn, Dn, T, O or I", name)
    return symbol


def contrast_in_place_of_invert(values: Mapping[str, Any]) -> dict[str, Any]:
    """Say by `contrast` what values say by `invert`, its older name.

    Parameters
    ----------
    values : mapping
        Values of settings, by name.

    Returns
    -------
    dict
        The same without `invert`.

    Raises
    ------
    InputError
        If `invert` is neither true nor false, or `contrast` says something else.

    Examples
    --------
    >>> contrast_in_place_of_invert({"size": 11, "invert": True})
    {'size': 11, 'contrast': 'dark'}
    """
    others = {name: value for name, value in values.items() if name != "invert"}
    if "invert" not in values:
        return others
    invert, contrast = values["invert"], others.get("contrast")
    if not isinstance(invert, bool):
        raise expected("invert", "true or false", repr(invert))
    meant = "dark" if invert else "bright"
    if contrast not in (None, meant):
        raise expected("contrast", f"{meant}, as `invert={invert}` says", contrast)
    return others | {"contrast": meant}


def check_size(
    size: int | None, particle_diameter: float | None, resolution: float | None
) -> None:
    """Refuse settings that state the size neither way, or both ways.

    Parameters
    ----------
    size : int or None
        Side of a patch, pixels.
    particle_diameter, resolution : float or None
        Diameter of the particle and resolution aimed at, angstrom, of which a size can
        be made.

    Raises
    ------
    InputError
        If there is neither a size nor a diameter, or a resolution with a size or
        without a diameter.
    """
    if resolution is not None and size is not None:
        raise expected("resolution", "`size` or `resolution`", "both")
    if particle_diameter is None and resolution is not None:
        raise expected("resolution", "`particle_diameter` with it", "none")
    if particle_diameter is None and size is None:
        raise expected("size", "a value, or `particle_diameter`", "none")


def check_stages(
    degrees: tuple[int, ...],
    iterations: tuple[int, ...] | None,
    rotations: tuple[int, ...],
) -> None:
    """Refuse stages whose numbers do not fit together.

    Parameters
    ----------
    degrees : tuple of int
        Highest degree of each stage.
    iterations : tuple of int or None
        Iterations of each stage; None leaves them to the program.
    rotations : tuple of int
        About how many rotations each stage takes.

    Raises
    ------
    InputError
        If there are not as many of each, or degrees or rotations fall.
    """
    a_stage = f"one number for each of the {len(degrees)} stages"
    if iterations is not None and len(degrees) != len(iterations):
        raise expected("iterations", a_stage, len(iterations))
    if len(degrees) != len(rotations):
        raise expected("rotations", f"one number, or {a_stage}", len(rotations))
    if list(degrees) != sorted(degrees):
        raise expected("ell_max", "degrees that do not fall", degrees)
    if list(rotations) != sorted(rotations):
        raise expected("rotations", "numbers that do not fall", rotations)


def check_start(start: str, model: str, symmetry: str, ctf: bool) -> None:
    """Refuse a start from autocorrelations where they do not serve.

    Parameters
    ----------
    start, model, symmetry, ctf
        The settings.

    Raises
    ------
    InputError
        If patches are looked at, which show parts of particles, a symmetry is asked
        for, whose axes the fit does not know, or lenses are, which it does not know.
    """
    if start != "moments":
        return
    if model != "window":
        raise expected("start", "random with this model", start)
    if symmetry != "C1":
        raise expected("start", f"random with the symmetry {symmetry}", start)
    if ctf:
        raise expected("start", "random with `ctf`", start)


def _one_or_each(value: object) -> Literal["one", "each"]:
    """Tell one number for all stages from a number for each."""
    return "each" if isinstance(value, tuple | list) else "one"


# told apart first, so that a wrong value is one error and not one a member
_Rotations = Annotated[int, Field(ge=8)]
OneOrEach = Annotated[
    Annotated[_Rotations, Tag("one")] | Annotated[tuple[_Rotations, ...], Tag("each")],
    Discriminator(_one_or_each),
]
"""One number for all stages, or one for each."""
