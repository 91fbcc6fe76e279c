"""Plain views through a model, by all ranks together: logits or embeddings of many videos, in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.pipeline.finetuning.clips import Clips, ahead
from actionvit.pipeline.finetuning.distributed import Ranks

AT_ONCE = 8
"""Videos computed together. Always the same ones for the same rows, so that a repetition gives the same bits."""


@torch.no_grad()
def plain_outputs(
    compute: Callable[[Tensor], Tensor], clips: Clips, rows: NDArray[np.intp], width: int, ranks: Ranks
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
    """
    mine = rows[ranks.rank :: ranks.world]
    at = {int(row): i for i, row in enumerate(rows)}
    found = np.zeros((len(rows), clips.spec.clip.views, width))
    known = np.zeros(len(rows))
    waiting: list[tuple[int, Tensor]] = []

    def flush() -> None:
        if waiting:
            values = compute(torch.cat([views for _, views in waiting])).float().cpu().double().numpy()
            places = [place for place, _ in waiting]
            found[places], known[places] = values.reshape(len(places), -1, width), 1
            waiting.clear()

    for row, views in ahead(clips.test(mine.tolist())):
        waiting.append((at[row], views))
        if len(waiting) == AT_ONCE:
            flush()
    flush()
    return np.asarray(ranks.share(found), dtype=np.float64), np.asarray(ranks.share(known)) > 0
