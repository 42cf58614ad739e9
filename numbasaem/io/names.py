"""Names of micrographs in tables: short, and yet each its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

_SUFFIX = re.compile(r"\.(mrcs?|map|st|tiff?)(\.(gz|bz2))?$", re.IGNORECASE)
"""Suffix of a file of micrographs, which Topaz leaves out of their names."""


def distinct_names(paths: Collection[Path]) -> list[str]:
    """Name files by themselves, and where that is not enough by their folders too.

    Parameters
    ----------
    paths : collection of Path
        Files; one may be there several times.

    Returns
    -------
    list of str
        One name a file; two are equal only if they are names of one path.

    Examples
    --------
    >>> distinct_names([Path("grid1/a.mrc"), Path("grid2/a.mrc"), Path("grid2/b.mrc")])
    ['grid1/a.mrc', 'grid2/a.mrc', 'b.mrc']
    """
    whole = [os.path.abspath(path) for path in paths]
    namesakes: dict[str, set[str]] = {}
    for name in whole:
        namesakes.setdefault(os.path.basename(name), set()).add(name)
    short: dict[str, str] = {}
    for group in namesakes.values():
        shorten = _shortest([group], [True])
        short |= {name: shorten(name) for name in group}
    return [short[name] for name in whole]


def told_apart(*tables: Iterable[str]) -> Callable[[str], str]:
    """Shorten names as far as those of each table stay apart.

    Parameters
    ----------
    *tables : iterable of str
        Names in one table each.

    Returns
    -------
    callable
        Takes a name to its last part without suffix, or as many more of its folders,
        and its suffix, as it takes.

    Examples
    --------
    >>> shorten = told_apart(["job1/a/m.mrc", "job1/b/m.mrc"], ["a/m", "b/m"])
    >>> shorten("job1/a/m.mrc"), shorten("000002@job1/b/m.mrcs")
    ('a/m', '000002@b/m')
    """
    return _shortest([set(names) for names in tables], [False, True])


def printable(name: str) -> str:
    """Name as it can be printed: bytes that are not UTF-8 become question marks.

    Parameters
    ----------
    name : str
        Name of a file, such bytes in it as surrogates.

    Returns
    -------
    str
        Valid Unicode.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _shortest(
    tables: Sequence[Collection[str]], with_suffix: Sequence[bool]
) -> Callable[[str], str]:
    """Shortest form of names that keeps those of each table apart."""
    deepest = max((name.count("/") for names in tables for name in names), default=0)
    for has_suffix, n_parts in product(with_suffix, range(1, deepest + 2)):
        form = partial(_shortened, n_parts=n_parts, has_suffix=has_suffix)
        if all(len(set(map(form, names))) == len(names) for names in tables):
            return form
    return str


def _shortened(name: str, n_parts: int, has_suffix: bool) -> str:
    """Last parts of a name, after the number of a section."""
    section, at, path = name.partition("@")
    if not section.isdecimal():
        section, at, path = "", "", name
    short = "/".join(path.split("/")[-n_parts:])
    return section + at + (short if has_suffix else _SUFFIX.sub("", short))
