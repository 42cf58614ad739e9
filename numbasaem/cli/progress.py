"""Progress on standard error: a live table, or plain lines where it cannot be seen."""

from __future__ import annotations

import threading
import time
from collections import deque
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from numbasaem.reconstruction.contrast import Contrast
    from numbasaem.reconstruction.plan import Plan
    from numbasaem.reconstruction.state import Iteration

_PATIENCE_S = 1.0
"""Seconds after which a plain log names a step that is not done yet."""
_ROWS = 12
"""Number of latest iterations that the table shows."""
_HEADER = (
    "run",
    "stage",
    "iter.",
    "evidence\nper patch",
    "held\nout",
    "empty",
    "noise\nvariance",
    "change",
    "took",
)


class ProgressDisplay:
    """Show how far a long command is, its results so far and the time left.

    Use as a context manager; hand :meth:`contrast`, :meth:`plan`, :meth:`step` and
    :meth:`iteration` to the functions that report.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),  # names may hold brackets
            BarColumn(bar_width=10),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        self._rows: deque[tuple[str, ...]] = deque(maxlen=_ROWS)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._table_and_bars,
                console=self._console,
                refresh_per_second=8,
            )
        self._whole: TaskID | None = None
        self._step: TaskID | None = None
        self._step_name = ""
        self._step_began = 0.0
        self._step_fraction = 0.0
        self._seconds: list[float] = []
        self._announcement = threading.Timer(0.0, lambda: None)

    def __enter__(self) -> Self:
        """Start the live display."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the live display."""
        self._announcement.cancel()
        if self._step is not None:
            self._bars.remove_task(self._step)
        if self._live is not None:
            self._live.stop()

    def contrast(self, contrast: Contrast) -> None:
        """Report the contrast that was found."""
        self._print(f"contrast: {contrast}")

    def plan(self, plan: Plan) -> None:
        """Report what will be done, before it is."""
        self._print(f"plan: {plan}")

    def step(self, name: str, fraction: float) -> None:
        """Report that `fraction` (0 to 1) of the step called `name` is done."""
        again = name == self._step_name and fraction >= self._step_fraction
        if self._step is None or not again:
            self._step = self._begin_step(name)
        self._step_fraction = fraction
        spent = time.monotonic() - self._step_began
        self._bars.update(
            self._step,
            completed=fraction,
            total=1.0,
            left=_left(spent * (1.0 - fraction) / fraction) if fraction > 0 else "",
        )

    def iteration(self, iteration: Iteration) -> None:
        """Report a finished iteration of the reconstruction."""
        self._seconds.append(iteration.seconds)
        mean = sum(self._seconds) / len(self._seconds)
        left = _left(mean * (iteration.total - iteration.total_done))
        held_out = iteration.held_out_evidence_per_patch
        place = (
            f"{iteration.run} degree {iteration.ell_max} "
            f"{iteration.iteration}/{iteration.n_iterations}"
        )
        if self._whole is None:
            self._whole = self._bars.add_task(place, left="")
        self._bars.update(
            self._whole,
            description=place,
            total=iteration.total,
            completed=iteration.total_done,
            left=left,
        )
        self._rows.append(
            (
                iteration.run,
                f"{iteration.stage + 1}/{iteration.n_stages}, ℓ ≤ {iteration.ell_max}",
                f"{iteration.iteration}/{iteration.n_iterations}",
                f"{iteration.evidence_per_patch:.4f}",
                "" if held_out is None else f"{held_out:.4f}",
                f"{iteration.empty_fraction:.1%}",
                f"{iteration.noise_variance:.4g}",
                f"{iteration.volume_change:.2g}",
                f"{iteration.seconds:.1f} s",
            )
        )
        beside = "" if held_out is None else f"held out {held_out:.4f}, "
        self._line(
            f"{place}: evidence per patch {iteration.evidence_per_patch:.4f}, {beside}"
            f"noise variance {iteration.noise_variance:.4g}, "
            f"empty {iteration.empty_fraction:.1%}, "
            f"change {iteration.volume_change:.2g}, "
            f"took {iteration.seconds:.1f} s, {left}"
        )

    def _begin_step(self, name: str) -> TaskID:
        if self._step is not None:
            self._bars.remove_task(self._step)
        if name != self._step_name:
            self._announce_later(name)
        self._step_name, self._step_began = name, time.monotonic()
        return self._bars.add_task(name, total=None, left="")

    def _announce_later(self, name: str) -> None:
        """Name a step once it has lasted a while; a step that fails at once is not."""
        self._announcement.cancel()
        self._announcement = threading.Timer(_PATIENCE_S, self._line, [name])
        self._announcement.daemon = True
        self._announcement.start()

    def _table_and_bars(self) -> Group:
        """What the live display shows now."""
        if not self._rows:
            return Group(self._bars)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for number, name in enumerate(_HEADER):
            table.add_column(
                name, justify="left" if number < 2 else "right", no_wrap=True
            )
        for row in self._rows:
            table.add_row(*row)
        return Group(table, self._bars)

    def _line(self, text: str) -> None:
        """Print a line where no live display can be seen."""
        if self._live is None:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(
            text, highlight=False, markup=False, soft_wrap=self._live is None
        )


def _left(seconds: float) -> str:
    """Word the time left."""
    return f"{timedelta(seconds=round(seconds))} left"
