"""The `numbasaem` command: thin wrappers that read options, call and print.

Standard output carries results, standard error progress and errors. The library is
imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

import typer
from pydantic import ValidationError

from numbasaem.errors import NumbasaemError, expected
from numbasaem.setting_words import first_fault

from . import (
    demo,
    evaluate,
    info,
    pick,
    reconstruct,
    report,
    simulate,
    validate,
)
from .command import Command
from .output import say_in_one_line
from .signals import Interrupted, stopping_on_signals

__all__ = ["app", "main"]

UNUSABLE = 2
INTERRUPTED = 130

app = typer.Typer(
    help="3-D structure directly from cryo-EM micrographs, without picking particles.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (simulate, reconstruct, pick, evaluate, demo, validate, report, info):
    app.command(
        name=module.__name__.rpartition(".")[2],
        cls=Command,
        epilog=f"Example: {module.EXAMPLE}",
    )(module.command)


@app.callback()
def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 if all is done; 2 for an unusable input or option or numbers out
        of range, which one line on standard error names; 130 after SIGINT; 143 after
        SIGTERM.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of any bytes
    with stopping_on_signals() as received:
        status = _status(arguments)
    return 128 + received[0] if status == INTERRUPTED and received else status


def _status(arguments: Sequence[str] | None) -> int:
    """Run the command line; turn whatever ends it into an exit status."""
    try:
        status = app(arguments, prog_name="numbasaem", standalone_mode=False)
    except (NumbasaemError, ImportError) as error:
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


def _usage_fault(error: typer.TyperException) -> str:
    """Word a command line that does not parse."""
    option, fault = getattr(error, "param", None), error.__cause__
    if option is None or not isinstance(fault, ValidationError):
        return error.format_message()
    wrong = first_fault(fault)
    return str(expected(option.opts[0], wrong.wanted, wrong.found))


def _complain(message: str) -> int:
    """Print one line about unusable input; return the exit status for it."""
    say_in_one_line(message)
    return UNUSABLE
