"""Errors and warnings: the library names settings, the command line names its options."""

from __future__ import annotations

import ast
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import actionvit as av
from actionvit.cli import cli
from actionvit.commands.command import Command, configure_logging, with_options
from actionvit.errors import ActionVitError
from actionvit.features.timesformer.variants import clip_spec
from actionvit.features.view_settings import ViewSettings
from actionvit.text import metric_line

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ("features", "heads", "evaluation", "pipeline")


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module, without those in lists: the arguments of other programs."""
    if isinstance(tree, ast.List):
        return
    if isinstance(tree, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in tree.values)
    elif isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree.value
    for child in () if isinstance(tree, ast.JoinedStr) else ast.iter_child_nodes(tree):
        yield from texts(child)


@pytest.mark.parametrize("package", LIBRARY)
def test_library_texts_name_settings_not_options(package: str) -> None:
    named = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in (ROOT / package).rglob("*.py")
        for text in texts(ast.parse(path.read_text(encoding="utf-8")))
        if re.search(r"(?<![\w-])--[a-z]", re.sub(r"`actionvit [^`]*`|var\(--\w+", "", text))
    ]
    assert not named


@click.command(cls=Command)
@click.argument("root")
@click.option("--dataset-name")
@click.option("--list", "lists", multiple=True)
@click.option("-o", "--output", "out")
@click.option("--tokens/--no-tokens")
@click.option("--wait", is_flag=True)
@click.option("--num-frames", "frames")
def example() -> None:
    """Stand for a command."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_frames: got 0, expected at least 1", "--num-frames: got 0, expected at least 1"),
        ("size: got 0, expected at least 1", "size: got 0, expected at least 1"),
        ("give fewer num_frames= or a smaller size=", "give fewer --num-frames or a smaller size="),
        ("give output=FOLDER, or wait=True", "give --output FOLDER, or --wait"),
        ("use tokens=False", "use --no-tokens"),
        ("use tokens=True: it is faster", "use --tokens: it is faster"),
        ("choose another name=", "choose another --dataset-name"),
        ("give it as root=, or name it in lists=", "give it as ROOT, or name it in --list"),
        ("`wait=True.avi`: run `actionvit data fetch --from wait=True`", None),
        ("runs/wait=True is there, and so is x.wait=True", None),
        ("store: clip.num_frames=8", None),
        ("list: no file 'wait=True x.csv'", "--list: no file 'wait=True x.csv'"),
        ("the model's blocks: use tokens=False or the store's", "the model's blocks: use --no-tokens or the store's"),
    ],
)
def test_settings_become_the_options_of_the_command(text: str, expected: str | None) -> None:
    assert with_options(text, example) == (expected or text)


@pytest.mark.parametrize("name", ["wait=True", "a wait=True b", "size"])
def test_paths_of_the_user_are_not_translated(sixty: Path, tmp_path: Path, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        shutil.copytree(sixty, name)
        result = CliRunner().invoke(cli, ["probe", name, "--variant", "tiny", "--cache", name])
        assert f"no embeddings of {name} in {name}; run" in str(result.exception)
        result = CliRunner().invoke(cli, ["probe", name, "--variant", "tiny", "--cache", name, "--store", "b"])
        assert str(result.exception).startswith(f"{name}: no store 'b'")


@pytest.fixture
def cached(sixty: Path, tmp_path: Path) -> Path:
    """Embeddings of the drawn clips, under `cache`."""
    av.extract(av.load_dataset(sixty), "tiny", cache=tmp_path / "cache", workers=0, device="cpu")
    return tmp_path / "cache"


Call = Callable[[av.Dataset, Path], object]
ERRORS: list[tuple[Call, list[str], str, str]] = [
    (
        lambda data, place: av.load_dataset(data.root, name="a/b"),
        ["probe", "--dataset-name", "a/b"],
        "name: got 'a/b', expected a word without `/`; choose another name=",
        "--dataset-name: got 'a/b', expected a word without `/`; choose another --dataset-name",
    ),
    (
        lambda data, place: av.probe(data, "tiny", cache=place, head="knn", focal_gamma=1.0),
        ["probe", "--variant", "tiny", "--head", "knn", "--focal-gamma", "1"],
        "focal_gamma: got 1.0, but the head `knn` has no such setting",
        "--focal-gamma: got 1.0, but the head `knn` has no such setting",
    ),
    (
        lambda data, place: av.finetune(data, "tiny", cache=place, train="last:99"),
        ["finetune", "--variant", "tiny", "--train", "last:99"],
        "train: got 'last:99', but the model has",
        "--train: got 'last:99', but the model has",
    ),
    (
        lambda data, place: av.finetune(data, "tiny", cache=place, train="all", tokens=True),
        ["finetune", "--variant", "tiny", "--train", "all", "--tokens"],
        "train=all trains every block, so tokens cannot be cached: add tokens=False",
        "--train all trains every block, so tokens cannot be cached: add --no-tokens",
    ),
    (
        lambda data, place: av.extract(data, "tiny", cache=place, save_layers=(99,)),
        ["extract", "--variant", "tiny", "--save-layers", "99"],
        "save_layers: got 99, expected 1 to 4, the model's blocks",
        "--save-layers: got 99, expected 1 to 4, the model's blocks",
    ),
    (
        lambda data, place: av.extract(data, "large", cache=place),
        ["extract", "--variant", "large"],
        "give weights=FOLDER, FILE.pyth or a hub id",
        "give --weights FOLDER, FILE.pyth or a hub id",
    ),
]


@pytest.mark.parametrize(("call", "arguments", "in_python", "on_the_command_line"), ERRORS)
def test_an_error_names_keywords_in_python_and_options_beside(
    sixty: Path, cached: Path, call: Call, arguments: list[str], in_python: str, on_the_command_line: str
) -> None:
    with pytest.raises(ActionVitError) as raised:
        call(av.load_dataset(sixty), cached)
    assert in_python in str(raised.value) and "--" not in str(raised.value)
    name, *options = arguments
    result = CliRunner().invoke(cli, [name, str(sixty), *options, "--cache", str(cached)])
    assert isinstance(result.exception, ActionVitError)
    assert on_the_command_line in str(result.exception)


def test_an_existing_run_names_keywords_and_options(sixty: Path, cached: Path) -> None:
    dataset, runs = av.load_dataset(sixty), cached.parent / "runs"
    av.probe(dataset, "tiny", cache=cached, runs=runs, run_name="mine", seeds=1)
    with pytest.raises(ActionVitError, match="choose another run_name=, or overwrite=True to replace it"):
        av.probe(dataset, "tiny", cache=cached, runs=runs, run_name="mine", balanced=True)
    where = ["--cache", str(cached), "--runs", str(runs), "--run-name", "mine", "--variant", "tiny", "--balanced"]
    result = CliRunner().invoke(cli, ["probe", str(sixty), *where])
    assert "choose another --run-name, or --overwrite to replace it" in str(result.exception)


def test_a_warning_names_keywords_and_options(
    sixty: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    clip_spec("tiny", ViewSettings(stride=4))
    assert "choose sampling=dense" in caplog.text
    logger = logging.getLogger("actionvit")
    before, propagated = list(logger.handlers), logger.propagate
    configure_logging()
    try:
        arguments = ["extract", str(sixty), "--variant", "tiny", "--stride", "4", "--cache", str(tmp_path), "--dry-run"]
        result = CliRunner().invoke(cli, arguments)
    finally:
        logger.handlers, logger.propagate = before, propagated
    assert result.exit_code == 0 and "choose --sampling dense" in result.stderr


def json_of(*arguments: object) -> Any:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert result.exit_code in (0, 3), (result.output, result.exception)
    return json.loads(result.stdout)


def test_warnings_in_json_name_options(sixty: Path, tmp_path: Path) -> None:
    record = json_of("extract", sixty, "--variant", "tiny", "--stride", 4, "--cache", tmp_path, "--dry-run")
    assert any("choose --sampling dense" in text for text in record["warnings"]), record["warnings"]


def test_leaks_and_failures_are_in_the_json(sixty: Path, cached: Path) -> None:
    root = shutil.copytree(sixty, cached.parent / "clips")
    (next(root.glob("*/*.avi")).parent / "broken.avi").write_bytes(b"no video")
    places = ["--variant", "tiny", "--cache", cached, "--runs", cached.parent / "runs", "--protocol", "random"]
    (record,) = json_of("probe", root, *places, "--folds", 2, "--seeds", 1, "--head", "centroid")
    assert any("sources have clips of one class in both" in text for text in record["warnings"])
    small = ["--num-frames", 2, "--size", 32, "--crops", 1, "--workers", 1, "--device", "cpu"]
    once = ["--split", "random-1", "--epochs", 1, "--train", "head", "--cached-views", 1]
    record = json_of("finetune", root, *places, *small, *once)
    assert any("sources have clips of one class in both" in text for text in record["warnings"])
    assert "1 video did not decode and was left out" in record["warnings"]


def test_failures_are_in_the_json_as_on_stderr(sixty: Path, cached: Path) -> None:
    root, runs = shutil.copytree(sixty, cached.parent / "clips"), cached.parent / "runs"
    (broken := next(root.glob("*/*.avi")).parent / "broken.avi").write_bytes(b"no video")
    places = ["--variant", "tiny", "--cache", cached]
    for _ in range(2):  # failed in this run, and in an earlier one
        warnings = json_of("extract", root, *places, "--workers", 1, "--device", "cpu")["warnings"]
        assert len(warnings) == 1 and re.match(r"tiny: 1 video failed, listed in \S+/failures\.csv;", warnings[0])
    splits = ["--protocol", "random", "--seeds", 1]
    for name in ("heads", "splits"):
        more = ["--head", "centroid", "--output", cached.parent / name, *(["--shots", 1] if name == "heads" else [])]
        warnings = json_of("experiment", name, root, *places, *splits, *more)["warnings"]
        assert any(text.startswith("1 video is left out: not decodable (") for text in warnings), warnings
    json_of("probe", root, *places, *splits, "--runs", runs, "--run-name", "p", "--head", "centroid")
    record = json_of("predict", broken, next(root.glob("*/*.avi")), "--run", runs / "p", "--workers", 0)
    assert record["warnings"] == [f"{broken}: {record['videos'][0]['failure']}"]


def test_warnings_of_cache_commands_are_in_the_json(sixty: Path, tmp_path: Path) -> None:
    root, cache = shutil.copytree(sixty, tmp_path / "clips"), tmp_path / "cache"
    for variant in ("tiny", "tiny-hr"):
        av.extract(av.load_dataset(root), variant, cache=cache, num_frames=2, size=32, workers=0, device="cpu")
    broken, sound = sorted(path.parent for path in cache.glob("clips/*/key.json"))
    root.rename(tmp_path / "moved")
    record = json_of("cache", "export", sound, "-o", tmp_path / "all.npz")
    assert any(text.startswith("labels stay empty") and "give --root" in text for text in record["warnings"])
    (broken / "failures.csv").write_bytes(b"\xff")
    records = json_of("cache", "ls", "--cache", cache)
    assert [bool(record["damage"]) for record in records] == [True, False]
    assert all(records[0]["damage"] in record["warnings"] for record in records)


def test_a_note_on_a_dataset_names_options(sixty: Path, tmp_path: Path) -> None:
    root = shutil.copytree(sixty, tmp_path / "clips", ignore=shutil.ignore_patterns("testTrain*"))
    assert not any("splits" in note for note in av.load_dataset(root).notes)
    result = CliRunner().invoke(cli, ["data", "check", str(root)])
    assert "(--splits-dir reads them from" in result.stdout and "splits_dir" not in result.stdout


def test_metrics_are_printed_with_spread_before_the_unit() -> None:
    value = {"mean": 0.927, "std": 0.031, "ci95": (0.761, 0.991)}
    assert metric_line("mean_class_accuracy", value) == (
        "  mean class accuracy   92.7 ± 3.1 %   95 % interval 76.1 to 99.1"
    )
    assert metric_line("top1", value | {"std": None}).split()[:3] == ["top1", "92.7", "%"]
