"""`numbasaem info`: what this installation runs on."""

from __future__ import annotations

import typer

EXAMPLE = "numbasaem info"


def command() -> None:
    """Show versions, threads, SIMD width and threading layer."""
    from numbasaem import machine

    for name, value in machine.describe().items():
        typer.echo(f"{name}: {value}")
