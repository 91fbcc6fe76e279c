"""The report's sections on single runs: every number against an independent computation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from fake_runs import NAMES, predictions, write
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from scipy.stats import t
from sklearn import metrics as theirs
from sklearn.calibration import calibration_curve

from actionvit.errors import ActionVitError
from actionvit.evaluation.metrics import METRICS, evaluate
from actionvit.pipeline.reporting.describe import by_metadata, by_similarity, describe, most_confused
from actionvit.pipeline.reporting.hard_clips import CONFIDENT, WORST, hard_clips
from actionvit.pipeline.reporting.model import ConfusedPair, as_json
from actionvit.pipeline.runs import Run, design_of, read_run, training_sizes


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [write(folder / "base", predictions()), write(folder / "hr", predictions(skill=2.2, seed=4))]


def test_metrics_are_scikit_learns() -> None:
    found = predictions()
    true, probability = found.true, found.scores.astype(np.float64)
    best = probability.argmax(1)
    entry = evaluate(true, found.scores, NAMES, n_train=7)
    assert entry["top1"] == pytest.approx(theirs.accuracy_score(true, best))
    assert entry["top5"] == pytest.approx(theirs.top_k_accuracy_score(true, probability, k=5))
    assert entry["mean_class_accuracy"] == pytest.approx(theirs.balanced_accuracy_score(true, best))
    assert entry["macro_f1"] == pytest.approx(theirs.f1_score(true, best, average="macro"))
    normal = probability / probability.sum(1, keepdims=True)
    assert entry["log_loss"] == pytest.approx(theirs.log_loss(true, normal), rel=1e-6)
    assert entry["brier"] == pytest.approx(((probability - np.eye(6)[true]) ** 2).sum(1).mean(), rel=1e-6)
    np.testing.assert_array_equal(entry["confusion"], theirs.confusion_matrix(true, best))


def test_classes_pooled_over_the_splits_are_scikit_learns(pair: list[Run]) -> None:
    found, section = pair[0].predictions, describe(pair[0])
    best = found.scores.argmax(1)
    precision, recall, f1, support = theirs.precision_recall_fscore_support(found.true, best)
    for number, row in enumerate(section.per_class):
        expected = (precision[number], recall[number], f1[number], support[number])
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx(expected)
    np.testing.assert_array_equal(section.confusion, theirs.confusion_matrix(found.true, best))
    for split, stored in zip(as_json(section.splits), pair[0].metrics["splits"], strict=True):
        assert split == {key: stored[key] for key in split} and set(METRICS) < set(split)
    assert as_json(section.summary) == pair[0].metrics["summary"]


def test_classes_count_a_clip_once_however_often_tested(tmp_path) -> None:
    once = predictions()
    again = np.flatnonzero(once.true == 1)[::2]  # tested by two more splits
    order = np.concatenate([np.arange(len(once.id)), again, again])
    rows = {name: getattr(once, name)[order] for name in ("id", "true", "scores", "source")}
    split = np.concatenate([once.split, np.repeat(["second", "third"], len(again))])
    run = write(tmp_path / "run", dataclasses.replace(once, **rows, split=split))
    _, inverse, tests = np.unique(rows["id"], return_inverse=True, return_counts=True)
    expected = theirs.precision_recall_fscore_support(
        rows["true"], rows["scores"].argmax(1), sample_weight=1 / tests[inverse]
    )
    for row, record, *values in zip(describe(run).per_class, run.per_class, *expected, strict=True):
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx(tuple(values))
        assert record == {key: value for key, value in as_json(row).items() if key in record}


def test_cmc_is_top_k_accuracy(pair: list[Run]) -> None:
    found = pair[0].predictions
    expected = [theirs.top_k_accuracy_score(found.true, found.scores, k=k) for k in range(1, 6)] + [1.0]
    assert describe(pair[0]).cmc == pytest.approx(expected)


def test_reliability_bins_are_scikit_learns(pair: list[Run]) -> None:
    found = pair[0].predictions
    hit, confidence = found.scores.argmax(1) == found.true, found.scores.max(1).astype(np.float64)
    accuracy, mean = calibration_curve(hit, confidence, n_bins=15)
    full = [row for row in describe(pair[0]).reliability if row.count]
    assert [row.accuracy for row in full] == pytest.approx(list(accuracy))
    assert [row.confidence for row in full] == pytest.approx(list(mean))
    gaps = [row.count * abs(row.accuracy - row.confidence) for row in full]
    whole = evaluate(found.true, found.scores, NAMES, n_train=1, cluster=found.cluster)
    assert whole["ece"] < sum(gaps) / len(found.id), "the plug-in estimate is too high"


def adjusted(values: np.ndarray, source: np.ndarray, imaginary: list[float], inflation: float) -> tuple[float, float]:
    """The interval of a mean with imaginary clips, written out as a weighted regression on nothing but a constant."""
    names, number = np.unique(source, return_inverse=True)
    groups = [values[number == i] for i in range(len(names))] + [np.array([value]) for value in imaginary]
    n, units = sum(map(len, groups)), len(groups)
    mean = sum(group.sum() for group in groups) / n
    spread = sum((group - mean).sum() ** 2 for group in groups) * units / (units - 1) / n**2
    half = t.ppf(0.975, len(names) - 1 + len(imaginary) * len(names) / len(values)) * spread**0.5 * inflation
    return mean - half, mean + half


def inflation(run: Run) -> float:
    hits = (run.predictions.scores.argmax(1) == run.predictions.true).astype(float)
    return design_of(run.predictions, training_sizes(run.metrics)).mean(hits).inflation


def test_recall_intervals_by_hand(pair: list[Run]) -> None:
    found, factor = pair[0].predictions, inflation(pair[0])
    for number, row in enumerate(describe(pair[0]).per_class):
        own = found.true == number
        hit = (found.scores[own].argmax(1) == number).astype(float)
        low, high = adjusted(hit, found.source[own], [1, 1, 0, 0], factor)
        assert row.recall_ci95 == pytest.approx([max(0, low), min(1, high)], abs=1e-6)


def test_metrics_of_other_predictions_are_noticed(tmp_path: Path) -> None:
    run = write(tmp_path / "base", predictions())
    other = write(tmp_path / "other", predictions(seed=1))
    (run.folder / "metrics.json").write_bytes((other.folder / "metrics.json").read_bytes())
    with pytest.raises(ActionVitError, match="does not match"):
        describe(read_run(run.folder))


def test_most_confused_pairs_by_hand() -> None:
    cells = np.array([[5, 3, 0], [1, 2, 3], [0, 0, 0]])
    assert most_confused(cells, ("a", "b", "c")) == [
        ConfusedPair(true="b", predicted="c", count=3, fraction=0.5),
        ConfusedPair(true="a", predicted="b", count=3, fraction=0.375),
        ConfusedPair(true="b", predicted="a", count=1, fraction=1 / 6),
    ]


def test_classes_that_are_taken_for_each_other_stand_together() -> None:
    true, random = np.random.RandomState(1).randint(0, 6, 600), np.random.RandomState(0)
    partner = np.array([3, 4, 5, 0, 1, 2])  # three pairs, interleaved
    taken = np.where(random.uniform(size=600) < 0.4, partner[true], true)
    order = by_similarity(theirs.confusion_matrix(true, taken))
    assert sorted(order) == list(range(6))
    for one in range(3):
        assert abs(order.index(one) - order.index(partner[one])) == 1, order


@pytest.mark.parametrize("seed", range(20))
def test_order_is_within_five_percent_of_the_trees_best(seed: int) -> None:
    cells = np.random.RandomState(seed).randint(0, 20, (7, 7)) + 30 * np.eye(7, dtype=int)
    shares = cells / cells.sum(1, keepdims=True)
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average")

    def orders(node: int) -> Iterator[list[int]]:
        if node < 7:
            yield [node]
            return
        sides = [list(orders(int(child))) for child in tree[node - 7, :2]]
        for a, b in product(*sides):
            yield from (a + b, b + a)

    def length(order: list[int]) -> float:
        return float(sum(distance[a, b] for a, b in pairwise(order)))

    every = list(orders(12))
    found = by_similarity(cells)
    assert len(every) == 2**6 and found in every
    assert length(found) <= 1.05 * min(map(length, every))  # scipy does not always find the best (its issue 11227)


def test_class_order_with_few_or_unseen_classes() -> None:
    assert by_similarity(np.array([[3, 1], [1, 3]])) == [0, 1]
    assert sorted(by_similarity(np.zeros((4, 4), dtype=np.int64))) == [0, 1, 2, 3]


def test_accuracy_by_what_the_names_tell(pair: list[Run]) -> None:
    rows = by_metadata(pair)
    found, other = (run.predictions for run in pair)
    tags = [id_.rsplit("/", 1)[1].removesuffix(".avi").split("_")[2:] for id_ in found.id.tolist()]
    columns = {"Visible body part": 0, "Camera": 1, "People": 2, "Viewpoint": 3, "Quality": 4}
    words = {
        "Visible body part": {"f": "full body", "u": "upper body", "l": "lower body", "h": "head"},
        "Camera": {"cm": "camera moves", "nm": "camera still"},
        "People": {"np1": "1", "np2": "2"},
        "Viewpoint": {"fr": "front", "ba": "back", "le": "left", "ri": "right"},
        "Quality": {"goo": "good", "med": "medium", "bad": "bad"},
    }
    assert len(rows) == sum(map(len, words.values()))
    hit = [one.scores.argmax(1) == one.true for one in (found, other)]
    for row in rows:
        labels = [words[row.field][tag[columns[row.field]]] for tag in tags]
        own = np.array([word == row.value for word in labels])
        assert row.n == own.sum()
        assert [one.accuracy for one in row.runs] == pytest.approx([h[own].mean() for h in hit])
        difference = hit[1][own].astype(float) - hit[0][own]
        assert row.deltas[0].value == pytest.approx(difference.mean())
        low, high = adjusted(difference, found.source[own], [1, -1], max(map(inflation, pair)))
        assert row.deltas[0].ci95 == pytest.approx([max(-1, low), min(1, high)], abs=1e-6)


def test_unmatched_names_and_constant_fields_are_left_out() -> None:
    found = predictions()
    plain = dataclasses.replace(found, id=np.array([f"a/{n}.mp4" for n in range(len(found.id))]))
    run = Run(folder=Path("x"), info={}, predictions=plain, metrics={}, train={})
    assert by_metadata([run]) == []
    still = dataclasses.replace(found, id=np.array([id_.replace("_cm_", "_nm_") for id_ in found.id.tolist()]))
    rows = by_metadata([Run(folder=Path("x"), info={}, predictions=still, metrics={}, train={})])
    assert "Camera" not in {row.field for row in rows} and "Quality" in {row.field for row in rows}


def test_hard_clips_are_confident_errors_then_worst_classes(pair: list[Run]) -> None:
    chosen = hard_clips(pair, names=("base", "hr"), errors=5, classes=2, per_class=3)
    scores = np.stack([run.predictions.scores for run in pair])
    found = pair[0].predictions
    wrong = scores.argmax(2) != found.true
    sure = np.where(wrong, scores.max(2), 0).max(0)
    assert [clip.id for clip in chosen[:5]] == found.id[np.argsort(-sure)[:5]].tolist()
    assert {clip.why for clip in chosen[:5]} == {CONFIDENT} and {clip.why for clip in chosen[5:]} == {WORST}
    recall = np.mean([theirs.recall_score(found.true, s.argmax(1), average=None) for s in scores], axis=0)
    worst = [NAMES[number] for number in np.argsort(recall)[:2]]
    assert [clip.true for clip in chosen[5:]] == [worst[0]] * 3 + [worst[1]] * 3
    assert len({clip.id for clip in chosen}) == len(chosen)
    for clip in chosen:
        row = found.id.tolist().index(clip.id)
        for run, result in zip(pair, clip.results, strict=True):
            own = run.predictions.scores[row]
            assert result.predicted == NAMES[own.argmax()] and result.score == pytest.approx(own.max())
            assert result.true_score == pytest.approx(own[found.true[row]])
    json.dumps(as_json(chosen))


def test_where_nothing_is_wrong_nothing_is_hard(tmp_path: Path) -> None:
    found = predictions(skill=50.0)
    assert hard_clips([Run(folder=tmp_path, info={}, predictions=found, metrics={}, train={})]) == []
