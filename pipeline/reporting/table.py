"""One kind of table for every output: HTML (by `macros.html`), CSV, Markdown and LaTeX. Independent of the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actionvit import escape
from actionvit.pipeline.reporting.model import Interval
from actionvit.pipeline.reporting.text import percent, signed

PALETTE_SIZE = 6
"""Number of colors for runs; a seventh run takes the first one's."""

MANY_ROWS = 30
"""LaTeX tables with at least this many rows are set in a smaller font, to fit on one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An interval on a scale, in percent of its width: a line from `left`, `width` long, and a dot."""

    dot: float
    left: float
    width: float
    zero: float | None = None
    """Position of zero, on a scale of differences."""
    run: int | None = None
    """Number of the color."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table: text, with small lines below, or marks on a scale."""

    text: str = ""
    value: float | str = ""
    """Value for sorting and for CSV; empty sorts last."""
    notes: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    run: int | None = None
    """Number of the color."""


Value = Cell | str | float | None
"""A cell; in tables that are written as CSV only, its plain value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The head of a column; with `ends` it is a scale for marks, and only screen readers get its title."""

    title: str
    ends: tuple[str, ...] = ()
    """Labels of the scale, from left to right."""
    words: bool = False
    """Whether its cells are words, which are left-aligned."""
    run: int | None = None
    """Number of the run whose mark precedes the title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with its caption; the first cell of a row is its heading."""

    columns: Sequence[Column]
    bodies: Sequence[tuple[str, Sequence[Sequence[Value]]]]
    """Rows, in groups with a title of their own; a single group may have none."""
    id: str = ""
    caption: str = ""
    groups: Sequence[tuple[str, int, int | None]] = ()
    """Title, columns spanned and color of each group above the columns."""
    sortable: bool = False
    source: str = ""
    """The CSV file with the same numbers."""

    @property
    def rows(self) -> Iterator[Sequence[Value]]:
        """All rows of all groups."""
        return (row for _, rows in self.bodies for row in rows)


def tidy(titles: Sequence[str], rows: Sequence[Sequence[Value]]) -> Table:
    """Return a table of plain values for other programs: one observation per row."""
    return Table(columns=[Column(title=title) for title in titles], bodies=[("", rows)])


def to_csv(table: Table) -> str:
    """Return a table's values as CSV, with the same line ends on every system; None is an empty field."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([escape.csv_cell(column.title) for column in table.columns])
    for row in table.rows:
        writer.writerow([escape.csv_cell(v) if isinstance(v, str) else v for v in map(_value, row)])
    return file.getvalue()


def to_markdown(table: Table) -> str:
    """Return a table in Markdown, without its caption; small lines follow the text of their cell."""
    above = [title for title, span, _ in table.groups for _ in range(span)] or [""] * len(table.columns)
    titles = [f"{group} {column.title}".strip() for group, column in zip(above, table.columns, strict=True)]
    rules = ["---" if column.words else "--:" for column in table.columns]
    rows = [[" ".join((_text(cell), *_notes(cell))) for cell in row] for row in table.rows]
    lines = [[escape.markdown(cell) for cell in row] for row in (titles, *rows)]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{'|'.join(rules)}|", *body]) + "\n"


def to_latex(table: Table) -> str:
    """Return a floating table for the package booktabs; small lines of a row make a row of their own.

    The caption is the first sentence of the table's; the others stand below the table.
    """
    first, end, others = table.caption.partition(". ")
    alignment = "".join("l" if column.words else "r" for column in table.columns)
    size = "\\scriptsize" if sum(1 for _ in table.rows) > MANY_ROWS else "\\small"
    lines = ["\\begin{table}", "\\centering", size, "\\setlength{\\tabcolsep}{4pt}"]
    lines += [f"\\caption{{{escape.latex(first + end.strip())}}}", f"\\label{{tab:{table.id}}}"]
    lines += [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule"]
    lines += _latex_groups(table.groups) if table.groups else []
    lines += [_latex_row([column.title for column in table.columns]), "\\midrule"]
    for row in table.rows:
        lines.append(_latex_row([_text(cell) for cell in row]))
        notes = [" ".join(_notes(cell)) for cell in row]
        if any(notes):
            lines.append(" & ".join(f"\\footnotesize {escape.latex(note)}" if note else "" for note in notes) + " \\\\")
    below = [f"\n{{\\footnotesize {escape.latex(others)}\\par}}"] if others else []
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *below, "\\end{table}"]) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A range of numbers on which marks are placed."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[str, ...]:
        """Its labels in percent; zero is labeled on a scale of differences."""
        if self.low < 0:
            return (signed(self.low, 0), "0", signed(self.high, 0))
        return (percent(self.low, 0), percent(self.high, 0))

    def bar(self, value: float, interval: Interval, run: int | None = None) -> Bar:
        """Return the marks of a value and its interval."""
        left, right = (self._position(end) for end in interval)
        zero = self._position(0.0) if self.low < 0 else None
        return Bar(dot=self._position(value), left=left, width=round(right - left, 2), zero=zero, run=run)

    def _position(self, value: float) -> float:
        fraction = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, fraction)), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A confusion matrix, classes in the order shown."""

    run: int
    """Number of the run."""
    tint: int
    """Number of the color of its name."""
    name: str
    names: Sequence[str]
    first: tuple[int, int] | None
    """Row and column of the largest confusion, whose clips are listed first."""
    rows: Sequence[Sequence[Mapping[str, Any] | None]]
    """Cells with `text`, `fill` (percent of full color), `dark`, `label`; None for no results."""


def tint(run: int) -> int:
    """Return the number of a run's color."""
    return run % PALETTE_SIZE


def _value(cell: Value) -> str | float | None:
    if not isinstance(cell, Cell):
        return cell
    return cell.text if cell.value == "" else cell.value


def _text(cell: Value) -> str:
    return cell.text if isinstance(cell, Cell) else "" if cell is None else str(cell)


def _notes(cell: Value) -> tuple[str, ...]:
    return cell.notes if isinstance(cell, Cell) else ()


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape.latex, cells)) + " \\\\"


def _latex_groups(groups: Sequence[tuple[str, int, int | None]]) -> list[str]:
    """Return a row of titles over several columns each, and the rules below them."""
    cells, rules, column = [], [], 1
    for title, span, _ in groups:
        cells.append(f"\\multicolumn{{{span}}}{{c}}{{{escape.latex(title)}}}")
        if title:
            rules.append(f"\\cmidrule(lr){{{column}-{column + span - 1}}}")
        column += span
    return [" & ".join(cells) + " \\\\", " ".join(rules)]
