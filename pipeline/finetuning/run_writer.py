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
from actionvit.heads.criteria import Criterion
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import leaking_sources
from actionvit.pipeline.finetuning.spec import FinetuneSpec
from actionvit.pipeline.finetuning.split import FinetuneResult
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
    results: Sequence[FinetuneResult],
    *,
    work: Path,
    command: Sequence[str],
    overwrite: bool = False,
) -> Run:
    """Write the run of the splits' results; its weights are the first split's, its event files those below `work`.

    Raises
    ------
    ActionVitError
        If the folder exists and `overwrite` is off.
    """
    predictions = _predictions(dataset, results)
    n_train = {result.split.name: len(result.trained) for result in results}
    first = results[0]
    return write_run(
        folder,
        info={"command": list(command), **_info(dataset, weights, spec, results)},
        predictions=predictions,
        metrics=measure(predictions, n_train=n_train),
        head_tensors=first.weights,
        head_config={
            "kind": KIND,
            "train": spec.train,
            "split": first.split.name,
            "temperature": first.temperature,
            "clip": asdict(spec.clip),
            "weights": {"source": weights.source, "digest": weights.digest},
            "input": {"variants": [spec.variant], "features": "clip", "views": "each"},
            "class_names": list(dataset.class_names),
        },
        train={result.split.name: result.trained for result in results},
        more={"history.csv": history(results).encode(), **_events(work)},
        overwrite=overwrite,
    )


def _events(work: Path) -> dict[str, bytes]:
    """Return TensorBoard's files by their path in the run."""
    files = sorted(work.glob("*/events.out.tfevents.*"))
    return {f"tensorboard/{file.parent.name}/{file.name}": file.read_bytes() for file in files}


def history(results: Sequence[FinetuneResult]) -> str:
    """Return `history.csv`: one row per epoch and split."""
    columns = list(dict.fromkeys(name for result in results for row in result.state.history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["split", *columns, "best"], lineterminator="\n")
    writer.writeheader()
    for result in results:
        for row in result.state.history:
            values = {name: f"{value:.6g}" for name, value in row.items()}
            writer.writerow(
                {"split": result.split.name, **values, "best": int(row["epoch"] == result.state.best_epoch)}
            )
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


def _info(dataset: Dataset, weights: Weights, spec: FinetuneSpec, results: Sequence[FinetuneResult]) -> dict[str, Any]:
    leaks = {result.split.name: len(leaking_sources(dataset, result.split)) for result in results}
    failures = {id: reason for result in results for id, reason in result.failures.items()}
    videos = len(dataset.videos)
    plain: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    return {
        "variant": spec.variant,
        "dataset": dataset.run_record,
        "protocol": results[0].split.name.rpartition("-")[0],
        "gmac": round(gmac(weights.config, spec.clip) * spec.clip.views, 3),
        "head": {"kind": KIND, "train": spec.train},
        "spec": plain,
        "weights": {"source": weights.source, "digest": weights.digest, "licence": weights.licence},
        "search": [_search(result, spec.training.criterion) for result in results],
        "temperature": {result.split.name: round(result.temperature, 4) for result in results},
        "curves": [curve for result in results for curve in curves(result)],
        "ranks": _ranks(spec, results[0]),
        "leaks": {name: count for name, count in leaks.items() if count},
        "seeds": {"splits, validation part, training": [spec.training.sampling.seed], "bootstrap": 0},
        "timings": {"fit": round(sum(result.seconds for result in results), 3)},
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


def _search(result: FinetuneResult, criterion: Criterion) -> dict[str, Any]:
    """Return the validation scores by epoch, in the form of a probe's search: higher scores are better."""
    rows, sign = result.state.history, -1 if criterion == "log_loss" else 1
    return {
        "split": result.split.name,
        "parameter": "epoch",
        "values": [int(row["epoch"]) for row in rows],
        "scores": [round(sign * row[f"validation_{criterion}"], 6) for row in rows],
        "chosen": result.state.best_epoch,
        "criterion": criterion,
        "by": "source",
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
    """Return a name built from the non-default settings: `base-last1-balanced`."""
    training = spec.training
    parts = [
        spec.variant,
        spec.train.replace(":", ""),
        training.loss.class_weight if training.loss.class_weight != "none" else "",
        f"{training.sampling.sampler}-sampler" if training.sampling.sampler != "uniform" else "",
        f"adjust{training.loss.logit_adjust:g}" if training.loss.logit_adjust else "",
        f"focal{training.loss.focal:g}" if training.loss.focal else "",
        f"seed{training.sampling.seed}" if training.sampling.seed else "",
        spec.protocol or "",
    ]
    return "-".join(part for part in parts if part)
