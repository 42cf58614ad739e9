"""The most memory that a reconstruction will take, known before work begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numba

from numbasaem.errors import expected
from numbasaem.micrographs.ctf import LARGEST_COUNT
from numbasaem.micrographs.reading import input_shapes
from numbasaem.observations.window_data import (
    TILES_AT_ONCE,
    region_windows,
    tile_bounds,
)
from numbasaem.observations.window_expectation import tile_windows
from numbasaem.volume.basis import VolumeBasis

from .minibatches import minibatch_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numbasaem.micrographs.reading import InputShape, Micrographs
    from numbasaem.settings import Settings, Stage


_PROCESS_BYTES = 320_000_000
"""Measured: interpreter, libraries, and the kernels while they are compiled."""
_LANES = 16
"""Patches that the widest processors work on in step."""
_CHUNK_BYTES = 32_000_000
"""Of the matrices that the normal equations are summed from, at a time."""
_WINDOW_BYTES = 60
"""Of a window of the tiles that are worked on at a time: evidence, sums, weights."""
_LENS_BYTES, _WHITENING_BYTES, _BOX_MEANS_BYTES = 32, 16, 12
"""Of a pixel, measured: its transform and what is computed of it."""
_NUMBERS = 6
"""Of a patch that is elsewhere: micrograph, run, half and those of drawing it."""
_GIGABYTE = 10**9


@dataclass(frozen=True)
class MemoryPlan:
    """Peak memory of a reconstruction by what takes it, in bytes.

    Attributes
    ----------
    process : int
        The program itself.
    patches : int
        All patches, their halves and a minibatch; while they are read, two copies and
        the largest file.
    projections : int
        Projections, what makes them, and the equations of the M-step.
    statistics : int
        Sufficient statistics, as many as are kept, and the checkpoint made of them.
    thread : int
        Work space of one block of patches.
    n_threads : int
        Blocks at once.
    """

    process: int
    patches: int
    projections: int
    statistics: int
    thread: int
    n_threads: int

    @property
    def total(self) -> int:
        """All of it."""
        fixed = self.process + self.patches + self.projections + self.statistics
        return fixed + self.n_threads * self.thread

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


def within_memory(
    settings: Settings, micrographs: Micrographs, elsewhere: bool = False
) -> tuple[Settings, MemoryPlan]:
    """Settings that keep to `max_memory`, on fewer threads if only so it fits.

    That changes no bit of the result.

    Parameters
    ----------
    settings : Settings
        What to do.
    micrographs : sequence of 2-D arrays or paths
        Micrographs, or MRC files of them, of which the headers are read.
    elsewhere : bool
        Whether other processes hold the patches and work on them.

    Returns
    -------
    settings : Settings
        The same, but for the number of threads.
    plan : MemoryPlan
        What they take.

    Raises
    ------
    InputError
        If it does not fit on a single thread, or a micrograph cannot be used.
    """
    plan = plan_memory(settings, input_shapes(micrographs, settings), elsewhere)
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
        What to do.
    shapes : sequence of InputShape
        Of the micrographs.
    elsewhere : bool
        Whether other processes hold the patches and work on them.

    Returns
    -------
    MemoryPlan
        On as many threads as the settings say.
    """
    n_threads = 0 if elsewhere else settings.threads or numba.get_num_threads()
    size = settings.size
    n_patches = sum(
        shape.n_micrographs * prod(n // size for n in shape.prepared)
        for shape in shapes
    )
    if settings.model == "window":
        return _plan_windows(settings, shapes, n_threads)
    patches = 4 * n_patches * size**2
    reading = patches + max(patches, _preparing(settings, shapes))
    n_groups = _n_optics_groups(settings, shapes)
    n_chosen = _n_chosen(settings, n_patches)
    # With what the checks of a minibatch and drawing it take.
    minibatch = n_chosen * size**2 * (4 + 4 + 1) + 2 * 8 * n_patches
    held = patches * (2 if settings.halves else 1) + minibatch
    return MemoryPlan(
        process=_PROCESS_BYTES,
        patches=_NUMBERS * 8 * n_patches if elsewhere else max(reading, held),
        projections=_projections(settings, n_groups),
        statistics=n_groups * _statistics(settings, n_patches),
        thread=_thread(settings.schedule[-1].n_rotations, size),
        n_threads=n_threads,
    )


def _plan_windows(
    settings: Settings, shapes: Sequence[InputShape], n_threads: int
) -> MemoryPlan:
    """Memory of the window model: micrographs stay as they are, tiles are copied."""
    size = settings.size
    shape_of = [one.prepared for one in shapes for _ in range(one.n_micrographs)]
    n_pixels = sum(prod(shape) for shape in shape_of)
    n_tiles = sum(prod(len(tile_bounds(n, size)) for n in shape) for shape in shape_of)
    n_runs = 3 if settings.halves else 1
    at_once = min(n_tiles, TILES_AT_ONCE) * (region_windows(size) + size) ** 2
    held = (4 + 1 + 2 * n_runs) * n_pixels + _WINDOW_BYTES * at_once
    reading = 5 * n_pixels + _preparing(settings, shapes)
    n_groups = _n_optics_groups(settings, shapes)
    fewest = max(1, n_pixels // (size**2 * n_tiles))
    return MemoryPlan(
        process=_PROCESS_BYTES,
        patches=max(reading, held),
        projections=_projections(settings, n_groups),
        statistics=n_groups * _statistics(settings, n_tiles, fewest),
        thread=_window_thread(settings.schedule[-1].n_rotations, size),
        n_threads=n_threads,
    )


def _window_thread(n_rotations: int, size: int) -> int:
    """What a block of tiles writes, and what its kernel works on."""
    n_padded = n_rotations + 2 * _LANES
    slab = 8 * n_padded * (size**2 + 1)
    side = tile_windows(size) + size
    return slab + 4 * side**2 * (2 * _LANES * 3 + 4)


def _n_optics_groups(settings: Settings, shapes: Sequence[InputShape]) -> int:
    """As many as there may be: they are known once the micrographs have been read."""
    if not (settings.ctf or settings.whiten):
        return 1
    return min(LARGEST_COUNT, sum(shape.n_micrographs for shape in shapes))


def _preparing(settings: Settings, shapes: Sequence[InputShape]) -> int:
    """A file as it may be unpacked, and one micrograph of it in every guise."""
    work = _WHITENING_BYTES if settings.whiten else _BOX_MEANS_BYTES
    each = 4 + 1 + (_LENS_BYTES if settings.ctf else work)  # image, dead areas

    def of_file(shape: InputShape) -> int:
        stored = 4 * shape.n_micrographs * prod(shape.given)
        # Copy, mask and comparisons, or the transform.
        raw = 32 * prod(shape.given) if shape.given != shape.prepared else 0
        return stored + raw + each * prod(shape.prepared)

    return max(of_file(shape) for shape in shapes)


def _n_chosen(settings: Settings, n_patches: int, patches_each: float = 1.0) -> int:
    if settings.batching == "full":
        return n_patches
    return minibatch_length(n_patches, settings.batch_fraction, patches_each)


def _projections(settings: Settings, n_groups: int) -> int:
    """Those of the stage that takes most."""
    return max(
        _projections_of_stage(stage, settings.size, n_groups)
        for stage in settings.schedule
    )


def _projections_of_stage(stage: Stage, size: int, n_groups: int) -> int:
    """Projections, the operator and the normal equations."""
    basis = VolumeBasis(size, stage.ell_max)
    n_coefficients, n_pixels = basis.n_coefficients, size**2
    wigner = sum((2 * ell + 1) ** 2 for ell in range(stage.ell_max + 1))
    images = 6 * n_groups * stage.n_rotations * n_pixels
    energies = 4 * stage.n_rotations * (2 * size - 1) ** 2
    matrix = n_pixels * n_coefficients
    operator = 2 * (stage.n_rotations * wigner + n_groups * matrix)
    samples = size**3 * ((stage.ell_max + 1) ** 2 + sum(basis.radial_counts))
    chunk = max(matrix, min(_CHUNK_BYTES // 8, stage.n_rotations * matrix))
    equations = 4 * chunk + 3 * n_coefficients**2
    return 8 * (images + operator + max(energies, equations, samples))


def _statistics(settings: Settings, n_patches: int, patches_each: float = 1.0) -> int:
    """Those of an iteration, their sum with others, those kept, and the checkpoint."""
    one = 2 * 8 * settings.schedule[-1].n_rotations * settings.size**2
    n_kept = {"stochastic": 0, "full": 0, "online": 1}.get(settings.batching)
    if n_kept is None:
        n_blocks = round(n_patches / _n_chosen(settings, n_patches, patches_each))
        n_kept = min(max(1, n_blocks), max(settings.iterations))
    # Kept ones three times: in use, in the file as it is made, and its image.
    return one * (4 + 3 * n_kept)


def _thread(n_rotations: int, size: int) -> int:
    """What a block writes, and what its kernel works on."""
    n_even = n_rotations + n_rotations % 2
    slab = 2 * 8 * n_even * size**2
    work = 4 * _LANES * (2 * n_even * (size**2 + 1) + 4 * (2 * size) ** 2)
    return slab + work
