"""What a report says of each run by itself; every number of it, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.evaluation.intervals import paired_interval, share_interval
from actionvit.evaluation.metrics import cmc, confusion, per_class, predicted, reliability
from actionvit.pipeline.datasets.names import parse_metadata, stem
from actionvit.pipeline.runs import Predictions, Run

CONFUSED_PAIRS = 12
"""Most confused pairs that are listed."""

METADATA = {
    "camera_motion": "Camera",
    "viewpoint": "Viewpoint",
    "quality": "Quality",
    "body_part": "Visible body part",
    "people": "People",
}
"""What an HMDB51 name tells of its clip, with the report's word for it."""


def describe(run: Run, name: str = "") -> dict[str, Any]:
    """Return a run's section of `report.json`, called `name`: its metrics as stored, the rest pooled over its splits.

    Raises
    ------
    ActionVitError
        If `metrics.json` was not made from `predictions.npz`.
    """
    found, info = run.predictions, run.info
    cells = confusion(found.true, found.scores)
    stored = np.sum([split["confusion"] for split in run.metrics["splits"]], axis=0)
    if not np.array_equal(cells, stored):
        raise ActionVitError(
            f"{run.folder}: metrics.json and predictions.npz tell different stories; make the run again"
        )
    return {
        "name": name or run.name,
        "folder": str(run.folder),
        "variant": info.get("variant"),
        "head": info.get("head", {}),
        "splits": run.metrics["splits"],
        "summary": run.metrics["summary"],
        "per_class": [
            {**row, "recall_ci95": _recall_interval(found, number)}
            for number, row in enumerate(per_class(cells, found.class_names))
        ],
        "confusion": cells.tolist(),
        "most_confused": most_confused(cells, found.class_names),
        "cmc": cmc(found.true, found.scores).tolist(),
        "reliability": reliability(found.true, found.scores),
        "cost": {"gmac": info.get("gmac"), **info.get("timings", {})},
        "coverage": info.get("coverage", {}),
        "leaks": info.get("leaks", {}),
        "search": info.get("search", []),
        "curves": info.get("curves", []),
        "provenance": {
            key: info.get(key)
            for key in ("command", "versions", "dataset", "protocol", "store", "seeds")
            if key in info
        },
    }


def most_confused(cells: NDArray[np.int64], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs with most mistakes: `true`, `predicted`, their `count`, its `share` of the true class's results.

    Ties go to the larger share, then to class order.
    """
    support = np.maximum(cells.sum(axis=1), 1)
    pairs = [
        {
            "true": class_names[row],
            "predicted": class_names[column],
            "count": int(cells[row, column]),
            "share": float(cells[row, column] / support[row]),
        }
        for row, column in zip(*np.nonzero(cells), strict=True)
        if row != column
    ]
    return sorted(pairs, key=lambda pair: (-int(pair["count"]), -float(pair["share"])))[:CONFUSED_PAIRS]


def row_order(found: Predictions) -> NDArray[np.intp]:
    """Return rows by split, then id: the same order of clips for all runs that tested the same."""
    return np.lexsort((found.id, found.split))


def by_metadata(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return accuracy by what the clips' names tell (HMDB51's pattern), empty where they follow none.

    Each row has `field`, `value`, `n` (test results), `runs` (`accuracy`, `ci95` each), and with several runs `deltas`
    (`value`, `ci95`) of each against the first. Runs must hold the same clips (see `compare`).
    """
    first, order = runs[0].predictions, [row_order(run.predictions) for run in runs]
    labels = [_metadata(first, row) for row in order[0]]
    right = [
        (predicted(run.predictions.scores) == run.predictions.true)[rows] for run, rows in zip(runs, order, strict=True)
    ]
    cluster = first.cluster[order[0]]
    rows: list[dict[str, Any]] = []
    for field, title in METADATA.items():
        told = np.array([label[field] if label else None for label in labels], dtype=object)
        values = sorted({value for value in told if value is not None})
        for value in values if len(values) > 1 else ():  # one value sets nothing apart
            own = told == value
            shares = [
                {"accuracy": float(hit[own].mean()), "ci95": _rounded(share_interval(hit[own], cluster[own]))}
                for hit in right
            ]
            gains = [hit[own].astype(int) - right[0][own].astype(int) for hit in right[1:]]
            deltas = [
                {"value": float(gain.mean()), "ci95": _rounded(paired_interval(gain, cluster[own]))} for gain in gains
            ]
            rows.append({"field": title, "value": str(value), "n": int(own.sum()), "runs": shares, "deltas": deltas})
    return rows


def _recall_interval(found: Predictions, number: int) -> list[float] | None:
    own = found.true == number
    if not own.any():
        return None
    return _rounded(share_interval(predicted(found.scores[own]) == number, found.cluster[own]))


def _metadata(found: Predictions, row: int) -> dict[str, Any] | None:
    metadata = parse_metadata(stem(str(found.id[row])))
    return metadata._asdict() if metadata else None


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(end, 6) for end in interval]
