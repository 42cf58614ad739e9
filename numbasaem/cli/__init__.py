"""The `numbasaem` command: thin wrappers that read options, call and print.

Standard output carries results, standard error progress and errors.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import typer
from pydantic import ValidationError

from numbasaem.errors import InputError, expected

from .commands import Interrupted, app
from .signals import stopping_on_signals

__all__ = ["app", "main"]

UNUSABLE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 done, 2 an unusable input or option (one line on standard error
        says which), 130 after SIGINT, 143 after SIGTERM.
    """
    with warnings.catch_warnings(), stopping_on_signals() as received:
        warnings.showwarning = _warn
        status = _status(arguments)
    return 128 + received[0] if status == INTERRUPTED and received else status


def _status(arguments: Sequence[str] | None) -> int:
    """Run the command line; turn whatever ends it into an exit status."""
    try:
        status = app(arguments, prog_name="numbasaem", standalone_mode=False)
    except ValidationError as error:
        return _complain(_first_fault(error))
    except InputError as error:
        return _complain(str(error))
    except typer.TyperException as error:
        return _complain(_usage_fault(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _complain(place + (error.strerror or str(error)))
    except MemoryError as error:
        return _complain(f"not enough memory: {error}")
    except Interrupted as interruption:
        typer.echo(f"interrupted; {interruption}", err=True)
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:
        typer.echo("interrupted", err=True)
    return int(status or 0)


def _warn(message: Warning | str, *details: object, **more: object) -> None:
    """Print a warning as one line."""
    typer.echo("numbasaem: " + " ".join(str(message).split()), err=True)


def _complain(message: str) -> int:
    """Print one line about unusable input; return the exit status for it."""
    typer.echo("numbasaem: " + " ".join(message.split()), err=True)
    return UNUSABLE


def _usage_fault(error: typer.TyperException) -> str:
    """Word a command line that does not parse."""
    fault = error.__cause__
    option = getattr(error, "param", None)
    if option is not None and isinstance(fault, ValidationError):
        return _first_fault(fault, option.opts[0])
    return error.format_message()


def _first_fault(error: ValidationError, option: str | None = None) -> str:
    """Word the first invalid value, in terms of the option that set it."""
    fault = error.errors(include_url=False)[0]
    if option is None:
        field = fault["loc"][0] if fault["loc"] else error.title
        option = "--" + str(field).replace("_", "-")
    message = fault["msg"].removeprefix("Value error, ")
    wanted = message.removeprefix("Input should be ")
    if wanted != message:
        return str(expected(option, wanted, repr(fault["input"])))
    return message if "expected" in message else f"{option}: {message}"
