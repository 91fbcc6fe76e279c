"""`probe --protocol mveb` against the protocol written out with scikit-learn."""

from __future__ import annotations

import json
import os
import socket
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_features import write_store
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets import Dataset, load_dataset
from actionvit.pipeline.probing import mveb
from actionvit.pipeline.probing.mveb import training_draws
from actionvit.pipeline.run_folder import locked_run
from actionvit.pipeline.runs import read_run


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Dataset]:
    """A dataset with one official list of each class, and a store of it."""
    root, lists = tmp_path / "data", tmp_path / "lists"
    lists.mkdir()
    for label in ("clap", "jump", "run"):
        (root / label).mkdir(parents=True)
        lines = []
        for number in range(21):
            name = f"Film{number}_{label}_f_cm_np1_fr_goo_0.avi"
            (root / label / name).touch()
            lines.append(f"{name} {1 if number < 14 else 2}")
        for split in (1, 2, 3):
            (lists / f"{label}_test_split{split}.txt").write_text("\n".join(lines))
    dataset = load_dataset(root, splits_dir=lists)
    write_store(tmp_path / "cache", dataset, noise=4.0)
    return tmp_path, dataset


def probe(place: Path, *more: str) -> Result:
    where = [str(place / "data"), "--splits-dir", str(place / "lists"), "--cache", str(place / "cache")]
    return CliRunner().invoke(cli, ["probe", *where, "--runs", str(place / "runs"), "--protocol", "mveb", *more])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scores_are_those_of_the_protocol(place: tuple[Path, Dataset]) -> None:
    folder, dataset = place
    result = probe(folder, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    (summary,) = json.loads(result.stdout)
    found = read_run(Path(summary["run"]))
    (store,) = (FeatureStore.open(path.parent) for path in folder.glob("cache/*/*/key.json"))
    clips = {row.id: row.arrays["clip"].mean(0) for row in store.iter_rows(store.ids)}
    labels = {video.id: video.label for video in dataset.videos}
    train = sorted(id for id in labels if int(id.split("Film")[1].split("_")[0]) < 14)
    test = sorted(set(labels) - set(train))
    X, y = np.stack([clips[id] for id in train]), [labels[id] for id in train]
    order, right = list(range(len(train))), []
    for _ in range(10):
        np.random.RandomState(42).shuffle(order)
        counts: dict[str, int] = defaultdict(int)
        rows = []
        for row in order:
            if counts[y[row]] < 8:
                rows.append(row)
                counts[y[row]] += 1
        classifier = LogisticRegression(max_iter=100, random_state=42).fit(X[rows], [y[row] for row in rows])
        predicted = classifier.predict(np.stack([clips[id] for id in test]))
        true = [labels[id] for id in test]
        right.append((accuracy_score(true, predicted), f1_score(true, predicted, average="macro")))
    scores = found.info["mveb"]["scores_per_experiment"]
    assert np.array([(draw["accuracy"], draw["f1"]) for draw in scores]) == pytest.approx(np.array(right))
    assert found.info["mveb"]["accuracy"] == pytest.approx(np.mean([accuracy for accuracy, _ in right]))
    assert found.metrics["summary"]["top1"]["mean"] == pytest.approx(found.info["mveb"]["accuracy"], abs=1e-6)
    assert found.info["protocol"] == "mveb" and len(set(found.predictions.split)) == 10


def test_draws_differ_and_hold_eight_of_each_class() -> None:
    y = np.repeat([0, 1, 2], [30, 8, 5])
    draws = list(training_draws(y))
    assert len(draws) == 10 and len({tuple(sorted(rows)) for rows in draws}) > 1
    assert all(np.bincount(y[rows]).tolist() == [8, 8, 5] for rows in draws)


def test_options_that_the_protocol_fixes_are_refused(place: tuple[Path, Dataset]) -> None:
    result = probe(place[0], "--head", "knn")
    assert result.exit_code == 2 and "--protocol mveb fixes" in result.output
    unused = (
        "--class-weight=none",
        "--logit-adjustment=1",
        "--focal-gamma=1",
        "--final",
        "--select-on=val",
        "--folds=3",
    )
    for option in unused:
        result = probe(place[0] / "absent", option)  # refused before the dataset is read
        assert result.exit_code == 2 and f"leave out {option.partition('=')[0]}\n" in result.output, result.output


def test_second_mveb_process_on_a_run_name_is_refused(place: tuple[Path, Dataset]) -> None:
    folder, _ = place
    with locked_run(folder / "runs" / "r"):
        result = probe(folder, "--run-name", "r")
    assert isinstance(result.exception, ActionVitError)
    holder = f"process {os.getpid()} on {socket.gethostname()} is training under this run name"
    assert holder in str(result.exception) and "choose another --run-name" in str(result.exception)
    assert not list((folder / "runs").iterdir())
    assert probe(folder, "--run-name", "r").exit_code == 0
    assert [path.name for path in (folder / "runs").iterdir()] == ["r"]


def test_only_the_same_mveb_run_is_replaced(place: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, dataset = place
    assert probe(folder, "--run-name", "r").exit_code == probe(folder, "--run-name", "r").exit_code == 0
    write_store(folder / "other", dataset, "hr", noise=4.0)
    monkeypatch.setattr(mveb, "probe_mveb", lambda *_: pytest.fail("computed before the run's folder is checked"))
    result = probe(folder, "--run-name", "r", "--cache", str(folder / "other"), "--variant", "hr")
    assert isinstance(result.exception, ActionVitError) and "choose another --run-name" in str(result.exception)


def test_mveb_runs_are_reported(place: tuple[Path, Dataset]) -> None:
    folder, _ = place
    result = probe(folder)
    assert result.exit_code == 0 and "MVEB: accuracy" in result.output
    (run,) = (folder / "runs").iterdir()
    report = CliRunner().invoke(cli, ["report", str(run), "-o", str(folder / "report"), "--no-thumbnails"])
    assert report.exit_code == 0, (report.output, report.exception)
