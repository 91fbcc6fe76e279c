"""Intervals hold what they promise: coverage by simulation, ends by hand, and the number beside them inside."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from actionvit.evaluation.intervals import lowest_share, share_interval
from actionvit.evaluation.metrics import METRICS, measures
from actionvit.evaluation.summary import summarize

LEVEL, SLACK = 0.95, 0.03


def world(rng, sources: int, classes: int, *, heads: int, skill: float = 1.8, alike: float = 0.7):
    """Clips of sources that look alike to every head: true class (M,), source (M,), probabilities a head."""
    clips = rng.integers(1, 7, sources)
    of_source = rng.permutation(np.arange(sources) % classes)
    source = np.repeat(np.arange(sources), clips)
    true = of_source[source]
    common = skill * np.eye(classes)[true] + alike * rng.normal(size=(sources, classes))[source]
    scores = []
    for _ in range(heads):
        own = 0.5 * rng.normal(size=(sources, classes))[source] + rng.normal(size=(len(source), classes))
        odds = np.exp(1.3 * (common + own))
        scores.append(odds / odds.sum(axis=1, keepdims=True))
    return true, source, scores


def sides(rng, sources: int, classes: int, folds: int):
    """Rows of all test sides as `summarize` takes them: each source tests once, its fold's head predicts."""
    true, source, scores = world(rng, sources, classes, heads=folds)
    fold = rng.permutation(np.arange(sources) % folds)[source]
    rows = np.argsort(fold, kind="stable")
    fold, true, source = fold[rows], true[rows], source[rows]
    probability = np.stack(scores)[fold, rows]
    return true, probability, np.char.add("fold-", fold.astype(str)), source


def summary_of(true, scores, split, source, *, resamples: int, seed: int = 0, cluster=None):
    entries = [
        {"name": str(name), **{key: float(value[0]) for key, value in measures(true[at], scores[at]).items()}}
        for name in np.unique(split)
        for at in [split == name]
    ]
    cluster = source if cluster is None else cluster
    return summarize(entries, true=true, scores=scores, split=split, cluster=cluster, resamples=resamples, seed=seed)


def coverage(sources: int, classes: int, folds: int, *, worlds: int, by_clip: bool = False):
    """How often the interval holds the number that such test sides give on average, by metric."""
    rng = np.random.default_rng([sources, classes, folds])
    means = {metric: [] for metric in METRICS}
    ends = {metric: [] for metric in METRICS}
    with threadpool_limits(1):
        for seed in range(worlds):
            rows = sides(rng, sources, classes, folds)
            cluster = np.arange(len(rows[0])) if by_clip else None
            for metric, value in summary_of(*rows, resamples=400, seed=seed, cluster=cluster).items():
                means[metric].append(value["mean"])
                ends[metric].append(value["ci95"])
    found = {}
    for metric in METRICS:
        low, high = np.array(ends[metric]).T
        assert np.all((low <= means[metric]) & (means[metric] <= high)), metric
        found[metric] = float(np.mean((low <= np.mean(means[metric])) & (np.mean(means[metric]) <= high)))
    return found


def test_95_percent_intervals_hold_the_truth_in_95_percent() -> None:
    found = coverage(100, 10, 5, worlds=500)
    assert found == {metric: pytest.approx(LEVEL, abs=SLACK) for metric in METRICS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sources", "classes", "folds"), [(50, 12, 1), (100, 10, 1), (180, 21, 1), (180, 21, 5), (500, 51, 1)]
)
def test_coverage_in_other_worlds(sources, classes, folds) -> None:
    found = coverage(sources, classes, folds, worlds=1000)
    assert found == {metric: pytest.approx(LEVEL, abs=SLACK) for metric in METRICS}


def test_drawing_clips_instead_of_sources_promises_too_much() -> None:
    found = coverage(100, 10, 1, worlds=150, by_clip=True)
    assert max(found[metric] for metric in ("top1", "mean_class_accuracy", "log_loss", "brier")) < LEVEL - SLACK


def test_a_linear_metrics_mean_is_the_populations() -> None:
    """What the intervals hold is no artefact of averaging over worlds: accuracy has no shift to correct."""
    rng = np.random.default_rng(1)
    true, _, scores = world(rng, 40_000, 10, heads=1)
    population = measures(true, scores[0])["top1"][0]
    samples = [sides(rng, 100, 10, 5) for _ in range(400)]
    means = [np.mean([(p[s == f].argmax(1) == y[s == f]).mean() for f in np.unique(s)]) for y, p, s, _ in samples]
    assert np.mean(means) == pytest.approx(population, abs=4 * np.std(means) / 20)


def test_every_clip_a_source_of_its_own_is_the_textbooks_interval() -> None:
    """600 clips of one source each, one split: mean ± t · s / √n, but for the bootstrap's own noise."""
    rng = np.random.default_rng(0)
    true, scores, split, _ = sides(rng, 240, 6, 1)
    summary = summary_of(true, scores, split, np.arange(len(true)), resamples=4000)
    for metric, values in {
        "top1": scores.argmax(axis=1) == true,
        "brier": ((scores - np.eye(6)[true]) ** 2).sum(axis=1),
    }.items():
        half = 1.965 * np.std(values, ddof=1) / np.sqrt(len(values))
        expected = [np.mean(values) - half, np.mean(values) + half]
        np.testing.assert_allclose(summary[metric]["ci95"], expected, atol=0.06 * half)


def test_results_without_an_error_get_the_exact_binomial_bound() -> None:
    true = np.arange(24) % 3
    scores = np.full((24, 3), 0.05) + 0.85 * np.eye(3)[true]
    summary = summary_of(true, scores, np.full(24, "one"), np.arange(24) // 2, resamples=200)
    expected = binomtest(12, 12).proportion_ci(0.95, method="exact").low
    assert summary["top1"]["ci95"] == [pytest.approx(expected, abs=1e-6), 1.0]
    assert summary["mean_class_accuracy"]["ci95"] == summary["top1"]["ci95"]


@pytest.mark.parametrize(("right", "of"), [(12, 12), (11, 12), (180, 183), (0, 9)])
def test_the_lowest_share_is_clopper_and_pearsons(right, of) -> None:
    expected = binomtest(right, of).proportion_ci(0.95, method="exact").low
    assert lowest_share(right / of, of) == pytest.approx(expected, abs=1e-9)


def test_one_split_has_no_deviation_and_the_same_seed_the_same_interval() -> None:
    rows = sides(np.random.default_rng(3), 60, 5, 1)
    first, again, other = (summary_of(*rows, resamples=200, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert {value["std"] for value in first.values()} == {None}
    several = summary_of(*sides(np.random.default_rng(3), 60, 5, 4), resamples=200)
    assert all(value["std"] > 0 for value in several.values() if value["mean"] < 1)


def test_a_single_source_says_nothing_and_breaks_nothing() -> None:
    true, scores, split, _ = sides(np.random.default_rng(3), 20, 4, 1)
    summary = summary_of(true, scores, split, np.zeros(len(true)), resamples=50)
    assert all(np.isfinite(value["ci95"]).all() for value in summary.values())
    assert share_interval([], [])[0] == 0.0
