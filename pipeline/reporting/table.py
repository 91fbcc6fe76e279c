"""What a page's tables are made of: text, what a sort compares, where a mark stands. Knows nothing of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actionvit.pipeline.reporting.text import PALETTE_SIZE, percent, signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An interval on a scale, in percent of its width: a line from `left`, `width` long, a dot `at`."""

    at: float
    left: float
    width: float
    zero: float | None = None
    """Where the scale's zero lies, for differences."""
    run: int | None = None
    """Whose colour it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table: text, with small lines below, or marks on a scale."""

    text: str = ""
    value: float | str = ""
    """What a sort compares; empty sorts last."""
    notes: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    run: int | None = None
    """Whose colour it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The head of a column; with `ends` it is a scale that marks stand on, and its title is for those who hear it."""

    title: str
    ends: tuple[str, ...] = ()
    """Labels of the scale, from left to right."""
    words: bool = False
    """Whether its cells are words, which stand left."""
    run: int | None = None
    """Whose mark stands before the title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that says what it shows; the first cell of a row heads it."""

    id: str
    caption: str
    columns: Sequence[Column]
    bodies: Sequence[tuple[str, Sequence[Sequence[Cell]]]]
    """Rows, in groups with a title of their own; a single group may have none."""
    groups: Sequence[tuple[str, int, int | None]] = ()
    """Title, columns spanned and run of each group above the columns."""
    sortable: bool = False
    source: str = ""
    """The CSV file with the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A stretch of numbers that marks are placed on."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[str, ...]:
        """Its labels in percent; a scale of differences says where zero is."""
        if self.low < 0:
            return (signed(self.low, 0), "0", signed(self.high, 0))
        return (percent(self.low, 0), percent(self.high, 0))

    def bar(self, at: float, ends: Sequence[float], run: int | None = None) -> Bar:
        """Return where a value and its interval lie."""
        left, right = (self._place(end) for end in ends)
        zero = self._place(0.0) if self.low < 0 else None
        return Bar(at=self._place(at), left=left, width=round(right - left, 2), zero=zero, run=run)

    def _place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A confusion matrix, classes in the order shown."""

    run: int
    """Place among the runs."""
    tint: int
    """Whose colour its name takes."""
    name: str
    names: Sequence[str]
    numbers: Sequence[int]
    """Class numbers in that order."""
    first: tuple[int, int] | None
    """Row and column of the largest confusion: what is told before anyone points at a square."""
    rows: Sequence[Sequence[Mapping[str, Any] | None]] = field(default_factory=tuple)
    """Squares with `text`, `share` (percent of full colour), `dark`, `said`; None where there is nothing."""


def tint(run: int) -> int:
    """Return which colour a run takes."""
    return run % PALETTE_SIZE
