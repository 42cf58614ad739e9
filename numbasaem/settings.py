"""Settings of a reconstruction, checked once, where they enter."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from numbasaem.aliases import PathLike
from numbasaem.errors import expected
from numbasaem.reconstruction.minibatches import Batching, Stage
from numbasaem.volume.symmetry import check_symmetry

if TYPE_CHECKING:
    pass

_Count = Annotated[int, Field(ge=1)]


def _one_or_each(value: object) -> Literal["one", "each"]:
    """Tell one number for all stages from a number for each."""
    return "each" if isinstance(value, tuple | list) else "one"


# told apart first, so that a wrong value is one error and not one a member
_OneOrEach = Annotated[
    Annotated[_Count, Tag("one")] | Annotated[tuple[_Count, ...], Tag("each")],
    Discriminator(_one_or_each),
]

_SEARCH_ELL_MAX = 4
_SEARCH_ITERATIONS = 10
_SEARCH_ROTATIONS = 216
"""Twenty degrees apart: half the angle that degree 4 can tell."""


class Settings(BaseModel):
    """Settings of a reconstruction.

    Attributes
    ----------
    size : int
        L, side of a patch, a projection and the volume, pixels; at least 5.
    model : {"patch", "window"}
        What is looked at: patches, as in the paper, or every position of the
        micrographs with the whole particle in view.
    ell_max : tuple of int
        Highest degree of each stage of frequency marching.
    iterations : tuple of int
        Most iterations N_it of each stage.
    rotations : int or tuple of int
        K, rotations that the posterior runs over, in all stages or in each.
    batch_fraction : float or None
        S, share of the patches that an iteration sees; None is 0.05, but no fewer than
        4000 patches.
    batching : {"stochastic", "incremental", "online", "full"}
        What becomes of the statistics of earlier minibatches.
    symmetry : str
        Point group: Cn or Dn with the n-fold axis along z, T, O or I.
    noise_variance : float or None
        sigma**2 of the pixels; None estimates it with the volume.
    starts : int
        Random starts tried at degree 4; the likeliest goes on. 1 is the paper's way.
    over_relaxation : float or None
        Step of the volume in units of the step of EM, in (0, 2); 1 is EM. None makes
        steps longer while they agree with one another, and shorter, so that they
        average over minibatches, once they oppose each other. An iteration that sees
        all patches takes back what of a longer step lowered their likelihood.
    stopping : float or None
        epsilon of Algorithm 1: a stage ends when Q per patch gains less than this;
        None runs all iterations.
    halves : bool
        Also reconstruct two independent halves of the patches.
    seed : int
        Of all random numbers.
    threads : int or None
        Threads to run on; None takes all that Numba may use.
    max_memory : float or None
        Most memory to take, 10**9 bytes: on fewer threads if need be, and what does not
        fit is refused before work begins. None takes what it takes.
    invert : bool
        Change the contrast of the micrographs: particles darker than ice become
        bright.
    pixel_size : float or None
        Angstrom per pixel of the micrographs; None takes it from the files.
    particle_diameter : float or None
        Longest extent of the particle, angstrom. The micrographs are downsampled until
        it fits `size`; None leaves them as they are.
    level : bool
        Subtract the level of the background, so that empty ice is zero.
    mend, flatten, clean, normalise : bool or None
        Replace hot pixels and leave out dead areas; subtract a background that varies
        slowly; leave out what is neither ice nor particles; divide by the standard
        deviation. None does so for raw micrographs, which are those with a
        `particle_diameter`. See :mod:`numbasaem.micrographs.preparation`.
    ctf : bool
        Take the contrast transfer function of each micrograph, which a STAR list tells,
        into account.
    whiten : bool
        Take noise to have the spectrum of each micrograph. See
        :mod:`numbasaem.micrographs.correction`.
    views : {"uniform", "learned"}
        Prior of view directions: all alike, or found with the volume.

    Raises
    ------
    ValidationError
        Of pydantic, a ValueError: if a name is unknown or a value out of range.

    Examples
    --------
    >>> settings = Settings(size=11, ell_max=(6, 8), iterations=(20, 10))
    >>> settings.iterations_per_run  # ten for each of four starts
    70
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=5)]
    model: Literal["patch", "window"] = "patch"
    ell_max: tuple[Annotated[int, Field(ge=0)], ...] = (6, 8, 10)
    iterations: tuple[_Count, ...] = (25, 15, 15)
    rotations: _OneOrEach = 552
    batch_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    batching: Batching = "stochastic"
    symmetry: Annotated[str, AfterValidator(check_symmetry)] = "C1"
    noise_variance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    starts: Annotated[int, Field(ge=1)] = 4
    over_relaxation: Annotated[float, Field(gt=0, lt=2)] | None = None
    stopping: Annotated[float, Field(allow_inf_nan=False)] | None = None
    halves: bool = True
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] | None = None
    max_memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    invert: bool = False
    pixel_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    particle_diameter: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    level: bool = True
    mend: bool | None = None
    flatten: bool | None = None
    clean: bool | None = None
    normalise: bool | None = None
    ctf: bool = False
    whiten: bool = False
    views: Literal["uniform", "learned"] = "uniform"

    @model_validator(mode="after")
    def _one_count_a_stage(self) -> Settings:
        if not self.ell_max:
            raise expected("ell_max", "at least one stage", "none")
        a_stage = f"one number for each of the {len(self.ell_max)} stages"
        if len(self.ell_max) != len(self.iterations):
            raise expected("iterations", a_stage, len(self.iterations))
        if len(self.ell_max) != len(self.rotations_per_stage):
            found = len(self.rotations_per_stage)
            raise expected("rotations", f"one number, or {a_stage}", found)
        if list(self.ell_max) != sorted(self.ell_max):
            raise expected("ell_max", "degrees that do not fall", self.ell_max)
        if list(self.rotations_per_stage) != sorted(self.rotations_per_stage):
            raise expected("rotations", "numbers that do not fall", self.rotations)
        return self

    @property
    def rotations_per_stage(self) -> tuple[int, ...]:
        """K of each stage of the march; it does not fall."""
        if isinstance(self.rotations, int):
            return (self.rotations,) * len(self.ell_max)
        return self.rotations

    @property
    def deciding(self) -> dict[str, Any]:
        """Settings that the result depends on, as JSON can hold them."""
        return self.model_dump(mode="json", exclude={"threads", "max_memory"})

    @property
    def schedule(self) -> tuple[Stage, ...]:
        """All stages of a run: the search among starts, if any, then the march."""
        march = tuple(
            Stage(*counts, self.over_relaxation)
            for counts in zip(
                self.ell_max, self.iterations, self.rotations_per_stage, strict=True
            )
        )
        if self.starts == 1:
            return march
        search = Stage(
            min(_SEARCH_ELL_MAX, self.ell_max[0]),
            _SEARCH_ITERATIONS,
            min(_SEARCH_ROTATIONS, march[0].n_rotations),
            self.over_relaxation,
        )
        return (search, *march)

    @property
    def iterations_per_run(self) -> int:
        """Most iterations of one run, all starts included."""
        first, *others = (stage.n_iterations for stage in self.schedule)
        return self.starts * first + sum(others)

    def to_toml(self) -> str:
        """Write all settings but those that are left to the program, as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def read_settings(path: PathLike) -> dict[str, Any]:
    """Read settings from a TOML file, such as the one beside each result.

    Parameters
    ----------
    path : path-like
        The file; its names are those of :class:`Settings`.

    Returns
    -------
    dict
        Values by name, to be given to :class:`Settings`, which checks them.

    Raises
    ------
    InputError
        If the file cannot be read, is no TOML or has a name that is no setting.
    """
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise expected(path, "settings in TOML", error) from error
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        raise expected(path, "names of settings", ", ".join(unknown))
    return values
