"""Streams of random numbers: one for each use, so that no two uses share one."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Uses of random numbers that a seed is divided among."""

    START = 1
    HALVES = 2
    MINIBATCHES = 3
    BLOCKS = 4
    CONTROL = 5
    MOMENTS = 6
    HELD_OUT = 7


def random_stream(seed: int, stream: Stream, *parts: int) -> np.random.Generator:
    """Random numbers of one use.

    Parameters
    ----------
    seed : int
        Seed of the whole.
    stream : Stream
        What the numbers are for.
    *parts : int
        Numbers that tell apart several generators of one use.

    Returns
    -------
    numpy.random.Generator
        The same for the same arguments, independent for others.
    """
    return np.random.default_rng([seed, int(stream), *parts])
