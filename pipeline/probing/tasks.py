"""One task of a probe: choose a head inside a training set, refit it, score the test set once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from actionvit.errors import ActionVitError, SettingError
from actionvit.heads.base import Head
from actionvit.heads.calibration import fuse
from actionvit.heads.fusion import FusionRule, LateFusion
from actionvit.heads.saving import head_class
from actionvit.heads.selection import SearchResult, grid_search
from actionvit.pipeline.datasets.dataset import Dataset, Protocol, Split
from actionvit.pipeline.datasets.splits import check_classes, default_protocol, make_splits, require_validation
from actionvit.pipeline.probing.features import FeatureTable
from actionvit.pipeline.probing.spec import SEEDS, ProbeSpec, Views
from actionvit.pipeline.probing.subsets import few_shot, long_tail


@dataclass(frozen=True, slots=True)
class Task:
    """One head to fit: a split, and the seed of its draw and its search."""

    split: Split
    seed: int

    @property
    def name(self) -> str:
        """The split's name, followed by the seed if it is not the first."""
        return self.split.name if self.seed == 0 else f"{self.split.name}~seed{self.seed}"


def default_seeds(protocol: Protocol, spec: ProbeSpec) -> int:
    """Return 1 if a seed would only shuffle the inner folds (official lists, all clips, exact solvers), else 5."""
    thinned = spec.long_tail is not None or spec.shots is not None
    trained = "random_state" in head_class(spec.head)().get_params()
    return SEEDS if protocol != "official" or thinned or trained else 1


def plan(dataset: Dataset, spec: ProbeSpec) -> list[Task]:
    """Return every split of every seed; refuse a dataset of one class, or without validation sets to select on."""
    check_classes(dataset)
    protocol = spec.protocol or default_protocol(dataset)
    seeds = spec.seeds or default_seeds(protocol, spec)
    tasks = [
        Task(split, seed)
        for seed in range(seeds)
        for split in make_splits(dataset, protocol, folds=spec.folds, test_fraction=spec.test_fraction, seed=seed)
    ]
    if spec.select_on == "val":
        for task in tasks:
            require_validation(task.split)
    return tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The result of a task."""

    task: Task
    head: Head
    selected: SearchResult
    """The search; of a fused head that of the first member."""
    searches: tuple[dict[str, Any], ...]
    """One record per member: the tried values, their scores and the chosen one."""
    train: NDArray[np.intp]
    """Rows of the table that were trained on."""
    y: NDArray[np.intp]
    """Their class numbers."""
    test: NDArray[np.intp]
    log_proba: NDArray[np.float64]
    """(m, C) of the test rows, over the head's classes."""
    seconds: tuple[float, float]
    """Seconds to fit, including the search, and to predict."""


def fit_task(head: Head, table: FeatureTable, task: Task, spec: ProbeSpec) -> Fitted:
    """Choose the hyper-parameters of a head inside the training set, refit it, and score it on the test set.

    Parameters
    ----------
    head : Head
        With the settings of the spec; not modified.
    table : FeatureTable
        The embeddings.
    task : Task
        Split and seed.
    spec : ProbeSpec
        The search, and the thinning of the training set.

    Raises
    ------
    ActionVitError
        If a parameter of the head is out of range.
    """
    start = time.perf_counter()
    train, test = _thinned(table, table.rows(task.split.train), task.seed, spec), table.rows(task.split.test)
    validation = None
    if spec.select_on == "val":
        if not len(val := table.rows(task.split.val)):
            raise ActionVitError(
                f"split {task.split.name}: none of its {len(task.split.val)} validation videos is cached;"
                " run `actionvit extract` for the rest"
            )
        validation = np.repeat([False, True], [len(train), len(val)])
        train = np.concatenate([train, val])
    grid = {**head.default_grid, **spec.grid}
    selected, final = _select(head, table, train, task.seed, spec, grid, validation=validation)
    fitted = time.perf_counter()
    # The test rows are used here for the first time.
    log_proba = predict_views(final, [table.X[test]], spec.views)
    return Fitted(
        task=task,
        head=final,
        selected=selected,
        searches=(selected.record,),
        train=train,
        y=table.y[train],
        test=test,
        log_proba=log_proba,
        seconds=(fitted - start, time.perf_counter() - fitted),
    )


def fit_final(head: Head, table: FeatureTable, fitted: Sequence[Fitted], spec: ProbeSpec) -> Fitted:
    """Fit a head on all videos with the setting that most splits chose; ties go to the first.

    It has no test set: the metrics of a run are those of the splits' heads.

    Parameters
    ----------
    head, table, spec
        As for `fit_task`.
    fitted : sequence of Fitted
        The results of all splits and seeds.
    """
    start = time.perf_counter()
    settings = [result.selected.best_params for result in fitted]
    chosen = max(settings, key=settings.count)
    rows = np.arange(len(table.id))
    selected, final = _select(head, table, rows, 0, spec, {name: (value,) for name, value in chosen.items()})
    return Fitted(
        task=Task(Split(name="final", train=tuple(table.id.tolist()), test=()), 0),
        head=final,
        selected=selected,
        searches=(selected.record,),
        train=rows,
        y=table.y,
        test=rows[:0],
        log_proba=np.zeros((0, len(final.classes_))),
        seconds=(time.perf_counter() - start, 0.0),
    )


def _select(
    head: Head,
    table: FeatureTable,
    train: NDArray[np.intp],
    seed: int,
    spec: ProbeSpec,
    grid: Mapping[str, Sequence[Any]],
    *,
    validation: NDArray[np.bool_] | None = None,
) -> tuple[SearchResult, Head]:
    """Search a grid on training rows; return the search and the refitted head, calibrated if the spec asks for it."""
    if "random_state" in head.get_params():
        head = clone(head).set_params(random_state=seed)
    X, y = _inputs(table.X[train], spec.views, frames=head.accepts_frames), table.y[train]
    views = X.shape[1]
    sources = np.where(table.source == "", table.id, table.source)[train]
    sources_known = bool(np.any(table.source[train] != ""))
    try:
        selected = grid_search(
            head,
            _flat(X),
            np.repeat(y, views),
            grid=grid,
            groups=np.repeat(sources, views) if sources_known or views > 1 else None,
            folds=spec.inner_folds,
            seed=seed,
            criterion=spec.criterion or ("mean_class_accuracy" if spec.balances else "accuracy"),
            validation=None if validation is None else np.repeat(validation, views),
        )
    except ValueError as error:  # raised by heads for a parameter out of range
        if not spec.grid.keys().isdisjoint(str(error).partition(":")[0].split(", ")):
            raise SettingError(f"grid: head {spec.head}: {error}") from error
        raise ActionVitError(f"head {spec.head}: {error}") from error
    if views > 1:
        selected = replace(selected, out_of_fold=_over_views(selected.out_of_fold, views))
    final = selected.head
    if spec.calibrate:
        final = LateFusion().assemble([final], [selected.out_of_fold], y)
        selected = replace(selected, out_of_fold=fuse([selected.out_of_fold], final.exponents_))
    return selected, final


def _thinned(table: FeatureTable, train: NDArray[np.intp], seed: int, spec: ProbeSpec) -> NDArray[np.intp]:
    """Return the training rows after the spec's thinning."""
    if spec.long_tail is not None:
        train = train[long_tail(table.y[train], spec.long_tail, seed=seed, even=spec.long_tail_even)]
    if spec.shots is not None:
        train = train[few_shot(table.y[train], spec.shots, seed=seed)]
    return train


def _inputs(X: NDArray[np.float32], views: Views, *, frames: bool) -> NDArray[np.float32]:
    """Return (N, V, ...) with V = K if each view is a training row, else 1; some heads take frames as tokens."""
    if X.ndim == 4 and not frames:
        X = np.asarray(X.mean(axis=2))
    if views == "each":
        return X
    if X.ndim == 4:  # views show different moments of a video, so their frames are further tokens and are not averaged
        return X.reshape(len(X), 1, -1, X.shape[-1])
    return np.asarray(X.mean(axis=1, keepdims=True))


def _flat(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, V, ...) -> (n · V, ...)."""
    return X.reshape(-1, *X.shape[2:])


def _over_views(log_proba: Any, views: int) -> NDArray[np.float64]:
    """Average the probabilities of a video's views, given and returned as logs: (n · V, C) -> (n, C)."""
    if views == 1:
        return np.asarray(log_proba, dtype=np.float64)
    stack = np.asarray(log_proba, dtype=np.float64).reshape(-1, views, np.shape(log_proba)[1])
    return np.asarray(np.logaddexp.reduce(stack, axis=1) - np.log(views))


def predict_views(head: Head, embedded: Sequence[NDArray[np.float32]], views: Views) -> NDArray[np.float64]:
    """Return log-probabilities (N, C) of new videos, as `fit_task` and `fuse_task` make them of test rows.

    Parameters
    ----------
    head : Head
        The head of a run.
    embedded : sequence of arrays (N, K, ...)
        One per table that the run was made from.
    views : {"mean", "each"}
        As in the run's spec.
    """
    if isinstance(head, LateFusion):  # views are averaged first, since the exponents were fitted to averages
        members = zip(head.heads_, embedded, strict=True)
        return fuse([predict_views(member, [X], views) for member, X in members], head.exponents_)
    X = _inputs(embedded[0], views, frames=head.accepts_frames)
    return _over_views(head.predict_log_proba(_flat(X)), X.shape[1])


def fuse_task(members: Sequence[Fitted], rule: FusionRule) -> Fitted:
    """Fuse the heads of several tables for one task."""
    start = time.perf_counter()
    fused = LateFusion(widths=[member.head.n_features_in_ for member in members], rule=rule).assemble(
        [member.head for member in members], [member.selected.out_of_fold for member in members], members[0].y
    )
    log_proba = fuse([member.log_proba for member in members], fused.exponents_)
    fitting = time.perf_counter() - start + sum(member.seconds[0] for member in members)
    predicting = sum(member.seconds[1] for member in members)
    searches = tuple(search for member in members for search in member.searches)
    return replace(members[0], head=fused, searches=searches, log_proba=log_proba, seconds=(fitting, predicting))
