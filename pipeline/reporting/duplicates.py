"""Near-duplicates: test clips that nearly equal a clip in the training set of their split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from actionvit.evaluation.metrics import predicted
from actionvit.pipeline.reporting.embeddings import Embeddings, class_by_id, cosines
from actionvit.pipeline.reporting.model import DuplicateEffect, DuplicatePair, Duplicates
from actionvit.pipeline.runs import Run

LISTED = 500
"""Near-duplicate pairs that are listed, the most similar first; all of them count."""

NEAREST = 5
"""Training clips of a test clip that can be its near-duplicates, besides identical files."""

FEW = 20
"""With fewer test results the quartiles of their similarities are too uncertain to set a threshold."""

FENCE = 3.0
"""Interquartile ranges above the upper quartile from which a similarity is an outlier (Tukey's outer fence)."""


@dataclass(slots=True)
class _Pair:
    cosine: float = -1.0
    same_file: bool = False
    splits: set[str] = field(default_factory=set)


def near_duplicates(runs: Sequence[Run], embeddings: Embeddings, *, names: Sequence[str] = ()) -> Duplicates:
    """Return test clips with a near-duplicate in the training set of their split, and their effect on top-1.

    Clips are near-duplicates if they are the same file, or if their cosine is an outlier among the similarities of
    test clips to their nearest training clip of another source. This threshold adapts to the encoder. It is dropped,
    and only identical files remain, where the outliers join different classes more often than not: then the encoder
    does not distinguish near-duplicates.

    Parameters
    ----------
    runs : sequence of Run
        On the same clips; the first must list its training clips.
    embeddings : Embeddings
        Of the first run's store.
    names : sequence of str, optional
        Display names; the runs' own names by default.
    """
    similar, same, nearest = _candidates(runs[0], embeddings)
    threshold = _threshold(nearest)
    label = class_by_id(runs[0])
    pairs = dict(same)
    if threshold is not None:
        outliers = {key: pair for key, pair in similar.items() if pair.cosine >= threshold}
        of_classes = [label[a] == label[b] for a, b in outliers if a in label and b in label and (a, b) not in same]
        if len(of_classes) >= NEAREST and 2 * sum(of_classes) < len(of_classes):
            threshold = None
        else:
            pairs |= {key: pair for key, pair in outliers.items() if key not in same}
    flagged = {(split, test) for (test, _), pair in pairs.items() for split in pair.splits}
    listed = _undirected(pairs, label)
    return Duplicates(
        threshold=None if threshold is None else round(threshold, 4),
        clips=len({id_ for _, id_ in flagged}),
        results=len(flagged),
        n_pairs=len(listed),
        pairs=listed[:LISTED],
        effect=[
            _effect(run, flagged, name) for run, name in zip(runs, names or [run.name for run in runs], strict=True)
        ],
    )


def _candidates(
    run: Run, embeddings: Embeddings
) -> tuple[dict[tuple[str, str], _Pair], dict[tuple[str, str], _Pair], NDArray[np.float64]]:
    """Return (test, training) pairs of similar clips and of identical files, and similarities across sources.

    The similarities are those of each test clip to its nearest training clip of another source.
    """
    predictions = run.predictions
    source_of = dict(zip(predictions.id.tolist(), predictions.cluster.tolist(), strict=True))
    sources = np.array([source_of.get(id_, id_) for id_ in embeddings.id.tolist()])
    similar: dict[tuple[str, str], _Pair] = {}
    same: dict[tuple[str, str], _Pair] = {}
    nearest = [np.empty(0)]
    for split in predictions.split_names:
        test = embeddings.rows(sorted(predictions.id[predictions.split == split].tolist()))
        train = embeddings.rows(run.train.get(split, ()))
        if not len(test) or not len(train):
            continue
        for rows, cosine in cosines(embeddings.x[test], embeddings.x[train]):
            other = sources[test[rows]][:, None] != sources[train]
            best = np.where(other, cosine, -np.inf).max(axis=1)
            nearest.append(best[np.isfinite(best)])
            top = np.argpartition(-cosine, min(NEAREST, len(train)) - 1, axis=1)[:, :NEAREST]
            for row, columns in zip(range(len(cosine)), top.tolist(), strict=True):
                id_ = str(embeddings.id[test[rows][row]])
                for column in columns:
                    pair = similar.setdefault((id_, str(embeddings.id[train[column]])), _Pair())
                    pair.cosine = max(pair.cosine, round(float(cosine[row, column]), 4))
                    pair.splits.add(split)
        by_digest: dict[str, list[int]] = {}
        for row in train:
            by_digest.setdefault(str(embeddings.digest[row]), []).append(int(row))
        for row in test:
            for copy in by_digest.get(str(embeddings.digest[row]), ()):
                key = (str(embeddings.id[row]), str(embeddings.id[copy]))
                pair = same.setdefault(key, _Pair(same_file=True))
                group = similar.get(key)
                pair.cosine = group.cosine if group else 1.0
                pair.splits.add(split)
    return similar, same, np.concatenate(nearest)


def _threshold(nearest: NDArray[np.float64]) -> float | None:
    """Return the cosine from which a similarity is an outlier, by Fisher's z; None where there are too few."""
    if len(nearest) < FEW:
        return None
    lower, upper = np.quantile(np.arctanh(np.clip(nearest, -0.999999, 0.999999)), [0.25, 0.75])
    threshold = float(np.tanh(upper + FENCE * (upper - lower)))
    return threshold if threshold < 0.999999 else None


def _undirected(pairs: dict[tuple[str, str], _Pair], label: dict[str, str]) -> list[DuplicatePair]:
    """Return each pair of clips once, in either order of test and training, the most similar first."""
    merged: dict[tuple[str, str], tuple[_Pair, int]] = {}
    for (test, train), pair in pairs.items():
        key = (min(test, train), max(test, train))
        before, times = merged.get(key, (pair, 0))
        merged[key] = (before if before.cosine >= pair.cosine else pair, times + len(pair.splits))
    listed = [
        DuplicatePair(
            clips=key,
            cosine=pair.cosine,
            same_file=pair.same_file,
            same_class=label[key[0]] == label[key[1]] if key[0] in label and key[1] in label else None,
            times=times,
        )
        for key, (pair, times) in merged.items()
    ]
    return sorted(listed, key=lambda pair: (-pair.cosine, pair.clips))


def _effect(run: Run, flagged: set[tuple[str, str]], name: str) -> DuplicateEffect:
    predictions = run.predictions
    keys = zip(predictions.split.tolist(), predictions.id.tolist(), strict=True)
    out = np.array([key in flagged for key in keys])
    correct = predicted(predictions.scores) == predictions.true
    return DuplicateEffect(
        name=name,
        top1=float(correct.mean()),
        without=float(correct[~out].mean()) if not out.all() else None,
        flagged=float(correct[out].mean()) if out.any() else None,
    )
