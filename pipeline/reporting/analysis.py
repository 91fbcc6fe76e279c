"""What the embeddings say beside the scores: a picture of the space, nearest training clips, leaks across a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.evaluation.metrics import predicted
from actionvit.pipeline.runs import Run

Projection = Literal["pca", "tsne", "umap"]

ALIKE = 0.9
"""Cosine of centred embeddings from which two clips count as near-duplicates.

Over 523 HMDB51 clips under CLIP, half of the pairs of one source lie above 0.80, and 5 of 135,000 pairs of two sources
above 0.90: all of them the same shoot under two names.
"""

FEW = 10
"""Fewer clips than this are projected by PCA whatever was asked for: there are no neighbourhoods to keep."""

LISTED = 500
"""Near-duplicate pairs that are listed, the most alike first; all of them count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """One embedding a clip, N rows."""

    id: NDArray[np.str_]
    """(N,)"""
    x: NDArray[np.float32]
    """(N, D), the mean over the views."""
    digest: NDArray[np.str_]
    """(N,), of the file's content; equal means the same bytes."""

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the rows of those ids that are here, in the order given."""
        at = {id_: row for row, id_ in enumerate(self.id.tolist())}
        return np.array([at[id_] for id_ in ids if id_ in at], dtype=np.intp)


def read_embeddings(run: Run) -> Embeddings | None:
    """Return what the run's head was trained on, from its store; None where that is not at hand or has changed."""
    from actionvit.features.store.store import FeatureStore

    known = run.info.get("store") or {}
    if not known.get("path") or not Path(known["path"]).is_dir():
        return None
    store = FeatureStore.open(Path(known["path"]))
    if known.get("digest") not in (None, store.digest()):
        return None
    ids = list(store.ids)
    return Embeddings(
        id=np.array(ids),
        x=store.read(ids, "clip").mean(axis=1),
        digest=np.array([record.digest for record in store.records(ids)]),
    )


def analyse(
    runs: Sequence[Run],
    embeddings: Embeddings,
    *,
    names: Sequence[str] = (),
    look_at: Sequence[Mapping[str, Any]] = (),
    method: Projection = "pca",
) -> dict[str, Any]:
    """Return the report's `analysis`.

    Parameters
    ----------
    runs : sequence of Run
        On the same clips.
    embeddings : Embeddings
        Of the first run's store.
    names : sequence of str, optional
        What to call the runs; their own names by default.
    look_at : sequence
        Clips (`id`, `split`) whose nearest training clips are wanted.
    method : {"pca", "tsne", "umap"}
        Of the picture; `umap` needs umap-learn.

    Returns
    -------
    dict
        `projection`: `method`, `explained` shares, `points` (`id`, `true`, `x`, `y`, `right`: share of all results),
        `shown` (ids that stand for their class, well apart);
        `neighbours`: for each clip of `look_at` its three nearest training clips; `duplicates`: see `duplicates`.
    """
    label = _labels(runs[0])
    return {
        "projection": _picture(runs, embeddings, label, method),
        "neighbours": [
            {"id": clip["id"], "split": clip["split"], "nearest": _nearest(runs[0], embeddings, clip, label)}
            for clip in look_at
            if clip["split"] in runs[0].train
        ],
        "duplicates": duplicates(runs, embeddings, names=names) if runs[0].train else None,
    }


def duplicates(
    runs: Sequence[Run], embeddings: Embeddings, *, names: Sequence[str] = (), alike: float = ALIKE
) -> dict[str, Any]:
    """Return test clips that have a near-duplicate among the training clips of their split, and what they do to top-1.

    Returns
    -------
    dict
        `alike`; how many `clips` and `results` are flagged; `pairs` (at most `LISTED` of `n_pairs`): `clips` (two ids),
        `cosine`, `same_file`, `same_class`, `times` (how often one is tested with the other in training); `effect`: for
        each run `top1` (pooled over the splits), `without` the flagged results, and of the `flagged` alone.
    """
    found, label = runs[0].predictions, _labels(runs[0])
    keys: set[tuple[str, str]] = set()
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for split in found.split_names:
        test = embeddings.rows(sorted(found.id[found.split == split].tolist()))
        train = embeddings.rows(runs[0].train.get(split, ()))
        if not len(test) or not len(train):
            continue
        cosine = _cosines(embeddings.x[test], embeddings.x[train])
        same = embeddings.digest[test][:, None] == embeddings.digest[train]
        for i, j in zip(*np.nonzero((cosine >= alike) | same), strict=True):
            one, other = str(embeddings.id[test[i]]), str(embeddings.id[train[j]])
            keys.add((split, one))
            pair = pairs.setdefault((min(one, other), max(one, other)), {"cosine": -1.0, "times": 0})
            pair.update(cosine=max(pair["cosine"], round(float(cosine[i, j]), 4)), times=pair["times"] + 1)
            pair.update(same_file=bool(same[i, j]), same_class=label[one] == label[other] if other in label else None)
    listed = [{"clips": list(key), **pair} for key, pair in pairs.items()]
    listed.sort(key=lambda pair: (-pair["cosine"], pair["clips"]))
    return {
        "alike": alike,
        "clips": len({id_ for _, id_ in keys}),
        "results": len(keys),
        "n_pairs": len(pairs),
        "pairs": listed[:LISTED],
        "effect": [
            {"name": name, **_effect(run, keys)}
            for run, name in zip(runs, names or [run.name for run in runs], strict=True)
        ],
    }


def project(x: NDArray[np.float32], method: Projection = "pca") -> tuple[NDArray[np.float64], list[float]]:
    """Return points (N, 2), the same on every call, and the shares of variance explained (PCA's only).

    Raises
    ------
    ActionVitError
        If `umap` is asked for and umap-learn is not installed.
    """
    if method not in get_args(Projection):
        raise ValueError(f"projection: got {method!r}, expected one of {', '.join(get_args(Projection))}")
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    if method == "pca":
        values, vectors = np.linalg.eigh(centred.T @ centred)
        axes: NDArray[np.float64] = vectors[:, ::-1][:, :2]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        total = max(float(values.sum()), np.finfo(np.float64).tiny)
        return centred @ axes, [round(float(value) / total, 6) for value in values[::-1][:2]]
    if method == "tsne":
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits

        perplexity = min(30.0, (len(x) - 1) / 3)
        with threadpool_limits(1):  # the same points whatever the number of cores
            points = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(centred)
    else:
        try:
            from umap import UMAP
        except ImportError as error:
            raise ActionVitError("--projection umap: umap-learn is not installed; `pip install umap-learn`") from error
        points = UMAP(random_state=0, n_jobs=1).fit_transform(centred)
    return np.asarray(points, dtype=np.float64), []


def _picture(
    runs: Sequence[Run], embeddings: Embeddings, label: Mapping[str, str], method: Projection
) -> dict[str, Any]:
    rows = np.array([row for row, id_ in enumerate(embeddings.id.tolist()) if id_ in label], dtype=np.intp)
    method = "pca" if len(rows) < FEW else method
    points, explained = project(embeddings.x[rows], method)
    tries: dict[str, list[bool]] = {}
    for run in runs:
        right = predicted(run.predictions.scores) == run.predictions.true
        for id_, hit in zip(run.predictions.id.tolist(), right.tolist(), strict=True):
            tries.setdefault(id_, []).append(hit)
    ids = embeddings.id[rows].tolist()
    return {
        "method": method,
        "explained": explained,
        "points": [
            {"id": id_, "true": label[id_], "x": round(x, 4), "y": round(y, 4), "right": float(np.mean(tries[id_]))}
            for id_, (x, y) in zip(ids, points.tolist(), strict=True)
        ],
        "shown": [ids[row] for row in _spread(points, np.array([label[id_] for id_ in ids]))],
    }


def _spread(points: NDArray[np.float64], names: NDArray[np.str_], apart: float = 0.1) -> list[int]:
    """Return for each class the clip in its middle, unless another stands within `apart` of the picture's width."""
    scaled = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), np.finfo(np.float64).tiny)
    chosen: list[int] = []
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        middle = np.median(scaled[members], axis=0)
        best = int(members[np.linalg.norm(scaled[members] - middle, axis=1).argmin()])
        if all(np.linalg.norm(scaled[best] - scaled[other]) >= apart for other in chosen):
            chosen.append(best)
    return chosen


def _nearest(
    run: Run, embeddings: Embeddings, clip: Mapping[str, Any], label: Mapping[str, str], most: int = 3
) -> list[dict[str, Any]]:
    train, test = embeddings.rows(run.train[clip["split"]]), embeddings.rows([clip["id"]])
    if not len(test):
        return []
    cosine = _cosines(embeddings.x[test], embeddings.x[train])[0]
    ids = embeddings.id[train]
    return [
        {"id": str(ids[place]), "class": label.get(str(ids[place])), "cosine": round(float(cosine[place]), 4)}
        for place in np.argsort(-cosine, kind="stable")[:most]
    ]


def _cosines(test: NDArray[np.float32], train: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return cosines (M, N) about the training mean: what all clips share would make all of them look alike."""
    mean = train.mean(axis=0, dtype=np.float64)
    a, b = test - mean, train - mean
    tiny = np.finfo(np.float64).tiny
    a /= np.maximum(np.linalg.norm(a, axis=1, keepdims=True), tiny)
    b /= np.maximum(np.linalg.norm(b, axis=1, keepdims=True), tiny)
    return np.asarray(a @ b.T, dtype=np.float64)


def _labels(run: Run) -> dict[str, str]:
    """Return the class of every tested clip, by id."""
    found = run.predictions
    return {id_: found.class_names[true] for id_, true in zip(found.id.tolist(), found.true.tolist(), strict=True)}


def _effect(run: Run, keys: set[tuple[str, str]]) -> dict[str, Any]:
    found = run.predictions
    out = np.array([key in keys for key in zip(found.split.tolist(), found.id.tolist(), strict=True)])
    right = predicted(found.scores) == found.true
    return {
        "top1": float(right.mean()),
        "without": float(right[~out].mean()) if not out.all() else None,
        "flagged": float(right[out].mean()) if out.any() else None,
    }
