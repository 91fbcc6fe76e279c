"""Curves of the report: what a search scored, and the curves that a run brings along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True, kw_only=True)
class Chart:
    """Lines of one figure."""

    x_name: str
    y_name: str
    log: bool = False
    lines: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    """x and y by name."""


def charts(runs: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """Return charts by name: one a searched number over all runs that searched it, then each run's own curves.

    Parameters
    ----------
    runs : sequence of mapping
        Sections of `report.json`, with `name`, `search` and `curves`.
    """
    made: dict[str, Chart] = {}
    for run in runs:
        if line := _searched(run["search"]):
            first = run["search"][0]
            name = f"search-{first['parameter']}"
            y_name = f"{first.get('criterion', 'score')} inside the training side"
            chart = made.setdefault(name, Chart(x_name=first["parameter"], y_name=y_name, log=_wide(line[0])))
            chart.lines[run["name"]] = line
    for run in runs:
        for curve in run["curves"]:
            chart = Chart(x_name=curve["x_name"], y_name=curve["y_name"])
            chart.lines = {series["name"]: (series["x"], series["y"]) for series in curve["series"]}
            made[f"{curve['name']}-{run['name']}"] = chart
    return made


def _searched(search: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]] | None:
    """Return values and their mean score over the splits, where one number was searched over the same values in all."""
    if not search or len(search[0].get("values", ())) < 2:
        return None
    first = search[0]
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in first["values"])
    if not numeric or any((one["parameter"], one["values"]) != (first["parameter"], first["values"]) for one in search):
        return None
    mean = np.mean([one["scores"] for one in search], axis=0)
    order = np.argsort(first["values"], kind="stable")
    return [float(first["values"][i]) for i in order], [float(mean[i]) for i in order]


def _wide(x: Sequence[float]) -> bool:
    return min(x) > 0 and max(x) / min(x) >= 100
