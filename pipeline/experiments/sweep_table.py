"""The table of a sweep, and the nested choice of a setting.

The best test result in the table is not reported as the result of the sweep: the test clips of one fold are training
clips of the others, so choosing a setting by its mean over folds would overfit to them. Instead a setting is chosen
inside the training set of each split, and the result of this procedure is reported (nested selection; Cawley & Talbot,
JMLR 2010).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.experiments.grids import Row, protocol_of
from actionvit.pipeline.experiments.sweep import Probed
from actionvit.pipeline.experiments.tables import WrittenTable, accuracy_by_cost, chosen_in_words, write_table
from actionvit.pipeline.runs import Predictions, Run, measure, training_sizes

ARRAYS = tuple(field for field in fields(Predictions) if field.name != "class_names")
UNJUDGED = "–"
"""Entry of a row whose setting cannot be scored inside the training sets."""


def write_sweep(
    folder: Path, dataset: Dataset, probed: Sequence[Probed], *, command: Sequence[str] = ()
) -> WrittenTable:
    """Write the table and the plot of a sweep, with the result of the nested choice; return the table.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    dataset : Dataset
    probed : sequence of Probed
        The rows; all with the same splits.
    command : sequence of str
        The command line, for the table's provenance.
    """
    rows = [row_of(entry) for entry in probed]
    choice = choose_per_split([entry.run for entry in probed], [entry.planned.gmac for entry in probed])
    nested = None if choice is None else {"summary": choice.summary, "chosen": dict(choice.chosen)}
    table = write_table(
        folder,
        "sweep",
        rows,
        caption=(
            f"{dataset.name}, protocol {protocol_of(dataset, probed[0].spec)}. GMAC: 10⁹ multiply-adds per video, all"
            f" its views. `inside`: accuracy of the selection, {_place(probed)}. Percent: mean ± standard deviation"
            " between splits [95 % interval clustered by source]."
        ),
        about={"dataset": dataset.name, "command": list(command), "nested": nested},
        findings=[nested_line(choice, rows, where=_place(probed))],
    )
    points = [{**row, "series": _series(row), "setting": f"{row['frames']}×{row['size']}"} for row in rows]
    accuracy_by_cost(points, folder / "accuracy.png", x="GMAC", y="top1")
    return table


def _place(probed: Sequence[Probed]) -> str:
    """Return the data that settings are compared on, in words."""
    return "on the validation set" if probed[0].spec.select_on == "val" else "inside each training set"


def _series(row: Row) -> str:
    """Return `hr attentive balanced`, without the weighting if there is none."""
    return " ".join(str(row[name]) for name in ("variant", "head", "weighting") if row[name] != "none")


def row_of(probed: Probed) -> Row:
    """Return the table's row: the setting, its cost, its scores inside the training sets, and its test metrics."""
    setting, search = probed.planned, probed.run.info["search"]
    summary = probed.run.metrics["summary"]
    chosen = [chosen_in_words(entry) for entry in search]
    inside = [max(entry["scores"]) for entry in search if entry["scored"]]
    std = round(float(np.std(inside, ddof=1)), 6) if len(inside) > 1 else None
    return {
        "variant": setting.job.variant,
        "frames": setting.job.spec.num_frames,
        "size": setting.job.spec.size,
        "head": probed.spec.head,
        "weighting": probed.spec.class_weight,
        "GMAC": round(setting.gmac, 2) or float(f"{setting.gmac:.2g}"),
        "chosen": max(dict.fromkeys(chosen), key=chosen.count),
        # If no training set has two sources, nothing can be scored inside it.
        "inside": {"mean": round(float(np.mean(inside)), 6), "std": std, "ci95": None} if inside else UNJUDGED,
        **{metric: summary[metric] for metric in ("top1", "mean_class_accuracy")},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedChoice:
    """The procedure "choose a setting inside the training set, then train it", scored on every split's test set."""

    chosen: Mapping[str, int]
    """Index of the chosen setting by split name."""
    summary: Mapping[str, Any]
    """The summary, as in `metrics.json`."""


def choose_per_split(runs: Sequence[Run], costs: Sequence[float]) -> NestedChoice | None:
    """Choose a setting in each split by its score inside the training set; ties go to the cheaper one.

    Parameters
    ----------
    runs : sequence of Run
        One per setting, over the same splits.
    costs : sequence of float
        Multiply-adds of each.

    Returns
    -------
    NestedChoice, or None if nothing can be scored inside any training set.
    """
    inside = [{entry["split"]: max(entry["scores"]) for entry in run.info["search"] if entry["scored"]} for run in runs]
    if not any(inside):
        return None
    names = runs[0].predictions.split_names
    chosen = {name: min(range(len(runs)), key=lambda i: (-inside[i].get(name, -np.inf), costs[i], i)) for name in names}
    parts = []
    for name, number in chosen.items():
        predictions = runs[number].predictions
        parts.append({field.name: getattr(predictions, field.name)[predictions.split == name] for field in ARRAYS})
    joined = {field.name: np.concatenate([part[field.name] for part in parts]) for field in ARRAYS}
    predictions = Predictions(**joined, class_names=runs[0].predictions.class_names)
    return NestedChoice(
        chosen=chosen, summary=measure(predictions, n_train=training_sizes(*(run.metrics for run in runs)))["summary"]
    )


def nested_line(choice: NestedChoice | None, rows: Sequence[Row], *, where: str = "inside each training set") -> str:
    """Return the finding of a sweep in words: the result of the nested choice, and how often each row was chosen."""
    if choice is None:
        return "Inside the training sets nothing can be scored: each has one source, or classes of one source."
    counts = Counter(choice.chosen.values())
    named = "; ".join(
        f"{row['variant']} {row['frames']}×{row['size']}, {row['head']}, {row['weighting']} ({count}×)"
        for row, count in ((rows[number], count) for number, count in counts.most_common())
    )
    top1 = choice.summary["top1"]
    low, high = top1["ci95"]
    return (
        f"Chosen {where}: {named}. Top-1 of this procedure: {100 * top1['mean']:.1f} %"
        f" [{100 * low:.1f}, {100 * high:.1f}]. The figure of a single row is that of a setting fixed beforehand."
    )
