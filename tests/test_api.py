"""The Python interface: every public name on drawn clips, lazily imported, in agreement with the command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import actionvit as av
from actionvit.cli import cli

SMALL = {"num_frames": 2, "size": 32}


@pytest.fixture(scope="module")
def place(sixty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extract two variants of sixty drawn clips into `cache`."""
    folder = tmp_path_factory.mktemp("api")
    av.extract(av.load_dataset(sixty), ["tiny", "tiny-hr"], cache=folder / "cache", workers=1, **SMALL)
    return folder


def test_importing_loads_nothing_heavy_and_is_quick() -> None:
    code = (
        "import time, sys; before = time.process_time(); import actionvit; seconds = time.process_time() - before\n"
        "print(seconds, *(m for m in ('torch', 'transformers', 'sklearn', 'matplotlib', 'numpy') if m in sys.modules))"
    )
    shown = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert all(len(words) == 1 for words in shown)
    assert min(float(words[0]) for words in shown) < 0.05


def test_every_public_name_resolves_and_is_documented() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name in dir(av):
        if name != "__version__":
            assert getattr(av, name).__doc__
            assert f"`{name}" in page or f"av.{name}" in page, name
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        _ = av.extrakt


def test_the_examples_of_the_reference_page_run(
    sixty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    shutil.copytree(sixty, tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(example, "python.md", "exec"), names)
    assert "report.html" in capsys.readouterr().out


def test_extract_gives_the_stores_of_the_command_line(sixty: Path, place: Path) -> None:
    dataset = av.load_dataset(sixty)
    store = av.extract(dataset, "tiny", cache=place / "cache", workers=1, **SMALL)
    assert isinstance(store, av.FeatureStore) and len(store) == len(dataset.videos)
    arguments = ["extract", sixty, "--variant", "tiny", "--num-frames", 2, "--size", 32, "--cache", place / "cache"]
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert (outcome["store"], outcome["embedded"]) == (str(store.folder), 0)


def test_shards_are_disjoint_stores(sixty: Path, tmp_path: Path) -> None:
    dataset = av.load_dataset(sixty)
    settings = {"cache": tmp_path / "cache", "workers": 1, **SMALL}
    first = av.extract(dataset, "tiny", shard=(1, 2), **settings)
    second = av.extract(dataset, "tiny", shard=(2, 2), wait=True, **settings)
    assert len(first) and len(second)
    assert sorted([*first.ids, *second.ids]) == sorted(video.id for video in dataset.videos)
    with pytest.raises(av.ActionVitError, match="shard: got"):
        av.extract(dataset, "tiny", shard=(3, 2), **settings)


def test_features_are_joined_with_labels_ids_and_sources(sixty: Path, place: Path) -> None:
    dataset = av.load_dataset(sixty)
    X, y, ids, sources = av.load_features(dataset, "tiny", cache=place / "cache")
    videos = {video.id: video for video in dataset.videos}
    assert X.shape == (len(videos), 128) and X.dtype == np.float32
    assert [dataset.class_names[number] for number in y] == [videos[id].label for id in ids]
    assert sources.tolist() == [videos[id].source for id in ids]
    both = av.load_features(dataset, ["tiny", "tiny-hr"], cache=place / "cache")
    np.testing.assert_array_equal(both.X["tiny"], X)
    frames = av.load_features(dataset, "tiny", cache=place / "cache", level="frame").X
    assert frames.shape == (len(videos), 2, 128)
    each = av.load_features(dataset, "tiny", cache=place / "cache", views="each").X
    np.testing.assert_allclose(each.mean(axis=1), X)


@pytest.fixture(scope="module")
def runs(sixty: Path, place: Path) -> list[av.Run]:
    dataset = av.load_dataset(sixty)
    settings = {"folds": 2, "seeds": 1, "protocol": "grouped", "grid": {"C": (1.0,)}}
    return av.probe(dataset, ["tiny", "tiny-hr"], balanced=True, cache=place / "cache", runs=place / "runs", **settings)


def test_a_run_gives_arrays_and_plain_records(runs: list[av.Run]) -> None:
    run = runs[0]
    names = run.predictions.class_names
    assert [row["class"] for row in run.per_class] == list(names)
    assert run.confusion.shape == (len(names), len(names))
    clips = len(set(run.predictions.id.tolist()))
    assert run.confusion.sum() == pytest.approx(clips)
    assert sum(row["support"] for row in run.per_class) == clips
    for row, column in zip(run.per_class, range(len(names)), strict=True):
        assert row["recall"] == pytest.approx(run.confusion[column, column] / run.confusion[column].sum())
        assert all(isinstance(value, (str, int, float, type(None))) for value in row.values())
    correct = np.trace(run.confusion) / clips
    assert run.metrics["summary"]["top1"]["mean"] == pytest.approx(correct, abs=0.02)


def test_a_run_is_read_reported_and_predicts(sixty: Path, place: Path, runs: list[av.Run]) -> None:
    again = av.load_run(runs[0].folder)
    assert again.metrics == runs[0].metrics
    page = av.report(runs, place / "report")
    assert page == place / "report" / "report.html" and page.is_file()
    dataset = av.load_dataset(sixty)
    videos = [dataset.videos[0].path, dataset.videos[1].path]
    first, second = av.predict(runs[0], videos, top=3, workers=0)
    assert len(first) == len(second) == 3
    assert first[0]["score"] >= first[1]["score"] and first[0]["class"] in dataset.class_names


def test_fusion_is_the_last_of_the_runs(sixty: Path, place: Path) -> None:
    settings = {"folds": 2, "seeds": 1, "protocol": "grouped", "head": "centroid"}
    made = av.probe(
        av.load_dataset(sixty),
        ["tiny", "tiny-hr"],
        fuse="mean",
        cache=place / "cache",
        runs=place / "fused",
        **settings,
    )
    assert [run.name.split("-fused")[0] for run in made][2].startswith("tiny+tiny-hr")


def test_finetune_trains_a_head(sixty: Path, place: Path) -> None:
    run = av.finetune(
        av.load_dataset(sixty),
        "tiny",
        train="head",
        epochs=1,
        max_grad_norm=0.5,
        folds=2,
        protocol="grouped",
        split=("grouped-1",),
        cache=place / "cache",
        runs=place / "runs",
        workers=0,
        device="cpu",
        **SMALL,
    )
    assert run.info["spec"]["training"]["optim"]["clip_norm"] == 0.5
    assert 0 <= run.metrics["summary"]["top1"]["mean"] <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data, place: av.probe(data, "tiny", cache=place, hed="knn"), "hed: no such setting; expected some of"),
        (lambda data, place: av.probe(data, "tiny", cache=place, folds=1), "folds: got 1, expected at least 2"),
        (lambda data, place: av.probe(data, "tiny", cache=place, sampler="x"), "sampler: got 'x', expected one of"),
        (lambda data, place: av.finetune(data, "tiny", lr=-1.0), "lr: got -1.0, expected more than 0"),
        (lambda data, place: av.finetune(data, "tiny", learning_rate=1.0), "learning_rate: no such setting"),
        (
            lambda data, place: av.finetune(data, "tiny", train="all", tokens=True),
            "cannot be cached: add tokens=False",
        ),
        (
            lambda data, place: av.load_features(data, "tiny", cache=place, level="frames"),
            "level: got 'frames', expected",
        ),
        (lambda data, place: av.probe(data, cache=place, balanced=True, class_weight="effective"), "give one of them"),
    ],
)
def test_errors_name_the_setting(sixty: Path, tmp_path: Path, call, message: str) -> None:
    with pytest.raises(av.ActionVitError, match=message) as raised:
        call(av.load_dataset(sixty), tmp_path)
    assert "--" not in str(raised.value)
