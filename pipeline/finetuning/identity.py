"""Identity of a training: the settings and data that a checkpoint must share to be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.timesformer.checkpoint import Weights
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import recorded_spec
from actionvit.pipeline.finetuning.clips import Clips
from actionvit.pipeline.finetuning.spec import FinetuneSpec


def training_identity(
    dataset: Dataset,
    train_rows: NDArray[np.intp],
    val_rows: NDArray[np.intp],
    weights: Weights,
    spec: FinetuneSpec,
    clips: Clips,
    *,
    world: int,
) -> dict[str, Any]:
    """Return everything that determines a training's numbers, as flat names and JSON values.

    Settings that only save memory are left out: a training may resume on a smaller machine. So is the number of ranks,
    unless each rank samples from a part of its own.
    """
    settings: dict[str, Any] = recorded_spec(replace(spec, splits=(), checkpointing=False))
    del settings["refit"], settings["final"]  # each has a checkpoint of its own
    del settings["training"]["micro_batch"]
    if settings["select_on"] == "train":
        del settings["select_on"]  # as in checkpoints of before there was a choice
    rows = [("fit", row) for row in train_rows] + [("held", row) for row in val_rows]
    videos = [(part, dataset.videos[row]) for part, row in rows]
    return {
        **_flat(settings),
        "weights": weights.digest,
        "classes": list(dataset.class_names),
        "clips": _digest(["\t".join((part, video.id, video.label, video.source)) for part, video in videos]),
        "files": _digest(clips.content_ids([*train_rows, *val_rows])),
        "processes": world if spec.training.sampling.deal == "sharded" else None,
    }


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name, so that an error can name the one that differs."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
