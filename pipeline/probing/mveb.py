"""The classification protocol of MVEB (the video tasks of mteb) on cached embeddings.

As in mteb's `AbsTaskClassification` (commit a905523): ten draws of 8 training videos per class, scikit-learn's
`LogisticRegression(max_iter=100)` on the embeddings as they are, and accuracy and macro F1 on the whole test set,
averaged over the draws. Every draw shuffles the previous order of the training videos again with seed 42 and takes
the first 8 of each class. Hyper-parameters are fixed. The initial order is that of the video ids; mteb's is the
order of its own copy of the dataset, so single draws differ.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.errors import ActionVitError
from actionvit.heads.linear import LinearProbe
from actionvit.heads.selection import SearchResult
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import make_splits
from actionvit.pipeline.probing.features import FeatureTable, extract_command
from actionvit.pipeline.probing.results import PlannedRun, ProbeResult, make_result
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.pipeline.probing.tasks import Fitted, Task

DRAWS, SAMPLES, SEED = 10, 8, 42
SUFFIX = "-mveb"


def training_draws(y: ArrayLike) -> Iterator[NDArray[np.intp]]:
    """Yield the training rows of each draw, in the order they are fitted.

    Parameters
    ----------
    y : array-like of shape (n,)
        Class of each training video.
    """
    labels = np.asarray(y).tolist()
    order = list(range(len(labels)))
    for _ in range(DRAWS):
        np.random.RandomState(SEED).shuffle(order)
        counts: Counter[Any] = Counter()
        rows = []
        for row in order:
            counts[labels[row]] += 1
            if counts[labels[row]] <= SAMPLES:
                rows.append(row)
        yield np.array(rows, dtype=np.intp)


def planned_mveb(dataset: Dataset, tables: Sequence[FeatureTable], spec: ProbeSpec) -> list[PlannedRun]:
    """Return one run per table, on the first official split; MVEB's HMDB51 task is split 1.

    Parameters
    ----------
    dataset : Dataset
    tables : sequence of FeatureTable
        Clip embeddings; a video's views are averaged.
    spec : ProbeSpec
        Recorded in the run; its own protocol, grid and seeds are not used.

    Raises
    ------
    ActionVitError
        If the dataset has no official lists.
    """
    split = make_splits(dataset, "official", folds=spec.folds, test_fraction=spec.test_fraction, seed=0)[0]
    spec = replace(spec, protocol="official", shots=SAMPLES, seeds=DRAWS)
    tasks = [Task(split, number) for number in range(DRAWS)]
    return [PlannedRun(tables=[table], spec=spec, tasks=tasks, suffix=SUFFIX) for table in tables]


def probe_mveb(dataset: Dataset, run: PlannedRun) -> ProbeResult:
    """Fit and score the draws of a run of `planned_mveb`.

    Raises
    ------
    ActionVitError
        If too few videos of the split are cached.
    """
    (table,), split = run.tables, run.tasks[0].split
    train, test = table.rows(split.train), table.rows(split.test)
    if not len(test) or len(np.unique(table.y[train])) < 2:
        raise ActionVitError(f"split {split.name}: too few cached videos; run {extract_command(dataset, table.store)}")
    draws = zip(run.tasks, training_draws(table.y[train]), strict=True)
    fitted = [_fit(table, task, train[rows], test) for task, rows in draws]
    result = make_result(dataset, [table], fitted, run.spec, run.suffix)
    result.info["protocol"] = "mveb"
    result.info["mveb"] = _scores(table, fitted)
    return result


def _fit(table: FeatureTable, task: Task, train: NDArray[np.intp], test: NDArray[np.intp]) -> Fitted:
    """Fit scikit-learn's classifier on one draw, as a `LinearProbe` with its coefficients."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    X = table.X.mean(axis=1)
    classifier = LogisticRegression(max_iter=100, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations are the protocol
        classifier.fit(X[train], table.y[train])
    head = LinearProbe(C=1.0, standardize=False, max_iter=100)
    head.classes_, head.n_features_in_ = classifier.classes_, X.shape[1]
    weight, bias = classifier.coef_.astype(np.float64), classifier.intercept_.astype(np.float64)
    if len(weight) == 1:  # two classes: the sigmoid of one logit is the softmax of it and zero
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    head.coef_, head.intercept_ = weight, bias
    trained = time.perf_counter()
    record = {"parameter": "C", "values": [1.0], "scores": [], "chosen": 1.0, "scored": 0, "at_edge": []}
    selected = SearchResult(head=head, best_params={"C": 1.0}, out_of_fold=np.empty((0, 0)), record=record)
    return Fitted(
        task=task,
        head=head,
        selected=selected,
        searches=(record,),
        train=train,
        y=table.y[train],
        test=test,
        log_proba=np.asarray(head.predict_log_proba(X[test]), dtype=np.float64),
        seconds=(trained - start, time.perf_counter() - trained),
    )


def _scores(table: FeatureTable, fitted: Sequence[Fitted]) -> dict[str, Any]:
    """Return accuracy and macro F1 under mteb's names: the means over draws, and each draw."""
    from sklearn.metrics import accuracy_score, f1_score

    draws = []
    for draw in fitted:
        true, predicted = table.y[draw.test], draw.head.classes_[draw.log_proba.argmax(1)]
        draws.append(
            {
                "accuracy": float(accuracy_score(true, predicted)),
                "f1": float(f1_score(true, predicted, average="macro")),
            }
        )
    means = {name: float(np.mean([draw[name] for draw in draws])) for name in ("accuracy", "f1")}
    return {**means, "scores_per_experiment": draws}
