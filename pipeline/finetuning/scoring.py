"""Scoring of plain views by all ranks together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.evaluation.metrics import compute_metrics
from actionvit.heads.calibration import mean_softmax
from actionvit.pipeline.finetuning.clips import Clips, prefetch
from actionvit.pipeline.finetuning.distributed import ProcessGroup
from actionvit.pipeline.finetuning.micro_batch import MicroBatcher

BATCH_VIEWS = 16
"""Views computed together: the same views for the same rows, so that a repetition gives the same bits."""


@torch.no_grad()
def predict_views(
    compute: Callable[[Tensor], Tensor],
    clips: Clips,
    rows: NDArray[np.intp],
    width: int,
    ranks: ProcessGroup,
    *,
    once: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a model's outputs for the plain views of rows, (n, K, width), and a mask of the rows that decode, (n,).

    Parameters
    ----------
    compute : callable
        (b, ...) inputs as `clips` gives them -> (b, width).
    clips : Clips
    rows : ndarray of int, (n,)
    width : int
    ranks : ProcessGroup
        Rank r computes rows r, r + world, ...
    once : bool
        Whether these views are not needed in later epochs.
    """
    own_rows = rows[ranks.rank :: ranks.world]
    place_of = {int(row): i for i, row in enumerate(rows)}
    outputs = np.zeros((len(rows), clips.spec.clip.views, width))
    decoded = np.zeros(len(rows))
    pending: list[tuple[int, Tensor]] = []
    micro_batcher = MicroBatcher(BATCH_VIEWS, remedy="give fewer num_frames= or a smaller size=")

    def flush() -> None:
        if pending:
            x = torch.cat([views for _, views in pending])
            parts = micro_batcher.map(len(x), lambda part: compute(x[part]).float().cpu())
            values = torch.cat(parts).double().numpy()
            places = [place for place, _ in pending]
            outputs[places], decoded[places] = values.reshape(len(places), -1, width), 1
            pending.clear()

    for row, views in prefetch(clips.test(own_rows.tolist(), once=once)):
        pending.append((place_of[row], views))
        if len(pending) == max(1, BATCH_VIEWS // clips.spec.clip.views):
            flush()
    flush()
    return np.asarray(ranks.all_reduce(outputs), dtype=np.float64), np.asarray(ranks.all_reduce(decoded)) > 0


def validation_metrics(
    logits: NDArray[np.float64], decoded: NDArray[np.bool_], y: NDArray[np.intp]
) -> dict[str, float]:
    """Return accuracy, mean class accuracy and log loss of the decoded clips, from finite logits (n, K, C)."""
    if not decoded.any():
        return {"accuracy": 0.0, "mean_class_accuracy": 0.0, "log_loss": 0.0}
    values = compute_metrics(y[decoded], mean_softmax(logits)[decoded])
    names = {"accuracy": "top1", "mean_class_accuracy": "mean_class_accuracy", "log_loss": "log_loss"}
    return {name: values[metric] for name, metric in names.items()}
