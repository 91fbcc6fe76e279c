"""Training on more data: the refit on training and validation set, the final model on all videos, the views."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
from click.testing import CliRunner, Result
from safetensors.numpy import load_file
from tiny_model import command

from actionvit.cli import cli
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.pipeline.datasets import Dataset
from actionvit.pipeline.finetuning.finetune import Finetuned, finetune
from actionvit.pipeline.finetuning.split import TrainingContext, TrainValRows
from actionvit.pipeline.prediction.predictor import load_predictor, predict
from actionvit.pipeline.runs import read_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_model.write_clips(tmp_path_factory.mktemp("clips") / "drawn")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_model.weights(tmp_path_factory.mktemp("weights"))


LEARNS = ("--seed", "2", "--head-init", "zero", "--cached-views", "2", "--token-precision", "fp32")
"""Settings under which the best epoch of the small model is not the first."""


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def train(dataset: Dataset, weights: Weights, where: Path, **changes: Any) -> tuple[Finetuned, dict[str, TrainValRows]]:
    rows: dict[str, TrainValRows] = {}
    context = TrainingContext(cache=where / "cache", folder=where / "work", workers=0, on_split=rows.__setitem__)
    settings: dict[str, Any] = {"tokens": "fp32", "views": 2, "start": "zero", "epochs": 3, "seed": 2}
    return finetune(dataset, weights, tiny_model.spec(**settings, **changes), context), rows


def test_refit_trains_on_validation_clips_too(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    alone, _ = train(dataset, weights, tmp_path / "a")
    both, rows = train(dataset, weights, tmp_path / "b", refit=True)
    (one,), (other,) = alone.splits, both.splits
    assert one.state.best_epoch == other.state.best_epoch > 0
    assert other.refit is not None and other.refit.epoch == other.state.best_epoch
    assert one.temperature == other.temperature
    selection, refit = rows["grouped-1"], rows["grouped-1 refit"]
    assert sorted([*selection.train, *selection.val]) == refit.train.tolist() and not len(refit.val)
    assert one.n_train == len(selection.train) and other.n_train == len(refit.train) == len(other.split.train)
    assert set(one.trained) == set(other.trained) == set(one.split.train)
    assert any(not np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    # The learning rate follows the schedule under which the epoch was selected.
    assert other.refit.history[-1]["lr"] == pytest.approx(other.state.history[other.refit.epoch]["lr"], rel=0.2)


def test_a_refit_of_no_epochs_is_the_probe_of_all_clips(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    heads = []
    for refit in (False, True):
        context = TrainingContext(cache=tmp_path / "cache", folder=tmp_path / f"{refit}", workers=0)
        (result,) = finetune(dataset, weights, tiny_model.spec(epochs=0, refit=refit, train="head"), context).splits
        heads.append(result.weights["head.weight"])
    assert result.refit is not None and result.refit.epoch == 0 and result.n_train == len(result.split.train)
    assert np.abs(heads[0] - heads[1]).max() > 0


@pytest.mark.slow
def test_killed_in_the_refit_a_training_ends_in_the_same_bits(
    dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    how = (*LEARNS, "--final")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent / "support")}

    def run(folder: str, die: int, *more: str) -> int:
        arguments = [tiny_model.__file__, str(die), *command(dataset, weights, tmp_path / folder, *how, *more)]
        return subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, check=False
        ).returncode

    assert run("whole", 0) == 0
    text = (tmp_path / "whole" / "runs" / "run" / "history.csv").read_text(encoding="utf-8")
    assert {row["phase"] for row in csv.DictReader(text.splitlines()) if row["loss"]} == {"select", "refit", "final"}
    assert run("cut", 11) == -signal.SIGKILL  # nine steps select the epoch
    assert (tmp_path / "cut" / "runs" / "run.training" / "grouped-1" / "refit").exists()
    assert run("cut", 0, "--resume") == 0
    for name in ("head.safetensors", "predictions.npz", "metrics.json"):
        one, other = ((tmp_path / folder / "runs" / "run" / name).read_bytes() for folder in ("whole", "cut"))
        assert one == other, name


def test_the_final_model_is_trained_on_all_videos_and_predicts(
    dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    whole = [each for each in command(dataset, weights, tmp_path) if each not in ("--split", "grouped-1")]
    result = invoke(*whole, "--final", *LEARNS)
    assert result.exit_code == 0, result.output
    assert f"final model: trained on all {len(dataset.videos)} videos" in result.output
    run = read_run(tmp_path / "runs" / "run")
    chosen = sorted(search["chosen"] for search in run.info["search"])
    assert run.info["final"] == {"videos": len(dataset.videos), "epochs": chosen[1]}
    tensors, config = run.head()
    assert config["split"] is None and config["trained_on"] == {"videos": len(dataset.videos), "part": "all videos"}
    split_only = invoke(*whole, "--overwrite", *LEARNS)
    assert split_only.exit_code == 0, split_only.output
    other = read_run(run.folder)
    # The final model changes the weights to deploy, and no figure.
    assert other.metrics == run.metrics and other.info["final"] is None
    assert not np.array_equal(other.head()[0]["head.weight"], tensors["head.weight"])
    assert other.head()[1]["trained_on"]["part"] == "training and validation set of split grouped-1"


def test_predict_and_export_take_the_final_model(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    arguments = command(dataset, weights, tmp_path, "--final", "--train", "head", "--crops", "1")
    assert invoke(*arguments).exit_code == 0
    run = read_run(tmp_path / "runs" / "run")
    predictor = load_predictor(run)
    assert "models that were not trained on them" in predictor.calibrated_on
    (prediction,) = predict(predictor, [dataset.videos[0].path], workers=0)
    assert prediction.scores is not None
    assert invoke("export", run.folder, "-o", tmp_path / "model").exit_code == 0
    exported = load_file(tmp_path / "model" / "model.safetensors")["classifier.weight"]
    np.testing.assert_allclose(exported * predictor.temperature, run.head()[0]["head.weight"], rtol=1e-5)


def test_default_is_three_test_crops_and_a_center_one_trains(
    dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    assert invoke(*command(dataset, weights, tmp_path, "--train", "head", "--epochs", "1")).exit_code == 0
    run = read_run(tmp_path / "runs" / "run")
    assert run.info["spec"]["clip"]["crops"] == 3 and json.dumps(run.head()[1]["clip"]["crops"]) == "3"
    how: dict[str, Any] = {"views": 1, "train": "last:1", "epochs": 1, "tokens": "fp32"}
    results = []
    for crops in (1, 3):
        clip = tiny_model.replace(tiny_model.CLIP, crops=crops)
        context = TrainingContext(cache=tmp_path / "cache", folder=tmp_path / f"{crops}", workers=0)
        results += finetune(dataset, weights, tiny_model.spec(clip=clip, start="zero", **how), context).splits
    assert all(np.array_equal(results[0].weights[name], results[1].weights[name]) for name in results[0].weights)
    assert results[0].logits.shape[1] == 1 and results[1].logits.shape[1] == 3
