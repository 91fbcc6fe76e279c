"""The report for other programs: tidy tables, one a figure and one a table of the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from actionvit.pipeline.reporting.curves import curve_points
from actionvit.pipeline.reporting.text import METRIC_TITLES

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
        "cost": _cost(found),
        "search": _search(found),
        "curves": _curves(found),
        "projection": _projection(found),
        "neighbours": _neighbours(found),
        "near_duplicates": _near_duplicates(found),
    }
    return made | {name: table for name, table in optional.items() if len(table) > 1}


def as_csv(table: Table) -> str:
    """Return a table as CSV, lines ending alike on every system; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


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


def _cost(found: Found) -> Table:
    keys = ("gmac", "clips_per_second", "device", "extract", "fit", "predict")
    rows: Table = [["run", "top1", "top1_low", "top1_high", *keys]]
    for run in found["runs"]:
        top1 = run["summary"]["top1"]
        rows.append([run["name"], top1["mean"], *top1["ci95"], *(run["cost"].get(key) for key in keys)])
    return rows


def _metadata(found: Found) -> Table:
    rows: Table = [["field", "value", "n", "run", "accuracy", "ci95_low", "ci95_high"]]
    for row in found["by_metadata"]:
        for run, one in zip(found["runs"], row["runs"], strict=True):
            rows.append([row["field"], row["value"], row["n"], run["name"], one["accuracy"], *one["ci95"]])
    return rows


def _search(found: Found) -> Table:
    rows: Table = [["run", "split", "variant", "parameter", "value", "score", "chosen"]]
    for run in found["runs"]:
        for one in (each for each in run["search"] if each.get("scored", 1)):
            head = (run["name"], one["split"], one.get("variant"), one["parameter"])
            for value, score in zip(one["values"], one["scores"], strict=True):
                rows.append([*head, value, score, value == one["chosen"]])
    return rows


def _curves(found: Found) -> Table:
    rows: Table = [["run", "figure", "series", "x_name", "x", "y_name", "y"]]
    for run in found["runs"]:
        for figure, name, x, y in curve_points(run):
            rows.append([run["name"], figure["name"], name, figure["x_name"], x, figure["y_name"], y])
    return rows


def _projection(found: Found) -> Table:
    keys = ("id", "true", "x", "y", "right")
    points = found["analysis"]["projection"]["points"] if found["analysis"] else []
    return [list(keys), *([point[key] for key in keys] for point in points)]


def _neighbours(found: Found) -> Table:
    rows: Table = [["id", "split", "rank", "neighbour", "class", "cosine"]]
    for one in found["analysis"]["neighbours"] if found["analysis"] else ():
        for rank, near in enumerate(one["nearest"], 1):
            rows.append([one["id"], one["split"], rank, near["id"], near["class"], near["cosine"]])
    return rows


def _near_duplicates(found: Found) -> Table:
    keys = ("cosine", "same_file", "same_class", "times")
    leaks = (found["analysis"] or {}).get("duplicates") or {"pairs": []}
    return [["clip", "other", *keys], *([*pair["clips"], *(pair[key] for key in keys)] for pair in leaks["pairs"])]
