"""How `reproduce_paper.py` runs commands, and says what it does."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def run_command(arguments: list[str], log: Path) -> int:
    """Run `numbasaem`, its output into a file; peak memory of the process, bytes."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "numbasaem", *arguments],
            stdout=stream,
            stderr=stream,
        )
        peak = 0
    while process.poll() is None:
        # not from getrusage, which counts what this process held when it forked
        with suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(int(x.split()[1]) for x in status if "VmHWM" in x)])
        time.sleep(0.2)
    if process.returncode != 0:
        last = " ".join(log.read_text().splitlines()[-1:])
        raise SystemExit(f"{last} (status {process.returncode}; see {log})")
    return 1024 * peak


def say(line: str) -> None:
    """Write a line and the time of day to the standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
