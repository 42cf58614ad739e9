"""Tables in STAR files: read whole, written whole, their columns checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from . import written_whole

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = (
    "rlnMicrographName",
    "rlnImageName",
    "rlnOpticsGroupName",
    "rlnMtfFileName",
)
"""Columns that hold text even where it looks like a number."""


def write_tables(path: PathLike, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once the new one is complete.
    tables : mapping of str to pandas.DataFrame
        Tables by their names without ``data_``.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import starfile

    with written_whole(path) as part:
        starfile.write(dict(tables), part, float_format="%.9g")


def read_tables(path: PathLike) -> dict[str, pd.DataFrame]:
    """Read all tables of a file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict of str to pandas.DataFrame
        At least one table, by its name without ``data_``.

    Raises
    ------
    InputError
        If the file is missing or damaged, or holds no table.
    """
    import pandas as pd
    import starfile

    place = Path(path)
    if place.is_dir() or not place.exists():
        found = "a folder" if place.is_dir() else "no such file"
        raise expected(path, "a STAR file", found)
    try:
        blocks = starfile.read(
            place, always_dict=True, parse_as_string=list(TEXT_COLUMNS)
        )
    except Exception as error:  # The parser raises whatever its own steps raise.
        found = f"{type(error).__name__}: {error}"
        raise expected(path, "a STAR file", found) from error
    tables = {
        name: pd.DataFrame([block]) if isinstance(block, dict) else block
        for name, block in blocks.items()
    }
    if not tables:
        raise expected(path, "a STAR file", "no table")
    return tables


def require_column(path: PathLike, table: pd.DataFrame, column: str) -> None:
    """Refuse a table that lacks a column.

    Parameters
    ----------
    path : path-like
        The file, as errors name it.
    table : pandas.DataFrame
        One of its tables.
    column : str
        Name of the column.

    Raises
    ------
    InputError
        If the column is not there.
    """
    if column not in table:
        found = ", ".join(map(str, table.columns)) or "none"
        raise expected(path, f"a column {column}", f"columns {found}")


def require_numbers(
    path: PathLike, table: pd.DataFrame, columns: Sequence[str]
) -> None:
    """Refuse a table without columns of finite numbers.

    Parameters
    ----------
    path : path-like
        The file, as errors name it.
    table : pandas.DataFrame
        One of its tables.
    columns : sequence of str
        Names of the columns.

    Raises
    ------
    InputError
        If one is not there or holds something else.
    """
    for column in columns:
        require_column(path, table, column)
        try:
            values = table[column].to_numpy(np.float64)
        except (TypeError, ValueError) as error:
            raise expected(path, f"numbers in {column}", error) from error
        if not np.isfinite(values).all():
            raise expected(path, f"finite {column}", "values that are not")
