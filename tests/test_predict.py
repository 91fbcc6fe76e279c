"""Use of a run's model: the run's scores again for its test clips, and transformers' scores for the exported model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import misbehaving_decoders
import numpy as np
import pytest
import tiny_model
import torch
from click.testing import CliRunner, Result
from fake_store import environment
from PIL import Image

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.decoding import decode
from actionvit.features.sampling import clip_indices
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.prediction.export import export_hf
from actionvit.pipeline.prediction.predictor import load_predictor, predict
from actionvit.pipeline.runs import Run, read_run
from actionvit.pipeline.tensor_file import dump_tensors

SHAPE = ("--num-frames", "4", "--size", "32")
SPLITS = ("--protocol", "grouped", "--folds", "3")


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_model.write_clips(tmp_path_factory.mktemp("clips") / "drawn")


@pytest.fixture(scope="module")
def place(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of one view and one of two, probes on them, and a fine-tuned run."""
    folder = tmp_path_factory.mktemp("place")
    weights = tiny_model.write_weights(folder / "weights")
    common = ("--variant", "tiny", "--cache", folder / "cache", "--weights", weights)
    runs = ("--runs", folder / "runs", "--overwrite")
    probes: dict[str, Sequence[str]] = {
        "linear": (), "calibrated": ("--calibrate",), "frames": ("--features", "frame"), "knn": ("--head", "knn"),
        "layers": ("--features", "layers"), "attentive": ("--head", "attentive", "--features", "frame"),
    }  # fmt: skip
    for result in (
        invoke("extract", dataset.root, *common, *SHAPE, "--save-layers", "1,2"),
        invoke("finetune", dataset.root, *common, *SHAPE, *runs, *SPLITS, "--split", "grouped-1", "--lr", "3e-3",
               "--epochs", "2", "--token-precision", "fp32", "--crops", "1", "--run-name", "tuned"),
        invoke("finetune", dataset.root, *common, *runs, *SPLITS, "--split", "grouped-1", "--train", "head",
               "--epochs", "1", "--num-frames", "6", "--size", "48", "--crops", "1", "--run-name", "wide"),
        *(invoke("probe", dataset.root, *common[:4], *runs, *SPLITS, "--seeds", "1", "--run-name", name, *more)
          for name, more in probes.items()),
    ):  # fmt: skip
        assert result.exit_code == 0, (result.output, result.exception)
    two = (*common[:2], "--cache", folder / "two", *common[4:])
    assert invoke("extract", dataset.root, *two, *SHAPE, "--num-clips", "2").exit_code == 0
    for name, views in (("mean", "mean"), ("each", "each")):
        result = invoke(
            "probe",
            dataset.root,
            *two[:4],
            *runs,
            *SPLITS,
            "--seeds",
            "1",
            "--run-name",
            name,
            "--view-aggregation",
            views,
        )
        assert result.exit_code == 0, (result.output, result.exception)
    return folder


def own(run: Run) -> tuple[list[str], np.ndarray]:
    """Ids and scores of the clips that the run's first split tests."""
    first = run.predictions.split == run.predictions.split_names[0]
    return run.predictions.id[first].tolist(), run.predictions.scores[first].astype(np.float64)


NAMES = ["tuned", "linear", "calibrated", "frames", "knn", "layers", "attentive", "mean", "each"]


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_the_runs_own(dataset: Dataset, place: Path, name: str) -> None:
    run = read_run(place / "runs" / name)
    ids, scores = own(run)
    predictor = load_predictor(run)
    found = np.stack([one.scores for one in predict(predictor, [dataset.root / id for id in ids], workers=0)])
    calibrated = {"tuned": "the validation part of its", "calibrated": "out-of-fold predictions of its training set"}
    assert predictor.calibrated_on.startswith(calibrated.get(name, "")) and (
        predictor.temperature == 1 or name == "tuned"
    )
    assert bool(predictor.calibrated_on) == (name in calibrated), "no temperature is fitted to test predictions"
    np.testing.assert_allclose(found, scores, atol=2e-5)


def test_several_videos_make_a_table_or_json(dataset: Dataset, place: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"RIFF")
    videos = [dataset.videos[0].path, broken, dataset.videos[-1].path]
    run = place / "runs" / "tuned"
    result = invoke("predict", *videos, "--run", run, "--top", "2")
    assert result.exit_code == 3 and result.output.count(" %") == 4 and f"{broken}: " in result.output
    told = invoke("predict", *videos, "--run", run, "--top", "2", "--json")
    found = json.loads(told.stdout)
    assert [video["video"] for video in found["videos"]] == list(map(str, videos))
    assert "failure" in found["videos"][1] and len(found["videos"][0]["top"]) == 2
    alone = json.loads(invoke("predict", videos[2], "--run", run, "--json").stdout)
    assert alone["videos"][0]["top"][:2] == found["videos"][2]["top"]
    assert sum(each["score"] for each in alone["videos"][0]["top"]) == pytest.approx(1, abs=1e-5)


def test_predict_names_its_model_and_training_videos(dataset: Dataset, place: Path) -> None:
    run = read_run(place / "runs" / "linear")
    trained = run.train["grouped-1"]
    paths = [dataset.root / id for id in (*trained[:2], *own(run)[0][:1])]
    result = invoke("predict", *paths, "--run", run.folder)
    total = len(dataset.videos)
    assert f"linear: head of split grouped-1, trained on {len(trained)} of {total} videos" in result.stderr
    assert "2 of these 3 videos were in its training set; --final trains one on all" in result.stderr
    report = json.loads(invoke("predict", *paths, "--run", run.folder, "--json").stdout)
    assert report["trained_on"] == 2 and report["calibrated_on"] is None and "temperature" not in report
    assert not invoke("predict", *paths, "--run", run.folder, "--quiet").stderr


def test_predict_refuses_two_runs(dataset: Dataset) -> None:
    result = invoke("predict", dataset.videos[0].path, "--run", "a", "--run", "b")
    assert result.exit_code == 2 and "got a, b, expected one run" in result.output


def test_one_video_is_decoded_under_supervision(
    dataset: Dataset, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehaving_decoders.install(monkeypatch)
    (endless := tmp_path / "sleeps.avi").write_bytes(dataset.videos[0].path.read_bytes())
    os.mkfifo(pipe := tmp_path / "pipe.avi")  # reading would block: no process writes to it
    result = invoke("predict", endless, pipe, "--run", place / "runs" / "tuned", "--timeout", "2")
    assert result.exit_code == 3 and f"{endless}: timeout: not decoded within 2 s" in result.output
    assert f"{pipe}: not_video: not a regular file" in result.output


@pytest.mark.parametrize("name", ["tuned", "wide", "linear", "calibrated"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_model_gives_the_same_scores_in_transformers(
    dataset: Dataset, place: Path, tmp_path: Path, name: str, real_data: Path
) -> None:
    from transformers import AutoImageProcessor, AutoModelForVideoClassification, pipeline

    folder = tmp_path / "model"
    result = invoke("export", place / "runs" / name, "-o", folder)
    assert result.exit_code == 0, result.exception
    predictor = load_predictor(read_run(place / "runs" / name))
    processor, model = (kind.from_pretrained(folder) for kind in (AutoImageProcessor, AutoModelForVideoClassification))
    real = sorted((real_data / "jhmdb21").rglob("*.avi"))[::60]
    videos = [*real, *(video.path for video in dataset.videos[:4])]
    expected = np.stack([one.scores for one in predict(predictor, videos, workers=0)])
    spec = predictor.inputs[0].job.spec
    short = []
    for number, (video, scores) in enumerate(zip(videos, expected, strict=True)):
        frames = decode(video, (spec,))
        clip = frames.data[frames.positions(clip_indices(frames.count, spec)[0])]
        with torch.no_grad():
            found = model(**processor(list(clip), return_tensors="pt")).logits[0].softmax(-1).numpy()
        np.testing.assert_allclose(found, scores, atol=1e-4)
        short.append(tmp_path / f"{number}.avi")
        write_avi(short[-1], clip)
    # The pipeline takes a file's first T frames, and these files have only T.
    classify = pipeline("video-classification", str(folder), device="cpu")
    for video, one in zip(short, predict(predictor, short, workers=0), strict=True):
        found = {each["label"]: each["score"] for each in classify(str(video), top_k=3)}
        assert one.scores is not None
        np.testing.assert_allclose([found[label] for label in dataset.class_names], one.scores, atol=1e-4)


def test_what_cannot_be_exported_or_predicted_is_said_in_a_line(dataset: Dataset, place: Path, tmp_path: Path) -> None:
    for name in ("frames", "knn", "attentive"):
        result = invoke("export", place / "runs" / name, "-o", tmp_path / name)
        assert result.exit_code == 1 and "predict" in str(result.exception) and not (tmp_path / name).exists()
    again = invoke("export", place / "runs" / "tuned", "-o", place)
    assert again.exit_code == 1 and "give a new folder" in str(again.exception)
    other = tiny_model.write_weights(tmp_path / "other", seed=1)
    for command in (("predict", dataset.videos[0].path, "--run"), ("export",)):
        more = ["-o", tmp_path / "x"] if command[0] == "export" else []
        result = invoke(*command, place / "runs" / "linear", *more, "--weights", other)
        assert result.exit_code == 1 and "other weights" in str(result.exception)
    assert invoke("predict", dataset.videos[0].path, "--run", "none").exit_code == 1


def test_an_inflated_clip_has_no_place_in_transformers(dataset: Dataset, tmp_path: Path) -> None:
    from dataclasses import replace

    weights = tiny_model.write_weights(tmp_path / "clip", replace(tiny_model.SHAPE, pre_norm=True))
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | {"model_type": "actionvit_timesformer", "pre_norm": True}))
    result = invoke("finetune", dataset.root, "--variant", "tiny", "--weights", weights, *SHAPE, *SPLITS, "--split",
                    "grouped-1", "--epochs", "1", "--cache", tmp_path, "--runs", tmp_path,
                    "--run-name", "r")  # fmt: skip
    assert result.exit_code == 0, result.exception
    refused = invoke("export", tmp_path / "r", "-o", tmp_path / "model")
    assert refused.exit_code == 1 and "LayerNorm" in str(refused.exception) and not (tmp_path / "model").exists()
    assert invoke("predict", dataset.videos[0].path, "--run", tmp_path / "r").exit_code == 0


def test_a_folder_of_videos_is_searched(dataset: Dataset, place: Path, tmp_path: Path) -> None:
    run = place / "runs" / "tuned"
    result = invoke("predict", dataset.root, "--run", run, "--top", "1", "--json")
    assert result.exit_code == 0, result.output
    videos = [entry["video"] for entry in json.loads(result.stdout)["videos"]]
    assert videos == sorted(str(video.path) for video in dataset.videos)
    frames = tmp_path / "nested" / "clip"
    frames.mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (64, 48), (number, 9, 9)).save(frames / f"{number}.png")
    (tmp_path / "nested" / "a.avi").write_bytes(dataset.videos[0].path.read_bytes())
    found = json.loads(invoke("predict", tmp_path, "--run", run, "--json").stdout)["videos"]
    assert [entry["video"] for entry in found] == [str(tmp_path / "nested" / "a.avi"), str(frames)]
    (tmp_path / "empty").mkdir()
    refused = invoke("predict", tmp_path / "empty", "--run", run)
    assert isinstance(refused.exception, ActionVitError) and "neither videos nor frames" in str(refused.exception)


def test_a_run_named_like_a_folder_of_the_working_directory(
    dataset: Dataset, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "runs" / "tuned", tmp_path / "runs" / "tuned")
    (tmp_path / "tuned").mkdir()
    monkeypatch.chdir(tmp_path)
    assert invoke("predict", dataset.videos[0].path, "--run", "tuned").exit_code == 0
    assert invoke("predict", dataset.videos[0].path, "--run", "runs/tuned").exit_code == 0


def test_a_name_is_printed_on_a_terminal_that_is_not_utf8(dataset: Dataset, place: Path, tmp_path: Path) -> None:
    shutil.copy(dataset.videos[0].path, tmp_path / "клип.avi")
    command = [sys.executable, "-m", "actionvit", "predict", "клип.avi", "--run", str(place / "runs" / "tuned")]
    env = environment(PYTHONIOENCODING="latin-1")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0 and rb"\u043a\u043b\u0438\u043f.avi: " in done.stdout, done.stderr


def mutations(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value in which one entry is missing, null, a string, or of another length."""
    if isinstance(value, dict):
        for key in value:
            yield {other: value[other] for other in value if other != key}
            for changed in (None, []):
                yield {**value, key: changed}
            for inner in mutations(value[key]):
                yield {**value, key: inner}


@pytest.mark.parametrize("name", ["tuned", "linear"])
def test_malformed_runs_end_in_one_line(dataset: Dataset, place: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(place / "runs" / name, tmp_path / name))
    run = read_run(folder)
    tensors, config = run.head()
    for number, changed in enumerate(mutations(config)):
        (folder / "head.safetensors").write_bytes(dump_tensors(tensors, "config", changed))
        with contextlib.suppress(ActionVitError):
            load_predictor(read_run(folder))
            export_hf(read_run(folder), tmp_path / str(number))
    shutil.copy(place / "runs" / name / "head.safetensors", folder)
    for file in ("run.json", "metrics.json"):
        original = json.loads((folder / file).read_text(encoding="utf-8"))
        used = {"variant", "dataset", "stores", "head", "protocol", "schema", "summary"}
        rest = {key: value for key, value in original.items() if key not in used}
        for number, changed in enumerate(mutations({key: original[key] for key in original if key in used})):
            (folder / file).write_text(json.dumps({**rest, **changed}))
            with contextlib.suppress(ActionVitError):
                export_hf(read_run(folder), tmp_path / f"{file}-{number}")
        (folder / file).write_text(json.dumps(original))
