"""Selection of clips worth looking at: confident errors, and the worst clips of the worst classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from actionvit.pipeline.reporting.describe import row_order
from actionvit.pipeline.reporting.model import ClipResult, HardClip
from actionvit.pipeline.runs import Run

CONFIDENT, WORST = "confident error", "worst class"


def hard_clips(
    runs: Sequence[Run], *, names: Sequence[str] = (), errors: int = 12, classes: int = 6, per_class: int = 2
) -> list[HardClip]:
    """Return the most confident errors of any run, then the worst clips of the worst classes; each clip once.

    Parameters
    ----------
    runs : sequence of Run
        On the same clips.
    names : sequence of str, optional
        Display names; the runs' own names by default.
    errors : int
        Number of confident errors, by the score of the wrong class.
    classes, per_class : int
        Number of classes with the lowest recall (mean over the runs), and of clips per class, by the true class's
        score.
    """
    names = names or [run.name for run in runs]
    orders = [row_order(run.predictions) for run in runs]
    first, rows = runs[0].predictions, orders[0]
    ids, true, splits = first.id[rows], first.true[rows], first.split[rows]
    scores = [run.predictions.scores[order] for run, order in zip(runs, orders, strict=True)]
    wrong = np.stack([score.argmax(axis=1) != true for score in scores])
    chosen: dict[int, str] = {}
    for row in _first_of_each(ids, _confident(scores, wrong))[:errors]:
        chosen[row] = CONFIDENT
    true_score = np.mean([score[np.arange(len(true)), true] for score in scores], axis=0)
    for number in _worst_classes(true, wrong.mean(axis=0))[:classes]:
        members = np.flatnonzero((true == number) & wrong.any(axis=0))
        listed = {str(ids[row]) for row in chosen}
        fresh = [row for row in members[np.argsort(true_score[members], kind="stable")] if str(ids[row]) not in listed]
        for row in _first_of_each(ids, fresh)[:per_class]:
            chosen[row] = WORST
    return [
        HardClip(
            id=str(ids[row]),
            split=str(splits[row]),
            true=first.class_names[true[row]],
            why=why,
            results=[
                _result(name, score[row], int(true[row]), first.class_names)
                for name, score in zip(names, scores, strict=True)
            ],
        )
        for row, why in chosen.items()
    ]


def _confident(scores: Sequence[NDArray[np.float32]], wrong: NDArray[np.bool_]) -> list[int]:
    """Return the rows that some run got wrong, the most confident error first; R scores (M, C), wrong (R, M)."""
    sure = np.where(wrong, [score.max(axis=1) for score in scores], 0.0).max(axis=0)
    return [int(row) for row in np.argsort(-sure, kind="stable") if sure[row] > 0]


def _worst_classes(true: NDArray[np.int64], error: NDArray[np.float64]) -> list[int]:
    """Return the classes with errors, the highest error rate first."""
    rate = np.bincount(true, weights=error) / np.maximum(np.bincount(true), 1)
    return [int(number) for number in np.argsort(-rate, kind="stable") if rate[number] > 0]


def _first_of_each(ids: NDArray[np.str_], rows: Sequence[int]) -> list[int]:
    """Return the rows without later ones of the same clip (several splits may test one clip)."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(str(ids[row]), int(row))
    return list(first.values())


def _result(name: str, scores: NDArray[np.float32], true: int, class_names: Sequence[str]) -> ClipResult:
    best = int(scores.argmax())
    return ClipResult(name=name, predicted=class_names[best], score=float(scores[best]), true_score=float(scores[true]))
