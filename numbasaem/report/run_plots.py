"""The figures of a report's page that show what a run found on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from .record import HALF_MAP_CRITERION
from .shapes import (
    Track,
    degree_changes,
    displacement_table,
    held_out_evidence,
    tracks,
)
from .style import (
    BLUE,
    DENSITY,
    EXCLUDED,
    GREY,
    HISTORIES,
    INK,
    ORANGE,
    RUN_COLOURS,
    SEQUENTIAL,
    SOFT,
    page_layout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .record import RunRecord


def fsc_plot(record: RunRecord) -> go.Figure:
    """Draw the FSC of the half maps with its threshold.

    Parameters
    ----------
    record : RunRecord
        The run with half maps.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure to lay out.
    """
    assert record.fsc is not None
    assert record.resolution is not None
    resolution = record.resolution
    length = len(record.volume) * record.pixel_size
    shell = np.arange(len(record.fsc))
    with np.errstate(divide="ignore"):
        angstrom = [f"{value:.3g} Å" for value in length / shell]
    figure = go.Figure(
        go.Scatter(
            x=shell / length,
            y=record.fsc,
            customdata=angstrom,
            mode="lines+markers",
            line={"color": BLUE},
            name="half maps, no mask",
            hovertemplate="%{customdata}: %{y:.3f}<extra></extra>",
        ),
        page_layout(400, showlegend=False),
    )
    figure.add_hline(
        HALF_MAP_CRITERION,
        line={"color": INK, "dash": "dash", "width": 1},
        opacity=1,
        annotation={"text": f"{HALF_MAP_CRITERION}", "x": 0, "xanchor": "left"},
    )
    figure.add_vline(
        resolution.shell / length,
        line={"color": ORANGE, "width": 1.5},
        opacity=1,
        annotation={
            "text": str(resolution),
            "xanchor": "right",
            "font": {"color": ORANGE},
        },
    )
    figure.update_xaxes(
        title="resolution (Å), spaced by frequency",
        tickvals=shell / length,
        ticktext=[text.removesuffix(" Å").replace("inf", "∞") for text in angstrom],
        range=[0, shell[-1] / length * 1.03],
    )
    lowest = min(-0.05, float(record.fsc.min()) - 0.05)
    figure.update_yaxes(title="Fourier shell correlation", range=[lowest, 1.06])
    return figure


def history_plots(record: RunRecord) -> Iterator[go.Figure]:
    """Draw how the iterations of all runs went on.

    Parameters
    ----------
    record : RunRecord
        The run.

    Yields
    ------
    plotly.graph_objects.Figure
        One for each quantity of an iteration.
    """
    track_of_run = tracks(record.runs)
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
                for name, track in track_of_run.items()
            ],
            page_layout(320, showlegend=False),
        )
        if quantity == "evidence_per_patch":
            figure.add_traces(_held_out(record, track_of_run))
        figure.update_xaxes(title="iteration")
        figure.update_yaxes(title=label)
        if quantity == "empty_fraction":
            figure.update_yaxes(tickformat=".0%")
        if quantity == "volume_change":
            figure.update_yaxes(type="log", exponentformat="power", dtick=1)
        for place, ell_max in degree_changes(record.full, track_of_run["full"]):
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


def _held_out(record: RunRecord, track_of_run: dict[str, Track]) -> list[go.Scatter]:
    """Curves of the evidence of held-out data, dashed; none where none are held out."""
    return [
        go.Scatter(
            x=track.iterations,
            y=held_out_evidence(record.runs[name]),
            mode="lines",
            line={"color": RUN_COLOURS[track.kind], "width": 1.2, "dash": "dash"},
            hovertemplate=f"%{{y:.4g}}<extra>{name}, held out</extra>",
        )
        for name, track in track_of_run.items()
        if not track.is_start
    ]


def shift_prior_plot(record: RunRecord) -> go.Figure:
    """Draw where in a patch particles lie.

    Parameters
    ----------
    record : RunRecord
        The run.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure to lay out.
    """
    table = displacement_table(record.full.shift_prior)
    size = len(record.volume)
    displacements = np.arange(1 - size, size)
    figure = go.Figure(
        go.Heatmap(
            x=displacements,
            y=displacements,
            z=(table * table.size).astype(np.float32),
            zmin=0,
            zmax=float(table.max() * table.size),
            colorscale=SEQUENTIAL,
            colorbar={"thickness": 12, "outlinewidth": 0},
            hovertemplate="%{x} right, %{y} below: %{z:.2f}<extra></extra>",
        ),
        page_layout(
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


def pick_plot(record: RunRecord) -> go.Figure:
    """Draw part of the first micrograph with the particles found.

    Parameters
    ----------
    record : RunRecord
        The run of which that micrograph is there.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure to lay out.
    """
    excerpt = record.excerpt
    assert excerpt is not None
    low, high = np.percentile(excerpt.pixels, [1, 99])
    brightness = np.clip((excerpt.pixels - low) / (high - low), 0, 1) * 255
    radius = len(record.volume) / 2
    figure = go.Figure(
        go.Heatmap(
            z=brightness.astype(np.uint8),
            colorscale=DENSITY,
            showscale=False,
            hoverinfo="skip",
        ),
        page_layout(700),
    )
    if excerpt.excluded.any():
        figure.add_heatmap(
            z=np.where(excerpt.excluded, 1.0, np.nan),
            colorscale=[[0, EXCLUDED], [1, EXCLUDED]],
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
                excerpt.particles.centres.tolist(),
                excerpt.particles.probability.tolist(),
                strict=True,
            )
        ]
    )
    figure.update_xaxes(title="x (pixels)", constrain="domain")
    figure.update_yaxes(
        title="y (pixels)", autorange="reversed", scaleanchor="x", constrain="domain"
    )
    return figure
