"""Plain views through a model, by all ranks together; what their logits are worth, and how sure they may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.pipeline.finetuning.clips import Clips, ahead
from actionvit.pipeline.finetuning.distributed import Ranks
from actionvit.pipeline.finetuning.micro_batch import Pieces

AT_ONCE = 16
"""Views computed together. Always the same ones for the same rows, so that a repetition gives the same bits."""


@torch.no_grad()
def plain_outputs(
    compute: Callable[[Tensor], Tensor],
    clips: Clips,
    rows: NDArray[np.intp],
    width: int,
    ranks: Ranks,
    *,
    once: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return what a model computes of rows' plain views, (n, K, width), and which rows decode, (n,).

    Parameters
    ----------
    compute : callable
        (b, ...) inputs as `clips` gives them -> (b, width).
    clips : Clips
    rows : ndarray of int, (n,)
    width : int
    ranks : Ranks
        Each computes every so many-th row.
    once : bool
        Whether the rows' plain views will not be asked for again in every epoch.
    """
    mine = rows[ranks.rank :: ranks.world]
    at = {int(row): i for i, row in enumerate(rows)}
    found = np.zeros((len(rows), clips.spec.clip.views, width))
    known = np.zeros(len(rows))
    waiting: list[tuple[int, Tensor]] = []
    pieces = Pieces(AT_ONCE, remedy="give fewer --num-frames or a smaller --size")

    def flush() -> None:
        if waiting:
            x = torch.cat([views for _, views in waiting])
            parts = pieces.over(len(x), lambda part: compute(x[part]).float().cpu())
            values = torch.cat(parts).double().numpy()
            places = [place for place, _ in waiting]
            found[places], known[places] = values.reshape(len(places), -1, width), 1
            waiting.clear()

    for row, views in ahead(clips.test(mine.tolist(), once=once)):
        waiting.append((at[row], views))
        if len(waiting) == max(1, AT_ONCE // clips.spec.clip.views):
            flush()
    flush()
    return np.asarray(ranks.share(found), dtype=np.float64), np.asarray(ranks.share(known)) > 0


def view_mean(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return probabilities (n, C) of logits (n, K, C): softmax(logits / temperature) of each view, averaged."""
    scaled = logits / temperature
    power = np.exp(scaled - scaled.max(-1, keepdims=True))
    return np.asarray((power / power.sum(-1, keepdims=True)).mean(1))


def fit_temperature(logits: NDArray[np.float64], y: Sequence[int] | NDArray[np.intp]) -> float:
    """Return the temperature of least log-loss for the mean over views of softmax(logits / temperature).

    The true class counts n + 1 of n + 2, all classes share the rest (Platt, 1999): otherwise n clips that all are told
    right would make every score 1.

    Parameters
    ----------
    logits : ndarray of shape (n, K, C)
        Of clips that were not trained on.
    y : sequence of int, (n,)

    Returns
    -------
    float
        From 0.05 to 20; 1 where there is nothing to fit to (Guo et al., ICML 2017).
    """
    from scipy.optimize import minimize_scalar

    if not len(y):
        return 1.0
    spare = 1 / (len(y) + 2)

    def cost(log_temperature: float) -> float:
        scores = view_mean(logits, float(np.exp(log_temperature)))
        logs = np.log(np.maximum(scores, 1e-12))
        return float(-(1 - spare) * logs[np.arange(len(y)), y].mean() - spare * logs.mean())

    found = minimize_scalar(cost, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def judged(logits: NDArray[np.float64], known: NDArray[np.bool_], y: NDArray[np.intp]) -> dict[str, float]:
    """Return accuracy, mean class accuracy and log-loss of clips with logits (n, K, C)."""
    scores, y = view_mean(logits)[known], y[known]
    if not len(y):
        return {"accuracy": 0.0, "mean_class_accuracy": 0.0, "log_loss": 0.0}
    hit, there = scores.argmax(1) == y, np.bincount(y)
    own = np.maximum(scores[np.arange(len(y)), y], np.finfo(np.float32).eps)
    recall = np.bincount(y, weights=hit)[there > 0] / there[there > 0]
    return {
        "accuracy": float(hit.mean()),
        "mean_class_accuracy": float(recall.mean()),
        "log_loss": float(-np.log(own).mean()),
    }
