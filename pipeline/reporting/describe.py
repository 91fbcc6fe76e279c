"""Sections of a report on single runs, and accuracy by clip metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.evaluation.intervals import clip_means, paired_interval, proportion_interval
from actionvit.evaluation.metrics import cmc, confusion, predicted, reliability
from actionvit.pipeline.datasets.names import parse_metadata, stem
from actionvit.pipeline.reporting.model import (
    Accuracy,
    ClassRow,
    ConfusedPair,
    Cost,
    Difference,
    Interval,
    MetadataRow,
    ReliabilityBin,
    RunSection,
    SplitRow,
    Summary,
)
from actionvit.pipeline.runs import Predictions, Run, design_of, training_sizes

CONFUSED_PAIRS = 12
"""Most confused pairs that are listed."""

METADATA = {
    "camera_motion": "Camera",
    "viewpoint": "Viewpoint",
    "quality": "Quality",
    "body_part": "Visible body part",
    "people": "People",
}
"""Fields of an HMDB51 file name, with their titles in the report."""

PROVENANCE = ("command", "versions", "dataset", "protocol", "store", "seeds")
"""Keys of `run.json` needed to repeat the run."""


def describe(run: Run, name: str = "") -> RunSection:
    """Return a run's section of the report under the name `name`.

    Raises
    ------
    ActionVitError
        If `metrics.json` was not computed from `predictions.npz`.
    """
    predictions, info = run.predictions, run.info
    cells = confusion(predictions.true, predictions.scores)
    stored = np.sum([split["confusion"] for split in run.metrics["splits"]], axis=0)
    if not np.array_equal(cells, stored):
        raise ActionVitError(f"{run.folder}: metrics.json does not match predictions.npz; make the run again")
    costs = {field.name for field in fields(Cost)}
    return RunSection(
        name=name or run.name,
        folder=shortened(str(run.folder)),
        variant=info.get("variant"),
        head=info.get("head", {}),
        splits=[
            SplitRow(**{field.name: split[field.name] for field in fields(SplitRow)}) for split in run.metrics["splits"]
        ],
        summary={
            metric: Summary(mean=value["mean"], std=value["std"], ci95=tuple(value["ci95"]))
            for metric, value in run.metrics["summary"].items()
        },
        per_class=_classes(run),
        confusion=cells.tolist(),
        most_confused=most_confused(cells, predictions.class_names),
        cmc=cmc(predictions.true, predictions.scores).tolist(),
        reliability=[ReliabilityBin(**row) for row in reliability(predictions.true, predictions.scores)],
        cost=Cost(
            **{key: v for key, v in {"gmac": info.get("gmac"), **info.get("timings", {})}.items() if key in costs}
        ),
        coverage=_without_local_paths(info.get("coverage", {})),
        leaks=info.get("leaks", {}),
        search=info.get("search", []),
        curves=info.get("curves", []),
        provenance=_without_local_paths({key: info[key] for key in PROVENANCE if key in info}),
    )


def shortened(text: str) -> str:
    """Return an absolute path by its last two parts, `…/runs/base`, also in `NAME=PATH`; other text as it is."""
    before, equals, path = text.rpartition("=")
    if not PurePath(path).is_absolute():
        return text
    return f"{before}{equals}{'/'.join(('…', *PurePath(path).parts[1:][-2:]))}"


def most_confused(cells: NDArray[np.int64], class_names: Sequence[str]) -> list[ConfusedPair]:
    """Return the pairs with most errors; ties go to the larger fraction of the true class, then to class order."""
    support = np.maximum(cells.sum(axis=1), 1)
    pairs = [
        ConfusedPair(
            true=class_names[row],
            predicted=class_names[column],
            count=int(cells[row, column]),
            fraction=float(cells[row, column] / support[row]),
        )
        for row, column in zip(*np.nonzero(cells), strict=True)
        if row != column
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.fraction))[:CONFUSED_PAIRS]


def by_similarity(cells: NDArray[np.int64]) -> list[int]:
    """Return an order of C classes in which classes that are confused with each other are neighbors.

    Average linkage over the confusions (C, C), normalized by row and made symmetric, with the leaves of the tree
    ordered for the least distance between neighbors (Bar-Joseph, Gifford & Jaakkola, Bioinformatics 2001).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(cells) < 3:
        return list(range(len(cells)))
    fractions = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    distance = 1 - (fractions + fractions.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    return [int(number) for number in leaves_list(tree)]


def row_order(predictions: Predictions) -> NDArray[np.intp]:
    """Return rows by split, then id: the same order of clips for all runs that tested the same."""
    return np.lexsort((predictions.id, predictions.split))


def by_metadata(runs: Sequence[Run]) -> list[MetadataRow]:
    """Return accuracy by the metadata in the clips' names (HMDB51's pattern); empty where names do not follow it.

    A clip that several splits test counts once. Runs must hold the same clips (see `compare`).
    """
    first, order = runs[0].predictions, [row_order(run.predictions) for run in runs]
    labels = [_metadata(first, row) for row in order[0]]
    correct = [
        (predicted(run.predictions.scores) == run.predictions.true)[rows] for run, rows in zip(runs, order, strict=True)
    ]
    widen = max(_inflation(run) for run in runs)
    clip, cluster = first.id[order[0]], first.cluster[order[0]]
    rows = []
    for field, title in METADATA.items():
        column = np.array([label[field] if label else None for label in labels], dtype=object)
        values = sorted({value for value in column if value is not None})
        for value in values if len(values) > 1 else ():  # a field with one value distinguishes nothing
            members = column == value
            means = [clip_means(hit[members], clip[members], cluster[members])[0] for hit in correct]
            _, source, _ = clip_means(correct[0][members], clip[members], cluster[members])
            row = MetadataRow(
                field=title,
                value=str(value),
                n=len(source),
                tests=int(members.sum()),
                runs=[
                    Accuracy(
                        accuracy=float(mean.mean()), ci95=_rounded(proportion_interval(mean, source, inflation=widen))
                    )
                    for mean in means
                ],
                deltas=[
                    Difference(
                        value=float((mean - means[0]).mean()),
                        ci95=_rounded(paired_interval(mean - means[0], source, inflation=widen)),
                    )
                    for mean in means[1:]
                ],
            )
            rows.append(row)
    return rows


def _classes(run: Run) -> list[ClassRow]:
    """Return each class's metrics, which count each clip once, in however many splits it was tested."""
    predictions, widen = run.predictions, _inflation(run)
    correct = predicted(predictions.scores) == predictions.true
    rows = []
    for number, row in enumerate(run.per_class):
        tested = predictions.true == number
        means, source, _ = clip_means(correct[tested], predictions.id[tested], predictions.cluster[tested])
        rows.append(
            ClassRow(
                class_=row["class"],
                precision=row["precision"],
                recall=row["recall"],
                f1=row["f1"],
                support=len(means),
                tests=int(tested.sum()),
                recall_ci95=_rounded(proportion_interval(means, source, inflation=widen)) if len(means) else None,
            )
        )
    return rows


def _inflation(run: Run) -> float:
    """Return the factor by which training sets widen the interval of a run's top-1; also used for groups of clips."""
    design = design_of(run.predictions, training_sizes(run.metrics) or None)
    correct = predicted(run.predictions.scores) == run.predictions.true
    return design.mean(correct.astype(np.float64)).inflation


def _metadata(predictions: Predictions, row: int) -> dict[str, Any] | None:
    metadata = parse_metadata(stem(str(predictions.id[row])))
    return metadata._asdict() if metadata else None


def _without_local_paths(value: Any) -> Any:
    """Return a value of JSON with absolute paths shortened: a report is passed on, and they hold private names."""
    if isinstance(value, str):
        return re.sub("`([^`]*)`", lambda match: f"`{shortened(match[1])}`", shortened(value))
    if isinstance(value, Mapping):
        return {key: _without_local_paths(item) for key, item in value.items()}
    return [_without_local_paths(item) for item in value] if isinstance(value, list) else value


def _rounded(interval: tuple[float, float]) -> Interval:
    return round(interval[0], 6), round(interval[1], 6)
