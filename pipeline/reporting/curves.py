"""Curves of the report: scores of a hyper-parameter search, and the curves that runs record (learning curves)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from actionvit.pipeline.reporting.model import RunSection

FEW_SPLITS = 2
"""Up to this many splits are drawn as lines of their own; more as their mean and range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart, or the mean of several over the splits."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    """Minimum over the splits at each x; with `high`, where `y` is their mean."""
    high: list[float] | None = None


@dataclass(slots=True, kw_only=True)
class Chart:
    """Lines of one figure."""

    caption: str
    x_name: str
    y_name: str
    log: bool = False
    lines: list[Line] = field(default_factory=list)


def charts(runs: Sequence[RunSection]) -> dict[str, Chart]:
    """Return charts by file name: one per searched parameter over all runs that searched it, then each run's own.

    A run's curves whose names differ only in the split at the end (`loss, official-1`) make one chart.
    """
    result: dict[str, Chart] = {}
    searched = [(run, line) for run in runs if (line := _searched(run))]
    criteria = {run.search[0].get("criterion", "score") for run, _ in searched}
    for run, line in searched:
        parameter = run.search[0]["parameter"]
        criterion = run.search[0].get("criterion", "score").replace("_", " ")
        caption = f"Search of {parameter}: score of each value within the training set, mean over the splits."
        y_name = criterion if len(criteria) == 1 else "score"
        empty = Chart(caption=caption, x_name=parameter, y_name=y_name, log=_spans_decades(line.x))
        chart = result.setdefault(f"search-{_file_name(parameter)}", empty)
        chart.lines.append(line if len(criteria) == 1 else replace(line, name=f"{line.name}, {criterion}"))
    for run in runs:
        for title, by_split in _own(run).items():
            curve = next(iter(by_split.values()))
            of_run = f" of {run.name}" if len(runs) > 1 else ""
            over = "" if len(by_split) == 1 else f", {len(by_split)} splits"
            caption = f"{title[:1].upper()}{title[1:]}{of_run}{over}."
            chart = Chart(caption=caption, x_name=curve["x_name"], y_name=curve["y_name"])
            chart.lines = _lines(by_split)
            result[_file_name(f"{title}-{run.name}" if len(runs) > 1 else title)] = chart
    return result


def curve_points(run: RunSection) -> Iterator[tuple[Mapping[str, Any], str, float, float]]:
    """Yield figure, series name, x and y of every point of a run's curves."""
    for figure in run.curves:
        for series in figure["series"]:
            for x, y in zip(series["x"], series["y"], strict=True):
                yield figure, series["name"], x, y


def _searched(run: RunSection) -> Line | None:
    """Return values and mean scores over the splits where one number was searched over the same values in all."""
    search = [entry for entry in run.search if entry.get("scored", 1)]
    if not search or len(search[0].get("values", ())) < 2:
        return None
    first = search[0]
    if first["parameter"] == "epoch":  # learning curves show more of it
        return None
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in first["values"])
    if not numeric or any((e["parameter"], e["values"]) != (first["parameter"], first["values"]) for e in search):
        return None
    mean = np.mean([entry["scores"] for entry in search], axis=0)
    order = np.argsort(first["values"], kind="stable")
    x, y = [float(first["values"][i]) for i in order], [float(mean[i]) for i in order]
    return Line(name=run.name, x=x, y=y)


def _own(run: RunSection) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return a run's curves by title, then by split (by "" where a curve names no split)."""
    splits = {split.name for split in run.splits}
    curves: dict[str, dict[str, Mapping[str, Any]]] = {}
    for curve in run.curves:
        title, comma, split = curve["name"].rpartition(", ")
        title, split = (title, split) if comma and split in splits else (curve["name"], "")
        curves.setdefault(title, {})[split] = curve
    return curves


def _lines(by_split: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    names = dict.fromkeys(series["name"] for curve in by_split.values() for series in curve["series"])
    lines = {
        name: [
            Line(name=f"{name}, {split}" if split and len(by_split) > 1 else name, x=series["x"], y=series["y"])
            for split, curve in by_split.items()
            for series in curve["series"]
            if series["name"] == name
        ]
        for name in names
    }
    if len(by_split) <= FEW_SPLITS:
        return [line for points in lines.values() for line in points]
    return [_mean_and_range(name, points) for name, points in lines.items()]


def _mean_and_range(name: str, lines: Sequence[Line]) -> Line:
    """Return mean, minimum and maximum of several lines at every x that at least half of them reach."""
    values: dict[float, list[float]] = {}
    for line in lines:
        for x, value in zip(line.x, line.y, strict=True):
            values.setdefault(x, []).append(value)
    reached = sorted(x for x, ys in values.items() if 2 * len(ys) >= len(lines))
    return Line(
        name=f"{name}, mean of {len(lines)} splits" if len(lines) > 1 else name,
        x=reached,
        y=[float(np.mean(values[x])) for x in reached],
        low=[min(values[x]) for x in reached],
        high=[max(values[x]) for x in reached],
    )


def _file_name(text: str) -> str:
    """Return a name that any system accepts for a file: `loss, base` becomes `loss-base`."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "curve"


def _spans_decades(x: Sequence[float]) -> bool:
    return min(x) > 0 and max(x) / min(x) >= 100
