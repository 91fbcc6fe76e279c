"""The report for other programs: tidy tables, one for each figure and each table of the page."""

from __future__ import annotations

from dataclasses import fields

from actionvit.pipeline.reporting.curves import curve_points
from actionvit.pipeline.reporting.model import Cost, ReliabilityBin, Report
from actionvit.pipeline.reporting.table import Table, Value, tidy
from actionvit.pipeline.reporting.text import METRIC_TITLES

Rows = list[list[Value]]


def csv_tables(report: Report) -> dict[str, Table]:
    """Return tidy tables by name, with one observation per row; empty ones are left out."""
    tables = {
        "summary": _summary(report),
        "splits": _splits(report),
        "per_class": _per_class(report),
        "confusion": _confusion(report),
        "reliability": _reliability(report),
        "cmc": _cmc(report),
        "comparisons": _comparisons(report),
        "per_class_differences": _differences(report),
        "metadata": _metadata(report),
        "cost": _cost(report),
        "search": _search(report),
        "curves": _curves(report),
        "projection": _projection(report),
        "neighbors": _neighbors(report),
        "near_duplicates": _near_duplicates(report),
    }
    return {name: table for name, table in tables.items() if any(table.rows)}


def _summary(report: Report) -> Table:
    rows: Rows = [
        [run.name, name, value.mean, value.std, *value.ci95]
        for run in report.runs
        for name, value in run.summary.items()
    ]
    return tidy(["run", "metric", "mean", "std", "ci95_low", "ci95_high"], rows)


def _splits(report: Report) -> Table:
    keys = ("name", "n_train", "n_test", *METRIC_TITLES)
    rows: Rows = [[run.name, *(getattr(split, key) for key in keys)] for run in report.runs for split in run.splits]
    return tidy(["run", "split", *keys[1:]], rows)


def _per_class(report: Report) -> Table:
    rows: Rows = [
        [run.name, row.class_, row.precision, row.recall, row.f1, row.support, *(row.recall_ci95 or (None, None))]
        for run in report.runs
        for row in run.per_class
    ]
    return tidy(["run", "class", "precision", "recall", "f1", "support", "recall_low", "recall_high"], rows)


def _comparisons(report: Report) -> Table:
    rows: Rows = [
        [c.a, c.b, name, d.value, d.se, d.std, *d.ci95, d.p, d.p_holm, d.detectable]
        for c in report.comparisons
        for name, d in c.delta.items()
    ]
    titles = ["baseline", "run", "metric", "difference", "se", "std", "ci95_low", "ci95_high"]
    return tidy([*titles, "p", "p_holm", "detectable"], rows)


def _differences(report: Report) -> Table:
    rows: Rows = [
        [
            *(c.a, c.b, row.class_, row.support, row.tests, row.sources, row.a, row.b, row.delta),
            *(*(row.ci95 or (None, None)), row.p, row.p_holm, row.testable),
        ]
        for c in report.comparisons
        for row in c.per_class
    ]
    titles = ["baseline", "run", "class", "support", "tests", "sources", "a", "b", "delta", "ci95_low", "ci95_high"]
    return tidy([*titles, "p", "p_holm", "testable"], rows)


def _confusion(report: Report) -> Table:
    names = report.class_names
    rows: Rows = [
        [run.name, name, other, count]
        for run in report.runs
        for name, line in zip(names, run.confusion, strict=True)
        for other, count in zip(names, line, strict=True)
    ]
    return tidy(["run", "true", "predicted", "count"], rows)


def _reliability(report: Report) -> Table:
    keys = [field.name for field in fields(ReliabilityBin)]
    rows: Rows = [[run.name, *(getattr(row, key) for key in keys)] for run in report.runs for row in run.reliability]
    return tidy(["run", *keys], rows)


def _cmc(report: Report) -> Table:
    return tidy(
        ["run", "k", "accuracy"], [[run.name, k, v] for run in report.runs for k, v in enumerate(run.cmc, start=1)]
    )


def _cost(report: Report) -> Table:
    keys = [field.name for field in fields(Cost)]
    rows: Rows = []
    for run in report.runs:
        top1 = run.summary["top1"]
        rows.append([run.name, top1.mean, *top1.ci95, *(getattr(run.cost, key) for key in keys)])
    return tidy(["run", "top1", "top1_low", "top1_high", *keys], rows)


def _metadata(report: Report) -> Table:
    rows: Rows = [
        [row.field, row.value, row.n, run.name, result.accuracy, *result.ci95]
        for row in report.by_metadata
        for run, result in zip(report.runs, row.runs, strict=True)
    ]
    return tidy(["field", "value", "n", "run", "accuracy", "ci95_low", "ci95_high"], rows)


def _search(report: Report) -> Table:
    rows: Rows = [
        [run.name, entry["split"], entry.get("variant"), entry["parameter"], value, score, value == entry["chosen"]]
        for run in report.runs
        for entry in run.search
        if entry.get("scored", 1)
        for value, score in zip(entry["values"], entry["scores"], strict=True)
    ]
    return tidy(["run", "split", "variant", "parameter", "value", "score", "chosen"], rows)


def _curves(report: Report) -> Table:
    rows: Rows = [
        [run.name, figure["name"], name, figure["x_name"], x, figure["y_name"], y]
        for run in report.runs
        for figure, name, x, y in curve_points(run)
    ]
    return tidy(["run", "figure", "series", "x_name", "x", "y_name", "y"], rows)


def _projection(report: Report) -> Table:
    points = report.analysis.projection.points if report.analysis else ()
    rows: Rows = [[point.id, point.true, point.x, point.y, point.correct] for point in points]
    return tidy(["id", "true", "x", "y", "correct"], rows)


def _neighbors(report: Report) -> Table:
    rows: Rows = [
        [clip.id, clip.split, rank, near.id, near.class_, near.cosine]
        for clip in (report.analysis.neighbors if report.analysis else ())
        for rank, near in enumerate(clip.nearest, start=1)
    ]
    return tidy(["id", "split", "rank", "neighbor", "class", "cosine"], rows)


def _near_duplicates(report: Report) -> Table:
    duplicates = report.analysis.duplicates if report.analysis else None
    rows: Rows = [
        [*pair.clips, pair.cosine, pair.same_file, pair.same_class, pair.times]
        for pair in (duplicates.pairs if duplicates else ())
    ]
    return tidy(["clip", "other", "cosine", "same_file", "same_class", "times"], rows)
