"""`actionvit export`: the run's scores by classify.py in every set-up, both processors, the card, the upload."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import yaml
from click.testing import CliRunner, Result
from forked_commands import ForkedCommands
from loopback_hub import Hub, running_hub
from tiny_model import command

from actionvit.cli import cli
from actionvit.pipeline.datasets import Dataset
from actionvit.pipeline.prediction.predictor import load_predictor, predict
from actionvit.pipeline.runs import Run, read_run


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_model.write_clips(tmp_path_factory.mktemp("clips") / "drawn")


@pytest.fixture(scope="module")
def place(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `views` (six views per video) and `final`, each exported beside its name."""
    folder = tmp_path_factory.mktemp("place")
    weights = tiny_model.weights(folder / "weights")
    common = command(dataset, weights, folder, "--train", "head", "--epochs", "1", "--overwrite")
    for name, more in (("views", ("--num-clips", "2")), ("final", ("--final",))):
        result = invoke(*common, "--run-name", name, *more)
        assert result.exit_code == 0, (result.output, result.exception)
        exported = invoke("export", folder / "runs" / name, "-o", folder / name)
        assert exported.exit_code == 0, (exported.output, exported.exception)
    return folder


def run_classify(folder: Path, python: str, videos: list[Path]) -> dict[str, dict[str, float]]:
    """Return the scores of classify.py, run from another folder by an interpreter that need not have actionvit."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from classify import classify\n"
        "from transformers import AutoModelForVideoClassification\n"
        "model = AutoModelForVideoClassification.from_pretrained(sys.argv[1]).eval()\n"
        "print(json.dumps({video: classify(video, model) for video in sys.argv[2:]}))\n"
    )
    arguments = [python, "-c", code, str(folder), *map(str, videos)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd="/")
    return json.loads(done.stdout.splitlines()[-1])


def expected_scores(run: Run, videos: list[Path]) -> np.ndarray:
    return np.stack([prediction.scores for prediction in predict(load_predictor(run), videos, workers=0)])


def assert_scores_of_predict(place: Path, python: str, videos: list[Path]) -> None:
    run = read_run(place / "runs" / "views")
    scores = run_classify(place / "views", python, videos)
    values = [[scores[str(video)][name] for name in run.predictions.class_names] for video in videos]
    np.testing.assert_allclose(values, expected_scores(run, videos), atol=1e-4)


def test_classify_py_gives_the_scores_of_predict(dataset: Dataset, place: Path, real_data: Path) -> None:
    real = sorted((real_data / "jhmdb21").rglob("*.avi"))[::200]
    assert_scores_of_predict(place, sys.executable, [*real, *(video.path for video in dataset.videos[:3])])


def test_the_card_s_snippet_runs(dataset: Dataset, place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (place / "views" / "README.md").read_text(encoding="utf-8").split("```")[1].removeprefix("python\n")
    monkeypatch.chdir(place / "views")
    monkeypatch.syspath_prepend(str(place / "views"))
    video = dataset.videos[3].path
    exec(code.replace("clip.avi", str(video)), {})
    printed = json.loads(capsys.readouterr().out.splitlines()[-1].replace("'", '"'))
    run = read_run(place / "runs" / "views")
    found = [printed[name] for name in dataset.class_names]
    np.testing.assert_allclose(found, expected_scores(run, [video])[0], atol=1e-4)


def test_both_processors_have_the_run_s_mean_std_and_size(place: Path) -> None:
    views = json.loads((place / "views" / "views.json").read_text())
    for file, key in (("preprocessor_config.json", "image"), ("video_preprocessor_config.json", "video")):
        config = json.loads((place / "views" / file).read_text())
        assert config[f"{key}_processor_type"].startswith("VideoMAE")
        assert config["image_mean"] == views["mean"] and config["image_std"] == views["std"]
        assert config["size"] == {"shortest_edge": 32} and config["crop_size"] == {"height": 32, "width": 32}


def test_a_data_file_as_output_is_refused() -> None:
    result = invoke("export", "base-linear", "-o", "x.npz")
    assert result.exit_code == 2 and "expected a folder" in result.output and "cache export" in result.output


def front_matter(folder: Path) -> tuple[dict[str, Any], str]:
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_states_weights_figures_and_metadata(dataset: Dataset, place: Path) -> None:
    run = read_run(place / "runs" / "views")
    head, body = front_matter(place / "views")
    assert head["pipeline_tag"] == "video-classification" and head["labels"] == list(dataset.class_names)
    metrics = {metric["type"]: metric for metric in head["model-index"][0]["results"][0]["metrics"]}
    top1 = run.metrics["summary"]["top1"]
    assert (
        metrics["accuracy"]["value"] == pytest.approx(top1["mean"])
        and metrics["accuracy"]["args"]["ci95"] == top1["ci95"]
    )
    assert "training and validation set of split grouped-1" in body
    assert "these weights on the test set of split grouped-1" in body
    assert "the run averages 6 views" in body
    _, body = front_matter(place / "final")
    assert f"trained on {len(dataset.videos)} videos: all videos" in body
    assert "these weights themselves were not evaluated" in body


def test_model_card_names_licence_and_base_model(place: Path) -> None:
    from dataclasses import replace

    from actionvit.pipeline.prediction import model_card

    run = read_run(place / "runs" / "views")
    weights = load_predictor(run).inputs[0].job.weights
    kinetics = replace(weights, source="facebook/timesformer-base-finetuned-k400", licence="CC BY-NC 4.0")
    head = model_card.front_matter(run, kinetics)
    assert head["license"] == "cc-by-nc-4.0" and head["base_model"] == kinetics.source
    assert "base_model" not in model_card.front_matter(run, weights)


def test_a_dry_push_lists_what_would_be_sent(place: Path) -> None:
    result = invoke("export", place / "runs" / "final", "--push", "me/model", "--dry-run")
    assert result.exit_code == 0, result.output
    for name in ("model.safetensors", "config.json", "video_preprocessor_config.json", "classify.py", "README.md"):
        assert name in result.output
    assert "me/model" in result.output and "private" in result.output
    assert invoke("export", place / "runs" / "final", "--push", "model", "--dry-run").exit_code == 1
    assert invoke("export", place / "runs" / "final").exit_code == 2


def push(forked: ForkedCommands, hub: Hub, run: Path, home: Path, token: str) -> subprocess.CompletedProcess[str]:
    """Run `actionvit export --push` with this hub; the client reads its settings once per process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": token, "NO_PROXY": "*"}
    settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}  # Xet is a server of its own
    return forked.run(["export", run, "--push", "me/model"], {**environment, **settings})


def test_a_push_commits_the_files_to_a_private_repository(forked: ForkedCommands, place: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        for _ in range(2):  # the second time the repository exists
            done = push(forked, hub, place / "runs" / "final", tmp_path / "home", hub.token)
            assert done.returncode == 0, done.stderr
            assert f"pushed to {hub.url}/me/model" in done.stdout
    assert hub.private == {"me/model"}
    exported = {path.name: path.read_bytes() for path in (place / "final").iterdir()}
    assert hub.repositories["me/model"] == exported
    assert len(hub.objects) == 1, "only the weights are large"


def test_a_refused_push_is_one_line_with_the_remedy(forked: ForkedCommands, place: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        done = push(forked, hub, place / "runs" / "final", tmp_path / "home", "hf_wrong")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: me/model: cannot be pushed") and "hf auth login" in done.stderr
    assert not hub.repositories
    hub.url = "http://127.0.0.1:9"  # nothing listens there
    done = push(forked, hub, place / "runs" / "final", tmp_path / "home", hub.token)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: me/model: cannot be pushed")


TORCHVISION = os.environ.get("ACTIONVIT_TORCHVISION_PYTHON", "")

WITH_TORCHVISION = """
import json, sys
import numpy as np, torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline
folder, long, clip = sys.argv[1:]
processor = AutoVideoProcessor.from_pretrained(folder)
model = AutoModelForVideoClassification.from_pretrained(folder).eval()
frames = np.load(clip)
with torch.no_grad():
    inputs = processor(torch.from_numpy(frames).permute(0, 3, 1, 2), return_tensors="pt")
    scores = model(**inputs).logits[0].softmax(-1).tolist()
classify = pipeline("video-classification", folder, device="cpu")
try:
    from_file = {each["label"]: each["score"] for each in classify(long, top_k=3)}
except ImportError as error:  # torchcodec finds no FFmpeg
    from_file = str(error)
print(json.dumps([processor.__class__.__name__, scores, from_file]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not TORCHVISION, reason="ACTIONVIT_TORCHVISION_PYTHON names no Python with torchvision, torchcodec")
def test_video_processor_agrees_with_torchcodec(dataset: Dataset, place: Path, tmp_path: Path) -> None:
    from actionvit.features.decoding import decode
    from actionvit.features.sampling import clip_indices

    assert_scores_of_predict(place, TORCHVISION, [video.path for video in dataset.videos[:3]])
    weights = tiny_model.weights(tmp_path / "weights")
    arguments = command(dataset, weights, tmp_path, "--train", "head", "--epochs", "1", "--crops", "1")
    assert invoke(*arguments).exit_code == 0
    run = read_run(tmp_path / "runs" / "run")
    assert invoke("export", run.folder, "-o", tmp_path / "model").exit_code == 0
    video, spec = dataset.videos[0].path, load_predictor(run).inputs[0].job.spec
    frames = decode(video, (spec,))
    clip = frames.data[frames.positions(clip_indices(frames.count, spec)[0])]
    np.save(tmp_path / "clip.npy", clip)
    arguments = [TORCHVISION, "-c", WITH_TORCHVISION, str(tmp_path / "model"), str(video), str(tmp_path / "clip.npy")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    kind, scores, from_file = json.loads(done.stdout.splitlines()[-1])
    (expected,) = expected_scores(run, [video])
    assert kind == "VideoMAEVideoProcessor"
    np.testing.assert_allclose(scores, expected, atol=1e-4)  # frames passed by hand
    # The pipeline decodes frames of its own choice, or needs FFmpeg's libraries, as noted in the card.
    assert "torchcodec" in from_file if isinstance(from_file, str) else set(from_file) == set(dataset.class_names)
