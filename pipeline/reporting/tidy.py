"""The report for other programs and for a README: tidy tables as CSV, and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from actionvit.pipeline.reporting.wording import METRIC_TITLES, coverage_line, headline, percent

Found = Mapping[str, Any]
Table = list[list[Any]]


def tables(found: Found) -> dict[str, Table]:
    """Return tidy tables by name, one a figure and one a table of the report: a header, then a row an observation."""
    made = {
        "summary": _summary(found),
        "splits": _splits(found),
        "per_class": _per_class(found),
        "confusion": _confusion(found),
        "reliability": _reliability(found),
        "cmc": _cmc(found),
    }
    optional = {
        "comparisons": _comparisons(found),
        "per_class_differences": _differences(found),
        "metadata": _metadata(found),
        "search": _search(found),
        "curves": _curves(found),
        "projection": _projection(found),
    }
    return made | {name: table for name, table in optional.items() if len(table) > 1}


def write_csv(path: Path, table: Table) -> Path:
    """Write a table, lines ending alike on every system."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    return path


def markdown(found: Found) -> str:
    """Return the report for a README: headline, verdicts, coverage, classes, confused pairs."""
    titles = list(METRIC_TITLES.items())
    lines = ["| run | " + " | ".join(title for _, title in titles) + " |", "|---" + "|--:" * len(titles) + "|"]
    for run in found["runs"]:
        cells = [headline(run["summary"][name], name) for name, _ in titles]
        lines.append(f"| {_md(run['name'])} | " + " | ".join(cells) + " |")
    lines += ["", "Mean over the splits ± their standard deviation [95 % interval by source].", ""]
    lines += [f"- {_md(comparison['verdict'])}" for comparison in found["comparisons"]]
    lines += [f"- {_md(run['name'])}: {coverage_line(run['coverage'])}." for run in found["runs"]]
    for run in found["runs"]:
        lines += ["", f"**{_md(run['name'])}**, pooled over the splits:", ""]
        lines += ["| class | precision | recall | F1 | support |", "|---|--:|--:|--:|--:|"]
        for row in run["per_class"]:
            cells = [percent(row[key]) for key in ("precision", "recall", "f1")]
            lines.append(f"| {_md(row['class'])} | {' | '.join(cells)} | {row['support']} |")
        worst = [
            f"{pair['true']} taken for {pair['predicted']} ({pair['count']}×)" for pair in run["most_confused"][:5]
        ]
        lines += ["", f"Most confused: {_md('; '.join(worst)) or 'nothing'}."]
    return "\n".join(lines) + "\n"


def _summary(found: Found) -> Table:
    rows: Table = [["run", "metric", "mean", "std", "ci95_low", "ci95_high"]]
    for run in found["runs"]:
        rows += [[run["name"], name, v["mean"], v["std"], *v["ci95"]] for name, v in run["summary"].items()]
    return rows


def _splits(found: Found) -> Table:
    keys = ("name", "n_train", "n_test", *METRIC_TITLES)
    rows: Table = [["run", "split", *keys[1:]]]
    return rows + [[run["name"], *(split[key] for key in keys)] for run in found["runs"] for split in run["splits"]]


def _per_class(found: Found) -> Table:
    keys = ("class", "precision", "recall", "f1", "support")
    rows: Table = [["run", *keys, "recall_low", "recall_high"]]
    for run in found["runs"]:
        rows += [
            [run["name"], *(row[k] for k in keys), *(row["recall_ci95"] or (None, None))] for row in run["per_class"]
        ]
    return rows


def _comparisons(found: Found) -> Table:
    rows: Table = [
        ["baseline", "run", "metric", "difference", "ci95_low", "ci95_high", "p_clips", "p_sources", "p_holm"]
    ]
    for one in found["comparisons"]:
        p = [one["p_clips"], one["p_sources"], one["p_holm"]]
        rows += [[one["a"], one["b"], name, d["value"], *d["ci95"], *p] for name, d in one["delta"].items()]
    return rows


def _differences(found: Found) -> Table:
    keys = ("class", "support", "a", "b", "delta")
    rows: Table = [["baseline", "run", *keys, "ci95_low", "ci95_high", "p", "p_holm"]]
    for one in found["comparisons"]:
        for row in one["per_class"]:
            ends = row["ci95"] or (None, None)
            rows.append([one["a"], one["b"], *(row[key] for key in keys), *ends, row["p"], row["p_holm"]])
    return rows


def _confusion(found: Found) -> Table:
    names = found["class_names"]
    rows: Table = [["run", "true", "predicted", "count"]]
    for run in found["runs"]:
        for name, line in zip(names, run["confusion"], strict=True):
            rows += [[run["name"], name, other, count] for other, count in zip(names, line, strict=True)]
    return rows


def _reliability(found: Found) -> Table:
    keys = ("lower", "upper", "count", "confidence", "accuracy")
    rows: Table = [["run", *keys]]
    return rows + [[run["name"], *(row[key] for key in keys)] for run in found["runs"] for row in run["reliability"]]


def _cmc(found: Found) -> Table:
    rows: Table = [["run", "k", "accuracy"]]
    return rows + [[run["name"], k, value] for run in found["runs"] for k, value in enumerate(run["cmc"], 1)]


def _metadata(found: Found) -> Table:
    rows: Table = [["field", "value", "n", "run", "accuracy", "ci95_low", "ci95_high"]]
    for row in found["by_metadata"]:
        for run, one in zip(found["runs"], row["runs"], strict=True):
            rows.append([row["field"], row["value"], row["n"], run["name"], one["accuracy"], *one["ci95"]])
    return rows


def _search(found: Found) -> Table:
    rows: Table = [["run", "split", "parameter", "value", "score", "chosen"]]
    for run in found["runs"]:
        for one in run["search"]:
            for value, score in zip(one["values"], one["scores"], strict=True):
                rows.append([run["name"], one["split"], one["parameter"], value, score, value == one["chosen"]])
    return rows


def _curves(found: Found) -> Table:
    rows: Table = [["run", "figure", "series", "x_name", "x", "y_name", "y"]]
    for run in found["runs"]:
        for figure, name, x, y in curve_points(run):
            rows.append([run["name"], figure["name"], name, figure["x_name"], x, figure["y_name"], y])
    return rows


def curve_points(run: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, float, float]]:
    """Yield figure, series name, x and y of every point of a run's curves."""
    for figure in run["curves"]:
        for series in figure["series"]:
            for x, y in zip(series["x"], series["y"], strict=True):
                yield figure, series["name"], x, y


def _projection(found: Found) -> Table:
    keys = ("id", "true", "x", "y", "right")
    points = found["analysis"]["projection"]["points"] if found["analysis"] else []
    return [list(keys), *([point[key] for key in keys] for point in points)]


def _md(text: str) -> str:
    return "".join(f"\\{c}" if c in "|<>*`" else c for c in text)
