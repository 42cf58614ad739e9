"""Tables in STAR files: read whole, written whole, their columns checked.

Lines are read as RELION reads them: a row is a line, and only a word that begins with
``#`` begins a comment. Names hold all that file names hold: blanks, quotes and, as
surrogates, bytes that are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import PathLike
from numbasaem.errors import expected

from . import written_whole
from .names import printable

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = (
    "rlnMicrographName",
    "rlnImageName",
    "rlnOpticsGroupName",
    "rlnMtfFileName",
)
"""Columns that hold text even where it looks like a number."""
_VERSION = "# version 30001"
"""Comment by which RELION 3.1 marks its tables."""
_WORD = re.compile(
    r"""[ \t]*(?:"(?P<double>(?:[^"]|"(?![ \t]|$))*)"(?=[ \t]|$)"""
    r"""|'(?P<single>(?:[^']|'(?![ \t]|$))*)'(?=[ \t]|$)"""
    r"""|(?P<comment>\#.*)|(?P<bare>[^ \t]+))"""
)
"""Word of a line; a quotation mark ends it only before a blank."""
_BARE = re.compile(
    r"(?!data_|loop_|save_|stop_|global_)[^ \t\r\n\"'#_$\[\];][^ \t\r\n]*", re.I
)
"""Text that no reader takes for anything but one word."""
_LINE_ENDS = re.compile("\r\n|\r|\n")


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
        If the file cannot be written, or a text cannot be held by one.
    """
    lines = []
    for name, table in tables.items():
        lines += ["", _VERSION, "", f"data_{name}", "", "loop_"]
        lines += [f"_{name} #{i}" for i, name in enumerate(table.columns, start=1)]
        for row in table.itertuples(index=False, name=None):
            lines.append("\t".join(_worded(path, value) for value in row))
        lines.append("")
    text = "".join(f"{line}\n" for line in lines[1:])
    with written_whole(path) as part:
        part.write_bytes(text.encode("utf-8", "surrogateescape"))


def _worded(path: PathLike, value: object) -> str:
    """Word of a table that stands for a value."""
    if isinstance(value, float | np.floating):
        return f"{value:.9g}"
    text = str(value)
    if _BARE.fullmatch(text):
        return text
    check_text(path, text)
    mark = next(mark for mark in "\"'" if _is_quotable(text, mark))
    return f"{mark}{text}{mark}"


def check_text(path: PathLike, text: str) -> None:
    """Refuse a text that no word of a STAR file can be.

    Parameters
    ----------
    path : path-like
        The file, as errors name it.
    text : str
        Name of a micrograph, or another text.

    Raises
    ------
    InputError
        If it has line breaks, or both quotation marks before blanks.
    """
    quotable = any(_is_quotable(text, mark) for mark in "\"'")
    if _LINE_ENDS.search(text) or not quotable:
        wanted = "names without line breaks, and with one kind of quotes before blanks"
        raise expected(path, wanted, repr(text))


def _is_quotable(text: str, mark: str) -> bool:
    return re.search(rf"{mark}([ \t]|$)", text) is None


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
        If the file is missing or damaged, holds no table or one column twice.
    """
    try:
        with open(path, "rb") as stream:
            text = stream.read().decode("utf-8", "surrogateescape")
    except IsADirectoryError:
        raise expected(path, "a STAR file", "a folder") from None
    except FileNotFoundError:
        raise expected(path, "a STAR file", "no such file") from None
    except OSError as error:
        raise expected(path, "a STAR file that can be read", error.strerror) from error
    blocks = _blocks(path, _LINE_ENDS.split(text.removeprefix("\ufeff")))
    tables = {block.name: block.table(path) for block in blocks if block.columns}
    if not tables:
        raise expected(path, "a STAR file", "no table")
    return tables


@dataclass
class _Block:
    """A table while it is read: names of its columns, and the words of its rows."""

    name: str
    is_loop: bool = False
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def add(self, where: str, line: str) -> None:
        """Take in the next line of the table, which errors name by `where`."""
        if line == "loop_":
            self.is_loop = True
        elif line.startswith("_") and not (self.is_loop and self.rows):
            name, *words = _words(line)
            self.columns.append(printable(name[1:]))
            if not self.is_loop:
                before = self.rows[0] if self.rows else []
                self.rows = [self._whole(where, before + words)]
        elif self.is_loop and self.columns:
            self.rows.append(self._whole(where, _words(line)))

    def _whole(self, where: str, row: list[str]) -> list[str]:
        """Refuse a row that has not a word for each column."""
        if len(row) != len(self.columns):
            raise expected(where, f"a STAR file's {len(self.columns)} values", len(row))
        return row

    def table(self, path: PathLike) -> pd.DataFrame:
        """The table; columns of numbers as numbers, others as text."""
        import pandas as pd

        for column in self.columns:
            if self.columns.count(column) > 1:
                raise expected(path, f"one column {column} in data_{self.name}", "two")
        words = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return pd.DataFrame(
            {
                name: _column(name, column)
                for name, column in zip(self.columns, words, strict=True)
            }
        )


def _column(name: str, words: Sequence[str]) -> pd.Series:
    """Numbers if all words are, else text."""
    import pandas as pd

    text = pd.Series(words, dtype=object)
    if name in TEXT_COLUMNS:
        return text
    try:
        return pd.to_numeric(text.replace("<NA>", "nan"))
    except (ValueError, TypeError):  # TypeError of bytes that are not UTF-8
        return text


def _blocks(path: PathLike, lines: Sequence[str]) -> Iterator[_Block]:
    """Tables of a file as they come."""
    block: _Block | None = None
    numbered = [
        (number, line.strip(" \t"))
        for number, line in enumerate(lines, start=1)
        if line.strip(" \t") and not line.lstrip(" \t").startswith("#")
    ]
    following = [*(line for _, line in numbered), ""][1:]
    for (number, line), next_line in zip(numbered, following, strict=True):
        if _begins_a_block(line, next_line, block):
            if block is not None:
                yield block
            block = _Block(_words(line)[0][len("data_") :])
        elif block is not None:
            block.add(f"{path} line {number}", line)
    if block is not None:
        yield block


def _begins_a_block(line: str, next_line: str, block: _Block | None) -> bool:
    """Tell a table's name from a row that begins like one."""
    if not line.startswith("data_") or len(_words(line)) > 1:
        return False
    is_in_rows = block is not None and block.is_loop and len(block.columns) == 1
    return not is_in_rows or next_line.startswith(("loop_", "_"))


def _words(line: str) -> list[str]:
    """Words of a line, without their quotes and without a comment."""
    if not any(mark in line for mark in "\"'#"):
        return [word for word in line.replace("\t", " ").split(" ") if word]
    matches = _WORD.finditer(line)
    return [
        match[match.lastgroup or 0] for match in matches if match.lastgroup != "comment"
    ]


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
