"""Which rows of an experiment can be told apart: each against a plainer one, paired clip by clip; and that in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from actionvit.evaluation.intervals import holm
from actionvit.pipeline.reporting.compare import compare
from actionvit.pipeline.reporting.text import ALPHA, signed
from actionvit.pipeline.runs import Predictions

Labels = Mapping[str, Any]
Metric = Literal["top1", "mean_class_accuracy"]

TITLES = {"top1": "top-1", "mean_class_accuracy": "mean class accuracy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row of a table less the row that it is compared with."""

    row: int
    name: str
    """What the row has in the column in which the two differ."""
    against: str
    """What the other has there."""
    question: str
    """The column, and what both have in the others, in words."""
    metric: Metric
    value: float
    ci95: tuple[float, float]
    p: float | None
    """Of the exact test that exchanges sources whole, by Holm's correction over the table; None where none was made."""

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out and the test, where there is one, agrees."""
        return (self.ci95[0] > 0 or self.ci95[1] < 0) and (self.p is None or self.p < ALPHA)

    @property
    def columns(self) -> dict[str, Any]:
        """What the table shows of it."""
        shown = {"against": self.against, f"Δ {TITLES[self.metric]}": {"value": self.value, "ci95": [*self.ci95]}}
        return shown if self.p is None else {**shown, "p": round(self.p, 6)}


def differences(cells: Sequence[tuple[Labels, Predictions]], *, metric: Metric) -> list[Difference]:
    """Compare weightings with their head unweighted, and unweighted heads with the first head, all else alike.

    Parameters
    ----------
    cells : sequence of (labels, predictions)
        The rows; what the first has for `weighting` and `head` is the plain thing.
    metric : {"top1", "mean_class_accuracy"}
        Whose difference. Of mean class accuracy there is an interval and no test.
    """
    plain, place = cells[0][0], {tuple(labels.items()): number for number, (labels, _) in enumerate(cells)}
    found = []
    for row, (labels, predictions) in enumerate(cells):
        column = next((name for name in ("weighting", "head") if labels.get(name) != plain.get(name)), None)
        if column is None or (other := place.get(tuple({**labels, column: plain[column]}.items()))) is None:
            continue
        compared = compare(cells[other][1], predictions)
        low, high = compared.delta[metric].ci95
        difference = Difference(
            row=row,
            name=str(labels[column]),
            against=str(plain[column]),
            question=f"{column}, {', '.join(f'{k} {_text(v)}' for k, v in labels.items() if k != column)}",
            metric=metric,
            value=compared.delta[metric].value,
            ci95=(low, high),
            p=compared.p_sources if metric == "top1" else None,
        )
        found.append(difference)
    if metric != "top1":
        return found
    corrected = holm([float(one.p or 0) for one in found])
    return [replace(one, p=p) for one, p in zip(found, corrected, strict=True)]


def findings(found: Sequence[Difference]) -> list[str]:
    """Return what the differences allow one to say and no more, a line a question, and how fine they could see."""
    if not found:
        return []
    said = []
    for question in dict.fromkeys(one.question for one in found):
        asked = [one for one in found if one.question == question]
        parts = [
            f"{one.name} {'better' if one.value > 0 else 'worse'}, {signed(one.value)} points of {TITLES[one.metric]}"
            f" [{signed(one.ci95[0])}, {signed(one.ci95[1])}]"
            for one in asked
            if one.shown
        ]
        if unclear := [one.name for one in asked if not one.shown]:
            parts.append(f"no difference can be shown for {', '.join(unclear)}")
        said.append(f"{question}, against {asked[0].against}: {'; '.join(parts)}.")
    half = float(np.median([(one.ci95[1] - one.ci95[0]) / 2 for one in found]))
    said.append(
        f"Half of these {len(found)} intervals reach {100 * half:.1f} points or more to either side: smaller"
        " differences are out of sight here. That none can be shown is not that there is none."
    )
    if found[0].p is None:
        said.append(
            f"These intervals are 95 % each and not corrected: of {len(found)} without any true difference"
            f" {0.05 * len(found):.2g} would leave zero out on average."
        )
    return said


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
