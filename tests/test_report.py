"""Runs and reports: every number against scikit-learn or by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as theirs

from actionvit.errors import ActionVitError
from actionvit.heads.metrics import evaluate
from actionvit.heads.statistics import holm, paired_p
from actionvit.pipeline.reporting.compare import compare
from actionvit.pipeline.reporting.report import report
from actionvit.pipeline.runs import Predictions, Run, measure, read_run, write_run

NAMES = ("clap", "jump", "run", "walk", "wave", "<b>&")


def scores(true: np.ndarray, skill: float, seed: int) -> np.ndarray:
    random = np.random.RandomState(seed)
    logits = random.standard_normal((len(true), len(NAMES))) + skill * np.eye(len(NAMES))[true]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probability.astype(np.float32)


def predictions(skill: float = 1.5, seed: int = 0, ids: int = 120) -> Predictions:
    true = np.random.RandomState(9).randint(0, len(NAMES), ids)
    return Predictions(
        id=np.array([f"{NAMES[y]}/film{n // 3}_{n}.avi" for n, y in enumerate(true)]),
        split=np.array(["one" if n % 2 else "two" for n in range(ids)]),
        true=true.astype(np.int64),
        scores=scores(true, skill, seed),
        source=np.array([f"film{n // 3}" for n in range(ids)]),
        class_names=NAMES,
    )


def written(folder: Path, skill: float = 1.5, seed: int = 0, ids: int = 120) -> Run:
    found = predictions(skill, seed, ids)
    return write_run(
        folder,
        info={"variant": folder.name, "gmac": 1.0, "coverage": {"videos": ids + 2, "cached": ids, "missing": 2}},
        predictions=found,
        metrics=measure(found, n_train={"one": 10, "two": 10}),
        head_tensors={"coef": np.zeros((2, 2), np.float32)},
        head_config={"kind": "linear"},
    )


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
    np.testing.assert_array_equal(entry["confusion"], theirs.confusion_matrix(true, best))
    precision, recall, f1, support = theirs.precision_recall_fscore_support(true, best)
    for number, row in enumerate(entry["per_class"]):
        expected = (precision[number], recall[number], f1[number], support[number])
        assert (row["precision"], row["recall"], row["f1"], row["support"]) == pytest.approx(expected)


def test_the_paired_test_is_mcnemars_exact_one() -> None:
    from scipy.stats import binomtest

    difference = np.array([1] * 9 + [-1] * 2 + [0] * 30)
    assert paired_p(difference, np.arange(len(difference))) == pytest.approx(binomtest(2, 11).pvalue)


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_intervals_of_a_difference_find_a_planted_one() -> None:
    weak, strong = predictions(0.5, seed=1, ids=300), predictions(2.5, seed=2, ids=300)
    found = compare(weak, strong)
    low, high = found["delta"]["top1"]["ci95"]
    assert 0 < low < found["delta"]["top1"]["value"] < high
    assert found["p_sources"] < 0.001
    none = compare(weak, predictions(0.5, seed=3, ids=300))
    assert none["delta"]["top1"]["ci95"][0] < 0 < none["delta"]["top1"]["ci95"][1]


def test_a_run_reads_back_and_is_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a" / "r"), written(tmp_path / "b" / "r")
    for path in sorted(first.folder.iterdir()):
        assert path.read_bytes() == (second.folder / path.name).read_bytes()
    np.testing.assert_array_equal(read_run(first.folder).predictions.scores, first.predictions.scores)
    with pytest.raises(ActionVitError, match="exists"):
        written(tmp_path / "a" / "r")


def test_a_report_tells_every_number_in_every_form(tmp_path: Path) -> None:
    runs = [written(tmp_path / "base"), written(tmp_path / "hr", skill=2.0, seed=4)]
    files = report(runs, out=tmp_path / "report")
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    page, text = files.html.read_text(), (tmp_path / "report" / "report.md").read_text()
    for run in runs:
        top1 = f"{100 * run.metrics['summary']['top1']['mean']:.1f}"
        assert top1 in page and top1 in text
    assert found["comparisons"][0]["verdict"] in text
    assert "2 missing" in page and "2 missing" in text
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page, "names are escaped"
    assert "http" not in page.replace("http://www.w3.org", ""), "nothing is loaded from elsewhere"
    with (tmp_path / "report" / "tables" / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    pooled = theirs.recall_score(runs[0].predictions.true, runs[0].predictions.scores.argmax(1), average=None)
    recalls = [float(row["recall"]) for row in rows if row["run"] == "base"]
    assert recalls == pytest.approx(list(pooled))
    for name in ("confusion-base", "confusion-hr", "per_class"):
        assert (tmp_path / "report" / "figures" / f"{name}.svg").read_text().startswith("<?xml")
        assert (tmp_path / "report" / "figures" / f"{name}.png").stat().st_size > 1000


def test_the_same_runs_give_the_same_report(tmp_path: Path) -> None:
    run = written(tmp_path / "base")
    for out in ("a", "b"):
        report([run], out=tmp_path / out)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_runs_on_other_clips_are_not_compared(tmp_path: Path) -> None:
    runs = [written(tmp_path / "base"), written(tmp_path / "hr", ids=100)]
    with pytest.raises(ActionVitError, match="tested different clips: 20 only in the first, 0 only in the second"):
        report(runs, out=tmp_path / "report")
    assert not (tmp_path / "report").exists()
