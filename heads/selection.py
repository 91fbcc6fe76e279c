"""Choosing hyper-parameters inside the training set: folds by source, one score a setting, a refit of the winner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from actionvit.heads.base import Floats, Head, Scan

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A head and a training set to choose its hyper-parameters on."""

    head: Head
    """Left untouched."""
    X: ArrayLike
    """(n, ...)"""
    y: ArrayLike
    """(n,)"""
    grid: Mapping[str, Sequence[Any]] | None = None
    """Values by parameter; the head's `default_grid` without it."""
    groups: ArrayLike | None = None
    """The source of each row, (n,)."""
    folds: int = 5
    """Of the cross-validation."""
    seed: int = 0
    """Of the folds."""
    criterion: Criterion = "accuracy"


def select(head: Head, X: ArrayLike, y: ArrayLike, *, jobs: int = 1, **how: Any) -> Selected:
    """Search a grid by cross-validation and refit the winner.

    Scores are taken over the out-of-fold predictions of all folds together, so that a rare class counts though it is
    missing from some folds. Of equal scores the lower log-loss wins, then the earlier setting of the grid. Rows whose
    class their fold's training part lacks (its only source was held out) cannot be right under any setting and are not
    scored; where this leaves none, or there is one source, the head's own settings stay, but for those of one value.

    Parameters
    ----------
    head, X, y, **how
        As of `Search`.
    jobs : int
        Threads, a fold each.

    Raises
    ------
    ValueError
        If the criterion is unknown, or there are too few groups or classes.
    """
    return select_all([Search(head=head, X=X, y=y, **how)], jobs=jobs)[0]


def select_all(searches: Sequence[Search], *, jobs: int = 1) -> list[Selected]:
    """Do as `select` for each of several training sets, with heads of one kind; at once where the head can do that."""
    together = type(searches[0].head)
    asked = [_Asked(search) for search in searches]
    scanned = together.scan_all([one.scan for one in asked], jobs=jobs)
    found = [one.choose(tried) for one, tried in zip(asked, scanned, strict=True)]
    together.fit_all([one.head for one in found], [(one.scan.X, one.scan.y) for one in asked])
    return found


class _Asked:
    """A search: what is to be tried, and which of it won."""

    def __init__(self, search: Search) -> None:
        if search.criterion not in get_args(Criterion):
            raise ValueError(f"criterion: got {search.criterion!r}, expected one of {', '.join(get_args(Criterion))}")
        self.search = search
        rows, target = np.asarray(search.X), np.asarray(search.y)
        self.classes, self.codes = np.unique(target, return_inverse=True)
        self.grid = dict(search.head.default_grid if search.grid is None else search.grid)
        settings: list[dict[str, Any]] = list(ParameterGrid(self.grid))
        parts: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
        if search.groups is None or len(np.unique(np.asarray(search.groups))) > 1:
            fold = assign_folds(self.codes, search.groups, folds=search.folds, seed=search.seed)
            parts = list(_parts(fold, self.codes))
        self.scan = Scan(head=search.head, X=rows, y=target, parts=parts, settings=settings)

    def choose(self, scanned: Sequence[Sequence[Floats]]) -> Selected:
        """Return the best of the log-probabilities, (held rows, C) a part and setting; its head is yet to be fitted."""
        search, scan, codes = self.search, self.scan, self.codes
        scored = np.zeros(len(codes), dtype=np.bool_)
        log_proba = np.full((len(scan.settings), len(codes), len(self.classes)), np.nan)
        for (train, held), found in zip(scan.parts, scanned, strict=True):
            at = np.unique(codes[train])
            scored[held] = np.isin(codes[held], at)
            log_proba[:, held] = np.log(np.finfo(np.float32).eps)
            for i, values in enumerate(found):
                log_proba[i, held[:, None], at] = values
        scores = [_score(codes[scored], one[scored], search.criterion) for one in log_proba]
        losses = [_score(codes[scored], one[scored], "log_loss") for one in log_proba]
        best = min(range(len(scores)), key=lambda i: (-scores[i], -losses[i], i))
        fixed = {name: values[0] for name, values in self.grid.items() if len(values) == 1}
        setting = dict(scan.settings[best]) if scored.any() else fixed
        log_proba[:, ~scored] = np.nan
        return Selected(
            head=clone(search.head).set_params(**setting),
            setting=setting,
            out_of_fold=log_proba[best],
            search={
                **_trace(self.grid, scan.settings, scores, setting),
                "criterion": search.criterion,
                "folds": len(scan.parts),
                "by": "row" if search.groups is None else "source",
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
