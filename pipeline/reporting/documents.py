"""The report as text for others to typeset: Markdown for a README, LaTeX tables (booktabs) for a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from actionvit import escape
from actionvit.pipeline.reporting.model import Report
from actionvit.pipeline.reporting.table import Cell, Column, Table, Value, to_latex, to_markdown
from actionvit.pipeline.reporting.text import (
    BY_SOURCE,
    INTERVAL,
    METRIC_TITLES,
    coverage_line,
    from_to,
    metric,
    p_value,
    percent,
    scored_on,
    signed,
)

if TYPE_CHECKING:
    from jinja2 import Environment

ROWS = 60
"""Rows of a LaTeX table that fit one page."""

SHORT = 14
"""Letters of a run's name with which four of them fit the width of a page."""


T = TypeVar("T")


class _Escaped(str):
    """Text that is already in the syntax of its format."""


def markdown(report: Report) -> str:
    """Return the report for a README: results, verdicts, coverage, classes, most confused pairs."""
    environment = templates(_in_markdown)
    environment.filters["table"] = lambda table: _Escaped(to_markdown(table))
    return environment.get_template("report.md").render(
        report=report,
        results=_results(report, len(report.runs)),
        classes=_classes(report, 1, len(report.class_names)),
        coverage=coverage_line,
    )


def latex(report: Report) -> str:
    """Return tables of results, classes and differences that need the package booktabs, each at most one page."""
    together = 4 if max(len(run.name) for run in report.runs) <= SHORT else 2
    tables = [*_results(report, together), *_classes(report, 2, ROWS), *_differences(report, 2, ROWS)]
    return "% Needs \\usepackage{booktabs}\n" + "\n".join(map(to_latex, tables))


def _in_markdown(value: object) -> str:
    return value if isinstance(value, _Escaped) else escape.markdown(str(value))


@cache
def templates(finalize: Callable[[Any], Any]) -> Environment:
    """Return the templates of a page or a text, whose values pass through `finalize`.

    Only those whose name ends in `.html` are escaped by themselves.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=PackageLoader("actionvit.pipeline.reporting", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )


def _results(report: Report, together: int) -> list[Table]:
    """Return one row per metric and one column per run, at most `together` runs in a table."""
    n = len(report.runs[0].splits)
    over = "One split" if n == 1 else f"Mean over {n} splits ± standard deviation"
    caption = f"{over}; in brackets the {INTERVAL} {BY_SOURCE}. Fractions in percent.{scored_on(report)}"
    caption += "".join(f" {comparison.verdict}" for comparison in report.comparisons[:3])
    tables = []
    for part, runs in enumerate(_parts(report.runs, together)):
        rows: list[list[Value]] = []
        for name, title in METRIC_TITLES.items():
            cells = []
            for run in runs:
                value = run.summary[name]
                spread = "" if value.std is None else f" ± {metric(name, value.std)}"
                interval = f"[{metric(name, value.ci95[0])}, {metric(name, value.ci95[1])}]"
                cells.append(Cell(text=f"{metric(name, value.mean)}{spread}", notes=(interval,)))
            rows.append([title, *cells])
        columns = [Column(title="Metric", words=True), *(Column(title=run.name) for run in runs)]
        table = Table(id=_label("results", part), caption=_caption(caption, part), columns=columns, bodies=[("", rows)])
        tables.append(table)
    return tables


def _classes(report: Report, together: int, most: int) -> list[Table]:
    """Return precision, recall and F1 of each class, at most `together` runs and `most` classes in a table."""
    caption = "Precision (P), recall (R) and F1 per class in percent, pooled over the splits; n, test results."
    caption += scored_on(report)
    tables: list[Table] = []
    for runs in _parts(report.runs, together):
        for numbers in _parts(range(len(report.class_names)), most):
            rows: list[list[Value]] = []
            for number in numbers:
                measured = [run.per_class[number] for run in runs]
                values = [percent(value) for row in measured for value in (row.precision, row.recall, row.f1)]
                rows.append([report.class_names[number], f"{measured[0].support}", *values])
            part = len(tables)
            titles = ["Class", "n", *["P", "R", "F1"] * len(runs)]
            table = Table(
                id=_label("classes", part),
                caption=_caption(caption, part),
                columns=[Column(title=title, words=title == "Class") for title in titles],
                bodies=[("", rows)],
                groups=[("", 1, None), ("", 1, None), *((run.name, 3, None) for run in runs)],
            )
            tables.append(table)
    return tables


def _differences(report: Report, together: int, most: int) -> list[Table]:
    """Return the differences of recall of each class, at most `together` comparisons and `most` classes in a table."""
    caption = f"Difference of recall (ΔR) per class in percentage points, with its {INTERVAL} {BY_SOURCE}; p, paired "
    caption += "permutation test by source after Holm’s correction over the classes."
    tables: list[Table] = []
    for comparisons in _parts(report.comparisons, together):
        for numbers in _parts(range(len(report.class_names)), most):
            rows: list[list[Value]] = []
            for number in numbers:
                cells = []
                for comparison in comparisons:
                    row = comparison.per_class[number]
                    cells += [signed(row.delta), from_to(row.ci95) if row.ci95 else "–", p_value(row.p_holm)]
                rows.append([report.class_names[number], *cells])
            part = len(tables)
            titles = ["Class", *["ΔR", "95 % CI", "p"] * len(comparisons)]
            table = Table(
                id=_label("differences", part),
                caption=_caption(caption, part),
                columns=[Column(title=title, words=title == "Class") for title in titles],
                bodies=[("", rows)],
                groups=[("", 1, None), *((f"{pair.b} − {pair.a}", 3, None) for pair in comparisons)],
            )
            tables.append(table)
    return tables


def _parts(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """Return consecutive parts of about equal length, none longer than `most`."""
    count = -(-len(items) // most)
    return [items[len(items) * part // count : len(items) * (part + 1) // count] for part in range(count)]


def _label(name: str, part: int) -> str:
    return f"{name}-{part + 1}" if part else name


def _caption(caption: str, part: int) -> str:
    """Return the caption in full once; later parts refer to the first."""
    return caption if not part else f"{caption.partition(' per class')[0].partition(';')[0]} (continued)."
