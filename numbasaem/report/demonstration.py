"""The picture of the demonstration: pixels, picks, found map, true map and FSC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from numbasaem.io import written_whole

from .figures import STYLE, scale_bar, show_view
from .rendering import cube_of, shaded_view
from .shapes import FineMap, frame
from .style import BLUE, DENSITY, GREEN, INK, MISSED, ORANGE, SURFACE, TRUTH

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from numbasaem.assessment.alignment import Comparison
    from numbasaem.simulation.demo import Demonstration
    from numbasaem.simulation.true_map_search import TrueMapSearch

_SIZE = (7.2, 7.15)
"""Width and height of the picture, inches."""
_DPI = 200
"""Pixels of the picture per inch."""
_SIDE = "xyz"
"""Axes of the maps that point right, up and at the viewer."""


def write_picture(demonstration: Demonstration, folder: Path) -> Path:
    """Write the picture of a demonstration.

    Parameters
    ----------
    demonstration : Demonstration
        Result of :func:`numbasaem.simulation.demo.demonstrate`.
    folder : pathlib.Path
        Folder to write to.

    Returns
    -------
    pathlib.Path
        The PNG file.
    """
    path = folder / "demo.png"
    with written_whole(path) as part:
        draw_demonstration(demonstration).savefig(part, format="png", dpi=_DPI)
    return path


def draw_demonstration(demonstration: Demonstration) -> Figure:
    """Draw what is seen, what is picked and what is found.

    Parameters
    ----------
    demonstration : Demonstration
        Result of :func:`numbasaem.simulation.demo.demonstrate`.

    Returns
    -------
    matplotlib.figure.Figure
        Figure to save.
    """
    pixel_size = demonstration.pixel_size
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_SIZE)
        above, below = figure.subfigures(
            2, 1, height_ratios=(1.55, 1), squeeze=False
        ).flat
        bare, marked = above.subplots(1, 2)
        found, true, curve = below.subplots(1, 3)
        _draw_micrograph(bare, demonstration.search, pixel_size)
        _draw_picks(marked, demonstration.search, pixel_size)
        bare.set_title(f"Part of the micrograph\nSNR {demonstration.snr:g}")
        _draw_maps((found, true), demonstration)
        _draw_fsc(curve, demonstration.comparison, pixel_size)
    return figure


def _draw_micrograph(axes: Axes, search: TrueMapSearch, pixel_size: float) -> None:
    """Draw the corner of the micrograph, with a scale bar on a light ground."""
    low, high = np.percentile(search.pixels, [1, 99])
    rows, columns = (n * pixel_size for n in search.pixels.shape)
    axes.imshow(
        search.pixels,
        DENSITY,
        vmin=low,
        vmax=high,
        extent=(0, columns, rows, 0),
        interpolation="nearest",
    )
    axes.set_axis_off()
    scale_bar(axes, 0.2 * columns, framed=True)


def _draw_picks(axes: Axes, search: TrueMapSearch, pixel_size: float) -> None:
    """Circle right picks, wrong picks and particles that have no pick."""
    _draw_micrograph(axes, search, pixel_size)
    right, wrong = search.picks[search.right], search.picks[~search.right]
    groups = (
        (right, GREEN, "-", f"{len(right)} right"),
        (wrong, ORANGE, "-", f"{len(wrong)} wrong"),
        (search.missed, MISSED, ":", f"{len(search.missed)} missed"),
    )
    diameter = search.size * pixel_size
    for centres, colour, line, name in groups:
        places = (centres[:, ::-1] + 0.5) * pixel_size
        circles = EllipseCollection(
            np.full(len(places), diameter),
            np.full(len(places), diameter),
            np.zeros(len(places)),
            units="xy",
            offsets=places,
            transOffset=axes.transData,
            facecolors="none",
            edgecolors=colour,
            linestyles=line,
            linewidths=1.2,
        )
        axes.add_collection(circles)
        axes.plot([], [], "o", mfc="none", mec=colour, label=name)
    recall, precision = search.match
    axes.set_title(
        f"Best {len(search.picks)} picks by the true map\n"
        f"recall {recall:.0%}, precision {precision:.0%}, by chance {search.chance:.0%}"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)


def _draw_maps(maps: tuple[Axes, Axes], demonstration: Demonstration) -> None:
    """Draw the surfaces of the map found and of the true one, from the same side."""
    pixel_size = demonstration.pixel_size
    volumes = (demonstration.comparison.alignment.volume, demonstration.truth)
    fine = [FineMap.of(volume, pixel_size) for volume in volumes]
    middle, reach = frame(density.surface(density.contour) for density in fine)
    titles = ("Map from the pixels alone", "True map")
    for axes, density, title, colour in zip(
        maps, fine, titles, (SURFACE, TRUTH), strict=True
    ):
        cube = cube_of(density, middle, reach)
        picture = shaded_view(cube, density.contour, _SIDE, colour)
        show_view(axes, picture, reach)
        axes.set_title(title)


def _draw_fsc(axes: Axes, comparison: Comparison, pixel_size: float) -> None:
    """Draw the FSC of the two maps over the resolution of the shells."""
    length = len(comparison.alignment.volume) * pixel_size
    shells = np.arange(1, len(comparison.fsc))
    axes.plot(shells, comparison.fsc[1:], "o-", ms=3.5, color=BLUE)
    threshold = comparison.resolution_half.threshold
    axes.axhline(threshold, color=INK, ls="--", lw=0.8)
    axes.text(1, threshold + 0.02, f"{threshold:g}")
    axes.text(1, 0.05, f"correlation {comparison.correlation:.3f}")
    axes.set_xticks(shells, [f"{length / shell:.3g}" for shell in shells])
    axes.set(
        title="FSC, found against true",
        xlabel="resolution (Å)",
        ylim=(min(0.0, comparison.fsc.min() - 0.05), 1.05),
        box_aspect=1,
    )
