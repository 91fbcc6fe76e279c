"""Grid search inside the training set: folds by source, one score per entry of the grid, a refit of the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import ParameterGrid

from actionvit.heads.base import Fold, GridFit, Head, Params
from actionvit.heads.criteria import FLOOR, Criterion, check_criterion, score_of
from actionvit.heads.folds import grouped_folds


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The refitted winner of a grid search, with its out-of-fold predictions."""

    head: Head
    """Fitted on the whole training set with the best parameters."""
    best_params: dict[str, Any]
    out_of_fold: NDArray[np.float64]
    """(n, C), log-probabilities of each training row from a head that was not trained on its fold.

    nan in rows that could not be scored; log(eps of float32) for a class that the fold's training rows lack.
    """
    record: dict[str, Any]
    """For `run.json`: `parameter`, `values`, `scores` (higher is better), `chosen`, `criterion`, `folds`, `by`,
    `scored`, `stopped` (values that could not win and whose training ended early; their scores are preliminary), and
    `at_edge`: the parameters of which no value inside the grid scored as high."""


def grid_search(
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
    validation: NDArray[np.bool_] | None = None,
) -> SearchResult:
    """Search a grid by cross-validation, or on given validation rows, and refit the winner on all rows.

    Scores are taken over the pooled out-of-fold predictions, so that a class missing from some folds still counts.
    Equal scores are decided by the lower log-loss, then by the earlier entry of the grid. Rows whose class is absent
    from their fold's training rows (its only source was held out) are not scored; if no row is left, or there is only
    one source, the head keeps its own parameters, except those that the grid fixes to one value.

    Parameters
    ----------
    head : Head
        Not modified.
    X : array-like of shape (n, ...)
    y : array-like of shape (n,)
    grid : mapping from parameter to values, optional
        The head's `default_grid` by default.
    groups : array-like of shape (n,), optional
        Source of each row; a source stays in one fold.
    folds : int
    seed : int
        Shuffles the folds.
    criterion : {"accuracy", "mean_class_accuracy", "log_loss"}
    jobs : int
        Threads, each working on one fold.
    validation : ndarray of bool of shape (n,), optional
        Rows to score instead of folds, after training on the others.

    Raises
    ------
    ValueError
        If the criterion is unknown, or there are too few groups or classes.
    """
    check_criterion(criterion)
    X, y = np.asarray(X), np.asarray(y)
    classes, codes = np.unique(y, return_inverse=True)
    grid = dict(head.default_grid if grid is None else grid)
    entries: list[dict[str, Any]] = list(ParameterGrid(grid))
    parts: list[Fold] = []
    if validation is not None:
        parts = [(np.flatnonzero(~validation), np.flatnonzero(validation))]
    elif groups is None or len(np.unique(np.asarray(groups))) > 1:
        parts = list(_parts(assign_folds(codes, groups, folds=folds, seed=seed), codes))
    fit = head.fit_grid(X, y, parts, entries, criterion=criterion, jobs=jobs)
    log_proba, scored = _out_of_fold(fit, parts, codes, len(classes), len(entries))
    scores = [score_of(codes[scored], values[scored], criterion) for values in log_proba]
    losses = [score_of(codes[scored], values[scored], "log_loss") for values in log_proba]
    best = min(range(len(scores)), key=lambda i: (-scores[i], -losses[i], i))
    fixed = {name: values[0] for name, values in grid.items() if len(values) == 1}
    best_params = dict(entries[best]) if scored.any() else fixed
    log_proba[:, ~scored] = np.nan
    record = _search_record(grid, entries, scores, best_params)
    return SearchResult(
        head=fit.refit(best_params),
        best_params=best_params,
        out_of_fold=log_proba[best],
        record={
            **record,
            "criterion": criterion,
            "folds": len(parts),
            "by": "validation set" if validation is not None else "row" if groups is None else "source",
            "scored": int(scored.sum()),
            "stopped": [value for i, value in enumerate(record["values"]) if i in fit.stopped],
        },
    )


def assign_folds(y: ArrayLike, groups: ArrayLike | None, *, folds: int, seed: int) -> NDArray[np.intp]:
    """Return each row's fold, (n,), as `grouped_folds` does; rows are their own groups where `groups` is None.

    Raises
    ------
    ValueError
        If `folds` is below 2, or there is only one group.
    """
    groups = np.arange(len(np.asarray(y))) if groups is None else np.asarray(groups)
    number = len(np.unique(groups))
    if folds < 2 or number < 2:
        raise ValueError(f"folds: got {folds} for {number} groups, expected at least 2 of each")
    return grouped_folds(y, groups, folds=folds, random=np.random.default_rng(seed))


def _parts(fold: NDArray[np.intp], codes: NDArray[np.intp]) -> Iterator[Fold]:
    """Yield (training rows, validation rows) of each fold with at least two classes to train on."""
    for number in np.unique(fold):
        train, val = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(np.unique(codes[train])) > 1:
            yield train, val


def _out_of_fold(
    fit: GridFit, parts: Sequence[Fold], codes: NDArray[np.intp], n_classes: int, n_entries: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return out-of-fold log-probabilities (entries, n, C) and which rows can be scored, (n,)."""
    scored = np.zeros(len(codes), dtype=np.bool_)
    log_proba = np.full((n_entries, len(codes), n_classes), np.nan)
    for (train, val), predictions in zip(parts, fit.predictions, strict=True):
        columns = np.unique(codes[train])
        scored[val] = np.isin(codes[val], columns)
        log_proba[:, val] = np.log(FLOOR)
        for i, values in enumerate(predictions):
            log_proba[i, val[:, None], columns] = values
    return log_proba, scored


def _search_record(
    grid: Mapping[str, Sequence[Any]], entries: Sequence[Params], scores: Sequence[float], best_params: Params
) -> dict[str, Any]:
    """Return the tried values, their scores and the winner, for `run.json`."""
    names = sorted(grid)

    def value(params: Params) -> Any:
        return dict(params) if len(names) != 1 else params.get(names[0])

    best = [params for params, score in zip(entries, scores, strict=True) if score == max(scores)]
    numeric = {name: values for name, values in grid.items() if len(values) > 2 and not isinstance(values[0], str)}
    edges = [
        name
        for name, values in numeric.items()
        if best_params and all(params[name] in (min(values), max(values)) for params in best)
    ]
    return {
        "parameter": " × ".join(names),
        "values": [value(params) for params in entries],
        "scores": [round(score, 6) for score in scores],
        "chosen": value(best_params),
        "at_edge": edges,
    }
