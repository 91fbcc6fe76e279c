"""Write the results of fine-tuning as a run: predictions, metrics, provenance, learning curves, weights."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.evaluation.metrics import class_mix_distance
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.variants import gmac
from actionvit.heads.calibration import mean_softmax
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import count_leaks, recorded_spec
from actionvit.pipeline.finetuning.finetune import Finetuned
from actionvit.pipeline.finetuning.spec import FinetuneSpec
from actionvit.pipeline.finetuning.split import FinetuneResult
from actionvit.pipeline.run_names import default_name
from actionvit.pipeline.runs import Predictions, Run, measure, versions, write_run

KIND = "finetuned"
"""`kind` in the configuration of the run's `head.safetensors`."""
VERSIONS = ("numpy", "torch", "scikit-learn")
CURVES = {
    "loss": ("loss", "validation_log_loss"),
    "accuracy": ("train_accuracy", "validation_accuracy"),
    "learning rate": ("lr",),
}


def write_finetuned(
    folder: Path,
    dataset: Dataset,
    weights: Weights,
    spec: FinetuneSpec,
    finetuned: Finetuned,
    *,
    work: Path,
    command: Sequence[str],
    overwrite: bool = False,
) -> Run:
    """Write the run of the splits' results, with the weights of the final model, or else of the first split.

    Parameters
    ----------
    folder : Path
        `RUNS/NAME`.
    dataset, weights, spec
        As for `finetune`.
    finetuned : Finetuned
    work : Path
        Folder with the event files to copy.
    command : sequence of str
        The command line, for the run's provenance.
    overwrite : bool
        Replace an existing run.

    Raises
    ------
    ActionVitError
        If the folder exists and `overwrite` is off.
    """
    results = finetuned.splits
    predictions = _predictions(dataset, results)
    return write_run(
        folder,
        info={"command": list(command), **_info(dataset, weights, spec, finetuned)},
        predictions=predictions,
        metrics=measure(predictions, n_train={result.split.name: result.n_train for result in results}),
        head_tensors=(finetuned.final or results[0]).weights,
        head_config=_head_config(dataset, weights, spec, finetuned),
        train={result.split.name: result.trained for result in results},
        more={"history.csv": history(finetuned).encode(), **_events(work)},
        overwrite=overwrite,
    )


def _head_config(dataset: Dataset, weights: Weights, spec: FinetuneSpec, finetuned: Finetuned) -> dict[str, Any]:
    """Return the configuration of `head.safetensors`: the origin of its weights and how to use them."""
    final, first = finetuned.final, finetuned.splits[0]
    part = "training and validation set" if spec.refit else "training set without its validation part"
    return {
        "kind": KIND,
        "train": spec.train,
        "split": None if final else first.split.name,
        "trained_on": {
            "videos": len(final.trained) if final else first.n_train,
            "part": "all videos" if final else f"{part} of split {first.split.name}",
        },
        "temperature": (final or first).temperature,
        "calibrated_on": "test clips of the splits, scored by models that were not trained on them"
        if final
        else ("its validation set" if spec.select_on == "val" else "the validation part of its training set"),
        "clip": asdict(spec.clip),
        "weights": {"source": weights.source, "digest": weights.digest},
        "input": {"variants": [spec.variant], "features": "clip", "views": "each"},
        "class_names": list(dataset.class_names),
    }


def _events(work: Path) -> dict[str, bytes]:
    """Return TensorBoard's files by their path in the run."""
    files = sorted(work.glob("**/events.out.tfevents.*"))
    return {f"tensorboard/{file.relative_to(work)}": file.read_bytes() for file in files}


def history(finetuned: Finetuned) -> str:
    """Return `history.csv`: one row per epoch of each training.

    `phase` is `select` for the training that selects the epoch, `refit` for the one on training and validation set,
    and `final` for the one on all videos.
    """
    trainings = [
        (result.split.name, phase, state)
        for result in finetuned.splits
        for phase, state in (("select", result.state), ("refit", result.refit))
        if state is not None
    ]
    if finetuned.final:
        trainings.append(("", "final", finetuned.final.state))
    columns = list(dict.fromkeys(name for _, _, state in trainings for row in state.history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["split", "phase", *columns, "best"], lineterminator="\n")
    writer.writeheader()
    for split, phase, state in trainings:
        for row in state.history:
            values = {name: f"{value:.6g}" for name, value in row.items()}
            best = int(row["epoch"] == state.best_epoch)
            writer.writerow({"split": split, "phase": phase, **values, "best": best})
    return text.getvalue()


def _predictions(dataset: Dataset, results: Sequence[FinetuneResult]) -> Predictions:
    videos = [video for result in results for video in result.tested]
    scores = [mean_softmax(result.logits, result.temperature) for result in results]
    return Predictions(
        id=np.array([video.id for video in videos]),
        split=np.array([result.split.name for result in results for _ in result.tested]),
        true=dataset.labels_of(videos).astype(np.int64),
        scores=np.concatenate(scores).astype(np.float32),
        source=np.array([video.source if dataset.sources_known else "" for video in videos]),
        class_names=dataset.class_names,
    )


def _info(dataset: Dataset, weights: Weights, spec: FinetuneSpec, finetuned: Finetuned) -> dict[str, Any]:
    results, final = finetuned.splits, finetuned.final
    failures = {id: reason for result in results for id, reason in result.failures.items()}
    videos = len(dataset.videos)
    plain: dict[str, Any] = json.loads(json.dumps(recorded_spec(spec)))
    return {
        "variant": spec.variant,
        "dataset": dataset.run_record,
        "protocol": results[0].split.name.rpartition("-")[0],
        "gmac": round(gmac(weights.config, spec.clip) * spec.clip.views, 3),
        "head": {"kind": KIND, "train": spec.train},
        "spec": plain,
        "weights": {"source": weights.source, "digest": weights.digest, "licence": weights.licence},
        "search": [_search(result, spec) for result in results],
        "temperature": {result.split.name: round(result.temperature, 4) for result in results},
        "curves": [curve for result in results for curve in curves(result)],
        "ranks": _ranks(spec, results[0]),
        "leaks": count_leaks(dataset, {result.split.name: result.split for result in results}),
        "seeds": {"splits, validation part, training": [spec.training.sampling.seed]},
        "final": final and {"videos": len(final.trained), "epochs": final.state.epoch},
        "timings": {"fit": round(sum(result.seconds for result in results) + (final.seconds if final else 0), 3)},
        "coverage": {
            "videos": videos,
            "cached": videos - len(failures),
            "missing": 0,
            "failed": len(failures),
            "flagged": 0,
            "failures": [{"id": id, "reason": reason} for id, reason in sorted(failures.items())],
        },
        "versions": versions(*VERSIONS),
    }


def _search(result: FinetuneResult, spec: FinetuneSpec) -> dict[str, Any]:
    """Return the validation scores by epoch, in the form of a probe's search: higher scores are better."""
    criterion = spec.training.criterion
    rows, sign = result.state.history, -1 if criterion == "log_loss" else 1
    return {
        "split": result.split.name,
        "parameter": "epoch",
        "values": [int(row["epoch"]) for row in rows],
        "scores": [round(sign * row[f"validation_{criterion}"], 6) for row in rows],
        "chosen": result.state.best_epoch,
        "criterion": criterion,
        "by": "validation set" if spec.select_on == "val" else "source",
        "at_edge": [],
    }


def curves(result: FinetuneResult) -> list[dict[str, Any]]:
    """Return a split's learning curves in the form of `run.json`."""
    charts = []
    for title, names in CURVES.items():
        series = []
        for name in names:
            rows = [row for row in result.state.history if name in row]
            x, y = [row["epoch"] for row in rows], [row[name] for row in rows]
            series.append({"name": name.replace("_", " "), "x": x, "y": y})
        charts.append({"name": f"{title}, {result.split.name}", "x_name": "epoch", "y_name": title, "series": series})
    return charts


def _ranks(spec: FinetuneSpec, result: FinetuneResult) -> dict[str, Any]:
    """Return each rank's class counts in the first epoch, and their distance from those of all ranks."""
    counts = result.histograms
    return {
        "number": len(counts),
        "deal": spec.training.sampling.deal,
        "split": result.split.name,
        "clips_a_class": counts.tolist(),
        "unevenness": round(class_mix_distance(counts), 4),
    }


def run_name(spec: FinetuneSpec) -> str:
    """Return the default name of a run."""
    loss, sampling = spec.training.loss, spec.training.sampling
    more = ["select-on-val" if spec.select_on == "val" else "", f"seed{sampling.seed}" if sampling.seed else ""]
    return default_name([spec.variant, spec.train.replace(":", "")], loss, sampling.sampler, more, spec.protocol)
