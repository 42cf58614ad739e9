"""One look for the page and the printed figures."""

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
EXCLUDED = "#56B4E9"
"""Okabe and Ito's, which all eyes tell apart."""
INK, SOFT, GREY = "#1F2933", "#5F6B76", "#9AA3AD"
RUN_COLOURS = {"full": BLUE, "half1": ORANGE, "half2": GREEN}
SURFACE = "#8FB8DE"
SEQUENTIAL = "viridis"
DENSITY = "gray"

HISTORIES = {
    "log_likelihood_per_patch": "log-likelihood per patch",
    "noise_variance": "noise variance σ²",
    "empty_fraction": "empty patches",
    "volume_change": "relative change of the map",
}
"""Quantities of an iteration that are drawn, and what axes call them."""
