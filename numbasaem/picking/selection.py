"""Which picks to keep, so that few of them are false."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 0.1
"""Smallest probability of a pick among which the most probable are chosen."""


def check_rate(fdr: float | None) -> None:
    """Refuse a rate of false picks that is none.

    Parameters
    ----------
    fdr : float or None
        The rate; None, for no rate, is accepted.

    Raises
    ------
    InputError
        If it is not between 0 and 1.
    """
    if fdr is not None and not 0 < fdr < 1:
        raise expected("fdr", "a rate above 0 and below 1", fdr)


def surest(probability: NDArray[np.float64], fdr: float) -> NDArray[np.bool_]:
    """Choose as many picks as a rate of false ones allows, the most probable first.

    Parameters
    ----------
    probability : float64, shape (n_picks,)
        Probability that each is right.
    fdr : float
        Largest share of false ones, above 0 and below 1.

    Returns
    -------
    bool, shape (n_picks,)
        Which are kept: the expected share of false ones, the mean of 1 - p over them,
        is at most `fdr`.

    Raises
    ------
    InputError
        If not even the most probable one can be kept.
    """
    order = np.argsort(-probability, kind="stable")
    # The mean of a sequence that rises rises too.
    shares = np.cumsum(1 - probability[order]) / np.arange(1, len(order) + 1)
    n_kept = int(np.searchsorted(shares, fdr, side="right"))
    if n_kept == 0:
        best = f"none more probable than {LEAST:g}"
        if len(order):
            best = f"{probability.max():.2f} at best"
        raise expected(
            "fdr",
            f"picks that are right with a probability of {1 - fdr:g}",
            f"{best}: this particle is below the detection limit",
        )
    kept = np.zeros(len(order), bool)
    kept[order[:n_kept]] = True
    return kept
