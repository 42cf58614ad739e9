"""The figures of a report for a printed page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from .record import HALF_MAP_CRITERION, RunRecord
from .rendering import cube_of, shaded_view
from .shapes import (
    FineMap,
    degree_changes,
    displacement_table,
    frame,
    held_out_evidence,
    sphere,
    tracks,
    view_density,
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
    SURFACE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
    "text.color": INK,
    "xtick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.color": INK,
    "ytick.major.width": 0.6,
}
"""Look of the figures, as Matplotlib's settings."""
_WIDTH = 6.9
"""Width of two columns of a journal, inches."""
_SIDES = {"along z": "xyz", "along y": "xzy", "along x": "yzx"}
"""Axes that point right, up and along the line of sight, by the name of the side."""


def draw(record: RunRecord) -> Iterator[tuple[str, Figure]]:
    """Draw all figures of a run.

    Parameters
    ----------
    record : RunRecord
        The run.

    Yields
    ------
    name : str
        Name of the files that hold it.
    figure : matplotlib.figure.Figure
        Figure to save.
    """
    fine = {
        name: FineMap.of(volume, record.pixel_size)
        for name, volume in record.maps.items()
    }
    with matplotlib.rc_context(STYLE):
        yield "surfaces", surfaces(fine)
        yield "slices", slices(fine)
        if record.fsc is not None:
            yield "fsc", _fsc(record)
        yield "history", _history(record)
        yield "shift_prior", _shift_prior(record)
        yield "views", _views(record)
        if record.excerpt is not None:
            yield "picks", _picks(record)


def surfaces(fine: dict[str, FineMap]) -> Figure:
    """Draw isosurfaces of maps, from three sides each.

    Parameters
    ----------
    fine : dict of str to FineMap
        Maps by name; one row each.

    Returns
    -------
    matplotlib.figure.Figure
        Figure to save.
    """
    figure = Figure(figsize=(_WIDTH, 2.2 * len(fine)))
    grid = figure.subplots(len(fine), len(_SIDES), squeeze=False)
    meshes = [density.surface(density.contour) for density in fine.values()]
    middle, reach = frame(meshes)
    for axes_of_row, (name, density) in zip(grid, fine.items(), strict=True):
        cube = cube_of(density, middle, reach)
        for axes, (title, side) in zip(axes_of_row, _SIDES.items(), strict=True):
            picture = shaded_view(cube, density.contour, side, SURFACE)
            show_view(axes, picture, reach)
            axes.set_title(f"{name}, {title}")
    return figure


def show_view(axes: Axes, picture: NDArray[np.float64], reach: float) -> None:
    """Show a picture of a surface with a scale bar.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to show it.
    picture : float64, shape (n, n, 3)
        Of :func:`shaded_view`.
    reach : float
        Half of the side that the picture shows, angstrom.
    """
    edges = (-reach, reach, -reach, reach)
    axes.imshow(picture, extent=edges, interpolation="bicubic")
    axes.set_axis_off()
    scale_bar(axes, 0.7 * reach)


def scale_bar(axes: Axes, longest: float, framed: bool = False) -> None:
    """Draw a bar of a round length, with its length above it, in the lower left.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Axes whose unit is the angstrom.
    longest : float
        Greatest length of the bar, angstrom.
    framed : bool
        Whether to draw it on white.
    """
    power = 10.0 ** np.floor(np.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    bar = AnchoredSizeBar(
        axes.transData,
        length,
        f"{length:g} Å",
        "lower left",
        label_top=True,
        color=INK,
        frameon=framed,
        borderpad=0.5,
        sep=2,
        fill_bar=True,
        size_vertical=0.008 * abs(np.ptp(axes.get_ylim())),
        fontproperties=FontProperties(size=7),
    )
    bar.patch.set(linewidth=0)
    axes.add_artist(bar)


def slices(fine: dict[str, FineMap]) -> Figure:
    """Draw the central planes of maps, with the contour level.

    Parameters
    ----------
    fine : dict of str to FineMap
        Maps by name; one row each.

    Returns
    -------
    matplotlib.figure.Figure
        Figure to save.
    """
    figure = Figure(figsize=(_WIDTH, 2.15 * len(fine) + 0.2))
    grid = figure.subplots(len(fine), 3, squeeze=False, sharex=True, sharey=True)
    for axes_of_row, (name, density) in zip(grid, fine.items(), strict=True):
        low, high = np.percentile(density.values[density.in_ball], [0.5, 99.8])
        half = (density.axis[1] - density.axis[0]) / 2
        edge = density.axis[[0, -1, 0, -1]] + half * np.array([-1, 1, -1, 1])
        for axes, (plane, values) in zip(
            axes_of_row, density.slices().items(), strict=True
        ):
            image = axes.imshow(
                values,
                DENSITY,
                vmin=low,
                vmax=high,
                origin="lower",
                extent=edge,
                interpolation="bilinear",
            )
            axes.contour(
                density.axis,
                density.axis,
                values,
                [density.contour],
                colors=ORANGE,
                linewidths=0.8,
            )
            axes.add_patch(
                Circle((0, 0), density.radius, fill=False, ec=GREY, ls=":", lw=0.8)
            )
            axes.set_title(f"{name}, {plane}")
            axes.set(xlabel=f"{plane[0]} (Å)", ylabel=f"{plane[1]} (Å)")
        figure.colorbar(image, ax=axes_of_row, shrink=0.85, label="density")
    return figure


def _fsc(record: RunRecord) -> Figure:
    """Draw the FSC of the half maps with its threshold."""
    figure = Figure(figsize=(0.6 * _WIDTH, 2.8))
    axes = figure.subplots()
    assert record.fsc is not None
    assert record.resolution is not None
    resolution = record.resolution
    length = len(record.volume) * record.pixel_size
    frequency = np.arange(len(record.fsc)) / length
    axes.plot(frequency, record.fsc, "o-", ms=3, color=BLUE, label="half maps, no mask")
    axes.axhline(0, color=GREY, lw=0.6)
    axes.axhline(HALF_MAP_CRITERION, color=INK, ls="--", lw=0.8)
    axes.text(0.01 / length, HALF_MAP_CRITERION + 0.02, f"{HALF_MAP_CRITERION}")
    axes.axvline(resolution.shell / length, color=ORANGE, lw=0.9, label=str(resolution))
    axes.set(
        xlabel="spatial frequency (1/Å)",
        ylabel="Fourier shell correlation",
        ylim=(min(-0.05, record.fsc.min() - 0.05), 1.05),
        xlim=(0, frequency[-1] * 1.02),
    )
    above = axes.secondary_xaxis("top")
    above.set_xticks(
        frequency[1:], [f"{1 / f:.3g}" if f else "" for f in frequency[1:]]
    )
    above.set_xlabel("resolution (Å)")
    axes.legend(loc="center left", fontsize=7)
    return figure


def _history(record: RunRecord) -> Figure:
    """Draw how the iterations of all runs went on."""
    figure = Figure(figsize=(_WIDTH, 4.2))
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (quantity, label) in zip(grid.flat, HISTORIES.items(), strict=True):
        in_legend: set[str] = set()
        for name, track in tracks(record.runs).items():
            values = [getattr(row, quantity) for row in record.runs[name].history]
            axes.plot(
                track.iterations,
                values,
                color=RUN_COLOURS[track.kind],
                lw=0.7 if track.is_start else 1.4,
                alpha=0.5 if track.is_start else 1.0,
                label=None if track.name in in_legend else track.name,
            )
            in_legend.add(track.name)
            if quantity == "evidence_per_patch" and not track.is_start:
                axes.plot(
                    track.iterations,
                    held_out_evidence(record.runs[name]),
                    color=RUN_COLOURS[track.kind],
                    lw=0.9,
                    ls="--",
                )
        _mark_stages(axes, record)
        axes.set_ylabel(label)
        if quantity == "volume_change":
            axes.set_yscale("log")
        if quantity == "empty_fraction":
            axes.yaxis.set_major_formatter("{x:.0%}")
    for axes in grid[1]:
        axes.set_xlabel("iteration")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7
    )
    return figure


def _mark_stages(axes: Axes, record: RunRecord) -> None:
    """Mark where the march reaches a higher degree."""
    track = tracks(record.runs)["full"]
    for place, ell_max in degree_changes(record.full, track):
        axes.axvline(place, color=GREY, lw=0.6, ls=":")
        axes.annotate(
            f"ℓ ≤ {ell_max}",
            (place + 0.2, 1.0),
            xycoords=("data", "axes fraction"),
            fontsize=6.5,
            color=SOFT,
            va="bottom",
        )


def _shift_prior(record: RunRecord) -> Figure:
    """Draw where in a patch particles lie."""
    figure = Figure(figsize=(0.55 * _WIDTH, 3.1))
    axes = figure.subplots()
    size = len(record.volume)
    table = displacement_table(record.full.shift_prior)
    edge = size - 0.5
    image = axes.imshow(
        table * table.size, SEQUENTIAL, extent=(-edge, edge, edge, -edge), vmin=0
    )
    axes.set(xlabel="particle to the right (pixels)", ylabel="particle below (pixels)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{record.last.empty_fraction:.1%} of the patches are empty")
    figure.colorbar(image, label="probability, 1 = all places alike")
    return figure


def _views(record: RunRecord) -> Figure:
    """Draw how often the particle is seen from each side."""
    figure = Figure(figsize=(0.75 * _WIDTH, 2.9))
    axes = figure.add_subplot(projection="mollweide")
    longitude = np.radians(np.arange(-180, 181, 3))
    latitude = np.radians(np.arange(-90, 91, 3))
    density = view_density(*record.views, sphere(longitude, latitude))
    highest = max(2.0, float(density.max()))
    mesh = axes.pcolormesh(
        longitude,
        latitude,
        density,
        cmap=SEQUENTIAL,
        vmin=0,
        vmax=highest,
        rasterized=True,
    )
    axes.set_xticks(np.radians([-90, 0, 90]), ["−y", "+x", "+y"], color="white")
    axes.set_yticks(np.radians([-60, -30, 0, 30, 60]))
    axes.grid(lw=0.3, color="white", alpha=0.6)
    figure.colorbar(mesh, label="views, 1 = all alike", shrink=0.8)
    return figure


def _picks(record: RunRecord) -> Figure:
    """Draw part of the first micrograph, bare and with the particles found."""
    excerpt = record.excerpt
    assert excerpt is not None
    rows, columns = excerpt.pixels.shape
    # Two images side by side, and room for a caption.
    figure = Figure(figsize=(_WIDTH, _WIDTH / 2 * rows / columns + 0.6))
    bare, marked = figure.subplots(1, 2, sharex=True, sharey=True)
    low, high = np.percentile(excerpt.pixels, [1, 99])
    for axes in (bare, marked):
        axes.imshow(
            excerpt.pixels,
            DENSITY,
            vmin=low,
            vmax=high,
            extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        )
        axes.set_xlabel("x (pixels)")
    bare.set_ylabel("y (pixels)")
    marked.contourf(excerpt.excluded, [0.5, 1], colors=[EXCLUDED], alpha=0.4)
    for (y, x), merit in zip(
        excerpt.particles.centres, excerpt.particles.probability, strict=True
    ):
        marked.add_patch(
            Circle(
                (x, y),
                len(record.volume) / 2,
                fill=False,
                ec=ORANGE,
                lw=0.8,
                alpha=0.25 + 0.75 * float(merit),
            )
        )
    bare.set_title(excerpt.name, parse_math=False)
    marked.set_title(f"{len(excerpt.particles.centres)} particles found")
    return figure
