"""A store and a run as the first edition wrote them stay readable: opened, verified, extended, probed, reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from actionvit.cli import cli
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.pipeline.runs import read_run

FIXTURE = Path(__file__).parent / "data" / "first_edition"
DIGEST = "d1a16cf0c9d4b2270284ff19c01e444d9f20900cbca11ee0cad453390aa3ecc3"


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def edition(tmp_path: Path) -> Path:
    """A copy: with other modification times, as a checkout or a download has."""
    shutil.copytree(FIXTURE, tmp_path / "edition", copy_function=shutil.copy)
    return tmp_path / "edition"


def the_store(edition: Path) -> Path:
    return next(edition.glob("cache/*/*/key.json")).parent


def test_store_rows_and_failures_are_read(edition: Path) -> None:
    store = FeatureStore.open(the_store(edition))
    assert (len(store), store.digest()) == (16, DIGEST)
    assert store.read(store.ids, "frame").shape == (16, 1, 2, 128)
    assert [(failure.id, failure.reason) for failure in store.failures()] == [("rise/broken.avi", "not_video")]


def test_store_is_verified(edition: Path) -> None:
    assert verify_store(the_store(edition)) == []
    assert json.loads(invoke("cache", "verify", the_store(edition), "--json"))["digest"] == DIGEST


def test_store_is_extended_without_embedding_again(edition: Path) -> None:
    drawn = edition / "drawn"
    shutil.copy(next(drawn.glob("rise/Sketch*")), drawn / "rise" / "Sketchbook_29_rise_f_nm_np1_fr_med_0.avi")
    small = ("--variant", "tiny", "--num-frames", 2, "--size", 32, "--workers", 1)
    summary = json.loads(invoke("extract", drawn, *small, "--cache", edition / "cache", "--json", code=3))
    outcome = summary["outcomes"][0]
    assert (outcome["cached"], outcome["embedded"], outcome["reused"], outcome["failed"]) == (16, 0, 1, 1)
    assert Path(outcome["store"]) == the_store(edition)


def test_run_is_read_with_its_head(edition: Path) -> None:
    run = read_run(edition / "runs" / "fixture")
    tensors, config = run.head()
    assert tensors and config["class_names"] == ["appear", "rise", "zigzag"]
    assert run.metrics["summary"]["top1"]["mean"] == pytest.approx(0.3)
    assert set(run.train) == set(run.predictions.split_names)


def test_probe_and_report_agree_with_the_old_run(edition: Path) -> None:
    runs, old = edition / "runs", read_run(edition / "runs" / "fixture")
    places = ("--cache", edition / "cache", "--runs", runs)
    invoke("probe", edition / "drawn", "--variant", "tiny", *places, "--run-name", "again", "--seeds", 1)
    new = read_run(runs / "again")
    assert new.predictions.id.tolist() == old.predictions.id.tolist()
    # The inner folds are dealt otherwise today, so that a split may choose another C; with the same C, numbers agree.
    chosen = [{search["split"]: search["chosen"] for search in run.info["search"]} for run in (old, new)]
    same = [split for split in chosen[0] if chosen[0][split] == chosen[1][split]]
    assert len(same) >= 3
    rows = np.isin(old.predictions.split, same)
    np.testing.assert_allclose(new.predictions.scores[rows], old.predictions.scores[rows], atol=1e-3)
    page = edition / "report"
    invoke("report", runs / "fixture", runs / "again", "--root", edition / "drawn", "--output", page)
    assert {run["name"] for run in json.loads((page / "report.json").read_text())["runs"]} == {"fixture", "again"}
