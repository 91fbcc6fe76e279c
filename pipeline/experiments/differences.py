"""Differences between an experiment's rows: each row against its baseline row, paired clip by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from actionvit.evaluation.comparison import ALPHA
from actionvit.evaluation.intervals import holm
from actionvit.pipeline.reporting.compare import compare
from actionvit.pipeline.reporting.text import percent, signed
from actionvit.pipeline.runs import Predictions

Labels = Mapping[str, Any]
Metric = Literal["top1", "mean_class_accuracy"]

TITLES = {"top1": "top-1", "mean_class_accuracy": "mean class accuracy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference between one row of a table and its baseline row."""

    row: int
    name: str
    """The row's value of the column in which the two differ."""
    against: str
    """The baseline row's value."""
    question: str
    """The column, and the values that both rows share."""
    metric: Metric
    value: float
    ci95: tuple[float, float]
    p: float
    """Of the corrected t test, by Holm's correction over the table."""
    detectable: float
    """Smallest true difference that would be significant in 80 % of cases, without the correction over the table."""

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out and the corrected p value is below 0.05."""
        return (self.ci95[0] > 0 or self.ci95[1] < 0) and self.p < ALPHA

    @property
    def columns(self) -> dict[str, Any]:
        """The difference as columns of its row."""
        delta = {"value": self.value, "ci95": [*self.ci95]}
        return {"against": self.against, f"Δ {TITLES[self.metric]}": delta, "p": round(self.p, 6)}


def differences(
    rows: Sequence[tuple[Labels, Predictions, Mapping[str, int] | None]], *, metric: Metric
) -> list[Difference]:
    """Compare weighted heads with the unweighted head, and unweighted heads with the first head, all else equal.

    Parameters
    ----------
    rows : sequence of (labels, predictions, training clips by split name or None)
        The table's rows; the first row has the baseline's `weighting` and `head`.
    metric : {"top1", "mean_class_accuracy"}
        The metric that is compared.
    """
    plain, place = rows[0][0], {tuple(labels.items()): number for number, (labels, _, _) in enumerate(rows)}
    pairs = []
    for row, (labels, _, _) in enumerate(rows):
        column = next((name for name in ("weighting", "head") if labels.get(name) != plain.get(name)), None)
        if column is not None and (other := place.get(tuple({**labels, column: plain[column]}.items()))) is not None:
            pairs.append((row, other, column))
    compared = []
    for row, other, column in pairs:
        labels, predictions, n_train = rows[row]
        delta = compare(rows[other][1], predictions, n_train=n_train, comparisons=len(pairs)).delta[metric]
        low, high = delta.ci95
        compared.append(
            Difference(
                row=row,
                name=str(labels[column]),
                against=str(plain[column]),
                question=f"{column}, {', '.join(f'{k} {_text(v)}' for k, v in labels.items() if k != column)}",
                metric=metric,
                value=delta.value,
                ci95=(low, high),
                p=delta.p or 0.0,
                detectable=delta.detectable or 0.0,
            )
        )
    corrected = holm([difference.p for difference in compared])
    return [replace(difference, p=p) for difference, p in zip(compared, corrected, strict=True)]


def findings(compared: Sequence[Difference]) -> list[str]:
    """Return the conclusions from the differences, one line per comparison."""
    lines = []
    for question in dict.fromkeys(difference.question for difference in compared):
        group = [difference for difference in compared if difference.question == question]
        parts = [
            f"{difference.name} {'better' if difference.value > 0 else 'worse'}, {signed(difference.value)} points of"
            f" {TITLES[difference.metric]} [{signed(difference.ci95[0])}, {signed(difference.ci95[1])}]"
            for difference in group
            if difference.shown
        ]
        if unclear := [difference for difference in group if not difference.shown]:
            named = ", ".join(f"{item.name} (below {percent(item.detectable)} points)" for item in unclear)
            parts.append(f"no difference shown for {named}")
        lines.append(f"{question}, against {group[0].against}: {'; '.join(parts)}.")
    if compared:
        lines.append(
            "In brackets: the smallest true difference that would be detected in 80 % of cases. A difference that is"
            " not shown does not mean that there is none."
        )
    return lines


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
