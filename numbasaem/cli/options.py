"""Options that commands share, and those that are made from the settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
)

import typer

from numbasaem.presets import PRESETS
from numbasaem.setting_checks import contrast_in_place_of_invert
from numbasaem.setting_words import shown
from numbasaem.settings import Settings
from numbasaem.settings_file import read_settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Micrographs = Annotated[
    list[Path],
    typer.Argument(
        metavar="MRC...",
        help="Micrographs: MRC or TIFF files, quoted patterns, or RELION's list "
        "(STAR).",
    ),
]
"""Argument of commands that read micrographs."""

Run = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a reconstruction.")]
"""Argument of commands that go on from a reconstruction."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
"""Option of commands that can print JSON, for programs."""

_SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="Settings in TOML, as beside each result; other options win.",
    ),
]
_Preset = Annotated[
    Literal["paper"] | None,
    typer.Option(
        help="Settings that go together; those of --settings and other options win."
    ),
]
_Invert = Annotated[bool, typer.Option("--invert", help="The same as --contrast dark.")]
_STATED = ("COMMANDLINE", "ENVIRONMENT")


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting, and one for a file of them.

    Parameters
    ----------
    command : callable
        Function with a parameter `settings`, which the options replace.

    Returns
    -------
    callable
        The command as Typer takes it. It builds the settings from the preset, the file
        and the options that are stated; where several say something, the last wins.
    """
    fields = Settings.model_fields

    def with_options(
        context: typer.Context,
        preset: str | None,
        settings_file: Path | None,
        invert: bool,
        **values: Any,
    ) -> None:
        parsed = {name: values.pop(name) for name in fields}
        stated = {
            name: _value(parsed[name], field)
            for name, field in fields.items()
            if getattr(context.get_parameter_source(name), "name", None) in _STATED
        }
        if invert:
            stated = contrast_in_place_of_invert(stated | {"invert": True})
        known = {} if preset is None else PRESETS[preset]
        from_file = {} if settings_file is None else read_settings(settings_file)
        command(settings=Settings(**known | from_file | stated), **values)

    with_options.__doc__ = command.__doc__
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        list(_parameters(command))
    )
    return with_options


def _parameters(command: Callable[..., None]) -> Iterator[inspect.Parameter]:
    """Parameters, as Typer sees them, of a command that takes settings."""
    yield _keyword("context", typer.Context)
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == "settings":
            for name, field in Settings.model_fields.items():
                yield _option(name, field)
            yield _keyword("preset", _Preset, None)
            yield _keyword("settings_file", _SettingsFile, None)
            yield _keyword("invert", _Invert, False)
        else:
            yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _keyword(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Option for a setting."""
    look, default = shown(field), field.default
    if default is None and look.none is not None:
        default = look.none
    elif isinstance(default, tuple):
        default = ",".join(map(str, default))
    elif _is_text(field) and default is not None:
        default = str(default)
    option = typer.Option(
        *([_flag(name)] if default is False else []),
        metavar=look.metavar,
        help=_of_options(f"{field.description}"),
        show_default=True
        if look.default is None or default is not None
        else _of_options(look.default),
    )
    return _keyword(name, Annotated[_taken(field) | None, option], default)


def _taken(field: FieldInfo) -> Any:
    """Type that Typer reads: text where several numbers or a word may stand."""
    if _is_text(field):
        return str
    return _members(field)[0]


def _is_text(field: FieldInfo) -> bool:
    members = _members(field)
    several = len(members) > 1 or get_origin(members[0]) is tuple
    return several or shown(field).none is not None


def _members(field: FieldInfo) -> list[Any]:
    """Types that a setting takes, without None."""
    if get_origin(field.annotation) in (Union, UnionType):
        return [kind for kind in get_args(field.annotation) if kind is not NoneType]
    return [field.annotation]


def _value(parsed: Any, field: FieldInfo) -> Any:
    """Turn the value of an option into one that the settings check."""
    if not _is_text(field):
        return parsed
    if parsed == shown(field).none:
        return None
    members = _members(field)
    always_several = len(members) == 1 and get_origin(members[0]) is tuple
    return parsed.split(",") if always_several or "," in parsed else parsed


def _of_options(text: str) -> str:
    """Name options where a text names settings in backticks."""
    return re.sub(r"`(\w+)`", lambda named: _flag(named[1]), text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
