"""Fine-tuned splits -> a run like any other: predictions, metrics, where every number comes from, the curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.variants import gmac
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import leaking_sources
from actionvit.pipeline.finetuning.finetune import Tuned
from actionvit.pipeline.finetuning.sampling import unevenness
from actionvit.pipeline.finetuning.scoring import view_mean
from actionvit.pipeline.finetuning.spec import Criterion, FinetuneSpec
from actionvit.pipeline.runs import Predictions, Run, measure, versions, write_run

KIND = "finetuned"
"""`kind` in the configuration of the run's `head.safetensors`."""
VERSIONS = ("numpy", "torch", "scikit-learn")
CURVES = {
    "loss": ("loss", "validation_log_loss"),
    "accuracy": ("train_accuracy", "validation_accuracy"),
    "learning rate": ("lr",),
}


def write_tuned(
    folder: Path,
    dataset: Dataset,
    weights: Weights,
    spec: FinetuneSpec,
    tuned: Sequence[Tuned],
    *,
    work: Path,
    command: Sequence[str],
    overwrite: bool = False,
) -> Run:
    """Write the run of some splits; its weights are the first split's, its event files those below `work`.

    Raises
    ------
    ActionVitError
        If the folder is there already and `overwrite` is off.
    """
    predictions = _predictions(dataset, tuned)
    n_train = {one.split.name: len(one.trained) for one in tuned}
    first = tuned[0]
    return write_run(
        folder,
        info={"command": list(command), **_info(dataset, weights, spec, tuned)},
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
        train={one.split.name: one.trained for one in tuned},
        more={"history.csv": history(tuned).encode(), **_events(work)},
        overwrite=overwrite,
    )


def _events(work: Path) -> dict[str, bytes]:
    """Return TensorBoard's files by their place in the run."""
    files = sorted(work.glob("*/events.out.tfevents.*"))
    return {f"tensorboard/{file.parent.name}/{file.name}": file.read_bytes() for file in files}


def history(tuned: Sequence[Tuned]) -> str:
    """Return `history.csv`: a row an epoch of each split."""
    columns = list(dict.fromkeys(name for one in tuned for row in one.state.history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["split", *columns, "best"], lineterminator="\n")
    writer.writeheader()
    for one in tuned:
        for row in one.state.history:
            values = {name: f"{value:.6g}" for name, value in row.items()}
            writer.writerow({"split": one.split.name, **values, "best": int(row["epoch"] == one.state.best_epoch)})
    return text.getvalue()


def _predictions(dataset: Dataset, tuned: Sequence[Tuned]) -> Predictions:
    videos = [video for one in tuned for video in one.tested]
    scores = [view_mean(one.logits, one.temperature) for one in tuned]
    return Predictions(
        id=np.array([video.id for video in videos]),
        split=np.array([one.split.name for one in tuned for _ in one.tested]),
        true=dataset.labels_of(videos).astype(np.int64),
        scores=np.concatenate(scores).astype(np.float32),
        source=np.array([video.source if dataset.sources_known else "" for video in videos]),
        class_names=dataset.class_names,
    )


def _info(dataset: Dataset, weights: Weights, spec: FinetuneSpec, tuned: Sequence[Tuned]) -> dict[str, Any]:
    leaks = {one.split.name: len(leaking_sources(dataset, one.split)) for one in tuned}
    failures = {id: reason for one in tuned for id, reason in one.failures.items()}
    videos = len(dataset.videos)
    plain: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    return {
        "variant": spec.variant,
        "dataset": {
            "name": dataset.name,
            "root": str(dataset.root),
            "layout": dataset.layout,
            "videos": videos,
            "notes": list(dataset.notes),
        },
        "protocol": tuned[0].split.name.rpartition("-")[0],
        "gmac": round(gmac(weights.shape, spec.clip) * spec.clip.views, 3),
        "head": {"kind": KIND, "train": spec.train},
        "spec": plain,
        "weights": {"source": weights.source, "digest": weights.digest, "licence": weights.licence},
        "search": [_search(one, spec.training.criterion) for one in tuned],
        "temperature": {one.split.name: round(one.temperature, 4) for one in tuned},
        "curves": [curve for one in tuned for curve in curves(one)],
        "ranks": _ranks(spec, tuned[0]),
        "leaks": {name: count for name, count in leaks.items() if count},
        "seeds": {"splits, validation part, training": [spec.training.sampling.seed], "bootstrap": 0},
        "timings": {"fit": round(sum(one.seconds for one in tuned), 3)},
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


def _search(one: Tuned, criterion: Criterion) -> dict[str, Any]:
    """Return what the validation part decided, in the words of a probe's search: higher scores are better."""
    rows, sign = one.state.history, -1 if criterion == "log_loss" else 1
    return {
        "split": one.split.name,
        "parameter": "epoch",
        "values": [int(row["epoch"]) for row in rows],
        "scores": [round(sign * row[f"validation_{criterion}"], 6) for row in rows],
        "chosen": one.state.best_epoch,
        "criterion": criterion,
        "by": "source",
        "at_edge": [],
    }


def curves(one: Tuned) -> list[dict[str, Any]]:
    """Return a split's learning curves as `run.json` keeps them."""
    found = []
    for title, names in CURVES.items():
        series = []
        for name in names:
            rows = [row for row in one.state.history if name in row]
            x, y = [row["epoch"] for row in rows], [row[name] for row in rows]
            series.append({"name": name.replace("_", " "), "x": x, "y": y})
        found.append({"name": f"{title}, {one.split.name}", "x_name": "epoch", "y_name": title, "series": series})
    return found


def _ranks(spec: FinetuneSpec, one: Tuned) -> dict[str, Any]:
    """Return which classes each process met in the first epoch, and how far that is from what all met together."""
    counts = one.histograms
    return {
        "number": len(counts),
        "deal": spec.training.sampling.deal,
        "split": one.split.name,
        "clips_a_class": counts.tolist(),
        "unevenness": round(unevenness(counts), 4),
    }


def run_name(spec: FinetuneSpec) -> str:
    """Return a name that tells what is not as usual: `base-last1-balanced`."""
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
