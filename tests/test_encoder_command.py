"""`extract --encoder` and what follows by name: one decode, probe, fuse, report, predict, cache commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from click.testing import CliRunner
from small_encoders import write_model

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets import Dataset


def invoke(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """Clips, and a cache of two encoders and a variant made by one extraction."""
    folder = tmp_path_factory.mktemp("encoders")
    dataset = tiny_model.write_clips(folder / "clips")
    write_model(folder / "clip-small", "clip")
    write_model(folder / "mae", "videomae")
    result = invoke(
        *("extract", dataset.root, "--cache", folder / "cache", "--workers", 0, "--num-frames", 4, "--size", 32),
        *("--variant", "tiny", "--encoder", folder / "clip-small", "--encoder", f"video={folder / 'mae'}", "--json"),
    )
    summary = json.loads(result.stdout)
    assert summary["decoded"] == len(dataset.videos), "one decode serves all three"
    assert {outcome["variant"]: outcome["embedded"] for outcome in summary["outcomes"]} == dict.fromkeys(
        ("clip-small", "video", "tiny"), len(dataset.videos)
    )
    return folder, dataset


def test_an_encoder_is_cached_once_and_then_found(place: tuple[Path, Dataset]) -> None:
    folder, dataset = place
    options = ("--cache", folder / "cache", "--num-frames", 4, "--size", 32, "--json")
    again = json.loads(invoke("extract", dataset.root, "--encoder", folder / "clip-small", *options).stdout)
    assert [(o["variant"], o["embedded"], o["cached"]) for o in again["outcomes"]] == [
        ("clip-small", 0, len(dataset.videos))
    ]
    assert "clip-small" in invoke("cache", "ls", "--cache", folder / "cache").output
    invoke("cache", "verify", again["outcomes"][0]["store"])


def test_probe_fuse_report_and_predict_work_by_name(place: tuple[Path, Dataset]) -> None:
    folder, dataset = place
    where = ("--cache", folder / "cache", "--runs", folder / "runs", "--protocol", "grouped", "--folds", 3)
    where += ("--seeds", 1)
    invoke("probe", dataset.root, "--variant", "clip-small,video", "--fuse", "mean", *where)
    for name, head in (("clip-small", "linear"), ("video", "attentive")):
        invoke("probe", dataset.root, "--variant", name, "--head", head, *where, "--run-name", name)
    (fused,) = (folder / "runs").glob("*fused-mean*")
    gmac = [json.loads((folder / "runs" / name / "run.json").read_text())["gmac"] for name in ("clip-small", "video")]
    assert min(gmac) > 0
    assert json.loads((fused / "run.json").read_text())["gmac"] == pytest.approx(sum(gmac), abs=2e-3)
    invoke(
        "report", folder / "runs" / "clip-small", folder / "runs" / "video", "-o", folder / "report", "--no-thumbnails"
    )
    video = dataset.videos[0].path
    for run in (folder / "runs" / "clip-small", fused):
        (row,) = json.loads(invoke("predict", video, "--run", run, "--workers", 0, "--json").stdout)["videos"]
        assert row["top"]
    refused = CliRunner().invoke(cli, ["export", str(folder / "runs" / "clip-small"), "-o", str(folder / "out")])
    assert isinstance(refused.exception, ActionVitError) and "not a TimeSformer" in str(refused.exception)


def test_a_changed_encoder_is_not_used_for_predictions(place: tuple[Path, Dataset], tmp_path: Path) -> None:
    _, dataset = place
    write_model(tmp_path / "moving", "vit")
    options = ("--cache", tmp_path / "cache", "--workers", 0, "--num-frames", 4)
    invoke("extract", dataset.root, "--encoder", tmp_path / "moving", *options)
    where = ("--cache", tmp_path / "cache", "--runs", tmp_path / "runs", "--protocol", "grouped", "--folds", 3)
    invoke("probe", dataset.root, "--variant", "moving", *where, "--run-name", "run")
    processor = tmp_path / "moving" / "preprocessor_config.json"
    processor.write_text(json.dumps({**json.loads(processor.read_text()), "image_mean": [0.1, 0.1, 0.1]}))
    result = CliRunner().invoke(cli, ["predict", str(dataset.videos[0].path), "--run", str(tmp_path / "runs" / "run")])
    assert isinstance(result.exception, ActionVitError) and "preprocessing" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "base=MODEL"], "the name base is taken"),
        (["--encoder", "MODEL", "--encoder", "MODEL"], "is taken"),
        (["--encoder", "MODEL", "--save-layers", "1"], "--save-layers is for TimeSformer"),
        (["--encoder", "MODEL", "--frame-pool", "mean"], "--frame-pool is for TimeSformer"),
    ],
)
def test_encoder_options_that_conflict_are_usage_errors(
    place: tuple[Path, Dataset], arguments: list[str], message: str
) -> None:
    folder, dataset = place
    model = str(folder / "clip-small")
    texts = [argument.replace("MODEL", model) for argument in arguments]
    result = invoke("extract", dataset.root, "--cache", folder / "unused", *texts, code=2)
    assert message in result.output


def test_fine_tuning_says_that_it_is_for_timesformer(place: tuple[Path, Dataset]) -> None:
    _, dataset = place
    result = CliRunner().invoke(cli, ["finetune", str(dataset.root), "--variant", "clip-small"])
    assert "not fine-tuned" in str(result.exception) + result.output


def test_a_sweep_compares_sizes_of_an_encoder(place: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = place
    options = ("--cache", tmp_path / "cache", "-o", tmp_path / "out", "--workers", 0, "--protocol", "grouped")
    encoder = ("--encoder", f"small={folder / 'clip-small'}", "--num-frames", "2,4", "--size", 32, "--seeds", 1)
    result = invoke("sweep", dataset.root, *encoder, *options)
    stores = [path.name for path in (tmp_path / "cache" / "clips").iterdir()]
    assert "small" in result.output and len(stores) == 2 and all(name.startswith("small-") for name in stores)


def test_a_sweep_leaves_out_shapes_that_an_encoder_lacks(
    place: tuple[Path, Dataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, dataset = place
    options = ("--cache", tmp_path / "cache", "--num-frames", "2,4", "--size", 32, "--dry-run")
    both = ("--encoder", f"small={folder / 'clip-small'}", "--encoder", f"video={folder / 'mae'}")
    output = invoke("sweep", dataset.root, *both, *options).output
    assert "3 settings" in output and "video-4x32" in output and "video-2x32" not in output
    assert "left out: encoder video: num_frames, size: got 2, 32" in caplog.text
    refused = CliRunner().invoke(cli, ["sweep", str(dataset.root), *both[2:], "--num-frames", "2", "--dry-run"])
    assert isinstance(refused.exception, ActionVitError)


def test_experiments_and_cache_commands_take_an_encoder_s_name(place: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = place
    where = ("--variant", "clip-small", "--cache", folder / "cache", "--protocol", "grouped", "--folds", 3)
    for name, option in (("heads", "--shots=1"), ("shots", "--shots=1"), ("imbalance", "--factors=4")):
        heads = ("--head", "centroid")
        output = invoke("experiment", name, dataset.root, *where, *heads, option, "--seeds", 1, "-o", tmp_path / name)
        assert "clip-small" in output.output
    (store,) = (path for path in (folder / "cache" / dataset.name).iterdir() if path.name.startswith("clip-small"))
    assert "clip" in invoke("cache", "show", store).output
    invoke("cache", "export", store, "--format", "npz", "-o", tmp_path / "all.npz")
    shards = ("--num-frames", 4, "--size", 32, "--workers", 0, "--cache", tmp_path / "shards")
    for part in ("1/2", "2/2"):
        invoke("extract", dataset.root, "--encoder", folder / "clip-small", *shards, "--shard", part)
    parts = sorted((tmp_path / "shards" / dataset.name).iterdir())
    assert f"{len(dataset.videos)} rows" in invoke("cache", "merge", *parts).output
