"""Choosing hyper-parameters inside the training set: folds by source, one score a setting, a refit of the winner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from actionvit.heads.base import Head

Criterion = Literal["accuracy", "mean_class_accuracy", "log_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What won, and how it was found."""

    head: Head
    """Refitted on the whole training set with the winning setting."""
    setting: dict[str, Any]
    out_of_fold: NDArray[np.float64]
    """(n, C), log-probabilities of each training row from a head that did not see its fold; columns as in `classes_`.

    nan in rows that could not be scored; the log of float32's epsilon for a class that a fold's training part lacks.
    """
    search: dict[str, Any]
    """`parameter`, `values`, `scores` (higher is better), `chosen`, `criterion`, `folds`, `by`, `scored`,
    and `at_edge`: the parameters of which no value inside the grid did as well."""


def assign_folds(y: ArrayLike, groups: ArrayLike | None, *, folds: int, seed: int) -> NDArray[np.intp]:
    """Return each row's fold, (n,), below `folds`: a group stays in one fold, and classes are spread over folds.

    Groups, largest first and shuffled among equals, go to the fold that has least of their classes. Rows are their
    own groups where `groups` is None. Fewer groups than folds leave folds empty.

    Raises
    ------
    ValueError
        If `folds` is below 2, or there is only one group.
    """
    label = np.unique(np.asarray(y), return_inverse=True)[1]
    group = np.arange(len(label)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if folds < 2 or group.max() < 1:
        raise ValueError(f"folds: got {folds} for {group.max() + 1} groups, expected at least 2 of each")
    counts = np.zeros((group.max() + 1, label.max() + 1))
    np.add.at(counts, (group, label), 1)
    share = counts / counts.sum(axis=0)  # a row of a rare class weighs more
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled, rows = np.zeros((folds, counts.shape[1])), np.zeros(folds)
    fold = np.empty(len(counts), dtype=np.intp)
    for one in order:
        # Rounded, so that equal costs tie on every machine; then the emptiest fold takes it.
        fold[one] = np.lexsort((rows, np.round(filled @ share[one], 9)))[0]
        filled[fold[one]] += share[one]
        rows[fold[one]] += counts[one].sum()
    return fold[group]


def select(
    head: Head,
    X: ArrayLike,
    y: ArrayLike,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    groups: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
    criterion: Criterion = "accuracy",
    jobs: int = 1,
) -> Selected:
    """Search a grid by cross-validation and refit the winner.

    Scores are taken over the out-of-fold predictions of all folds together, so that a rare class counts though it is
    missing from some folds. Of equal scores the lower log-loss wins, then the earlier setting of the grid. Rows whose
    class their fold's training part lacks (its only source was held out) cannot be right under any setting and are not
    scored; where this leaves none, the head's own settings stay.

    Parameters
    ----------
    head : Head
        Left untouched.
    X : array-like of shape (n, ...)
    y : array-like of shape (n,)
    grid : mapping, optional
        Values by parameter; the head's `default_grid` without it.
    groups : array-like of shape (n,), optional
        The source of each row.
    folds : int
        Of the cross-validation.
    seed : int
        Of the folds.
    criterion : {"accuracy", "mean_class_accuracy", "log_loss"}
    jobs : int
        Threads, a fold each.

    Raises
    ------
    ValueError
        If the criterion is unknown, or there are too few groups or classes.
    """
    if criterion not in get_args(Criterion):
        raise ValueError(f"criterion: got {criterion!r}, expected one of {', '.join(get_args(Criterion))}")
    rows, target = np.asarray(X), np.asarray(y)
    classes, codes = np.unique(target, return_inverse=True)
    grid = dict(head.default_grid if grid is None else grid)
    settings: list[dict[str, Any]] = list(ParameterGrid(grid))
    fold = assign_folds(codes, groups, folds=folds, seed=seed)
    parts = list(_parts(fold, codes))
    scanned = head.scan_parts(rows, target, parts, settings, jobs=jobs)
    scored = np.zeros(len(codes), dtype=np.bool_)
    for train, held in parts:
        scored[held] = np.isin(codes[held], codes[train])
    log_proba = np.full((len(settings), len(codes), len(classes)), np.nan)
    for (train, held), found in zip(parts, scanned, strict=True):
        log_proba[:, held] = np.log(np.finfo(np.float32).eps)
        at = np.unique(codes[train])
        for i, values in enumerate(found):
            log_proba[i, held[:, None], at] = values
    scores = [_score(codes[scored], one[scored], criterion) for one in log_proba]
    losses = [_score(codes[scored], one[scored], "log_loss") for one in log_proba]
    best = min(range(len(settings)), key=lambda i: (-scores[i], -losses[i], i))
    setting = settings[best] if scored.any() else {}
    log_proba[:, ~scored] = np.nan
    return Selected(
        head=clone(head).set_params(**setting).fit(rows, target),
        setting=setting,
        out_of_fold=log_proba[best],
        search={
            **_trace(grid, settings, scores, setting),
            "criterion": criterion,
            "folds": len(parts),
            "by": "row" if groups is None else "source",
            "scored": int(scored.sum()),
        },
    )


def _parts(fold: NDArray[np.intp], codes: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield (training rows, held rows) of each fold that leaves at least two classes to train on."""
    for number in np.unique(fold):
        train, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(np.unique(codes[train])) > 1:
            yield train, held


def _score(true: NDArray[np.intp], log_proba: NDArray[np.float64], criterion: Criterion) -> float:
    """Return a score of which more is better; 0 where there is nothing to score."""
    if not len(true):
        return 0.0
    if criterion == "log_loss":
        own = log_proba[np.arange(len(true)), true]
        return float(np.maximum(own, np.log(np.finfo(np.float32).eps)).mean())
    right = log_proba.argmax(axis=1) == true
    if criterion == "accuracy":
        return float(right.mean())
    counts = np.bincount(true)
    return float((np.bincount(true, weights=right)[counts > 0] / counts[counts > 0]).mean())


def _trace(
    grid: Mapping[str, Sequence[Any]],
    settings: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
    setting: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what was searched and what won, for `run.json`."""
    names = sorted(grid)

    def value(of: Mapping[str, Any]) -> Any:
        return dict(of) if len(names) != 1 else of.get(names[0])

    best = [one for one, score in zip(settings, scores, strict=True) if score == max(scores)]
    numeric = {name: values for name, values in grid.items() if len(values) > 2 and not isinstance(values[0], str)}
    edges = [
        name
        for name, values in numeric.items()
        if setting and all(one[name] in (min(values), max(values)) for one in best)
    ]
    return {
        "parameter": " × ".join(names),
        "values": [value(one) for one in settings],
        "scores": [round(score, 6) for score in scores],
        "chosen": value(setting),
        "at_edge": edges,
    }
