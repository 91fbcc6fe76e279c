"""Comparisons of runs on the same test clips, paired clip by clip."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.evaluation.clustered import Design
from actionvit.evaluation.comparison import COMPARED, compare_scores
from actionvit.evaluation.intervals import holm
from actionvit.pipeline.reporting.model import ClassCounts, ClassDifference, Comparison, Difference, ResultCounts
from actionvit.pipeline.reporting.text import verdict
from actionvit.pipeline.runs import Predictions, Run, design_of, training_sizes
from actionvit.text import abbreviate, pluralize

logger = logging.getLogger(__name__)


def compare_all(runs: Sequence[Run], *, names: Sequence[str] | None = None) -> list[Comparison]:
    """Compare every pair of runs; p values are corrected for the number of pairs, metric by metric.

    Parameters
    ----------
    runs : sequence of Run
        In every pair the earlier run is the baseline: a difference is "later − earlier".
    names : sequence of str, optional
        Display names; the runs' own names by default.

    Returns
    -------
    list of Comparison
        (first, second), (first, third), … (second, third), …

    Raises
    ------
    ActionVitError
        If two runs tested different clips or have different classes.
    """
    names = names or [run.name for run in runs]
    runs = on_common_splits(runs)
    first = runs[0].predictions
    design = design_of(first, training_sizes(*(run.metrics for run in runs)))
    scores = [_aligned(first, run.predictions, (runs[0].name, run.name)) for run in runs]
    pairs = list(combinations(range(len(runs)), 2))
    comparisons = corrected(
        [_compare(first, design, (scores[i], scores[j]), (names[i], names[j]), len(pairs)) for i, j in pairs]
    )
    costs = [float(run.info.get("gmac") or 0) for run in runs]
    finished = []
    for comparison, (i, j) in zip(comparisons, pairs, strict=True):
        ratio = costs[j] / costs[i] if costs[i] and costs[j] else None
        comparison = replace(comparison, cost_ratio=ratio)
        finished.append(replace(comparison, verdict=verdict(comparison, len(pairs))))
    return finished


def on_common_splits(runs: Sequence[Run]) -> list[Run]:
    """Return runs with the predictions of the splits that all of them have; unchanged if there are none.

    A linear probe repeats its folds under several seeds by default; fine-tuning, which is expensive, does not.

    Raises
    ------
    ActionVitError
        If the runs divide the sources into different numbers of folds.
    """
    _check_folds(runs)
    splits = [run.predictions.split_names for run in runs]
    common = [name for name in splits[0] if all(name in names for names in splits)]
    if not common or all(len(names) == len(common) for names in splits):
        return list(runs)
    logger.warning("compared on the %s that all runs have: %s", pluralize(len(common), "split"), ", ".join(common))
    return [replace(run, predictions=run.predictions.of_splits(common)) for run in runs]


def _check_folds(runs: Sequence[Run]) -> None:
    folds = {
        run.name: (run.info.get("spec") or {}).get("folds") for run in runs if run.info.get("protocol") == "grouped"
    }
    numbers = [(name, number) for name, number in folds.items() if number is not None]
    for name, number in numbers[1:]:
        if number != numbers[0][1]:
            raise ActionVitError(
                f"{numbers[0][0]} has {numbers[0][1]} folds and {name} {number}, so their splits differ;"
                " probe both with the same folds="
            )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with each metric's `p_holm`: Holm's correction over all of them."""
    p_holm = {name: holm([comparison.delta[name].p or 0.0 for comparison in comparisons]) for name in COMPARED}
    return [
        replace(
            comparison,
            delta={name: replace(delta, p_holm=p_holm[name][number]) for name, delta in comparison.delta.items()},
        )
        for number, comparison in enumerate(comparisons)
    ]


def compare(
    a: Predictions,
    b: Predictions,
    *,
    names: tuple[str, str] = ("a", "b"),
    n_train: Mapping[str, int] | None = None,
    comparisons: int = 1,
) -> Comparison:
    """Compare two sets of predictions of the same clips; every difference is b − a.

    Parameters
    ----------
    a, b : Predictions
        Of the same clips in the same splits, in any order.
    names : tuple of two str
        Display names.
    n_train : mapping, optional
        Training clips by split name. Without it the heads count as given, and only the test clips vary.
    comparisons : int
        Number of comparisons that Holm's method will correct together; `detectable` follows its strictest level.

    Raises
    ------
    ActionVitError
        If the two tested different clips, or disagree on classes or labels.
    """
    scores = [_aligned(a, predictions, names) for predictions in (a, b)]
    return corrected([_compare(a, design_of(a, n_train), (scores[0], scores[1]), names, comparisons)])[0]


def _aligned(a: Predictions, b: Predictions, names: tuple[str, str]) -> NDArray[np.float64]:
    """Return b's scores (M, C) in the order of a's rows.

    Raises
    ------
    ActionVitError
        If the two tested different clips, or disagree on classes or labels.
    """
    pair = f"runs `{names[0]}` and `{names[1]}`"
    if a.class_names != b.class_names:
        odd = sorted(set(a.class_names) ^ set(b.class_names))
        raise ActionVitError(f"{pair} have different classes ({abbreviate(odd)}): compare runs of one dataset")
    key_a, key_b = (list(zip(run.split.tolist(), run.id.tolist(), strict=True)) for run in (a, b))
    only_a, only_b = set(key_a) - set(key_b), set(key_b) - set(key_a)
    if only_a or only_b:
        odd = [f"{split}: {id_}" for split, id_ in sorted(only_a | only_b)]
        raise ActionVitError(
            f"{pair} tested different clips: {len(only_a):,} only in the first, {len(only_b):,} only in the second, "
            f"{len(set(key_a) & set(key_b)):,} in both ({abbreviate(odd)}); make both with one protocol and seed"
        )
    row_of = {key: row for row, key in enumerate(key_b)}
    order = np.array([row_of[key] for key in key_a], dtype=np.int64)
    if changed := int((b.true[order] != a.true).sum()):
        raise ActionVitError(f"{pair} disagree on the true class of {changed:,} clips: make both from the same labels")
    return b.scores[order].astype(np.float64)


def _compare(
    a: Predictions,
    design: Design,
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    names: tuple[str, str],
    comparisons: int,
) -> Comparison:
    compared: dict[str, Any] = compare_scores(design, *scores, a.class_names, comparisons=comparisons)
    return Comparison(
        a=names[0],
        b=names[1],
        **{key: compared[key] for key in ("n_clips", "n_results", "n_sources")},
        delta={
            name: Difference(**{**delta, "ci95": tuple(delta["ci95"])}) for name, delta in compared["delta"].items()
        },
        clips=ResultCounts(**compared["clips"]),
        classes=ClassCounts(**compared["classes"]),
        per_class=[
            ClassDifference(
                class_=row["class"],
                ci95=tuple(row["ci95"]) if row["ci95"] else None,
                **{key: value for key, value in row.items() if key not in ("class", "ci95")},
            )
            for row in compared["per_class"]
        ],
    )
