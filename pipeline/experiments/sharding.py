"""Shards of a training set in data-parallel training: their class mix, and its effect on accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from actionvit.evaluation.metrics import class_mix_distance
from actionvit.features.store.catalog import shard_number
from actionvit.pipeline.datasets.dataset import Dataset, Split
from actionvit.pipeline.probing.features import FeatureTable
from actionvit.pipeline.probing.probe import build_head
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.pipeline.probing.tasks import Task, fit_task, plan
from actionvit.pipeline.runs import Predictions, measure

Sharding = Literal["contiguous", "hashed", "stratified"]


def assign_shards(ids: Sequence[str], y: NDArray[np.intp], *, shards: int, how: Sharding) -> NDArray[np.intp]:
    """Return each clip's shard, (n,), below `shards`.

    Parameters
    ----------
    ids, y : sequences of n
        Ids and class numbers.
    shards : int
        Number of shards.
    how : {"contiguous", "hashed", "stratified"}
        Equal pieces of the list, which is sorted by class; by the id's hash, as in `actionvit extract --shard`; the
        clips of each class in turn to all shards.
    """
    if how not in get_args(Sharding):
        raise ValueError(f"sharding: got {how!r}, expected one of {', '.join(get_args(Sharding))}")
    order = np.argsort(np.asarray(ids), kind="stable")
    shard = np.empty(len(order), dtype=np.intp)
    if how == "contiguous":
        shard[order] = np.arange(len(order)) * shards // len(order)
    elif how == "hashed":
        shard[:] = [shard_number(id, shards) for id in ids]
    else:
        by_class = order[np.argsort(y[order], kind="stable")]
        shard[by_class] = np.arange(len(order)) % shards
    return shard


def class_histograms(y: NDArray[np.intp], shard: NDArray[np.intp], *, shards: int, classes: int) -> NDArray[np.int64]:
    """Return the number of clips of each class in each shard, (shards, C)."""
    cells = np.bincount(shard * classes + y, minlength=shards * classes)
    return np.asarray(cells.reshape(shards, classes), dtype=np.int64)


def shard_row(
    dataset: Dataset, table: FeatureTable, spec: ProbeSpec, *, shards: int, how: Sharding
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Return a table's row for one way of sharding, and the first split's histograms.

    `one worker` is the mean top-1 of heads trained on one shard each, `averaged` that of their mean log-probability,
    where a class without clips in a shard has the log of float32's epsilon.

    Parameters
    ----------
    dataset, table, spec
        As for `probe`.
    shards, how
        As for `assign_shards`.
    """
    histograms, alone, parts = [], [], []
    with threadpool_limits(1):
        for task in plan(dataset, spec):
            rows, test = table.rows(task.split.train), table.rows(task.split.test)
            shard = assign_shards(table.id[rows].tolist(), table.y[rows], shards=shards, how=how)
            histograms.append(class_histograms(table.y[rows], shard, shards=shards, classes=len(table.class_names)))
            workers = [_worker(table, task, spec, table.id[rows[shard == i]].tolist()) for i in range(shards)]
            alone += [float(np.mean(log_proba.argmax(axis=1) == table.y[test])) for log_proba in workers]
            mean = np.mean(workers, axis=0)
            parts.append((task.name, len(rows), test, np.exp(mean - np.logaddexp.reduce(mean, axis=1)[:, None])))
    tested = np.concatenate([test for _, _, test, _ in parts])
    predictions = Predictions(
        id=table.id[tested],
        split=np.concatenate([np.full(len(test), name) for name, _, test, _ in parts]),
        true=table.y[tested].astype(np.int64),
        scores=np.concatenate([scores for *_, scores in parts]).astype(np.float32),
        source=table.source[tested],
        class_names=table.class_names,
    )
    summary = measure(predictions, n_train={name: count for name, count, *_ in parts})["summary"]
    row = {
        "sharding": how,
        "distance from whole": round(float(np.mean([class_mix_distance(counts) for counts in histograms])), 3),
        "classes a shard lacks": round(float(np.mean([(counts == 0).sum(axis=1).mean() for counts in histograms])), 1),
        "one worker": {"mean": round(float(np.mean(alone)), 6), "std": None, "ci95": None},
        "averaged": summary["top1"],
    }
    return row, histograms[0]


def _worker(table: FeatureTable, task: Task, spec: ProbeSpec, train: Sequence[str]) -> NDArray[np.float64]:
    """Return the test clips' log-probabilities (m, C), from a head fitted to one shard."""
    rows, test = table.rows(train), table.rows(task.split.test)
    full = np.full((len(test), len(table.class_names)), np.log(np.finfo(np.float32).eps))
    if len(classes := np.unique(table.y[rows])) < 2:
        full[:, classes] = 0.0
        return full
    split = Split(name=task.split.name, train=tuple(train), test=task.split.test)
    fitted = fit_task(build_head(spec), table, Task(split, task.seed), spec)
    full[:, fitted.head.classes_] = fitted.log_proba
    return full
