"""The sections of a report's page: their texts and their figures."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from numbasaem.io.names import printable
from numbasaem.machine import describe

from .map_plots import half_map_plot, map_plot, slice_plots, view_plot
from .run_plots import fsc_plot, history_plots, pick_plot, shift_prior_plot
from .shapes import FineMap, ends_of_stages
from .style import RUN_COLOURS, RUN_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import plotly.graph_objects as go

    from .record import RunRecord


def sections(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Write every section for which the run has something to show.

    Parameters
    ----------
    record : RunRecord
        The run.

    Yields
    ------
    title, body : str
        The body is HTML, the title plain text.
    """
    fine = {
        name: FineMap.of(volume, record.pixel_size)
        for name, volume in record.maps.items()
    }
    if record.validation is not None:
        yield "Validation", _validation(record.validation)
    yield (
        "Map",
        _text(
            "Surface of the density; drag to turn it, choose its level below. "
            "The level it opens with tells molecule and surroundings apart best "
            "(Otsu). Splines interpolate between voxels; the resolution is not theirs."
        )
        + _plots([map_plot(fine["Map"])], "wide turning"),
    )
    halves = {name: density for name, density in fine.items() if name != "Map"}
    if halves:
        yield (
            "Half maps",
            _text(
                "From two halves of the data that share no patch, and other random "
                "starts; aligned to the map. They turn together with it."
            )
            + _plots(
                [half_map_plot(name, density) for name, density in halves.items()],
                "turning",
            ),
        )
    yield (
        "Slices",
        _text(
            "Planes through the centre. Orange: the level of the surface. Dotted: the "
            "ball that holds the particle; beyond it the density means nothing."
        )
        + _plots(slice_plots(fine["Map"])),
    )
    if record.fsc is not None:
        yield (
            "Resolution",
            _text(
                f"Fourier shell correlation of the half maps: {record.resolution}. "
                "No mask was applied."
            )
            + _plots([fsc_plot(record)], "wide"),
        )
    yield (
        "History",
        f"<p>Every iteration of the runs on {_legend()}. Thin lines: random starts, "
        "of which the likeliest went on. Dotted: the march reaches a higher degree. "
        "Dashed: data that no step sees.</p>"
        + _plots(history_plots(record), "pairs")
        + _table("Stages of the march, all patches", ends_of_stages(record.full)),
    )
    yield (
        "Positions and views",
        _text(
            "Shift prior: displacement of a particle's box from the patch that shows "
            "it. View directions: how often the particle is seen from each side, in "
            "the axes of the map. 1 means in both that all are equally frequent."
        )
        + _plots([shift_prior_plot(record), view_plot(record)]),
    )
    if record.excerpt is not None:
        yield (
            "Particles",
            _text(
                f"A corner of {record.excerpt.name} with the "
                f"{len(record.excerpt.particles.centres)} particles that the run finds "
                "in it; fainter circles are less sure."
                + (" Blue: left out." if record.excerpt.excluded.any() else "")
            )
            + _plots([pick_plot(record)], "wide"),
        )
    yield "Settings and versions", _settings_and_versions(record)


def _legend() -> str:
    """Name every run in its colour."""
    return ", ".join(
        f'<b style="color: {RUN_COLOURS[run]}">{name}</b>'
        for run, name in RUN_NAMES.items()
    )


def _text(words: str) -> str:
    """Paragraph of plain text."""
    return f"<p>{escape(words)}</p>"


def _plots(figures: Iterable[go.Figure], kind: str = "") -> str:
    """Lay out figures; the page's script draws them when all have their places."""
    places = "".join(
        f'<div class="plot" style="min-height: {figure.layout.height}px">'
        f'<script type="application/json">{_safe(figure.to_json())}</script></div>'
        for figure in figures
    )
    return f'<div class="plots {kind}">{places}</div>'


def _safe(json: str) -> str:
    """Write JSON so that no text in it can end the script that holds it."""
    return json.replace("</", "<\\/")


def _validation(validation: dict[str, Any]) -> str:
    verdict = f'<p class="verdict">{escape(validation["verdict"])}</p>'
    rows = [_check(dict(check)) for check in validation["checks"]]
    for curve, data in (("fsc", "data"), ("control_fsc", "noise")):
        if validation[curve] is not None:
            shells = " ".join(_figure(value, ".3f") for value in validation[curve])
            rows.append((f"FSC of half maps per shell, {data}", shells))
    rows.extend(_omissions(validation["omissions"]))
    return verdict + _table("Figures", rows)


def _omissions(omissions: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Density that came back where a ball was left out: of each, and the mean."""
    returned = [float(omission["returned_percent"]) for omission in omissions]
    for number, (omission, percent) in enumerate(
        zip(omissions, returned, strict=True), start=1
    ):
        place = ", ".join(_figure(value, ".1f") for value in omission["centre"])
        radius = _figure(omission["radius"], ".1f")
        yield (
            f"Left out {number}: {radius} voxels around ({place})",
            f"{percent:.0f} % came back on held-out data",
        )
    if returned:
        mean = sum(returned) / len(returned)
        yield "Left out, mean", f"{mean:.0f} % came back on held-out data"


def _check(check: dict[str, Any]) -> tuple[str, str]:
    """Question and answer of one check in words."""
    question, passed = check.pop("question", ""), check.pop("passed", False)
    figures = (
        f"{name.replace('_', ' ')} {_figure(value, '.4g')}"
        for name, value in check.items()
    )
    outcome = "passed" if passed else "failed"
    return str(question), f"{outcome}: {', '.join(figures)}"


def _figure(value: float | None, form: str) -> str:
    """Put a number into digits; none is a dash."""
    return format(value, form) if isinstance(value, int | float) else "–"


def _settings_and_versions(record: RunRecord) -> str:
    settings = record.settings.model_dump()
    inputs = (
        (printable(source["name"]), _fingerprint(source)) for source in record.sources
    )
    return (
        '<div class="tables">'
        + _table(
            "Settings", ((name, _in_words(value)) for name, value in settings.items())
        )
        + _table("This report was made with", describe().items())
        + "</div>"
        + _table("Micrographs", inputs)
    )


def _fingerprint(source: dict[str, Any]) -> str:
    """Fingerprint of an input, and which of its sections were left out as copies."""
    digest = f"SHA-256 {source['sha256'][:16]}…"
    copies = [
        f"section {section} left out, a copy of {printable(original)}"
        for section, original in source.get("copies", {}).items()
    ]
    return "; ".join([digest, *copies])


def _in_words(value: object) -> str:
    """Value of a setting as a reader would say it."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "auto" if value is None else str(value)


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption>{escape(title)}</caption>{body}</table>"
