"""The most memory that a reconstruction will take, known before work begins.

Each stage of the work states its own memory; here it is added up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numba

from numbasaem.errors import expected
from numbasaem.micrographs.optics_groups import LARGEST_COUNT
from numbasaem.micrographs.reading import input_shapes
from numbasaem.observations.models import observation_model

from .checkpoint import COPIES_OF_STATE
from .minibatches import n_chosen, n_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numbasaem.micrographs.preparation import InputShape
    from numbasaem.micrographs.reading import Input
    from numbasaem.settings import Settings


_PROCESS_BYTES = 320_000_000
"""Bytes of interpreter, libraries, and kernels while they are compiled, measured."""
_ELSEWHERE_BYTES = 6 * 8
"""Bytes of a patch that others hold: its micrograph, run, half and its drawing."""
_DRAWING_BYTES = 2 * 8
"""Bytes of an observation while a minibatch is drawn."""
_GIGABYTE = 10**9


@dataclass(frozen=True)
class MemoryPlan:
    """Peak memory of a reconstruction by what takes it, in bytes.

    Attributes
    ----------
    process : int
        The program itself.
    patches : int
        All patches, their halves and a minibatch; or, if more, two copies of them and
        the largest file, while they are read.
    projections : int
        Projections, their operator, and the equations of the M-step.
    statistics : int
        All sufficient statistics that are kept, and the checkpoint made of them.
    thread : int
        Work space of one block of patches.
    n_threads : int
        Blocks that are worked on at once.
    """

    process: int
    patches: int
    projections: int
    statistics: int
    thread: int
    n_threads: int

    @property
    def total(self) -> int:
        """Sum of all parts, of all threads."""
        fixed = self.process + self.patches + self.projections
        return fixed + self.statistics + self.n_threads * self.thread

    def __str__(self) -> str:
        """Word the plan with its figures."""
        parts = {
            "program": self.process,
            "patches": self.patches,
            "projections": self.projections,
            "statistics": self.statistics,
            f"{self.n_threads} blocks at once": self.n_threads * self.thread,
        }
        listed = ", ".join(
            f"{name} {n / _GIGABYTE:.2f}" for name, n in parts.items() if n
        )
        return f"{self.total / _GIGABYTE:.2f} GB ({listed})"


def limit_threads_to_memory(
    settings: Settings,
    inputs: Sequence[Input],
    elsewhere: bool = False,
    n_copies: int = 1,
) -> tuple[Settings, MemoryPlan]:
    """Take as many threads as `max_memory` has room for.

    The number of threads changes no bit of the result.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    inputs : sequence of arrays and MicrographFile
        Micrographs; of files, the headers are read.
    elsewhere : bool
        Whether other processes hold the patches and work on them.
    n_copies : int
        Number of copies of the data that are held.

    Returns
    -------
    settings : Settings
        The same, but for the number of threads.
    plan : MemoryPlan
        What they take.

    Raises
    ------
    InputError
        If `max_memory` is too small for a single thread, or a micrograph cannot be
        used.
    """
    plan = plan_memory(settings, input_shapes(inputs, settings), elsewhere)
    plan = replace(plan, patches=n_copies * plan.patches)
    if settings.max_memory is None:
        return settings, plan
    room = int(settings.max_memory * _GIGABYTE)
    least = replace(plan, n_threads=min(plan.n_threads, 1))
    if room < least.total:
        found = f"{settings.max_memory:g} GB"
        raise expected("max_memory", f"at least {least}", found)
    spare = room - replace(plan, n_threads=0).total
    n_threads = min(plan.n_threads, spare // plan.thread)
    fitting = settings.changed(threads=n_threads or None)
    return fitting, replace(plan, n_threads=n_threads)


def plan_memory(
    settings: Settings, shapes: Sequence[InputShape], elsewhere: bool = False
) -> MemoryPlan:
    """Plan the memory of a reconstruction.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    shapes : sequence of InputShape
        Shapes of the micrographs.
    elsewhere : bool
        Whether other processes hold the patches and work on them.

    Returns
    -------
    MemoryPlan
        Plan on as many threads as the settings say.
    """
    n_threads = 0 if elsewhere else settings.threads or numba.get_num_threads()
    n_groups = _n_optics_groups(settings, shapes)
    data = observation_model(settings.model).memory(settings, shapes, n_groups)
    counts = data.n_observations, data.patches_each
    in_use = data.held + _DRAWING_BYTES * data.n_observations
    in_use += n_chosen(settings, *counts) * data.chosen
    # Besides those kept: one of an iteration, one of a block, and their sums.
    n_sets = 4 + COPIES_OF_STATE * n_kept(settings, *counts)
    return MemoryPlan(
        process=_PROCESS_BYTES,
        patches=_ELSEWHERE_BYTES * data.n_observations
        if elsewhere
        else max(data.reading, in_use),
        projections=data.projections,
        statistics=n_sets * data.statistics,
        thread=data.thread,
        n_threads=n_threads,
    )


def _n_optics_groups(settings: Settings, shapes: Sequence[InputShape]) -> int:
    """Largest number of optics groups there may be, before micrographs are read."""
    if not (settings.ctf or settings.whiten):
        return 1
    return min(LARGEST_COUNT, sum(shape.n_micrographs for shape in shapes))
