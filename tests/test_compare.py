"""Comparisons of runs: every number against an independent computation, and the coverage of intervals by simulation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fake_runs import NAMES, predictions, softmax, write
from planted_runs import planted, recovery
from scipy.stats import binomtest, false_discovery_control, permutation_test
from sklearn import metrics as theirs

from actionvit.errors import ActionVitError
from actionvit.evaluation.clustered import Design
from actionvit.evaluation.intervals import holm, paired_p, sign_flip_p
from actionvit.pipeline.reporting.compare import compare, compare_all
from actionvit.pipeline.reporting.model import ClassDifference, Comparison, Difference, ResultCounts
from actionvit.pipeline.reporting.text import is_shown, verdict
from actionvit.pipeline.runs import Predictions, design_of, training_sizes


def right(found: Predictions) -> np.ndarray:
    return found.scores.argmax(axis=1) == found.true


def shuffled(found: Predictions, seed: int = 3) -> Predictions:
    """The same predictions in another order."""
    order = np.random.RandomState(seed).permutation(len(found.id))
    columns = {name: getattr(found, name)[order] for name in ("id", "split", "true", "scores", "source")}
    return dataclasses.replace(found, **columns)


def test_differences_and_counts_by_hand() -> None:
    a, b = predictions(), predictions(skill=2.2, seed=5)
    found = compare(a, shuffled(b), names=("base", "hr"))
    by_split = [(a.split == name, name) for name in a.split_names]
    for name, score in (("top1", theirs.accuracy_score), ("mean_class_accuracy", theirs.balanced_accuracy_score)):
        expected = np.mean(
            [
                score(b.true[rows], b.scores[rows].argmax(1)) - score(a.true[rows], a.scores[rows].argmax(1))
                for rows, _ in by_split
            ]
        )
        assert found.delta[name].value == pytest.approx(expected)
    cells = theirs.confusion_matrix(right(a), right(b))
    assert found.clips == ResultCounts(neither=cells[0, 0], only_b=cells[0, 1], only_a=cells[1, 0], both=cells[1, 1])
    recalls = [theirs.recall_score(one.true, one.scores.argmax(1), average=None) for one in (a, b)]
    deltas = recalls[1] - recalls[0]
    assert [row.delta for row in found.per_class] == pytest.approx(list(deltas))
    tally = found.classes
    assert (tally.wins, tally.losses) == ((deltas > 0).sum(), (deltas < 0).sum())
    assert tally.wins + tally.ties + tally.losses == len(NAMES)
    assert (found.n_clips, found.n_results, found.n_sources) == (120, 120, 40)


def test_sign_flip_test_of_single_clips_is_mcnemars() -> None:
    a, b = predictions(), predictions(skill=2.2, seed=5)
    only_a, only_b = (right(a) & ~right(b)).sum(), (right(b) & ~right(a)).sum()
    difference = right(b).astype(int) - right(a).astype(int)
    assert sign_flip_p(difference, a.id) == pytest.approx(binomtest(int(only_a), int(only_a + only_b)).pvalue)


def test_sign_flip_test_is_exact_over_sources() -> None:
    a, b = (predictions(skill=skill, seed=seed, clips=36, per_source=3) for skill, seed in ((1.0, 0), (2.0, 5)))
    difference = right(b).astype(int) - right(a).astype(int)
    by_source = np.array([difference[a.source == name].sum() for name in np.unique(a.source)])
    exact = permutation_test(
        (by_source, np.zeros_like(by_source)),
        lambda x, y, axis: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_p(difference, a.source) == pytest.approx(exact.pvalue)
    assert sign_flip_p(5 * difference, a.source) == pytest.approx(exact.pvalue)


def test_repeated_splits_add_no_clips() -> None:
    """The same results under five seeds: intervals, p values and supports of classes stay as they are."""
    a, b = predictions(splits=1), predictions(skill=2.2, seed=5, splits=1)
    once = compare(a, b)
    tiled = [
        dataclasses.replace(
            one,
            **{name: np.concatenate([getattr(one, name)] * 5) for name in ("id", "true", "scores", "source")},
            split=np.repeat([f"grouped-1~seed{n}" for n in range(5)], len(one.id)),
        )
        for one in (a, b)
    ]
    five = compare(*tiled)
    assert (five.n_clips, five.n_results, five.n_sources) == (120, 600, 40)
    for key in ("ci95", "p", "se", "detectable"):
        assert getattr(five.delta["top1"], key) == pytest.approx(getattr(once.delta["top1"], key), abs=1e-6)
    for row, single in zip(five.per_class, once.per_class, strict=True):
        assert (row.support, row.tests) == (single.support, 5 * single.support)
        assert row.p == pytest.approx(single.p) and row.ci95 == pytest.approx(single.ci95, abs=1e-6)


def test_standard_error_is_cluster_robust_with_leverage() -> None:
    """CR2 by hand: each source's sum of residuals, divided by the root of 1 less its share of the clips."""
    a, b = predictions(splits=1, clips=118), predictions(seed=5, splits=1, clips=118)
    hits = right(b).astype(float) - right(a).astype(float)
    estimate = design_of(a).difference(hits, accuracy=0.5)
    own = [a.source == name for name in np.unique(a.source)]
    parts = [(hits[rows] - hits.mean()).sum() ** 2 / (1 - rows.mean()) for rows in own]
    assert estimate.se == pytest.approx(np.sqrt(sum(parts)) / len(hits))
    assert estimate.df == pytest.approx(118**2 / sum(rows.sum() ** 2 for rows in own) - 1)
    assert estimate.inflation == 1


def test_training_sets_add_nadeau_and_bengios_term() -> None:
    a, b = predictions(clips=240, splits=3), predictions(clips=240, seed=5, splits=3)
    hits = right(b).astype(float) - right(a).astype(float)
    names = a.split_names
    given, trained = (design_of(a, n).mean(hits) for n in (None, dict.fromkeys(names, 160)))
    whole = [design_of(a, dict.fromkeys(names, n)).mean(hits) for n in (320, 1600)]
    assert trained.inflation == pytest.approx(trained.se / given.se) and trained.inflation > 1
    assert given.se < whole[1].se < whole[0].se < trained.se
    assert (trained.se**2 - given.se**2) == pytest.approx(2 * (whole[0].se ** 2 - given.se**2))


def test_thinned_training_sets_vary_between_splits() -> None:
    """Heads trained on few shots vary between splits by more than their test clips explain."""
    clips, splits = 60, 8
    chance = np.repeat(np.random.RandomState(1).uniform(0.1, 0.9, splits), clips)
    hits = (np.random.RandomState(0).uniform(size=clips * splits) < chance).astype(float)
    ids = np.tile([f"v{n}" for n in range(clips)], splits)
    split = np.repeat([f"s{n}" for n in range(splits)], clips)
    given = {"split": split, "true": np.zeros(len(ids), int), "cluster": ids, "clip": ids}
    alike = Design(**given).mean(hits)
    few = Design(**{**given, "clip": [f"{n}/{id_}" for n, id_ in enumerate(ids)]}, n_train=dict.fromkeys(set(split), 4))
    assert few.thinned
    by_split = hits.reshape(splits, clips).mean(axis=1)
    assert few.mean(hits).se == pytest.approx(np.std(by_split, ddof=1) / np.sqrt(splits), rel=0.15)
    assert alike.se < 0.5 * few.mean(hits).se


def test_holms_correction_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    p = np.random.RandomState(0).uniform(size=20)
    corrected = np.array(holm(list(p)))
    order = np.argsort(p)
    assert (np.diff(corrected[order]) >= 0).all()
    assert (corrected >= false_discovery_control(p) - 1e-12).all(), "never milder than Benjamini-Hochberg"
    assert (corrected <= np.minimum(1, 20 * p) + 1e-12).all(), "never stricter than Bonferroni"
    assert corrected[order[0]] == pytest.approx(min(1, 20 * p[order[0]]))


def test_holm_covers_all_classes_with_test_clips() -> None:
    a, b = predictions(clips=200), predictions(skill=3.0, seed=5, clips=200)
    longer = (*NAMES, "yawn")
    wide = [
        dataclasses.replace(one, scores=np.pad(one.scores, ((0, 0), (0, 1))).astype(np.float32), class_names=longer)
        for one in (a, b)
    ]
    rows = compare(*wide).per_class
    assert rows[-1] == ClassDifference(class_="yawn", support=0), "every number is None"
    assert [row.p_holm for row in rows[:-1]] == pytest.approx(holm([row.p for row in rows[:-1]]))
    for number, row in enumerate(rows[:-1]):
        own = a.true == number
        difference = right(b)[own].astype(int) - right(a)[own].astype(int)
        assert row.p == pytest.approx(paired_p(difference, a.source[own]))


def test_comparisons_are_corrected_together_and_cost_is_a_ratio(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / name, predictions(skill=skill, seed=seed), info={"gmac": gmac})
        for name, skill, seed, gmac in (("base", 1.0, 0, 200), ("hr", 2.5, 1, 1700), ("large", 1.1, 2, 100))
    ]
    found = compare_all(runs)
    assert [(one.a, one.b) for one in found] == [("base", "hr"), ("base", "large"), ("hr", "large")]
    for metric in ("top1", "mean_class_accuracy", "log_loss"):
        deltas = [one.delta[metric] for one in found]
        assert [delta.p_holm for delta in deltas] == pytest.approx(holm([delta.p for delta in deltas]))
    assert [one.cost_ratio for one in found] == pytest.approx([8.5, 0.5, 1 / 17])
    assert "hr needs 8.5 times the multiply-adds of base." in found[0].verdict
    assert "large needs 0.5 times the multiply-adds of base." in found[1].verdict
    sizes = training_sizes(*(run.metrics for run in runs))
    alone = compare(runs[1].predictions, runs[2].predictions, names=("hr", "large"), n_train=sizes)
    assert found[2].per_class == alone.per_class and found[2].clips == alone.clips
    for name, delta in alone.delta.items():
        assert found[2].delta[name].value == pytest.approx(delta.value)
        assert found[2].delta[name].ci95 == pytest.approx(delta.ci95)


def test_runs_that_predict_the_same_are_not_proven_equal() -> None:
    found = compare(predictions(), predictions())
    assert found.delta["top1"].p == 1
    low, high = found.delta["top1"].ci95
    assert low < 0 < high and found.delta["top1"].value == 0


def test_other_clips_are_refused_and_counted(tmp_path: Path) -> None:
    a = predictions()
    rest = np.arange(len(a.id)) % 6 > 0
    columns = ("id", "split", "true", "scores", "source")
    fewer = dataclasses.replace(a, **{name: getattr(a, name)[rest] for name in columns})
    with pytest.raises(ActionVitError, match=r"20 only in the first, 0 only in the second, 100 in both") as error:
        compare(a, fewer)
    assert "official-1: " in str(error.value) and "and 17 more" in str(error.value)
    renamed = dataclasses.replace(a, split=np.array([f"x-{name}" for name in a.split]))
    with pytest.raises(ActionVitError, match="120 only in the first, 120 only in the second, 0 in both"):
        compare(a, renamed)
    with pytest.raises(ActionVitError, match="have different classes"):
        compare(a, dataclasses.replace(a, class_names=("x", *NAMES[1:])))
    relabelled = dataclasses.replace(a, true=np.roll(a.true, 1))
    with pytest.raises(ActionVitError, match="disagree on the true class of"):
        compare(a, relabelled)


def test_verdict_claims_no_more_than_was_shown() -> None:
    same, better = predictions(seed=7), predictions(skill=4.0, seed=5)
    for other, shown in ((same, False), (better, True)):
        one = dataclasses.replace(compare(predictions(), other, names=("base", "hr")), cost_ratio=8.7)
        sentence = verdict(one)
        assert is_shown(one) == shown
        start = (
            "hr is better than base, trained as here, on new videos from new sources: "
            if shown
            else "No significant difference in top-1 between base and hr"
        )
        assert sentence.startswith(start)
        assert "n = 120" in sentence and "40 sources" in sentence and "95 % confidence interval" in sentence
        assert ("without a demonstrated gain" in sentence) != shown
        assert ("points would be detected 4 times in 5" in sentence) != shown
    worse = compare(better, predictions(), names=("base", "hr"))
    assert verdict(worse).startswith("base is better than hr")


def test_interval_and_p_must_agree_for_a_difference() -> None:
    def one(ends: tuple[float, float], p: float, p_means: float = 0.5) -> Comparison:
        delta = {
            name: Difference(value=0.02, ci95=ends, p_holm=value, detectable=0.05)
            for name, value in (("top1", p), ("mean_class_accuracy", p_means))
        }
        same = compare(predictions(), predictions(), names=("base", "hr"))
        return dataclasses.replace(same, n_clips=113, n_sources=12, delta=delta)

    assert not is_shown(one((0.01, 0.03), 0.06)) and not is_shown(one((-0.01, 0.05), 0.01))
    sentence = verdict(one((0.01, 0.03), 0.06, 0.03))
    assert sentence.startswith("No significant difference in top-1 between base and hr")
    assert "n = 113" in sentence
    assert "With this much data, a true difference of 5.0 points would be detected 4 times in 5." in sentence
    assert "mean class accuracy, +2.0 points, +1.0 to +3.0, is significant (p = 0.030)" in sentence
    assert "With 12 sources the interval itself is uncertain." in sentence


def test_classes_of_few_sources_are_named_as_untestable() -> None:
    """Of 6 classes, each needs p < 0.05 / 6: with 7 sources or fewer no sign-flip test gets there."""
    a, b = predictions(clips=36, per_source=1), predictions(clips=36, per_source=1, skill=3.0, seed=5)
    rows = compare(a, b).per_class
    assert {row.testable for row in rows if row.sources <= 7} == {False}
    more = compare(predictions(clips=200), predictions(clips=200, skill=3.0, seed=5)).per_class
    assert all(row.testable for row in more)
    for row in rows:
        if row.sources:
            own = np.ones(row.sources)
            assert row.testable == (6 * paired_p(own, np.arange(row.sources)) < 0.05)


def test_planted_difference_is_covered_at_the_stated_rate() -> None:
    found = recovery((0.3, 0.8), tries=150, sources=60)
    assert found["top1"] >= 0.89 and found["mean_class_accuracy"] >= 0.89
    assert 0.91 <= found["each_class"] <= 0.99
    assert found["shown"] > 0.6, "with 60 sources this difference of 13 points is seen more often than not"


def test_where_there_is_no_difference_few_are_called() -> None:
    found = recovery((0.5, 0.5), tries=400, sources=60)
    assert found["p"] <= 0.08 and found["shown"] <= 0.08 and found["classes"] <= 0.08


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sources", [40, 150])
def test_coverage_and_errors_over_many_tries(sources: int) -> None:
    planted_found = recovery((0.3, 0.8), tries=1000, sources=sources)
    for name in ("top1", "mean_class_accuracy", "each_class"):
        assert 0.91 <= planted_found[name] <= 0.98, (name, planted_found)
    none = recovery((0.5, 0.5), tries=1000, sources=sources)
    for name in ("p", "shown", "classes"):
        assert none[name] <= 0.065, (name, none)


def test_a_class_with_a_planted_difference_is_named_and_no_other() -> None:
    random = np.random.default_rng(0)
    named: list[str] = []
    for _ in range(20):
        a, _ = planted(random, (1.0, 1.0), 200)
        best = a.scores.argmax(1)
        lost = (a.true == 2) & (random.uniform(size=len(best)) < 0.6)
        scores = softmax(4.0 * np.eye(4)[np.where(lost, 3, best)])
        named += compare(a, dataclasses.replace(a, scores=scores)).classes.shown
    assert named == ["c2"] * 20
