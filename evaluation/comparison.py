"""Two sets of predictions for the same test results, paired clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.evaluation.clustered import Design, Estimate
from actionvit.evaluation.intervals import clip_means, holm, paired_detectable, paired_interval, paired_p
from actionvit.evaluation.metrics import Floats, clip_losses
from actionvit.evaluation.summary import rounded

ALPHA = 0.05
"""A corrected p value below this is called a difference."""

COMPARED = ("top1", "mean_class_accuracy", "log_loss")
"""Metrics whose difference is tested."""


def compare_scores(
    design: Design, a: Floats, b: Floats, class_names: Sequence[str], *, comparisons: int = 1
) -> dict[str, Any]:
    """Compare two sets of scores, both of shape (M, C), for the results of a design; every difference is b - a.

    Parameters
    ----------
    design : Design
    a, b : ndarray of shape (M, C)
    class_names : sequence of C names
    comparisons : int
        Number of comparisons that Holm's method corrects together; `detectable` follows its strictest level.

    Returns
    -------
    dict
        `n_clips`, `n_results`, `n_sources`; `delta`: for each metric of `COMPARED` the `value`, `ci95`, `se`, `p` (t
        test, corrected as in `clustered`), `std` between the splits, and `detectable`, the smallest true difference
        that the test would show in 80 % of cases; `clips`: test results by which run was correct;
        `classes`: where b wins, ties, loses by recall, and in which the difference is `shown`; `per_class`: see
        `compare_classes`.
    """
    losses_a, losses_b = clip_losses(design.true, a), clip_losses(design.true, b)
    correct_a, correct_b = losses_a["top1"] > 0, losses_b["top1"] > 0
    hits = losses_b["top1"] - losses_a["top1"]
    accuracy = float(design.clip_weight @ (losses_a["top1"] + losses_b["top1"]) / 2)
    estimates = {
        "top1": _widened(design.difference(hits, accuracy=accuracy), design, design.clip_weight),
        "mean_class_accuracy": _widened(
            design.difference(hits, accuracy=accuracy, by_class=True), design, design.class_weight
        ),
        "log_loss": design.mean(losses_b["log_loss"] - losses_a["log_loss"], "losses"),
    }
    weight = {"mean_class_accuracy": design.class_weight}
    splits = len(design.tests)
    delta = {}
    for name, estimate in estimates.items():
        values = losses_b[name] - losses_a[name] if name == "log_loss" else hits
        of_split = design.over_splits(values, weight.get(name, design.clip_weight))
        delta[name] = {
            "value": estimate.value,
            "ci95": rounded(estimate.interval()),
            "se": round(estimate.se, 6),
            "std": float(np.std(of_split, ddof=1)) if splits > 1 else None,
            "p": estimate.p,
            "detectable": round(estimate.detectable(level=1 - ALPHA / comparisons), 6),
        }
    classes = compare_classes(design, correct_a, correct_b, class_names, inflation=estimates["top1"].inflation)
    sign = [np.sign(row["delta"]) for row in classes if row["support"]]
    return {
        "n_clips": design.clips,
        "n_results": len(design.true),
        "n_sources": design.sources,
        "delta": delta,
        "clips": {
            "both": int((correct_a & correct_b).sum()),
            "only_a": int((correct_a & ~correct_b).sum()),
            "only_b": int((~correct_a & correct_b).sum()),
            "neither": int((~correct_a & ~correct_b).sum()),
        },
        "classes": {
            "wins": sign.count(1),
            "ties": sign.count(0),
            "losses": sign.count(-1),
            "shown": [row["class"] for row in classes if row["p_holm"] is not None and row["p_holm"] < ALPHA],
        },
        "per_class": classes,
    }


def _widened(estimate: Estimate, design: Design, weight: Floats) -> Estimate:
    """Return a difference of hits with the variance of one clip won and one lost added (Bonett & Price 2012).

    Otherwise two runs that agree on all tested clips would have a standard error of 0. The two are as heavy as the
    heaviest clip.
    """
    heaviest = float(np.bincount(design.clip, weights=weight).max()) * design.clips / (design.clips + 2)
    return replace(estimate, se=float(np.sqrt(estimate.se**2 + 2 * heaviest**2)))


def compare_classes(
    design: Design,
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    class_names: Sequence[str],
    *,
    inflation: float = 1.0,
) -> list[dict[str, Any]]:
    """Compare the recall of each class, one clip being one unit however many splits test it.

    Parameters
    ----------
    design : Design
    a, b : ndarray of bool, shape (M,)
        Whether each result is correct.
    class_names : sequence of C names
    inflation : float
        Factor of the standard error that accounts for the training sets; see `clustered.Estimate`.

    Returns
    -------
    list of dict
        For each class `class`, `support` (clips), `tests` (results), `sources`, recalls `a` and `b`, `delta`, `ci95`,
        `p`, `p_holm` (over the classes), `detectable` (as for all clips), and `testable`: whether p could fall
        below 0.05 after the correction if one run were always correct and the other always wrong. None without clips.
    """
    rows: list[dict[str, Any]] = []
    numbers = [number for number in range(len(class_names)) if (design.true == number).any()]
    for number, name in enumerate(class_names):
        of_class = design.true == number
        if number not in numbers:
            keys = ("a", "b", "delta", "ci95", "p", "p_holm", "detectable", "testable")
            rows.append({"class": name, "support": 0, "tests": 0, "sources": 0, **dict.fromkeys(keys)})
            continue
        first, source, multiple = clip_means(a[of_class], design.clip[of_class], design.source[of_class])
        second, _, _ = clip_means(b[of_class], design.clip[of_class], design.source[of_class])
        difference = second - first
        low, high = paired_interval(difference, source, inflation=inflation)
        extreme = paired_p(np.ones_like(difference), source, inflation=inflation)
        rows.append(
            {
                "class": name,
                "support": len(first),
                "tests": int(of_class.sum()),
                "sources": len(np.unique(source)),
                "a": float(first.mean()),
                "b": float(second.mean()),
                "delta": float(difference.mean()),
                "ci95": rounded((low, high)),
                "p": paired_p(difference, source, multiple=multiple, inflation=inflation),
                "p_holm": None,
                "detectable": round(
                    paired_detectable(difference, source, inflation=inflation, comparisons=len(numbers)), 6
                ),
                "testable": bool(extreme * len(numbers) < ALPHA),
            }
        )
    tested = [rows[number] for number in numbers]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return rows
