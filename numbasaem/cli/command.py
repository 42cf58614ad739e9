"""Commands that name their options where the library names parameters."""

from __future__ import annotations

import re
import warnings
from typing import Any

from typer.core import TyperCommand, TyperOption

from numbasaem.errors import NumbasaemError, RunWarning

from .output import say_in_one_line

_PARAMETER = re.compile(r"`(\w+)(?:=(\w+))?`")


class Command(TyperCommand):
    """One command of the program.

    Its errors and warnings name options where those of the library name parameters.
    """

    def invoke(self, context: Any) -> Any:
        """Run the command."""
        options = {p.name: p for p in self.params if isinstance(p, TyperOption)}

        def show(message: Warning | str, *details: object, **more: object) -> None:
            say_in_one_line(with_options(str(message), options))

        with warnings.catch_warnings():
            warnings.simplefilter("always", RunWarning)
            warnings.showwarning = show
            try:
                return super().invoke(context)
            except NumbasaemError as error:
                raise _of_options(error, options) from error


def with_options(text: str, options: dict[str, TyperOption]) -> str:
    """Name options where a text names parameters in backticks.

    Parameters
    ----------
    text : str
        Text of the library, with "`size`", "`resume=True`", "`mend=False`".
    options : dict of str to TyperOption
        Options by their parameters; other names stay as they are.

    Returns
    -------
    str
        The same with "--size", "--resume", "--no-mend".
    """

    def option(named: re.Match[str]) -> str:
        name, value = named.groups()
        if name not in options:
            return named[0]
        (yes, *_), no = options[name].opts, options[name].secondary_opts
        if value == "False":
            return no[0] if no else f"no {yes}"
        return yes if value in (None, "True") else f"{yes} {value}"

    return _PARAMETER.sub(option, text)


def _of_options(
    error: NumbasaemError, options: dict[str, TyperOption]
) -> NumbasaemError:
    """Turn an error of parameters into one of options."""
    where = f"`{error.where}`" if error.where in options else error.where
    return type(error)(
        with_options(where, options),
        with_options(error.wanted, options),
        with_options(error.found, options),
    )
