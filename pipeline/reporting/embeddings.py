"""The embeddings behind a run: read from its store, and compared by cosine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionvit.pipeline.runs import Run

BLOCK = 512
"""Test clips whose cosines are in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """One embedding per clip, N rows."""

    id: NDArray[np.str_]
    """(N,)"""
    x: NDArray[np.float32]
    """(N, D), the mean over the views."""
    digest: NDArray[np.str_]
    """(N,), of the file's content; equal for the same bytes."""

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the rows of those ids that have an embedding, in the order given."""
        row_of = {id_: row for row, id_ in enumerate(self.id.tolist())}
        return np.array([row_of[id_] for id_ in ids if id_ in row_of], dtype=np.intp)


def read_embeddings(run: Run) -> Embeddings | None:
    """Return the embeddings that the run's head was trained on; None where their store is missing or has changed."""
    from actionvit.features.store.store import FeatureStore

    record = run.info.get("store") or {}
    if not record.get("path") or not Path(record["path"]).is_dir():
        return None
    store = FeatureStore.open(Path(record["path"]))
    if record.get("digest") not in (None, store.digest()):
        return None
    ids = list(store.ids)
    return Embeddings(
        id=np.array(ids),
        x=store.read(ids, "clip").mean(axis=1),
        digest=np.array([record.digest for record in store.records(ids)]),
    )


def cosines(test: NDArray[np.float32], train: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield blocks of test rows and their cosines (block, N) to N training rows.

    Cosines are taken about the training mean: the part that all clips share would make all of them similar.
    """
    mean = train.mean(axis=0, dtype=np.float64)
    unit_train = _unit(train - mean)
    for start in range(0, len(test), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, _unit(test[rows] - mean) @ unit_train.T


def class_by_id(run: Run) -> dict[str, str]:
    """Return the class of every tested clip, by id."""
    predictions = run.predictions
    names = predictions.class_names
    return {id_: names[true] for id_, true in zip(predictions.id.tolist(), predictions.true.tolist(), strict=True)}


def _unit(x: NDArray[np.float64]) -> NDArray[np.float32]:
    length = np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(x / length, dtype=np.float32)
