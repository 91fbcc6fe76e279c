"""The choice of a store by its settings, and the advised commands that make or complete it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_features import write_dataset, write_store

import actionvit as av
from actionvit.cli import main
from actionvit.errors import SettingError
from actionvit.features.store import catalog
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets import Dataset
from actionvit.pipeline.datasets.synthetic.dataset import write_avi

pytestmark = pytest.mark.usefixtures("own_logging")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Return the exit code and the errors and warnings of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A dataset in a folder with a blank in its name, and stores of it with two sizes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my data").mkdir()
    dataset = write_dataset(tmp_path / "my data" / "films", sources=4)
    for size in (160, 224):
        write_store(tmp_path / "cache", dataset, size=size)
    return dataset


@pytest.mark.parametrize("command", ["probe", "experiment heads", "experiment splits"])
def test_views_that_no_store_has_are_wrong_usage(
    command: str, films: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(capsys, *command.split(), films.root, "--cache", "cache", "--num-frames", 5, "--size", 64)
    advice = f"actionvit extract '{films.root}' --variant base --num-frames 5 --size 64"
    existing = "only with --num-frames 4 --size 160 or --num-frames 4 --size 224"
    expected = (
        f"no embeddings of films base with --num-frames 5 --size 64, {existing}; choose from these, or run `{advice}`"
    )
    assert code == 2 and expected in error


def test_advice_for_an_absent_variant_has_the_views(films: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = run(capsys, "probe", films.root, "--cache", "cache", "--variant", "hr", "--size", 64)
    assert code == 1 and f"run `actionvit extract '{films.root}' --variant hr --size 64`" in error
    with pytest.raises(SettingError, match=r"with size=64, only with size=160 or size=224"):
        av.load_features(films, cache="cache", size=64)


def test_a_named_store_of_another_variant_is_refused(films: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_store(Path("cache"), films, "hr").folder.name
    code, error = run(capsys, "probe", films.root, "--cache", "cache", "--size", 224, "--store", other)
    assert (code, error.splitlines()[-1]) == (
        2,
        f"error: --store: got {other}, which is not read for films base; leave it out",
    )


def test_advised_extraction_completes_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.RandomState(0)

    def write(number: int) -> None:
        path = tmp_path / "my clips" / ("clap", "run")[number % 2] / f"{number}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_avi(path, random.randint(0, 256, (8, 36, 48, 3)).astype(np.uint8))

    for number in range(8):
        write(number)
    views = ("--num-frames", 2, "--size", 32, "--sampling", "dense", "--stride", 2, "--num-clips", 2, "--flip")
    where = ("--cache", "cache", "--variant", "tiny")
    assert run(capsys, "extract", "my clips", *where, *views, "--weights", "untrained", "--workers", 0)[0] == 0
    write(8)
    probe = ("probe", "my clips", *where, "--runs", "runs", "--head", "centroid", "--seeds", 1, "--overwrite")
    code, errors = run(capsys, *probe)
    assert code == 0
    (advice,) = re.findall(r"1 video has no tiny embedding and is left out: run `actionvit (.*)`", errors)
    assert run(capsys, *shlex.split(advice), "--cache", "cache", "--workers", 0)[0] == 0
    assert len(list((tmp_path / "cache").glob("*/*/key.json"))) == 1, "no other store"
    assert "left out" not in run(capsys, *probe)[1]


def test_an_experiment_looks_for_its_store_once(films: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[str] = []
    real = catalog.find_store

    def counted(*args: Any, **kwargs: Any) -> FeatureStore:
        lookups.append(args[2])
        return real(*args, **kwargs)

    monkeypatch.setattr(catalog, "find_store", counted)
    with pytest.raises(SystemExit) as ended:
        main(["experiment", "splits", str(films.root), "--cache", "cache", "--size", "224", "--seeds", "1"])
    assert ended.value.code == 0 and lookups == ["base"]
