"""Pictures and page of the experiments that `reproduce_paper.py` runs."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from numbasaem.io.mrc import read_micrographs
from numbasaem.report.figures import STYLE, slices, surfaces
from numbasaem.report.rendering import cube_of, shaded_view
from numbasaem.report.shapes import FineMap, frame
from numbasaem.report.style import SURFACE

PAPER_MINUTES = {6: 45, 8: 75, 10: 300}
"""Minutes of an iteration in the paper, by degree."""
PAPER_MEMORY = "1.51 TB (of the machine)"
EXCERPT = 220
"""Number of pixels a side of the pictures of micrographs."""


def draw(
    folder: Path,
    volumes: dict[str, NDArray[Any]],
    curves: dict[str, NDArray[np.float64]],
    history: list[float] | None = None,
) -> None:
    """Surfaces and slices of maps, their FSC, and the likelihood's history."""
    fine = {
        name: FineMap.of(np.asarray(volume, np.float64), 1.0)
        for name, volume in volumes.items()
    }
    with matplotlib.rc_context(STYLE):
        save(surfaces(fine), folder / "surfaces")
        save(slices(fine), folder / "slices")
        figure = Figure(figsize=(6.9, 2.4))
        grid = figure.subplots(1, 1 if history is None else 2, squeeze=False)[0]
        for name, curve in curves.items():
            grid[0].plot(curve, "o-", ms=3, label=name)
        grid[0].axhline(0.5, ls="--", lw=0.8, color="0.3")
        grid[0].set(xlabel="shell", ylabel="FSC", ylim=(-0.1, 1.05))
        grid[0].legend()
        if history is not None:
            grid[1].plot(history)
            grid[1].set(xlabel="iteration", ylabel="log-likelihood per patch")
        save(figure, folder / "curves")


@dataclass(frozen=True)
class Curve:
    """An FSC, with the degree that gives its colour and the style of its line."""

    fsc: list[float]
    degree: int
    style: str


def draw_beside(
    folder: Path, volumes: dict[str, NDArray[Any]], curves: dict[str, Curve]
) -> None:
    """Surfaces of maps side by side, each from two sides, and FSC curves."""
    fine = {
        name: FineMap.of(np.asarray(volume, np.float64), 1.0)
        for name, volume in volumes.items()
    }
    middle, reach = frame([each.surface(each.contour) for each in fine.values()])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.5 * len(fine), 3.1))
        grid = figure.subplots(2, len(fine))
        for (name, density), axes_of_map in zip(fine.items(), grid.T, strict=True):
            cube = cube_of(density, middle, reach)
            for axes, side in zip(axes_of_map, ("xyz", "xzy"), strict=True):
                view = shaded_view(cube, density.contour, side, SURFACE)
                axes.imshow(view, interpolation="bicubic")
                axes.set_axis_off()
            axes_of_map[0].set_title(name.replace(", ", ",\n"), fontsize=7)
        save(figure, folder / "surfaces")
        figure = Figure(figsize=(6.9, 2.8))
        axes = figure.subplots()
        for name, curve in curves.items():
            colour = f"C{curve.degree // 2}"
            axes.plot(curve.fsc, curve.style, marker="o", ms=3, c=colour, label=name)
        axes.axhline(0.5, ls="--", lw=0.8, color="0.3")
        axes.set(xlabel="shell", ylabel="FSC", ylim=(-0.1, 1.05))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        save(figure, folder / "curves")


def draw_micrographs(
    folder: Path, pictures: dict[str, NDArray[Any]], patch_size: int
) -> None:
    """Micrographs by their names, the first cut into patches as in figure 2."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.9, 2.2))
        grid = figure.subplots(1, len(pictures))
        for axes, (name, pixels) in zip(grid, pictures.items(), strict=True):
            axes.imshow(pixels, "gray")
            axes.set_title(name)
            axes.set_axis_off()
        for line in range(0, EXCERPT, patch_size):
            for draw_line in (grid[0].axhline, grid[0].axvline):
                draw_line(line - 0.5, color="#d95f02", lw=0.2)
        save(figure, folder / "micrographs")


def draw_excerpt(folder: Path) -> None:
    """A corner of the first micrograph of a simulation."""
    pixels = read_micrographs(folder / "micrograph_0001.mrc")[0][0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.3, 2.3))
        axes = figure.subplots()
        axes.imshow(pixels[:EXCERPT, :EXCERPT], "gray")
        axes.set_axis_off()
        save(figure, folder / "excerpt")


def draw_picking(folder: Path, panels: list[dict[str, Any]]) -> None:
    """Both panels of figure 8, for both spacings."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.9, 4.6))
        grid = figure.subplots(2, 2, sharex=True)
        for curves in panels:
            row = grid[("separated", "arbitrary").index(curves["spacing"])]
            (line,) = row[0].semilogx(curves["snr"], curves["f1"], "o-", ms=3)
            row[0].semilogx(
                curves["snr"], curves["f1_always_empty"], "--", c=line.get_color()
            )
            row[1].semilogx(
                curves["snr"], curves["within_one_pixel"], "o-", label=curves["volume"]
            )
            row[0].set(ylabel=f"F1 of empty patches\n{curves['spacing']}")
            row[1].set(ylabel="found within one pixel", ylim=(-0.02, 1.02))
        grid[0, 1].legend()
        for axes in grid[1]:
            axes.set(xlabel="SNR")
        save(figure, folder / "picking")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and PDF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{suffix}"))
        figure.set_layout_engine("none")


def write_page(
    out: Path, rows: list[dict[str, Any]], picking: list[dict[str, Any]]
) -> None:
    """Write the page and the table of all figures."""
    columns = (
        "figure",
        "experiment",
        "row",
        "snr",
        "iterations",
        "degree",
        "requested",
        "placed",
        "correlation",
        "correlation_at_degree",
        "fsc",
        "ceiling",
        "shell_at_half",
        "ceiling_at_half",
        "hand",
        "misfit",
        "stalled",
        "log_likelihood",
        "seconds_per_iteration",
        "seconds",
        "peak_mb",
    )
    with (out / "results.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(
            {name: words(row.get(name, "")) for name in columns} for row in rows
        )
    paper = ", ".join(f"{ell}: {60 * m}" for ell, m in PAPER_MINUTES.items())
    beside = {"seconds_per_iteration": f"<br>(paper {paper})"}
    header = "".join(
        f"<th>{escape(name.replace('_', ' '))}{beside.get(name, '')}</th>"
        for name in columns
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(words(row.get(name, '')))}</td>" for name in columns)
        + "</tr>"
        for row in rows
    )
    pictures = "".join(section(out, name) for name in experiments_of(rows))
    page = f"""<!doctype html><meta charset="utf-8"><title>Section IV</title>
<style>body{{font:15px sans-serif;margin:2em;max-width:75em}}
.wide{{overflow-x:auto}}table{{border-collapse:collapse;font-size:11px}}
td,th{{border:1px solid #ccc;padding:3px 6px;white-space:nowrap}}
img{{max-width:100%}}</style>
<h1>Section IV of the paper, reproduced</h1>
<p>The paper ran on 96 cores; memory: {escape(PAPER_MEMORY)}. Rows "paper" have its
iterations, one start and plain EM; rows "own" are the defaults
of this program, on the same micrographs. "ceiling" is the FSC of the best expansion of
the true volume with the truth, for figure 7 of the expansion to the same degree. There,
"correlation at degree" is with that expansion, and "misfit" says, in standard
deviations, how far from its autocorrelations the volume's are; a fit that ends farther
than noise explains has stalled.</p>
<div class="wide"><table><tr>{header}</tr>{body}</table></div>
<h2>Micrographs (figures 1, 2, 9)</h2><img src="figures/micrographs.png">
{'<h2>Picking (figure 8)</h2><img src="figures/picking.png">' if picking else ""}
{pictures}"""
    (out / "index.html").write_text(page, encoding="utf-8")


def experiments_of(rows: list[dict[str, Any]]) -> list[str]:
    """Names of the experiments in the table, each once and in its order."""
    return list(dict.fromkeys(row["experiment"] for row in rows))


def section(out: Path, experiment: str) -> str:
    """An experiment's pictures: of a micrograph, then of each row."""
    page = f"<h2>{escape(experiment)}</h2>"
    if (out / experiment / "data" / "excerpt.png").exists():
        page += f'<img src="{experiment}/data/excerpt.png" width="{EXCERPT}">'
    for row in (out / experiment, *sorted((out / experiment).glob("*/"))):
        if (row / "surfaces.png").exists():
            place = row.relative_to(out)
            page += f"<h3>{escape(row.name)}</h3>" + "".join(
                f'<img src="{place}/{name}.png">'
                for name in ("surfaces", "slices", "curves")
                if (row / f"{name}.png").exists()
            )
    return page


def words(value: object) -> str:
    """A cell of the table."""
    if isinstance(value, list):
        return " ".join(f"{item:.3f}" for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return "" if value is None else str(value)
