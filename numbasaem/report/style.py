"""Colours and names that the page and the printed figures share."""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
"""Colours of Okabe and Ito, which all eyes tell apart."""
EXCLUDED = "#56B4E9"
"""Colour of what is left out of a micrograph, another one of Okabe and Ito."""
INK, SOFT, GREY = "#1F2933", "#5F6B76", "#9AA3AD"
"""Colours of text, of remarks and of lines that only help to read."""
RUN_NAMES = {"full": "all patches", "half1": "half 1", "half2": "half 2"}
"""Names of the runs, as legends have them."""
RUN_COLOURS = {"full": BLUE, "half1": ORANGE, "half2": GREEN}
"""Colours of the runs."""
SURFACE = "#8FB8DE"
"""Colour of a map's surface."""
TRUTH = "#C4CAD0"
"""Colour of the surface of a true map."""
MISSED = "#F0E442"
"""Colour of particles that were not picked, another one of Okabe and Ito."""
SEQUENTIAL = "viridis"
"""Scale of colours for shares and probabilities."""
DENSITY = "gray"
"""Scale of colours for densities and pixels."""

HISTORIES = {
    "evidence_per_patch": "evidence per patch",
    "noise_variance": "noise variance σ²",
    "empty_fraction": "empty patches",
    "volume_change": "relative change of the map",
}
"""Quantities of an iteration that are drawn, and what axes call them."""


def page_layout(height: int, **more: Any) -> dict[str, Any]:
    """Layout of a figure of the page.

    Parameters
    ----------
    height : int
        Height of the figure, pixels.
    **more
        Entries that are added to the common layout, or replace entries of it.

    Returns
    -------
    dict
        Layout, as Plotly takes it.
    """
    return {
        "template": "simple_white",
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        **more,
    }
