"""The figures of a report's page that show the map and how it is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from .shapes import FineMap, Mesh, frame, sphere, view_density
from .style import DENSITY, GREY, ORANGE, SEQUENTIAL, SURFACE, page_layout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .record import RunRecord

_LEVELS = (-0.16, -0.08, 0.0, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Levels of the slider: shares of the way from the contour to the highest density."""
_BARE_AXIS = {"visible": False, "showspikes": False}
"""Axis of a scene that is not drawn."""
_CAMERA = {"eye": {"x": 1.15, "y": 1.15, "z": 0.7}}
"""Camera of a scene until a reader turns it."""


def map_plot(density: FineMap) -> go.Figure:
    """Draw surfaces of the map at several levels, one of which is visible.

    Parameters
    ----------
    density : FineMap
        The map.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure with a slider for the level.
    """
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
        page_layout(
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


def half_map_plot(name: str, density: FineMap) -> go.Figure:
    """Draw the surface of a half map.

    Parameters
    ----------
    name : str
        Name of the half map, for the title.
    density : FineMap
        The half map.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure to lay out.
    """
    contour = density.contour
    mesh = density.surface(contour)
    return go.Figure(
        [_mesh(mesh)],
        page_layout(
            380,
            margin={"l": 0, "r": 0, "t": 40, "b": 0},
            title={"text": f"{name}, level {contour:.3g}", "font": {"size": 14}},
            scene=_scene(*frame([mesh])),
        ),
    )


def slice_plots(density: FineMap) -> list[go.Figure]:
    """Draw the central planes of a map, with the contour level.

    Parameters
    ----------
    density : FineMap
        The map.

    Returns
    -------
    list of plotly.graph_objects.Figure
        One for each plane.
    """
    low, high = np.percentile(density.values[density.in_ball], [0.5, 99.8])
    angle = np.linspace(0, 2 * np.pi, 90)
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
                    x=density.radius * np.cos(angle),
                    y=density.radius * np.sin(angle),
                    mode="lines",
                    line={"color": GREY, "dash": "dot", "width": 1},
                    hoverinfo="skip",
                ),
            ],
            page_layout(360, showlegend=False, title={"text": plane, "x": 0.5}),
        )
        figure.update_xaxes(title=f"{plane[0]} (Å)", constrain="domain")
        figure.update_yaxes(
            title=f"{plane[1]} (Å)", scaleanchor="x", constrain="domain"
        )
        figures.append(figure)
    return figures


def view_plot(record: RunRecord) -> go.Figure:
    """Draw how often the particle is seen from each side.

    Parameters
    ----------
    record : RunRecord
        The run.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure to lay out.
    """
    directions = sphere(
        np.radians(np.arange(0, 361, 5.0)), np.radians(np.arange(-90, 91, 5.0))
    )
    density = view_density(*record.views, directions)
    x, y, z = np.moveaxis(directions, -1, 0).astype(np.float32)
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
            _labels(1.25 * np.eye(3)),
        ],
        page_layout(
            400,
            margin={"l": 0, "r": 0, "t": 40, "b": 0},
            title={"text": "View directions", "font": {"size": 14}},
            scene=_scene((0, 0, 0), 1.3),
            showlegend=False,
        ),
    )


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
    """Cube to look into, as :func:`frame` gives it."""
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


def _labels(places: NDArray[np.float64]) -> go.Scatter3d:
    """Names of the axes, at places (3, 3) in the order x, y, z."""
    x, y, z = places.T
    return go.Scatter3d(
        x=x, y=y, z=z, mode="text", text=["x", "y", "z"], hoverinfo="skip"
    )
