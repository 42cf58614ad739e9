"""The HTML page of a report: everything inside one file."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from plotly.offline import get_plotlyjs

from numbasaem.io.names import printable

from .sections import sections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .record import RunRecord


def compose(record: RunRecord) -> str:
    """Write the page of a run.

    Parameters
    ----------
    record : RunRecord
        The run.

    Returns
    -------
    str
        An HTML document that asks for nothing outside of itself.
    """
    template = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    titled_sections = list(sections(record))
    return Template(template).substitute(
        title=escape(f"numbasaem: {printable(record.folder.resolve().name)}"),
        subtitle=escape(_subtitle(record)),
        facts="".join(_facts(record)),
        warnings="".join(
            f'<p class="warning">{escape(text)}</p>' for text in record.warnings
        ),
        contents=" ".join(
            f'<a href="#{_anchor(name)}">{escape(name)}</a>'
            for name, _ in titled_sections
        ),
        sections="\n".join(
            f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>{body}</section>'
            for name, body in titled_sections
        ),
        plotly=get_plotlyjs(),
    )


def _subtitle(record: RunRecord) -> str:
    n_sources = len(record.sources)
    micrographs = "micrograph" if n_sources == 1 else "micrographs"
    return (
        f"A molecule of at most {record.settings.size * record.pixel_size:.0f} Å, from "
        f"{n_sources} {micrographs}, without picking particles."
    )


def _facts(record: RunRecord) -> Iterator[str]:
    """Numbers that a reader looks for first."""
    last, resolution = record.last, record.resolution
    n_iterations = sum(len(state.history) for state in record.runs.values())
    facts = []
    if resolution is not None:
        limit = "" if resolution.crossed else " or better"
        facts.append(
            (
                "resolution of the half maps",
                f"{resolution.angstrom:.3g} Å{limit}",
                f"FSC = {resolution.threshold:g}, no mask",
            )
        )
    facts += [
        ("empty patches", f"{last.empty_fraction:.1%}", "posterior, last iteration"),
        (
            "evidence per patch",
            f"{last.evidence_per_patch:.3f}",
            "natural, last iteration",
        ),
        (
            "noise variance",
            f"{record.full.noise_variance:.4g}",
            "σ² in the units of the pixels",
        ),
        (
            "voxels",
            f"{len(record.volume)}³",
            f"{record.pixel_size:.4g} Å each",
        ),
        (
            "time in iterations",
            _duration(record.seconds),
            f"{n_iterations} iterations in all",
        ),
    ]
    if record.detectability is not None:
        strength = record.detectability
        outcome = "it could have been picked" if strength.is_pickable else "no picking"
        facts.append(
            (
                "strength of a particle",
                f"{strength.strength:.1f} σ",
                f"detection limit {strength.limit:.1f} σ: {outcome}",
            )
        )
    for name, value, remark in facts:
        yield (
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
            f"<small>{escape(remark)}</small></dd></div>"
        )


def _anchor(name: str) -> str:
    """Name of a section as links have it."""
    return name.lower().replace(" ", "-")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
