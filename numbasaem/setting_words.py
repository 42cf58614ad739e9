"""Settings in words: how each looks to a user, and what is wrong with a value."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from numbasaem.errors import InputError, expected

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

_WANTED = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "a number above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "a number below {lt}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "json_invalid": "JSON",
}
"""Faults that pydantic words at greater length."""


@dataclass(frozen=True)
class Shown:
    """How a setting looks to a user, where its type and default do not tell.

    Attributes
    ----------
    metavar : str or None
        What stands for its value on the command line.
    default : str or None
        What None, its default, comes to; other settings stand in backticks.
    none : str or None
        Word for None on the command line.
    """

    metavar: str | None = None
    default: str | None = None
    none: str | None = None


def shown(field: FieldInfo) -> Shown:
    """How a setting looks to a user.

    Parameters
    ----------
    field : pydantic.fields.FieldInfo
        The setting.

    Returns
    -------
    Shown
        What it states of itself, or nothing in particular.
    """
    return next((m for m in field.metadata if isinstance(m, Shown)), Shown())


def attributes(model: type[BaseModel]) -> str:
    """List all settings as a docstring does.

    Parameters
    ----------
    model : type
        Their class.

    Returns
    -------
    str
        Name, type, default and description of each, indented as in a class.
    """
    lines: list[str] = []
    for name, field in model.model_fields.items():
        lines += [f"    {name} : {_kind(field.annotation)}{_default(field)}"]
        words = f"        {field.description}"
        lines += textwrap.wrap(words, 84, subsequent_indent=" " * 8)
    return "\n".join(lines)


def first_fault(error: ValidationError) -> InputError:
    """Word the first invalid value as this package does.

    Parameters
    ----------
    error : pydantic.ValidationError
        All that is wrong.

    Returns
    -------
    InputError
        The error, for the caller to raise.
    """
    fault = error.errors(include_url=False)[0]
    circumstances = fault.get("ctx", {})
    own = circumstances.get("error")
    if isinstance(own, InputError):
        return own
    where = fault["loc"][0] if fault["loc"] else "settings"
    if fault["type"] == "missing":
        return expected(where, "a value", "none")
    if fault["type"] == "extra_forbidden":
        return expected("settings", "names of settings", where)
    wanted = fault["msg"].removeprefix("Input should be ")
    # The command line words a wrong choice itself: "Value error, X is not one of Y."
    choices = wanted.partition(" is not one of ")[2].removesuffix(".")
    if choices:
        wanted = f"one of {choices}"
    if fault["type"] in _WANTED:
        wanted = _WANTED[fault["type"]].format(**circumstances)
    return expected(where, wanted, repr(fault["input"]))


def _kind(annotation: Any) -> str:
    """Put what a setting takes into words."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(members[0])
    if origin is Literal:
        return "{" + ", ".join(f'"{member}"' for member in members) + "}"
    if origin is tuple:
        return f"tuple of {_kind(members[0])}"
    if origin in (Union, UnionType):
        return " or ".join(_kind(member) for member in members)
    return "None" if annotation is type(None) else str(annotation.__name__)


def _default(field: FieldInfo) -> str:
    """Put the default of a setting into words, after its type."""
    return f", default: {shown(field).default or field.default}"
