"""Findings from the embeddings: a two-dimensional projection, the nearest training clips, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import SettingError
from actionvit.evaluation.metrics import predicted
from actionvit.pipeline.reporting.duplicates import near_duplicates
from actionvit.pipeline.reporting.embeddings import Embeddings, class_by_id, cosines
from actionvit.pipeline.reporting.model import Analysis, HardClip, Neighbor, Neighbors, Point, ProjectedClips
from actionvit.pipeline.runs import Run

Projection = Literal["pca", "tsne", "umap"]

FEW = 10
"""Fewer clips than this are always projected by PCA: they have no neighborhoods to preserve."""


def analyse(
    runs: Sequence[Run],
    embeddings: Embeddings,
    *,
    names: Sequence[str] = (),
    hard: Sequence[HardClip] = (),
    method: Projection = "pca",
) -> Analysis:
    """Return the findings from the embeddings.

    Parameters
    ----------
    runs : sequence of Run
        On the same clips.
    embeddings : Embeddings
        Of the first run's store.
    names : sequence of str, optional
        Display names; the runs' own names by default.
    hard : sequence of HardClip
        Clips whose three nearest training clips are listed.
    method : {"pca", "tsne", "umap"}
        Method of the projection; `umap` needs umap-learn.
    """
    label = class_by_id(runs[0])
    return Analysis(
        projection=_projected(runs, embeddings, label, method),
        neighbors=_neighbors(runs[0], embeddings, hard, label),
        duplicates=near_duplicates(runs, embeddings, names=names) if runs[0].train else None,
    )


def project(x: NDArray[np.float32], method: Projection = "pca") -> tuple[NDArray[np.float64], list[float]]:
    """Return points (N, 2), the same on every call, and the fractions of variance explained (PCA's only).

    Raises
    ------
    ActionVitError
        If `method` is "umap" and umap-learn is not installed.
    """
    if method not in get_args(Projection):
        raise ValueError(f"projection: got {method!r}, expected one of {', '.join(get_args(Projection))}")
    centered = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    if method == "pca":
        values, vectors = np.linalg.eigh(centered.T @ centered)
        axes: NDArray[np.float64] = vectors[:, ::-1][:, :2]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        total = max(float(values.sum()), np.finfo(np.float64).tiny)
        return centered @ axes, [round(float(value) / total, 6) for value in values[::-1][:2]]
    if method == "tsne":
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits

        perplexity = min(30.0, (len(x) - 1) / 3)
        with threadpool_limits(1):  # the same points with any number of cores
            points = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(centered)
    else:
        try:
            from umap import UMAP
        except ImportError as error:
            raise SettingError("projection: umap needs umap-learn; `pip install umap-learn`") from error
        points = UMAP(random_state=0, n_jobs=1).fit_transform(centered)
    return np.asarray(points, dtype=np.float64), []


def _projected(
    runs: Sequence[Run], embeddings: Embeddings, label: Mapping[str, str], method: Projection
) -> ProjectedClips:
    rows = np.array([row for row, id_ in enumerate(embeddings.id.tolist()) if id_ in label], dtype=np.intp)
    method = "pca" if len(rows) < FEW else method
    points, explained = project(embeddings.x[rows], method)
    results: dict[str, list[bool]] = {}
    for run in runs:
        correct = predicted(run.predictions.scores) == run.predictions.true
        for id_, hit in zip(run.predictions.id.tolist(), correct.tolist(), strict=True):
            results.setdefault(id_, []).append(hit)
    ids = embeddings.id[rows].tolist()
    return ProjectedClips(
        method=method,
        explained=explained,
        points=[
            Point(id=id_, true=label[id_], x=round(x, 4), y=round(y, 4), correct=float(np.mean(results[id_])))
            for id_, (x, y) in zip(ids, points.tolist(), strict=True)
        ],
        shown=[ids[row] for row in _central(points, np.array([label[id_] for id_ in ids]))],
    )


def _central(points: NDArray[np.float64], names: NDArray[np.str_], apart: float = 0.1) -> list[int]:
    """Return each class's most central clip, unless another is within `apart` of the figure's width."""
    scaled = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), np.finfo(np.float64).tiny)
    chosen: list[int] = []
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        middle = np.median(scaled[members], axis=0)
        best = int(members[np.linalg.norm(scaled[members] - middle, axis=1).argmin()])
        if all(np.linalg.norm(scaled[best] - scaled[other]) >= apart for other in chosen):
            chosen.append(best)
    return chosen


def _neighbors(
    run: Run, embeddings: Embeddings, hard: Sequence[HardClip], label: Mapping[str, str], most: int = 3
) -> list[Neighbors]:
    """Return the nearest training clips, within the split, of each clip whose split lists its training clips."""
    by_id: dict[tuple[str, str], list[Neighbor]] = {}
    for split in dict.fromkeys(clip.split for clip in hard if clip.split in run.train):
        ids = [clip.id for clip in hard if clip.split == split and len(embeddings.rows([clip.id]))]
        train = embeddings.rows(run.train[split])
        names = embeddings.id[train].tolist()
        for rows, block in cosines(embeddings.x[embeddings.rows(ids)], embeddings.x[train]):
            for id_, cosine in zip(ids[rows], block, strict=True):
                by_id[split, id_] = [
                    Neighbor(id=names[place], class_=label.get(names[place]), cosine=round(float(cosine[place]), 4))
                    for place in np.argsort(-cosine, kind="stable")[:most]
                ]
    return [
        Neighbors(id=clip.id, split=clip.split, nearest=by_id.get((clip.split, clip.id), []))
        for clip in hard
        if clip.split in run.train
    ]
