"""Grids of probes that differ in one or two settings, and the rows of their table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit.evaluation.intervals import clip_means, proportion_interval
from actionvit.evaluation.metrics import class_mix_distance, predicted
from actionvit.evaluation.summary import rounded
from actionvit.heads.saving import HeadName, head_class
from actionvit.pipeline.datasets.dataset import Dataset, Protocol
from actionvit.pipeline.datasets.splits import default_protocol, with_protocol
from actionvit.pipeline.probing.features import FeatureTable, Quantity, tables_of
from actionvit.pipeline.probing.probe import probe
from actionvit.pipeline.probing.results import ProbeResult, check_own, ensure_run, run_name
from actionvit.pipeline.probing.spec import ProbeSpec, features_of
from actionvit.pipeline.probing.subsets import tail_ranks
from actionvit.pipeline.probing.tasks import plan
from actionvit.pipeline.runs import Run, design_of, training_sizes

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore

Row = dict[str, Any]

SHOWN = ("top1", "mean_class_accuracy")
"""Metrics of a table's row."""

CONTROL = "none, even classes"
"""Weighting column of the control rows of `imbalance`: the same number of clips without the imbalance."""

STRATEGIES: dict[str, dict[str, Any]] = {
    "none": {},
    "balanced": {"class_weight": "balanced"},
    "effective": {"class_weight": "effective"},
    "logit adjustment": {"logit_adjust": 1.0},
    "balanced sampler": {"sampler": "balanced"},
    "focal": {"focal": 2.0},
}
"""Remedies for uneven classes; a head is tried with those it has settings for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One probe of an experiment, and the columns in which it differs from the others."""

    labels: Mapping[str, Any]
    spec: ProbeSpec


def heads_cells(
    base: ProbeSpec, *, heads: Sequence[HeadName], strategies: Sequence[str], shots: Sequence[int]
) -> list[Cell]:
    """Return heads × weightings on all training clips, and heads × shots; k clips of every class need no weighting.

    Parameters
    ----------
    base : ProbeSpec
        The settings that all probes share.
    heads : sequence of str
        Names of `heads.saving.KINDS`.
    strategies : sequence of str
        Keys of `STRATEGIES`.
    shots : sequence of int
        Training clips per class.
    """
    cells = []
    for head in heads:
        of_head = replace(base, head=head, features=features_of(head), criterion=base.criterion or "accuracy")
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
    """Return strategies × factors of a long tail, for one head; all strategies target mean class accuracy.

    At every factor the same classes are head, middle and tail, drawn by the seed. One control row per factor has the
    same number of training clips without the imbalance.
    """
    of_head = replace(base, features=features_of(base.head), criterion="mean_class_accuracy")
    control = [
        Cell(
            labels={"weighting": CONTROL, "factor": factor},
            spec=replace(of_head, long_tail=factor, long_tail_even=True),
        )
        for factor in factors
        if factor > 1
    ]
    return [
        Cell(labels={"weighting": name, "factor": factor}, spec=replace(of_head, long_tail=factor, **STRATEGIES[name]))
        for name in strategies
        if applies(base.head, name)
        for factor in factors
    ] + control


def splits_cells(dataset: Dataset, base: ProbeSpec) -> list[Cell]:
    """Return one head under every protocol that the dataset allows."""
    protocols: list[Protocol] = ["random", "stratified"]
    protocols += ["grouped"] if dataset.sources_known else []
    protocols += ["official"] if dataset.official else []
    of_head = replace(base, features=features_of(base.head))
    return [Cell(labels={"splits": name}, spec=with_protocol(of_head, name)) for name in protocols]


def applies(head: str, strategy: str) -> bool:
    """Return whether a head has the settings of a strategy."""
    return set(STRATEGIES[strategy]) <= set(head_class(head)().get_params())


def run_cells(
    dataset: Dataset,
    cells: Sequence[Cell],
    *,
    store: FeatureStore,
    runs: Path,
    jobs: int = 2,
    on_head: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[Cell, Run]]:
    """Yield each cell with its run, in order; a run below `runs` with the same settings and data is reused.

    Embeddings are read once.

    Parameters
    ----------
    dataset : Dataset
    cells : sequence of Cell
    store : FeatureStore
        The embeddings.
    runs : Path
        Folder of the runs.
    jobs : int
        Threads, each working on one split.
    on_head : callable
        Called with the number of finished heads, one per cell and split, and of all heads.
    """
    check_own(runs / run_name(store.variant, cell.spec) for cell in cells)
    tables: dict[Quantity, FeatureTable] = {}
    sizes = [len(plan(dataset, cell.spec)) for cell in cells]
    for number, cell in enumerate(cells):
        before = sum(sizes[:number])
        quantity = cell.spec.features
        if quantity not in tables:
            (tables[quantity],) = tables_of(dataset, [store], quantity)
        table = tables[quantity]

        def make(cell: Cell = cell, table: FeatureTable = table, before: int = before) -> ProbeResult:
            (result,) = probe(
                *(dataset, [table], cell.spec),
                jobs=jobs,
                on_task=lambda done, _: on_head(before + done, sum(sizes)),
            )
            return result

        folder = runs / run_name(store.variant, cell.spec)
        run, _ = ensure_run(folder, cell.spec, dataset, store, table.id.tolist(), make)
        on_head(before + sizes[number], sum(sizes))
        yield cell, run


def row_of(cell: Cell, result: Run | ProbeResult) -> Row:
    """Return the cell's labels, the mean number of training clips, and the metrics with intervals."""
    n_train = float(np.mean([split["n_train"] for split in result.metrics["splits"]]))
    summary = {metric: result.metrics["summary"][metric] for metric in SHOWN}
    return {**cell.labels, "train": round(n_train, 1), **summary}


def thirds_of(dataset: Dataset, result: Run | ProbeResult) -> Row:
    """Return the accuracy on head, middle and tail classes, a third each, with intervals by source.

    With a long tail the thirds are drawn by the seed and the same for every factor; otherwise classes are ranked by
    their number of training clips in each split. A clip counts once per third; a third without clips is left out.
    """
    predictions = result.predictions
    third = np.empty(len(predictions.id), dtype=np.intp)
    for name in predictions.split_names:
        rank = _ranks(dataset, result, name)
        rows = predictions.split == name
        third[rows] = rank[predictions.true[rows]] * 3 // len(rank)
    correct = (predicted(predictions.scores) == predictions.true).astype(np.float64)
    inflation = design_of(predictions, training_sizes(result.metrics)).mean(correct).inflation
    row: Row = {}
    for place, name in enumerate(("head", "middle", "tail")):
        inside = third == place
        if not inside.any():
            continue
        means, source, _ = clip_means(correct[inside], predictions.id[inside], predictions.cluster[inside])
        ends = rounded(proportion_interval(means, source, inflation=inflation))
        row[name] = {"mean": float(means.mean()), "std": None, "ci95": ends}
    return row


def _ranks(dataset: Dataset, result: Run | ProbeResult, split: str) -> NDArray[np.intp]:
    """Return each class's rank from head (0) to tail, (C,)."""
    names = result.predictions.class_names
    number = {name: place for place, name in enumerate(names)}
    trained = set(result.train[split])
    y = [number[video.label] for video in dataset.videos if video.id in trained]
    counts = np.bincount(y, minlength=len(names))
    if result.info["spec"].get("long_tail") is None or (counts == 0).any():
        rank = np.empty(len(names), dtype=np.intp)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
        return rank
    return tail_ranks(len(names), int(split.partition("~seed")[2] or 0))


def unevenness_of(result: Run | ProbeResult) -> Row:
    """Return the effect of a protocol on the test sets: leaking sources, classes without a test clip, uneven counts."""
    splits = result.metrics["splits"]
    support = np.array([[row["support"] for row in split["per_class"]] for split in splits])
    leaks = [result.info["leaks"].get(split["name"], 0) for split in splits]
    return {
        "leaking sources": round(float(np.mean(leaks)), 1),
        "fewest test clips of a class": int(support.min()),
        "most": int(support.max()),
        "distance from even": round(class_mix_distance(support), 4),
    }


def protocol_of(dataset: Dataset, spec: ProbeSpec) -> str:
    """Return the protocol in words for a table's caption."""
    return spec.protocol or default_protocol(dataset)
