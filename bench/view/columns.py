"""A table is a list of columns, each with a header and a getter for the cell of a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from tabulate import tabulate

Row = TypeVar("Row")
Item = TypeVar("Item")
Missing = Callable[[Row], "str | None"]
"""From a row to the text in place of its figures; None where it has figures."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table.

    Attributes:
        name: Its header, with the unit.
        cell: From a row to its cell: text on a page, an unrounded number in CSV.
        always: Whether rows without figures have it too.
    """

    name: str
    cell: Callable[[Row], Any]
    always: bool = False


def one_each(items: Iterable[Item], cell: Callable[[Item, Row], Any], header: str = "{}") -> list[Column[Row]]:
    """A column for each item, such as an implementation or a batch size.

    Args:
        items: From the left.
        cell: From an item and a row to the cell.
        header: The format that makes an item's header.
    """
    return [Column(header.format(item), partial(cell, item)) for item in items]


def markdown(
    columns: Sequence[Column[Row]], rows: Iterable[Row], *, left: int = 1, missing: Missing[Row] | None = None
) -> str:
    """A Markdown table; empty without rows.

    Args:
        columns: From the left.
        rows: From the top.
        left: How many columns are aligned left; all others are aligned right.
        missing: The text in the first column of figures for a row without figures; the others have a dash.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in _cells(columns, rows, missing, "–")]
    return _tabulated(columns, cells, "github", left)


def plain_text(columns: Sequence[Column[Row]], rows: Iterable[Row], *, missing: Missing[Row] | None = None) -> str:
    """The same for a terminal."""
    return _tabulated(columns, _cells(columns, rows, missing, "–"), "simple", 1)


def comma_separated(columns: Sequence[Column[Row]], rows: Iterable[Row], *, missing: Missing[Row] | None = None) -> str:
    """The same as CSV, headers included where there is no row; rows without figures have empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in columns)
    writer.writerows(_cells(columns, rows, missing, ""))
    return text.getvalue()


def _cells(
    columns: Sequence[Column[Row]], rows: Iterable[Row], missing: Missing[Row] | None, blank: str
) -> list[list[Any]]:
    first = next((column for column in columns if not column.always), None)
    cells = []
    for row in rows:
        reason = missing(row) if missing else None
        if reason is None:
            cells.append([column.cell(row) for column in columns])
        else:
            others = {column.name: reason if column is first else blank for column in columns}
            cells.append([column.cell(row) if column.always else others[column.name] for column in columns])
    return cells


def _tabulated(columns: Sequence[Column[Any]], cells: list[list[str]], style: str, left: int) -> str:
    if not cells:
        return ""
    headers = [column.name for column in columns]
    align = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(cells, headers, tablefmt=style, disable_numparse=True, colalign=align)
