"""Curves of the report: what a search scored, and the curves that a run brings along (learning curves, sweeps)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

FEW_SPLITS = 2
"""Curves of so many splits are drawn one by one; of more, their mean and the stretch they take."""

Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart, or several of the same over the splits."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    """The least of the splits at each x; with `high`, where `y` is their mean."""
    high: list[float] | None = None


@dataclass(slots=True, kw_only=True)
class Chart:
    """Lines of one figure."""

    caption: str
    x_name: str
    y_name: str
    log: bool = False
    lines: list[Line] = field(default_factory=list)


def charts(runs: Sequence[Run]) -> dict[str, Chart]:
    """Return charts by the name of a file: one a searched number over all runs that searched it, then each run's own.

    A run's curves that differ only in the split behind their name (`loss, official-1`) make one chart.

    Parameters
    ----------
    runs : sequence of mapping
        Sections of `report.json`, with `name`, `search`, `curves` and `splits`.
    """
    made: dict[str, Chart] = {}
    searched = [(run, line) for run in runs if (line := _searched(run))]
    criteria = {run["search"][0].get("criterion", "score") for run, _ in searched}
    for run, line in searched:
        value, criterion = run["search"][0]["parameter"], run["search"][0].get("criterion", "score").replace("_", " ")
        caption = f"Search of {value}: what each value scored inside the training side, mean over the splits."
        y_name = criterion if len(criteria) == 1 else "score"
        empty = Chart(caption=caption, x_name=value, y_name=y_name, log=_wide(line.x))
        chart = made.setdefault(f"search-{_file_name(value)}", empty)
        chart.lines.append(line if len(criteria) == 1 else replace(line, name=f"{line.name}, {criterion}"))
    for run in runs:
        for title, by_split in _own(run).items():
            curve = next(iter(by_split.values()))
            of = f" of {run['name']}" if len(runs) > 1 else ""
            over = "" if len(by_split) == 1 else f", {len(by_split)} splits"
            caption = f"{title[:1].upper()}{title[1:]}{of}{over}."
            chart = Chart(caption=caption, x_name=curve["x_name"], y_name=curve["y_name"])
            chart.lines = _lines(by_split)
            made[_file_name(f"{title}-{run['name']}" if len(runs) > 1 else title)] = chart
    return made


def curve_points(run: Run) -> Iterator[tuple[Mapping[str, Any], str, float, float]]:
    """Yield figure, series name, x and y of every point of a run's curves."""
    for figure in run["curves"]:
        for series in figure["series"]:
            for x, y in zip(series["x"], series["y"], strict=True):
                yield figure, series["name"], x, y


def _searched(run: Run) -> Line | None:
    """Return values and their mean score over the splits, where one number was searched over the same values in all."""
    search = [one for one in run["search"] if one.get("scored", 1)]
    if not search or len(search[0].get("values", ())) < 2:
        return None
    first = search[0]
    if first["parameter"] == "epoch":  # learning curves show more of it
        return None
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in first["values"])
    if not numeric or any((one["parameter"], one["values"]) != (first["parameter"], first["values"]) for one in search):
        return None
    mean = np.mean([one["scores"] for one in search], axis=0)
    order = np.argsort(first["values"], kind="stable")
    x, y = [float(first["values"][i]) for i in order], [float(mean[i]) for i in order]
    return Line(name=run["name"], x=x, y=y)


def _own(run: Run) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return a run's curves by title, then by split (or by nothing, where a curve names none)."""
    splits = {split["name"] for split in run["splits"]}
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for curve in run["curves"]:
        title, comma, split = curve["name"].rpartition(", ")
        own = (title, split) if comma and split in splits else (curve["name"], "")
        found.setdefault(own[0], {})[own[1]] = curve
    return found


def _lines(by_split: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    names = dict.fromkeys(series["name"] for curve in by_split.values() for series in curve["series"])
    made = []
    for name in names:
        found = [
            Line(name=f"{name}, {split}" if split and len(by_split) > 1 else name, x=one["x"], y=one["y"])
            for split, curve in by_split.items()
            for one in curve["series"]
            if one["name"] == name
        ]
        made.append(found)
    if len(by_split) <= FEW_SPLITS:
        return [line for found in made for line in found]
    return [_spread(name, found) for name, found in zip(names, made, strict=True)]


def _spread(name: str, lines: Sequence[Line]) -> Line:
    """Return the mean of several lines, their least and greatest, at every x that at least half of them reach."""
    values: dict[float, list[float]] = {}
    for line in lines:
        for place, value in zip(line.x, line.y, strict=True):
            values.setdefault(place, []).append(value)
    x = sorted(place for place, found in values.items() if 2 * len(found) >= len(lines))
    return Line(
        name=f"{name}, mean of {len(lines)} splits" if len(lines) > 1 else name,
        x=x,
        y=[float(np.mean(values[place])) for place in x],
        low=[min(values[place]) for place in x],
        high=[max(values[place]) for place in x],
    )


def _file_name(text: str) -> str:
    """Return a name that any system takes for a file: `loss, base` becomes `loss-base`."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "curve"


def _wide(x: Sequence[float]) -> bool:
    return min(x) > 0 and max(x) / min(x) >= 100
