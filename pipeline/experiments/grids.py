"""Many probes that differ in one thing or two, and the table that compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.evaluation.intervals import clip_means, proportion_interval
from actionvit.evaluation.metrics import predicted
from actionvit.evaluation.summary import rounded
from actionvit.heads.saving import head_class
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import default_protocol
from actionvit.pipeline.probing.features import FeatureTable, Quantity, read_tables
from actionvit.pipeline.probing.probe import probe
from actionvit.pipeline.probing.results import ProbeResult
from actionvit.pipeline.probing.tasks import ProbeSpec
from actionvit.pipeline.runs import design_of

Row = dict[str, Any]

SHOWN = ("top1", "mean_class_accuracy")
"""Metrics of a table's row."""

STRATEGIES: dict[str, dict[str, Any]] = {
    "none": {},
    "balanced": {"class_weight": "balanced"},
    "effective": {"class_weight": "effective"},
    "logit adjustment": {"logit_adjust": 1.0},
    "balanced sampler": {"sampler": "balanced"},
    "focal": {"focal": 2.0},
}
"""What may be done about uneven classes; a head is tried with those it has settings for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One probe of an experiment and the columns that tell it from the others."""

    labels: Mapping[str, Any]
    spec: ProbeSpec


def heads_cells(
    base: ProbeSpec, *, heads: Sequence[str], strategies: Sequence[str], shots: Sequence[int]
) -> list[Cell]:
    """Return heads × weightings on all training clips, and heads × shots; k clips of every class need no weighting."""
    cells = []
    for head in heads:
        of_head = replace(base, head=head, features=quantity_of(head), criterion=base.criterion or "accuracy")
        cells += [
            Cell(labels={"head": head, "weighting": "none", "shots": k}, spec=replace(of_head, shots=k)) for k in shots
        ]
        cells += [
            Cell(labels={"head": head, "weighting": name, "shots": "all"}, spec=replace(of_head, **STRATEGIES[name]))
            for name in strategies
            if applies(head, name)
        ]
    return cells


def imbalance_cells(base: ProbeSpec, *, factors: Sequence[float], strategies: Sequence[str]) -> list[Cell]:
    """Return strategies × factors of a long tail, for one head; mean class accuracy is what all of them aim at."""
    of_head = replace(base, features=quantity_of(base.head), criterion="mean_class_accuracy")
    return [
        Cell(labels={"weighting": name, "factor": factor}, spec=replace(of_head, long_tail=factor, **STRATEGIES[name]))
        for name in strategies
        if applies(base.head, name)
        for factor in factors
    ]


def splits_cells(dataset: Dataset, base: ProbeSpec) -> list[Cell]:
    """Return one head under every protocol that the dataset allows."""
    protocols = ["random", "stratified"]
    protocols += ["grouped"] if dataset.sources_known else []
    protocols += ["official"] if dataset.official else []
    of_head = replace(base, features=quantity_of(base.head))
    return [Cell(labels={"splits": name}, spec=replace(of_head, protocol=name)) for name in protocols]  # type: ignore[arg-type]


def applies(head: str, strategy: str) -> bool:
    """Whether a head has the settings of a strategy."""
    return set(STRATEGIES[strategy]) <= set(head_class(head)().get_params())


def quantity_of(head: str) -> Quantity:
    """Return the embeddings a head is made for."""
    return "frame" if head == "attentive" else "clip"


def run_cells(
    dataset: Dataset, cells: Sequence[Cell], *, variant: str, cache: Path, jobs: int = 2, **wanted: int
) -> Iterator[tuple[Cell, ProbeResult]]:
    """Yield each cell with its result, in order; embeddings, those that are `wanted`, are read once."""
    tables: dict[Quantity, FeatureTable] = {}
    for cell in cells:
        quantity = cell.spec.features
        if quantity not in tables:
            tables[quantity] = read_tables(dataset, [variant], cache=cache, quantity=quantity, **wanted)[0]
        yield cell, probe(dataset, [tables[quantity]], cell.spec, jobs=jobs)[0]


def row_of(cell: Cell, result: ProbeResult) -> Row:
    """Return the columns that tell the cell, the mean number of training clips, and the metrics with intervals."""
    n_train = float(np.mean([split["n_train"] for split in result.metrics["splits"]]))
    summary = {metric: result.metrics["summary"][metric] for metric in SHOWN}
    return {**cell.labels, "train": round(n_train, 1), **summary}


def thirds_of(dataset: Dataset, result: ProbeResult) -> Row:
    """Return the accuracy on head, middle and tail classes, a third each by training clips, with intervals by source.

    Classes are ranked in every split by themselves. Shares are over all splits' test clips together; a third without
    any is left out.
    """
    found = result.predictions
    number = {name: place for place, name in enumerate(found.class_names)}
    label = {video.id: number[video.label] for video in dataset.videos if video.label in number}
    third = np.empty(len(found.id), dtype=np.intp)
    for name in found.split_names:
        known = [label[id] for id in result.train[name]]
        counts = np.bincount(known, minlength=len(found.class_names))
        rank = np.empty(len(counts), dtype=np.intp)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        rows = found.split == name
        third[rows] = rank[found.true[rows]] * 3 // len(counts)
    right = (predicted(found.scores) == found.true).astype(np.float64)
    n_train = {split["name"]: split["n_train"] for split in result.metrics["splits"]}
    inflation = design_of(found, n_train).mean(right).inflation
    row: Row = {}
    for place, name in enumerate(("head", "middle", "tail")):
        inside = third == place
        if not inside.any():
            continue
        means, source, _ = clip_means(right[inside], found.id[inside], found.cluster[inside])
        ends = rounded(proportion_interval(means, source, inflation=inflation))
        row[name] = {"mean": float(means.mean()), "std": None, "ci95": ends}
    return row


def unevenness_of(result: ProbeResult) -> Row:
    """Return what a protocol does to the test sides: leaking sources, classes without a test clip, uneven counts."""
    splits = result.metrics["splits"]
    support = np.array([[row["support"] for row in split["per_class"]] for split in splits])
    share = support / support.sum(axis=1, keepdims=True)
    even = support.sum(axis=0) / support.sum()
    leaks = [result.info["leaks"].get(split["name"], 0) for split in splits]
    return {
        "leaking sources": round(float(np.mean(leaks)), 1),
        "fewest test clips of a class": int(support.min()),
        "most": int(support.max()),
        "distance from even": round(float(np.abs(share - even).sum(axis=1).mean() / 2), 4),
    }


def protocol_of(dataset: Dataset, spec: ProbeSpec) -> str:
    """Return the protocol in words for a table's caption."""
    return spec.protocol or default_protocol(dataset)
