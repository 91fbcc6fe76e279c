"""Which clips are worth looking at: confident errors, and the worst of the worst classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.pipeline.reporting.describe import row_order
from actionvit.pipeline.runs import Run

CONFIDENT, WORST = "confident error", "worst class"


def hard_clips(
    runs: Sequence[Run], *, names: Sequence[str] = (), errors: int = 12, classes: int = 6, per_class: int = 2
) -> list[dict[str, Any]]:
    """Return the most confident errors of any run, then the worst clips of the worst classes; a clip appears once.

    Parameters
    ----------
    runs : sequence of Run
        On the same clips.
    names : sequence of str, optional
        What to call them; their own names by default.
    errors : int
        How many confident errors, by the score of the wrong class.
    classes, per_class : int
        How many of the classes with the lowest recall (mean over the runs), and how many clips of each, by the true
        class's score.

    Returns
    -------
    list of dict
        `id`, `split`, `true`, `why`, and in `results` for each run its `name`, the `predicted` class with its `score`,
        and the `true_score`.
    """
    orders = [row_order(run.predictions) for run in runs]
    found, rows = runs[0].predictions, orders[0]
    ids, true = found.id[rows], found.true[rows]
    scores = np.stack([run.predictions.scores[order] for run, order in zip(runs, orders, strict=True)])
    wrong = scores.argmax(axis=2) != true
    chosen: dict[int, str] = {}
    for row in _first_of_each(ids, _confident(scores, wrong))[:errors]:
        chosen[row] = CONFIDENT
    own = scores[:, np.arange(len(true)), true].mean(axis=0)
    for number in _worst_classes(true, wrong.mean(axis=0))[:classes]:
        members = np.flatnonzero((true == number) & wrong.any(axis=0))
        taken = {str(ids[row]) for row in chosen}
        fresh = [row for row in members[np.argsort(own[members], kind="stable")] if str(ids[row]) not in taken]
        for row in _first_of_each(ids, fresh)[:per_class]:
            chosen[row] = WORST
    return [
        {
            "id": str(ids[row]),
            "split": str(found.split[rows][row]),
            "true": found.class_names[true[row]],
            "why": why,
            "results": [
                _result(name, scores[number, row], int(true[row]), found.class_names)
                for number, name in enumerate(names or [run.name for run in runs])
            ],
        }
        for row, why in chosen.items()
    ]


def _confident(scores: NDArray[np.float32], wrong: NDArray[np.bool_]) -> list[int]:
    """Return the rows that some run got wrong, the surest of its error first; scores (R, M, C), wrong (R, M)."""
    sure = np.where(wrong, scores.max(axis=2), 0.0).max(axis=0)
    return [int(row) for row in np.argsort(-sure, kind="stable") if sure[row] > 0]


def _worst_classes(true: NDArray[np.int64], error: NDArray[np.float64]) -> list[int]:
    """Return the classes with errors, the highest error rate first."""
    rate = np.bincount(true, weights=error) / np.maximum(np.bincount(true), 1)
    return [int(number) for number in np.argsort(-rate, kind="stable") if rate[number] > 0]


def _first_of_each(ids: NDArray[np.str_], rows: Sequence[int]) -> list[int]:
    """Return the rows without those of a clip that came before (several splits may test one clip)."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(str(ids[row]), int(row))
    return list(first.values())


def _result(name: str, scores: NDArray[np.float32], true: int, class_names: Sequence[str]) -> dict[str, Any]:
    best = int(scores.argmax())
    return {
        "name": name,
        "predicted": class_names[best],
        "score": float(scores[best]),
        "true_score": float(scores[true]),
    }
