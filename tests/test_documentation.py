"""Every public name says what it takes, gives and refuses, and shows how it is used."""

from __future__ import annotations

import doctest
import inspect

import pytest

import numbasaem

NAMES = sorted(set(numbasaem.__all__) - {"__version__"})
MOST_LINES = 8


@pytest.mark.parametrize("name", NAMES)
def test_docstring__has_an_example_of_a_few_lines(name: str) -> None:
    words = inspect.getdoc(getattr(numbasaem, name)) or ""
    _, heading, example = words.partition("Examples\n--------\n")
    assert heading
    assert doctest.DocTestParser().get_examples(example)
    assert len(example.strip().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", NAMES)
def test_docstring__names_every_argument_and_what_comes_back(name: str) -> None:
    what = getattr(numbasaem, name)
    words = inspect.getdoc(what) or ""
    if inspect.isfunction(what):
        for section in ("Parameters", "Returns", "Raises"):
            assert f"\n{section}\n{'-' * len(section)}\n" in words
    if what in (numbasaem.InputError, numbasaem.NumericalError):
        return
    for argument in inspect.signature(what).parameters:
        assert argument in words
    arrays = "NDArray" in str(inspect.signature(what))
    assert not arrays or "shape" in words or "path" in words
