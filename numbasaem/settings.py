"""Settings of a reconstruction, each stated once and checked where it enters."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from numbasaem.errors import expected
from numbasaem.presets import PRESETS
from numbasaem.schedule import (
    MOST_ITERATIONS,
    SEARCH_DEGREES,
    Stage,
    degrees_for,
    rotations_for,
    search_stages,
    starts_in_search,
)
from numbasaem.setting_checks import (
    OneOrEach,
    check_size,
    check_stages,
    check_start,
    check_symmetry,
    contrast_in_place_of_invert,
)
from numbasaem.setting_words import Shown, attributes, first_fault

Batching = Literal["stochastic", "incremental", "online", "full"]
"""What becomes of the statistics of earlier minibatches."""


_Count = Annotated[int, Field(ge=1)]
_PointGroup = Annotated[str, AfterValidator(check_symmetry)]
_RAW_TAU = Shown(default="tau with `particle_diameter`")
_RAW_ONLY = Shown(default="with `particle_diameter`")
"""Default of what is done to raw micrographs alone."""
if TYPE_CHECKING:  # what a run computes with has a size
    _Size = int
else:
    _Size = int | None
_NO_SIZE: Any = None


class Settings(BaseModel):
    """Settings of a reconstruction.

    Attributes
    ----------
    {attributes}

    Raises
    ------
    InputError
        If a name is unknown or a value out of range.

    Examples
    --------
    >>> settings = Settings(size=11, ell_max=(6, 8), iterations=(20, 10))
    >>> settings.iterations_per_run  # ten for each of four starts, then of two
    90
    >>> settings.changed(starts=1).iterations_per_run
    30
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[_Size, Shown(metavar="L", default="from `particle_diameter`")] = (
        Field(
            default=_NO_SIZE,
            ge=5,
            description="L, side of a patch, a projection and the volume, pixels; at "
            "least 5. Left out, 13 for a first look, or what `resolution` takes.",
        )
    )
    model: Literal["window", "patch"] = Field(
        default="window",
        description="What is looked at: every position of the micrographs with the "
        "whole particle in view, or patches, as in the paper.",
    )
    ell_max: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        Shown(metavar="auto|L,L,...", none="auto", default="auto"),
    ] = Field(
        default=None,
        description="Highest degree of each stage of frequency marching. Left to the "
        "program, from 2 up to `size` less one, until held-out data gain no more.",
    )
    iterations: Annotated[
        tuple[_Count, ...] | None,
        Shown(metavar="auto|n,n,...", none="auto", default="auto"),
    ] = Field(
        default=None,
        description="Iterations N_it of each stage. Left to the program, a stage ends "
        "once held-out data gain no more.",
    )
    rotations: Annotated[
        OneOrEach | None,
        Shown(metavar="auto|K[,K,...]", none="auto", default="auto"),
    ] = Field(
        default=None,
        description="K, about how many rotations the posterior runs over, in all "
        "stages or in each: views times in-plane angles, at least 8. Left to the "
        "program, their steps are 180 / (degree + 1) degrees; patches have 552.",
    )
    batch_fraction: Annotated[
        float | None, Shown(default="0.05, or what 10,000 patches are worth")
    ] = Field(
        default=None,
        gt=0,
        le=1,
        description="S, share of the patches that an iteration sees.",
    )
    batching: Batching = Field(
        default="stochastic",
        description="What becomes of the statistics of earlier minibatches.",
    )
    symmetry: Annotated[_PointGroup, Shown(metavar="GROUP")] = Field(
        default="C1",
        description="Point group: Cn or Dn with the n-fold axis along z, T, O or I.",
    )
    noise_variance: Annotated[
        float | None, Shown(metavar="auto|v", none="auto", default="auto")
    ] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="sigma**2 of the pixels, if it is known; else it is found with the "
        "volume.",
    )
    prior: Annotated[Literal["none", "tau", "wilson"] | None, _RAW_TAU] = Field(
        default=None,
        description="Prior of the volume: of the power that two halves of each "
        "minibatch agree on, by shells of frequency (tau) or in all, as of scattered "
        "atoms (wilson), or none.",
    )
    start: Literal["random", "moments"] = Field(
        default="random",
        description="First volume: random, or the one that autocorrelations fit.",
    )
    starts: int = Field(
        default=4,
        ge=1,
        description="Random starts tried at degree 2; the likelier half goes on to 4, "
        "the likeliest to the march. 1 is the paper's way.",
    )
    over_relaxation: Annotated[float | None, Shown(default="adapted")] = Field(
        default=None,
        gt=0,
        lt=2,
        description="Step of the volume in units of the step of EM, in (0, 2); 1 is "
        "EM. Steps that adapt grow while they agree and shrink once they oppose each "
        "other; where all patches are seen, what lowers their likelihood is taken "
        "back.",
    )
    stopping: Annotated[float | None, Shown(default="all iterations")] = Field(
        default=None,
        allow_inf_nan=False,
        description="epsilon of Algorithm 1: a stage ends when Q per patch gains less "
        "than this.",
    )
    halves: bool = Field(
        default=True,
        description="Also reconstruct two independent halves of the patches.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of all random numbers.")
    threads: Annotated[int | None, Shown(default="all that Numba may use")] = Field(
        default=None, ge=1, description="Threads to run on."
    )
    max_memory: Annotated[
        float | None, Shown(metavar="GB", default="what it takes")
    ] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Most memory to take, 10**9 bytes: on fewer threads if need be, "
        "and what does not fit is refused before work begins.",
    )
    contrast: Annotated[
        Literal["auto", "bright", "dark"] | None,
        Shown(default="auto with `particle_diameter`"),
    ] = Field(
        default=None,
        description="Whether particles are brighter or darker than ice in the "
        "micrographs: bright if left out without `particle_diameter`; auto tries both "
        "and keeps the likelier.",
    )
    pixel_size: Annotated[
        float | None, Shown(metavar="A", default="from the files")
    ] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Angstrom per pixel of the micrographs.",
    )
    particle_diameter: Annotated[float | None, Shown(metavar="A")] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Longest extent of the particle, angstrom: raw micrographs are "
        "downsampled until it fits `size`, and prepared.",
    )
    resolution: Annotated[
        float | None, Shown(metavar="A", default="that of a first look")
    ] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Resolution to aim at, angstrom, in place of `size`: two pixels.",
    )
    least_distance: Annotated[
        float | None, Shown(metavar="A", default="`size` pixels")
    ] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Smallest distance between the centres of two particles, along the "
        "axis where it is larger, angstrom; the window model takes closer ones for "
        "one.",
    )
    level: bool = Field(
        default=True,
        description="Subtract the level of the background, so that empty ice is zero.",
    )
    mend: Annotated[bool | None, _RAW_ONLY] = Field(
        default=None, description="Replace hot pixels and leave out dead areas."
    )
    flatten: Annotated[bool | None, _RAW_ONLY] = Field(
        default=None, description="Subtract a background that varies slowly."
    )
    clean: Annotated[bool | None, _RAW_ONLY] = Field(
        default=None,
        description="Leave out what is neither ice nor particles: crystals, carbon and "
        "edges.",
    )
    normalise: Annotated[bool | None, _RAW_ONLY] = Field(
        default=None, description="Divide by the standard deviation."
    )
    ctf: bool = Field(
        default=False,
        description="Take the contrast transfer function of each micrograph, which a "
        "STAR list tells, into account.",
    )
    whiten: bool = Field(
        default=False,
        description="Take noise to have the spectrum of each micrograph.",
    )
    views: Literal["uniform", "learned"] = Field(
        default="uniform",
        description="Prior of view directions: all alike, or found with the volume.",
    )

    if not TYPE_CHECKING:  # a type checker goes by the fields

        def __init__(self, **values: Any) -> None:
            """Check all values; see the class."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise first_fault(error) from None

        def __setattr__(self, name: str, value: Any) -> None:
            """Refuse to change what a run may already go by."""
            raise expected(name, "settings that stay; see Settings.changed", value)

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        """Check values given by name.

        Parameters
        ----------
        obj : Settings or dict
            The values.
        how : optional
            As of pydantic.

        Returns
        -------
        Settings
            The settings.

        Raises
        ------
        InputError
            As of :class:`Settings`.
        """
        try:
            return super().model_validate(obj, **how)
        except ValidationError as error:
            raise first_fault(error) from None

    @classmethod
    def model_validate_json(
        cls, json_data: str | bytes | bytearray, **how: Any
    ) -> Self:
        """Check values given as a JSON object, as :meth:`model_validate` does."""
        try:
            return super().model_validate_json(json_data, **how)
        except ValidationError as error:
            raise first_fault(error) from None

    @classmethod
    def preset(cls, name: str, **values: Any) -> Settings:
        """Settings that go together, by name, and others.

        Parameters
        ----------
        name : str
            "paper": the patch model as the paper has it.
        values : optional
            Further settings, which win.

        Returns
        -------
        Settings
            The settings.

        Raises
        ------
        InputError
            If there is no such preset, or as of :class:`Settings`.
        """
        if name not in PRESETS:
            raise expected("preset", " or ".join(PRESETS), repr(name))
        return cls(**PRESETS[name] | values)

    def changed(self, **values: Any) -> Settings:
        """Other settings, checked, that differ in some values.

        Parameters
        ----------
        values : optional
            What is to differ, by name.

        Returns
        -------
        Settings
            The others; these stay as they are.

        Raises
        ------
        InputError
            As of :class:`Settings`.
        """
        return Settings(**(self.model_dump() | values))

    @model_validator(mode="before")
    @classmethod
    def _one_name_of_the_contrast(cls, values: Any) -> Any:
        is_by_name = isinstance(values, dict)
        return contrast_in_place_of_invert(values) if is_by_name else values

    @model_validator(mode="after")
    def _one_way_to_a_size(self) -> Settings:
        size = self.size if self.has_size else None
        check_size(size, self.particle_diameter, self.resolution)
        return self

    @model_validator(mode="after")
    def _one_count_a_stage(self) -> Settings:
        if self.ell_max == ():
            raise expected("ell_max", "at least one stage", "none")
        check_start(self.start, self.model, self.symmetry, self.ctf)
        if self.ell_max is None and not self.has_size:
            return self
        check_stages(self.degrees, self.iterations, self.rotations_per_stage)
        return self

    @property
    def has_size(self) -> bool:
        """Whether `size` is given."""
        return self.size is not None

    @property
    def contrast_or_default(self) -> Literal["auto", "bright", "dark"]:
        """Contrast that is asked for, if only by leaving it out."""
        if self.contrast is not None:
            return self.contrast
        return "bright" if self.particle_diameter is None else "auto"

    @property
    def degrees(self) -> tuple[int, ...]:
        """Highest degree of each stage of the march."""
        if self.ell_max is not None:
            return self.ell_max
        degrees = degrees_for(self.size)
        fresh = self.starts == 1 and self.start == "random"
        n_searched = 0 if fresh else len(SEARCH_DEGREES) - 1
        return degrees[min(n_searched, len(degrees) - 1) :]

    @property
    def prior_or_default(self) -> Literal["none", "tau", "wilson"]:
        """Prior that is asked for, if only by leaving it out."""
        if self.prior is not None:
            return self.prior
        return "none" if self.particle_diameter is None else "tau"

    @property
    def rotations_per_stage(self) -> tuple[int, ...]:
        """About K of each stage of the march; it does not fall."""
        if self.rotations is None:
            return tuple(rotations_for(self.model, degree) for degree in self.degrees)
        if isinstance(self.rotations, int):
            return (self.rotations,) * len(self.degrees)
        return self.rotations

    @property
    def settings_that_decide_the_result(self) -> dict[str, Any]:
        """All but those that decide only how it is computed, for JSON."""
        values = self.model_dump(mode="json", exclude={"threads", "max_memory"})
        return values | {"contrast": self.contrast_or_default}

    @property
    def march(self) -> tuple[Stage, ...]:
        """Stages of frequency marching."""
        is_open = self.iterations is None
        most = self.iterations or (MOST_ITERATIONS,) * len(self.degrees)
        return tuple(
            Stage(*counts, self.over_relaxation, is_open)
            for counts in zip(self.degrees, most, self.rotations_per_stage, strict=True)
        )

    @property
    def search(self) -> tuple[Stage, ...]:
        """Stages in which random starts are tried; none if there is one start."""
        is_searched = self.starts > 1 and self.start == "random"
        return search_stages(self.model, self.march[0]) if is_searched else ()

    @property
    def schedule(self) -> tuple[Stage, ...]:
        """All stages of a run: the search among starts, if any, then the march."""
        return self.search + self.march

    @property
    def iterations_per_run(self) -> int:
        """Most iterations of one run, all starts included."""
        searched = starts_in_search(self.starts, len(self.search))
        runs_in_stage = (*searched, *[1] * len(self.march))
        counts = (stage.n_iterations for stage in self.schedule)
        return sum(map(operator.mul, runs_in_stage, counts))

    def to_toml(self) -> str:
        """Write all settings but those that are left to the program, as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


Settings.__doc__ = f"{Settings.__doc__}".replace(
    "    {attributes}", attributes(Settings)
)
