"""Coverage of intervals by simulation, their bounds by hand, and that they contain their estimate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, t
from threadpoolctl import threadpool_limits
from trained_worlds import World, class_means, trained_runs

from actionvit.evaluation.clustered import Design, clopper_pearson, hit_share
from actionvit.evaluation.comparison import compare_scores
from actionvit.evaluation.intervals import (
    clip_means,
    paired_detectable,
    paired_interval,
    proportion_interval,
    sign_flip_p,
)
from actionvit.evaluation.metrics import METRICS, clip_losses, compute_metrics, debiased_ece
from actionvit.evaluation.summary import _macro_f1, summarize

LEVEL, SLACK = 0.95, 0.03


def world(rng, sources: int, classes: int, *, heads: int, skill: float = 1.8, alike: float = 0.7):
    """Clips of sources that look alike to every head: true class (M,), source (M,), probabilities of each head."""
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
    """Rows of all test sets: each source tests once, its fold's head predicts."""
    true, source, scores = world(rng, sources, classes, heads=folds)
    fold = rng.permutation(np.arange(sources) % folds)[source]
    rows = np.argsort(fold, kind="stable")
    fold, true, source = fold[rows], true[rows], source[rows]
    probability = np.stack(scores)[fold, rows]
    return true, probability, np.char.add("fold-", fold.astype(str)), source


def summary_of(true, scores, split, source):
    design = Design(split=split, true=true, cluster=source, clip=np.arange(len(true)))
    entries = [compute_metrics(true[split == name], scores[split == name]) for name in design.split_names]
    return summarize(entries, design, scores=scores)


def coverage(sources: int, classes: int, folds: int, *, worlds: int, by_clip: bool = False):
    """How often the interval contains the expectation over such test sets, by metric."""
    rng = np.random.default_rng([sources, classes, folds])
    means = {metric: [] for metric in METRICS}
    ends = {metric: [] for metric in METRICS}
    with threadpool_limits(1):
        for _ in range(worlds):
            true, scores, split, source = sides(rng, sources, classes, folds)
            for metric, value in summary_of(true, scores, split, np.arange(len(true)) if by_clip else source).items():
                means[metric].append(value["mean"])
                ends[metric].append(value["ci95"])
    found = {}
    for metric in METRICS:
        low, high = np.array(ends[metric]).T
        inside = (low <= np.array(means[metric]) + 1e-6) & (means[metric] <= high + 1e-6)
        assert np.all(inside), metric
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
    """The coverage is not an artifact of averaging over simulated datasets: accuracy has no bias to correct."""
    rng = np.random.default_rng(1)
    true, _, scores = world(rng, 40_000, 10, heads=1)
    population = compute_metrics(true, scores[0])["top1"]
    samples = [sides(rng, 100, 10, 5) for _ in range(400)]
    means = [np.mean([(p[s == f].argmax(1) == y[s == f]).mean() for f in np.unique(s)]) for y, p, s, _ in samples]
    assert np.mean(means) == pytest.approx(population, abs=4 * np.std(means) / 20)


def test_interval_of_independent_clips_is_the_textbooks() -> None:
    """One clip per source, one split: mean ± t · s / √n."""
    rng = np.random.default_rng(0)
    true, scores, split, _ = sides(rng, 240, 6, 1)
    design = Design(split=split, true=true, cluster=np.arange(len(true)), clip=np.arange(len(true)))
    values = ((scores - np.eye(6)[true]) ** 2).sum(axis=1)
    estimate = design.mean(values, "losses")
    assert estimate.se == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = t.ppf(0.975, len(values) - 1) * estimate.se
    assert estimate.interval() == pytest.approx((values.mean() - half, values.mean() + half))


def test_error_of_ece_counts_what_sources_share_across_bins() -> None:
    """A source's clips are right or wrong together, whatever their confidence: its error appears in every bin."""
    rng = np.random.default_rng(5)
    values, errors = [], []
    for _ in range(200):
        confidence = rng.uniform(0.5, 1, 1200)
        source = np.repeat(np.arange(60), 20)
        right = rng.random(60)[source] < confidence - 0.15
        scores = np.column_stack([confidence, 1 - confidence])
        value, se = debiased_ece(np.where(right, 0, 1), scores, np.full(1200, 1 / 1200), source)
        values.append(value)
        errors.append(se)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_error_of_macro_f1_holds_for_few_sources_per_class() -> None:
    """Four sources per class lie closer to their own mean than to the class's: n - 1 of them vary."""
    rng = np.random.default_rng(6)
    values, errors = [], []
    for _ in range(300):
        true, scores, split, source = sides(rng, 50, 12, 1)
        design = Design(split=split, true=true, cluster=source, clip=np.arange(len(true)))
        estimate = _macro_f1(design, scores, clip_losses(true, scores)["top1"])
        values.append(estimate.value)
        errors.append(estimate.se)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.08)


def test_hits_vary_around_the_accuracy_of_their_class() -> None:
    """One clip per source, one split: the standard error of a stratified proportion (Cochran 1977, equation 5.7)."""
    true = np.repeat([0, 1, 2], [60, 80, 100])
    hits = (np.random.default_rng(4).random(240) < np.array([0.2, 0.6, 0.95])[true]).astype(float)
    design = Design(split=["one"] * 240, true=true, cluster=np.arange(240), clip=np.arange(240))
    of_class = [hits[true == number] for number in range(3)]
    expected = sum((len(k) / 240) ** 2 * np.var(k, ddof=1) / len(k) for k in of_class)
    assert design.mean(hits).se == pytest.approx(np.sqrt(expected), rel=0.003)  # 1 - 1/240 of each clip's leverage
    by_class = sum(np.var(k, ddof=1) / len(k) for k in of_class) / 9
    assert design.class_mean(hits).se == pytest.approx(np.sqrt(by_class), rel=0.01)
    assert design.mean(hits).se < 0.8 * design.difference(hits, accuracy=0.6).se
    assert design.mean(hits).df == pytest.approx(240 - 3)


def test_training_sets_add_their_share_of_one_splits_variance() -> None:
    """Nadeau & Bengio (2003): n_test / n_train · the variance of one split's result, times the fitted factor."""
    rng = np.random.default_rng(6)
    hits, split = (rng.random(100) < 0.7).astype(float), np.repeat(list("abcde"), 20)
    design = Design(
        split=split,
        true=np.zeros(100, int),
        cluster=np.arange(100),
        clip=np.arange(100),
        n_train=dict.fromkeys("abcde", 80),
    )
    fixed = Design(split=split, true=np.zeros(100, int), cluster=np.arange(100), clip=np.arange(100))
    one_split = 5 * fixed.mean(hits, "losses").se ** 2
    assert design.mean(hits, "losses").se ** 2 == pytest.approx(one_split / 5 + 0.8 * 20 / 80 * one_split)
    wins = hits - (rng.random(100) < 0.7)
    one_split = 5 * fixed.difference(wins, accuracy=0.5).se ** 2
    expected = one_split / 5 + 0.9 * 2 / np.pi * 20 / 80 * one_split
    assert design.difference(wins, accuracy=0.5).se ** 2 == pytest.approx(expected)


def test_classes_of_one_source_each_do_not_look_certain() -> None:
    """Ten classes of 50 clips, each of one source: accuracies vary with ten sources, not with 500 clips."""
    true = np.repeat(np.arange(10), 50)
    right = np.tile(np.arange(50), 10) < 5 * (true + 1)
    scores = np.full((500, 10), 0.05) + 0.5 * np.eye(10)[np.where(right, true, (true + 1) % 10)]
    summary = summary_of(true, scores, np.full(500, "one"), true)
    for metric in ("top1", "mean_class_accuracy", "macro_f1"):
        low, high = summary[metric]["ci95"]
        assert high - low > 0.4, metric
    assert all(high <= 2 for _, high in [summary["brier"]["ci95"]])


def test_class_names_do_not_decide_strata() -> None:
    """A source with clips of two classes counts to the one it has more of, or to the larger one."""
    true = np.array([0, 1, 1, 1, 0, 0, 1])
    cluster, clip = list("aabbccd"), range(7)
    design = Design(split=["one"] * 7, true=true, cluster=cluster, clip=clip)
    renamed = Design(split=["one"] * 7, true=1 - true, cluster=cluster, clip=clip)
    groups = [[set(np.flatnonzero(d.stratum == k)) for k in np.unique(d.stratum)] for d in (design, renamed)]
    assert sorted(map(sorted, groups[0])) == sorted(map(sorted, groups[1]))


@pytest.mark.parametrize(("sources", "low"), [(1, 0.025), (3, 0.2924), (4, 0.3976)])
def test_few_sources_of_a_class_prove_little(sources: int, low: float) -> None:
    """50 clips of each source, all right: the exact bound with sources as trials, 0.025 to the power of 1 / sources."""
    ends = proportion_interval(np.ones(50 * sources), np.repeat(np.arange(sources), 50))
    assert ends == (pytest.approx(low, abs=1e-4), 1.0)


def test_sign_flips_of_large_sums_need_little_memory() -> None:
    """Clips that were tested unequally often make large whole numbers; their scale does not change the result."""
    rng = np.random.default_rng(3)
    sums = rng.integers(-9, 12, 60)
    exact = sign_flip_p(sums, np.arange(60))
    large = sign_flip_p(sums * 232_792_560 + rng.integers(-9, 9, 60), np.arange(60))
    assert exact <= large == pytest.approx(exact, abs=2e-3)


def test_detectable_class_difference_is_detected_in_80_percent() -> None:
    rng = np.random.default_rng(8)
    noise = rng.choice([-1.0, 0.0, 1.0], size=(2000, 40), p=[0.1, 0.6, 0.3])
    effect = [paired_detectable(row, np.arange(40)) for row in noise]
    assert np.mean(effect) == pytest.approx((2.021 + 0.851) * np.sqrt((0.36 + 2 / 40) / 42), rel=0.03)
    assert paired_detectable(noise[0], np.arange(40), comparisons=20) > 1.3 * effect[0]


def test_classes_with_one_source_share_a_stratum() -> None:
    design = Design(split=["one"] * 7, true=[0, 0, 1, 2, 3, 3, 3], cluster=list("abcdeef"), clip=range(7))
    assert design.stratum.tolist() == [0, 0, 2, 2, 1, 1]
    lone = Design(split=["one"] * 4, true=[0, 0, 1, 1], cluster=list("abcc"), clip=range(4))
    assert lone.stratum.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("accuracy", "share"), [(0.5, 0.573), (0.85, 0.3838), (0.97, 0.2264), (0.15, 0.3838)])
def test_training_sets_share_falls_with_rounding(accuracy: float, share: float) -> None:
    """0.9 φ(z)² / p(1 - p) by a table of the normal distribution; 2 / π at one half."""
    assert hit_share(accuracy) == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize("wrong", [0, 1])
def test_flawless_and_hopeless_results_get_the_exact_bound(wrong: int) -> None:
    """24 clips of 12 sources, all right or all wrong: the bound of 12 of 12 (or 0 of 12) trials."""
    true = np.arange(24) % 3
    scores = np.full((24, 3), 0.05) + 0.85 * np.eye(3)[(true + wrong) % 3]
    summary = summary_of(true, scores, np.full(24, "one"), np.arange(24) // 2)
    exact = binomtest(12 * (1 - wrong), 12).proportion_ci(0.95, method="exact")
    expected = [pytest.approx(exact.low, abs=1e-6), pytest.approx(exact.high, abs=1e-6)]
    assert summary["top1"]["ci95"] == expected
    assert summary["mean_class_accuracy"]["ci95"] == expected


def test_none_of_six_right_reaches_to_46_percent() -> None:
    true = np.zeros(6, dtype=int)
    summary = summary_of(true, np.tile([0.1, 0.9], (6, 1)), np.full(6, "one"), np.arange(6))
    assert summary["top1"]["ci95"] == [0.0, pytest.approx(0.459258, abs=1e-5)]


@pytest.mark.parametrize(("right", "of"), [(12, 12), (11, 12), (180, 183), (0, 9)])
def test_the_exact_interval_is_clopper_and_pearsons(right, of) -> None:
    expected = binomtest(right, of).proportion_ci(0.95, method="exact")
    assert clopper_pearson(right / of, of) == (
        pytest.approx(expected.low, abs=1e-9),
        pytest.approx(expected.high, abs=1e-9),
    )


def test_repeated_split_keeps_the_interval() -> None:
    rows = sides(np.random.default_rng(3), 60, 5, 1)
    first, again = summary_of(*rows), summary_of(*rows)
    assert first == again
    assert {value["std"] for value in first.values()} == {None}
    several = summary_of(*sides(np.random.default_rng(3), 60, 5, 4))
    assert all(value["std"] > 0 for name, value in several.items() if value["mean"] < 1 and name != "ece"), several


def test_a_single_source_says_nothing_and_breaks_nothing() -> None:
    true, scores, split, _ = sides(np.random.default_rng(3), 20, 4, 1)
    summary = summary_of(true, scores, split, np.zeros(len(true)))
    assert all(np.isfinite(value["ci95"]).all() for value in summary.values())
    assert proportion_interval([], [])[0] == 0.0


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_seeds_add_no_clips_to_a_class(seeds: int) -> None:
    """10 clips of 10 sources, all right: the same interval however often the splits are drawn again."""
    clip = np.tile(np.arange(10), seeds)
    means, source, multiple = clip_means(np.ones(10 * seeds), clip, clip // 2)
    assert len(means) == 10 and multiple == seeds
    assert proportion_interval(means, source)[0] == pytest.approx(
        proportion_interval(np.ones(10), np.arange(10) // 2)[0]
    )
    low, high = paired_interval(means - means, source)
    assert low == pytest.approx(-high) and high > 0.1


def test_class_intervals_keep_their_coverage_under_five_seeds() -> None:
    """A stable head gives each clip the same result under every seed; recall 0.9, 8 sources of 1 to 4 clips."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        clips = rng.integers(1, 5, 8)
        source = np.repeat(np.arange(8), clips)
        level = 1.2815515655 * np.sqrt(2) + rng.normal(size=8)[source]
        hit = level + rng.normal(size=len(source)) > 0
        means, cluster, _ = clip_means(np.tile(hit, 5), np.tile(np.arange(len(hit)), 5), np.tile(source, 5))
        low, high = proportion_interval(means, cluster)
        inside += low <= 0.9 <= high
    assert inside / 1000 >= 0.94


def test_a_calibrated_heads_ece_is_about_zero() -> None:
    """Averaged over 25 folds of 30 clips the plug-in estimate would show 12 points."""
    rng, pooled, split_means = np.random.default_rng(0), [], []
    for _ in range(20):
        scores = rng.dirichlet(np.full(5, 0.6), 750)
        true = (rng.uniform(size=(750, 1)) > scores.cumsum(axis=1)).sum(axis=1)
        summary = summary_of(true, scores, np.repeat([f"fold-{n}" for n in range(25)], 30), np.arange(750))
        pooled.append(summary["ece"]["mean"])
        split_means.append(np.mean([plug_in(true[30 * n :][:30], scores[30 * n :][:30]) for n in range(25)]))
        assert summary["ece"]["ci95"][0] <= 0.01
    assert np.mean(pooled) < 0.012 and np.mean(split_means) > 0.1


def plug_in(true, scores) -> float:
    confidence, hit = scores.max(axis=1), scores.argmax(axis=1) == true
    bins = np.ceil(confidence * 15).astype(int)
    return sum(abs((confidence - hit)[bins == b].sum()) for b in np.unique(bins)) / len(true)


def test_a_miscalibrated_heads_ece_is_its_gap() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.6, 1.0, 4000)
    true = (rng.uniform(size=4000) > confidence - 0.2).astype(int)
    value, se = debiased_ece(
        true, np.stack([confidence, 1 - confidence], axis=1), np.full(4000, 1 / 4000), np.arange(4000)
    )
    assert value == pytest.approx(0.2, abs=0.02) and 0 < se < 0.02


def test_macro_f1_is_pooled_over_the_folds() -> None:
    """Two folds with one clip of each of two classes: F1 is that of all four clips."""
    true, best = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    summary = summary_of(true, 0.1 + 0.8 * np.eye(2)[best], np.array(["a", "a", "b", "b"]), np.arange(4))
    assert summary["macro_f1"]["mean"] == pytest.approx(0.5)


def test_intervals_hold_for_trained_heads() -> None:
    """Two encoders that are equally good by construction, heads trained on every split; see `bench_intervals`."""
    world = World(sources=80, classes=10, sizes="even", accuracy=0.6, correlation=0.7, head="ridge")
    means, found = class_means(world), {}
    with threadpool_limits(1):
        for seed in range(60):
            for name, design, (a, b) in trained_runs(world, means, seed):
                hits = [clip_losses(design.true, scores)["top1"] for scores in (a, b)]
                delta = compare_scores(design, a, b, [str(number) for number in range(10)])["delta"]["top1"]
                run = design.mean(hits[0])
                found.setdefault(name, []).append((run.value, *run.proportion_interval(), delta["p"]))
    for name, values in found.items():
        mean, low, high, p = np.array(values).T
        inside = (low <= mean.mean()) & (mean.mean() <= high)
        assert inside.mean() >= 0.88, name
        assert (p < 0.05).mean() <= 0.12, name
