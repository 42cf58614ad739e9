"""The HTML page of a report: everything inside one file."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from numbasaem.machine import describe

from .record import HALF_MAP_CRITERION, RunRecord
from .shapes import (
    FineMap,
    Mesh,
    degree_changes,
    displacement_table,
    frame,
    sphere,
    tracks,
    view_density,
)
from .style import (
    BLUE,
    DENSITY,
    GREY,
    HISTORIES,
    INK,
    LEFT_OUT,
    ORANGE,
    RUN_COLOURS,
    SEQUENTIAL,
    SOFT,
    SURFACE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike, NDArray

_LEVELS = (-0.16, -0.08, 0.0, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Levels of the slider: how far from the contour level to the highest density."""
_BARE_AXIS = {"visible": False, "showspikes": False}
_CAMERA = {"eye": {"x": 1.15, "y": 1.15, "z": 0.7}}


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
    sections = list(_sections(record))
    names = [name for name, _ in sections]
    return Template(template).substitute(
        title=escape(f"numbasaem: {record.folder.resolve().name}"),
        subtitle=escape(_subtitle(record)),
        facts="".join(_facts(record)),
        warnings="".join(
            f'<p class="warning">{escape(text)}</p>' for text in record.warnings
        ),
        contents=" ".join(
            f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in names
        ),
        sections="\n".join(
            f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>{body}</section>'
            for name, body in sections
        ),
        plotly=get_plotlyjs(),
    )


def _subtitle(record: RunRecord) -> str:
    n = len(record.sources)
    return (
        f"A molecule of at most {record.settings.size * record.pixel_size:.0f} Å, from "
        f"{n} micrograph{'s' if n > 1 else ''}, without picking particles."
    )


def _facts(record: RunRecord) -> Iterator[str]:
    """Figures that a reader looks for first."""
    last, found = record.last, record.resolution
    facts = []
    if found is not None:
        limit = "" if found.crossed else " or better"
        facts.append(
            (
                "resolution of the half maps",
                f"{found.angstrom:.3g} Å{limit}",
                f"FSC = {found.threshold:g}, no mask",
            )
        )
    facts += [
        ("empty patches", f"{last.empty_fraction:.1%}", "posterior, last iteration"),
        (
            "log-likelihood per patch",
            f"{last.log_likelihood_per_patch:.2f}",
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
            f"{sum(len(s.history) for s in record.runs.values())} iterations in all",
        ),
    ]
    for name, value, remark in facts:
        yield (
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
            f"<small>{escape(remark)}</small></dd></div>"
        )


def _sections(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Title and body of every section that the run has something to show in."""
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
        + _plots([_map(fine["Map"])], "wide turning"),
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
                [_half(name, density) for name, density in halves.items()], "turning"
            ),
        )
    yield (
        "Slices",
        _text(
            "Planes through the centre. Orange: the level of the surface. Dotted: the "
            "ball that holds the particle; beyond it the density means nothing."
        )
        + _plots(_slices(fine["Map"])),
    )
    if record.fsc is not None:
        yield (
            "Resolution",
            _text(
                f"Fourier shell correlation of the half maps: {record.resolution}. "
                "No mask was applied."
            )
            + _plots([_fsc(record)], "wide"),
        )
    yield (
        "History",
        f"<p>Every iteration of the runs on {_legend()}. Thin lines: random starts, "
        "of which the likeliest went on. Dotted: the march reaches a higher degree.</p>"
        + _plots(_histories(record), "pairs"),
    )
    yield (
        "Positions and views",
        _text(
            "Shift prior: displacement of a particle's box from the patch that shows "
            "it. View directions: how often the particle is seen from each side, in "
            "the axes of the map. 1 means in both that all are equally frequent."
        )
        + _plots([_shift_prior(record), _views(record)]),
    )
    if record.excerpt is not None:
        yield (
            "Particles",
            _text(
                f"A corner of {record.excerpt.name} with the "
                f"{len(record.excerpt.picks.centres)} particles that the run finds in "
                "it; fainter circles are less sure."
                + (" Blue: left out." if record.excerpt.left_out.any() else "")
            )
            + _plots([_picks(record)], "wide"),
        )
    yield "Settings and versions", _tables(record)


def _legend() -> str:
    words = {"full": "all patches", "half1": "half 1", "half2": "half 2"}
    return ", ".join(
        f'<b style="color: {RUN_COLOURS[run]}">{word}</b>'
        for run, word in words.items()
    )


def _text(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


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


def _layout(height: int, **more: Any) -> dict[str, Any]:
    return {
        "template": "simple_white",
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        **more,
    }


def _mesh(mesh: Mesh, *, visible: bool = True) -> go.Mesh3d:
    x, y, z = np.ascontiguousarray(mesh.corners.T)
    i, j, k = np.ascontiguousarray(mesh.triangles.T)
    return go.Mesh3d(
        x=x,
        y=y,
        z=z,
        i=i,
        j=j,
        k=k,
        color=SURFACE,
        flatshading=False,
        hoverinfo="skip",
        lighting={
            "ambient": 0.36,
            "diffuse": 0.66,
            "specular": 0.12,
            "roughness": 0.6,
            "fresnel": 0.05,
        },
        lightposition={"x": -4e4, "y": 5e4, "z": 1e5},
        visible=visible,
    )


def _scene(middle: ArrayLike, reach: float) -> dict[str, Any]:
    axes = {
        f"{letter}axis": {**_BARE_AXIS, "range": [place - reach, place + reach]}
        for letter, place in zip("xyz", np.asarray(middle).tolist(), strict=True)
    }
    return {
        **axes,
        "aspectmode": "manual",
        "aspectratio": {"x": 1.1, "y": 1.1, "z": 1.1},
        "camera": _CAMERA,
        "dragmode": "orbit",
    }


def _map(density: FineMap) -> go.Figure:
    """Surfaces of the map at several levels, one of which is seen."""
    contour = density.contour
    above = density.values[density.in_ball].max() - contour
    levels = [contour + share * above for share in _LEVELS]
    chosen = levels.index(contour)
    meshes = [density.surface(level) for level in levels]
    figure = go.Figure(
        [_mesh(mesh, visible=number == chosen) for number, mesh in enumerate(meshes)]
    )
    steps = [
        {
            "label": f"{level:.3g}",
            "method": "restyle",
            "args": [{"visible": [n == number for n in range(len(levels))]}],
        }
        for number, level in enumerate(levels)
    ]
    figure.update_layout(
        _layout(
            560,
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            scene=_scene(*frame(meshes)),
            sliders=[
                {
                    "active": chosen,
                    "steps": steps,
                    "currentvalue": {"prefix": "level: ", "xanchor": "center"},
                    "x": 0.5,
                    "xanchor": "center",
                    "len": 0.8,
                    "pad": {"t": 0, "b": 20},
                    "tickcolor": GREY,
                }
            ],
        )
    )
    return figure


def _half(name: str, density: FineMap) -> go.Figure:
    contour = density.contour
    mesh = density.surface(contour)
    return go.Figure(
        [_mesh(mesh)],
        _layout(
            380,
            margin={"l": 0, "r": 0, "t": 40, "b": 0},
            title={"text": f"{name}, level {contour:.3g}", "font": {"size": 14}},
            scene=_scene(*frame([mesh])),
        ),
    )


def _slices(density: FineMap) -> list[go.Figure]:
    low, high = np.percentile(density.values[density.in_ball], [0.5, 99.8])
    around = np.linspace(0, 2 * np.pi, 90)
    figures = []
    for plane, values in density.slices().items():
        axis = density.axis.astype(np.float32)
        figure = go.Figure(
            [
                go.Heatmap(
                    x=axis,
                    y=axis,
                    z=values.astype(np.float32),
                    zmin=low,
                    zmax=high,
                    colorscale=DENSITY,
                    zsmooth="best",
                    showscale=False,
                    hovertemplate="%{x:.1f}, %{y:.1f} Å: %{z:.3g}<extra></extra>",
                ),
                go.Contour(
                    x=axis,
                    y=axis,
                    z=values.astype(np.float32),
                    contours={
                        "start": density.contour,
                        "end": density.contour,
                        "coloring": "none",
                    },
                    line={"color": ORANGE, "width": 1.5},
                    hoverinfo="skip",
                    showscale=False,
                ),
                go.Scatter(
                    x=density.radius * np.cos(around),
                    y=density.radius * np.sin(around),
                    mode="lines",
                    line={"color": GREY, "dash": "dot", "width": 1},
                    hoverinfo="skip",
                ),
            ],
            _layout(360, showlegend=False, title={"text": plane, "x": 0.5}),
        )
        figure.update_xaxes(title=f"{plane[0]} (Å)", constrain="domain")
        figure.update_yaxes(
            title=f"{plane[1]} (Å)", scaleanchor="x", constrain="domain"
        )
        figures.append(figure)
    return figures


def _fsc(record: RunRecord) -> go.Figure:
    assert record.fsc is not None
    assert record.resolution is not None
    unit, found = len(record.volume) * record.pixel_size, record.resolution
    shell = np.arange(len(record.fsc))
    with np.errstate(divide="ignore"):
        angstrom = [f"{value:.3g} Å" for value in unit / shell]
    figure = go.Figure(
        go.Scatter(
            x=shell / unit,
            y=record.fsc,
            customdata=angstrom,
            mode="lines+markers",
            line={"color": BLUE},
            name="half maps, no mask",
            hovertemplate="%{customdata}: %{y:.3f}<extra></extra>",
        ),
        _layout(400, showlegend=False),
    )
    figure.add_hline(
        HALF_MAP_CRITERION,
        line={"color": INK, "dash": "dash", "width": 1},
        opacity=1,
        annotation={"text": f"{HALF_MAP_CRITERION}", "x": 0, "xanchor": "left"},
    )
    figure.add_vline(
        found.shell / unit,
        line={"color": ORANGE, "width": 1.5},
        opacity=1,
        annotation={"text": str(found), "xanchor": "right", "font": {"color": ORANGE}},
    )
    figure.update_xaxes(
        title="resolution (Å), spaced by frequency",
        tickvals=shell / unit,
        ticktext=[text.removesuffix(" Å").replace("inf", "∞") for text in angstrom],
        range=[0, shell[-1] / unit * 1.03],
    )
    lowest = min(-0.05, float(record.fsc.min()) - 0.05)
    figure.update_yaxes(title="Fourier shell correlation", range=[lowest, 1.06])
    return figure


def _histories(record: RunRecord) -> Iterator[go.Figure]:
    """What the iterations found, quantity by quantity."""
    placed = tracks(record.runs)
    for quantity, label in HISTORIES.items():
        figure = go.Figure(
            [
                go.Scatter(
                    x=track.iterations,
                    y=[getattr(row, quantity) for row in record.runs[name].history],
                    mode="lines",
                    line={
                        "color": RUN_COLOURS[track.kind],
                        "width": 0.8 if track.is_start else 2,
                    },
                    opacity=0.5 if track.is_start else 1,
                    hovertemplate=f"%{{y:.4g}}<extra>{name}</extra>",
                )
                for name, track in placed.items()
            ],
            _layout(320, showlegend=False),
        )
        figure.update_xaxes(title="iteration")
        figure.update_yaxes(title=label)
        if quantity == "empty_fraction":
            figure.update_yaxes(tickformat=".0%")
        if quantity == "volume_change":
            figure.update_yaxes(type="log", exponentformat="power", dtick=1)
        for place, ell_max in degree_changes(record.full, placed["full"]):
            figure.add_vline(
                place,
                line={"color": GREY, "dash": "dot", "width": 1},
                opacity=1,
                annotation={
                    "text": f"ℓ ≤ {ell_max}",
                    "font": {"size": 11, "color": SOFT},
                    "y": 1,
                    "xanchor": "left",
                    "yanchor": "bottom",
                },
            )
        yield figure


def _shift_prior(record: RunRecord) -> go.Figure:
    table = displacement_table(record.full.shift_prior)
    size = len(record.volume)
    places = np.arange(1 - size, size)
    figure = go.Figure(
        go.Heatmap(
            x=places,
            y=places,
            z=(table * table.size).astype(np.float32),
            zmin=0,
            zmax=float(table.max() * table.size),
            colorscale=SEQUENTIAL,
            colorbar={"thickness": 12, "outlinewidth": 0},
            hovertemplate="%{x} right, %{y} below: %{z:.2f}<extra></extra>",
        ),
        _layout(
            400,
            title={
                "text": f"Shift prior; {record.last.empty_fraction:.1%} patches empty",
                "font": {"size": 14},
            },
        ),
    )
    figure.update_xaxes(title="particle to the right (pixels)", constrain="domain")
    figure.update_yaxes(
        title="particle below (pixels)",
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
    )
    return figure


def _views(record: RunRecord) -> go.Figure:
    directions = sphere(
        np.radians(np.arange(0, 361, 5.0)), np.radians(np.arange(-90, 91, 5.0))
    )
    density = view_density(*record.views, directions)
    x, y, z = np.moveaxis(directions, -1, 0).astype(np.float32)
    axes = 1.25 * np.eye(3)
    return go.Figure(
        [
            go.Surface(
                x=x,
                y=y,
                z=z,
                surfacecolor=density.astype(np.float32),
                cmin=0,
                cmax=max(2.0, float(density.max())),
                colorscale=SEQUENTIAL,
                colorbar={"thickness": 12, "outlinewidth": 0, "len": 0.8},
                lighting={"ambient": 0.9, "diffuse": 0.2, "specular": 0},
                hovertemplate="%{surfacecolor:.2f}<extra></extra>",
            ),
            _labels(axes),
        ],
        _layout(
            400,
            margin={"l": 0, "r": 0, "t": 40, "b": 0},
            title={"text": "View directions", "font": {"size": 14}},
            scene=_scene((0, 0, 0), 1.3),
            showlegend=False,
        ),
    )


def _labels(axes: NDArray[np.float64]) -> go.Scatter3d:
    x, y, z = axes.T
    return go.Scatter3d(
        x=x, y=y, z=z, mode="text", text=["x", "y", "z"], hoverinfo="skip"
    )


def _picks(record: RunRecord) -> go.Figure:
    excerpt = record.excerpt
    assert excerpt is not None
    low, high = np.percentile(excerpt.pixels, [1, 99])
    shown = np.clip((excerpt.pixels - low) / (high - low), 0, 1) * 255
    radius = len(record.volume) / 2
    figure = go.Figure(
        go.Heatmap(
            z=shown.astype(np.uint8),
            colorscale=DENSITY,
            showscale=False,
            hoverinfo="skip",
        ),
        _layout(700),
    )
    if excerpt.left_out.any():
        figure.add_heatmap(
            z=np.where(excerpt.left_out, 1.0, np.nan),
            colorscale=[[0, LEFT_OUT], [1, LEFT_OUT]],
            opacity=0.4,
            showscale=False,
            hoverinfo="skip",
        )
    figure.update_layout(
        shapes=[
            {
                "type": "circle",
                "x0": x - radius,
                "x1": x + radius,
                "y0": y - radius,
                "y1": y + radius,
                "fillcolor": "rgba(0, 0, 0, 0)",
                "line": {"color": ORANGE, "width": 1.5},
                "opacity": 0.25 + 0.75 * merit,
            }
            for (y, x), merit in zip(
                excerpt.picks.centres.tolist(),
                excerpt.picks.probability.tolist(),
                strict=True,
            )
        ]
    )
    figure.update_xaxes(title="x (pixels)", constrain="domain")
    figure.update_yaxes(
        title="y (pixels)", autorange="reversed", scaleanchor="x", constrain="domain"
    )
    return figure


def _validation(validation: dict[str, Any]) -> str:
    verdict = f'<p class="verdict">{escape(validation["verdict"])}</p>'
    rows = [_check(dict(check)) for check in validation["checks"]]
    for curve, data in (("fsc", "data"), ("control_fsc", "noise")):
        shells = " ".join(_figure(value, ".3f") for value in validation[curve])
        rows.append((f"FSC of half maps per shell, {data}", shells))
    return verdict + _table("Figures", rows)


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


def _tables(record: RunRecord) -> str:
    settings = record.settings.model_dump()
    inputs = (
        (source["name"], f"SHA-256 {source['sha256'][:16]}…")
        for source in record.sources
    )
    return (
        '<div class="tables">'
        + _table("Settings", ((name, _words(v)) for name, v in settings.items()))
        + _table("This report was made with", describe().items())
        + "</div>"
        + _table("Micrographs", inputs)
    )


def _words(value: object) -> str:
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
