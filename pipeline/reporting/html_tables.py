"""The tables of the page. No template computes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

from actionvit.evaluation.comparison import ALPHA
from actionvit.pipeline.reporting.model import ClassRow, Comparison, Interval, Report
from actionvit.pipeline.reporting.table import Cell, Column, Matrix, Scale, Table, tint
from actionvit.pipeline.reporting.text import (
    BY_SOURCE,
    INTERVAL,
    METRIC_TITLES,
    NATURAL_UNIT,
    chance,
    fraction_text,
    from_to,
    is_shown,
    metric,
    p_value,
    percent,
    signed,
    signed_metric,
)
from actionvit.text import duration, pluralize

DARK = 0.63
"""Fraction of a confusion matrix's cell from which its text is light; both are readable there."""

MATRIX_CLASSES = 100
"""Classes of a confusion matrix on the page; figures and CSV tables show all."""

FEW_RUNS = 3
"""Runs up to which the table of classes has room for precision."""

DRAWN = "Plot"
"""Title, for screen readers, of a column that draws the numbers beside it."""


def results(report: Report) -> Table:
    """Return the results, one row per run and one column per metric; top-1 and its interval are drawn as well."""
    ends = [run.summary["top1"].ci95 for run in report.runs]
    low, high = floor(10 * min(low for low, _ in ends)) / 10, ceil(10 * max(high for _, high in ends)) / 10
    scale = Scale(low=low, high=high if high > low else low + 0.1)
    rows = []
    for number, run in enumerate(report.runs):
        top1 = run.summary["top1"]
        bar = scale.bar(top1.mean, top1.ci95, tint(number))
        cells = [Cell(text=run.name, run=tint(number)), Cell(bars=(bar,))]
        for name in METRIC_TITLES:
            value = run.summary[name]
            interval = f"{metric(name, value.ci95[0])} – {metric(name, value.ci95[1])}"
            spread = () if value.std is None else (f"± {metric(name, value.std)}",)
            cells.append(Cell(text=metric(name, value.mean), notes=(interval, *spread)))
        rows.append(cells)
    n = len(report.runs[0].splits)
    caption = "Results of one split" if n == 1 else f"Means of {n} splits"
    caption += f"; below each its {INTERVAL} {BY_SOURCE}"
    caption += "." if n == 1 else ", and ± the standard deviation between the splits."
    caption += f" Fractions in percent. Chance level of top-1: {percent(chance(report))} %."
    columns = [Column(title="Run", words=True), Column(title=f"Top-1, {DRAWN.lower()}", ends=scale.ends)]
    columns += [Column(title=title) for title in METRIC_TITLES.values()]
    return Table(id="headline", caption=caption, columns=columns, bodies=[("", rows)], source="summary")


def pairs(report: Report) -> Table:
    """Return one row per comparison with the difference in top-1 and its test."""
    numbers = {run.name: tint(number) for number, run in enumerate(report.runs)}
    reach = _reach([end for comparison in report.comparisons for end in comparison.delta["top1"].ci95])
    scale = Scale(low=-reach, high=reach)
    rows = []
    for comparison in report.comparisons:
        delta = comparison.delta["top1"]
        winner = _winner(delta.ci95, comparison.p_holm, numbers[comparison.a], numbers[comparison.b])
        conclusion = "no significant difference"
        if is_shown(comparison):
            conclusion = f"{comparison.b if delta.value > 0 else comparison.a} is better"
        rows.append(
            [
                Cell(text=f"{comparison.b} − {comparison.a}"),
                Cell(text=signed(delta.value), run=winner),
                Cell(text=p_value(comparison.p_holm)),
                Cell(text=from_to(delta.ci95)),
                Cell(bars=(scale.bar(delta.value, delta.ci95, winner),)),
                Cell(text=conclusion),
            ]
        )
    columns = [Column(title="Runs", words=True), Column(title="Δ top-1"), Column(title="p"), Column(title="95 % CI")]
    columns += [Column(title=DRAWN, ends=scale.ends), Column(title="Conclusion", words=True)]
    caption = f"Differences in top-1 in percentage points between all pairs of runs, with their {INTERVAL} "
    caption += f"{BY_SOURCE}; p, corrected t test after Holm’s correction over the pairs."
    return Table(id="pairwise", caption=caption, columns=columns, bodies=[("", rows)], source="comparisons")


def comparison(report: Report, result: Comparison, number: int) -> Table:
    """Return a comparison's differences, one row per metric."""
    runs = {run.name: (run.summary, tint(place)) for place, run in enumerate(report.runs)}
    (summary_a, run_a), (summary_b, run_b) = runs[result.a], runs[result.b]
    reach = _reach([end for name, delta in result.delta.items() if name not in NATURAL_UNIT for end in delta.ci95])
    scale = Scale(low=-reach, high=reach)
    rows = []
    for name, delta in result.delta.items():
        better = (run_b, run_a) if name in NATURAL_UNIT else (run_a, run_b)  # of losses the lower is better
        winner = _winner(delta.ci95, 1.0 if delta.p_holm is None else delta.p_holm, *better)
        rows.append(
            [
                Cell(text=METRIC_TITLES[name]),
                Cell(text=metric(name, summary_a[name].mean)),
                Cell(text=metric(name, summary_b[name].mean)),
                Cell(text=signed_metric(name, delta.value), run=winner),
                Cell(text=" to ".join(signed_metric(name, end) for end in delta.ci95)),
                Cell(text=p_value(delta.p_holm)),
                Cell(bars=() if name in NATURAL_UNIT else (scale.bar(delta.value, delta.ci95, winner),)),
            ]
        )
    columns = [Column(title="Metric", words=True), Column(title=result.a, run=run_a), Column(title=result.b, run=run_b)]
    columns += [Column(title="Difference"), Column(title="95 % CI"), Column(title="p")]
    columns += [Column(title=DRAWN, ends=scale.ends)]
    caption = (
        f"{result.b} − {result.a}, paired: differences in percentage points (log loss: nats), with their {INTERVAL} "
    )
    caption += f"{BY_SOURCE}; p, corrected t test after Holm’s correction over the pairs."
    return Table(id=f"comparison{number}", caption=caption, columns=columns, bodies=[("", rows)], source="comparisons")


def classes(report: Report) -> Table:
    """Return precision, recall and F1 per class and run; of a single run the interval of recall too."""
    several = len(report.runs) > 1
    shown = ("Precision", "Recall", "F1") if len(report.runs) <= FEW_RUNS else ("Recall", "F1")
    scale = Scale(low=0, high=1)
    rows = []
    for place, name in enumerate(report.class_names):
        support = report.runs[0].per_class[place].support
        cells = [Cell(text=name, value=name), Cell(text=f"{support:,}", value=support)]
        for run in report.runs:
            row = run.per_class[place]
            values = [getattr(row, name.lower()) for name in shown]
            cells += [Cell(text=percent(value), value=_sort(value)) for value in values]
            cells += [] if several else _recall_interval(row, scale)
        rows.append(cells)
    columns = [Column(title="Class", words=True), Column(title="Support")]
    columns += [Column(title=title) for title in shown] * len(report.runs)
    caption = f"Every class, pooled over the splits, in percent; – is 0/0. {_support(report)}"
    if "Precision" not in shown:
        caption += " Precision is in the CSV file."
    if not several:
        columns += [Column(title="95 % CI"), Column(title=DRAWN, ends=scale.ends)]
        caption += f" The {INTERVAL} of recall is {BY_SOURCE}."
    groups = [("", 2, None), *((run.name, len(shown), tint(number)) for number, run in enumerate(report.runs))]
    return Table(
        id="classtable",
        caption=caption,
        columns=columns,
        bodies=[("", rows)],
        groups=groups if several else (),
        sortable=True,
        source="per_class",
    )


def class_differences(report: Report, result: Comparison, number: int) -> Table:
    """Return the difference of recall of each class in one comparison, the tested numbers first."""
    colors = {run.name: tint(place) for place, run in enumerate(report.runs)}
    run_a, run_b = colors[result.a], colors[result.b]
    reach = _reach([end for row in result.per_class if row.ci95 for end in row.ci95])
    scale = Scale(low=-reach, high=reach)
    rows = []
    for row in result.per_class:
        cells = [Cell(text=row.class_, value=row.class_)]
        if row.ci95 is None or row.delta is None or row.p_holm is None:
            cells += [Cell(text="–"), Cell(text="–"), Cell(text="–"), Cell()]
        else:
            winner = _winner(row.ci95, row.p_holm, run_a, run_b)
            cells += [
                Cell(text=signed(row.delta), value=row.delta, run=winner),
                Cell(text=p_value(row.p_holm), value=row.p_holm),
                Cell(text=from_to(row.ci95), value=row.ci95[0]),
                Cell(bars=(scale.bar(row.delta, row.ci95, winner),)),
            ]
        cells += [Cell(text=percent(value), value=_sort(value)) for value in (row.a, row.b)]
        rows.append([*cells, Cell(text=f"{row.support:,}", value=row.support)])
    columns = [Column(title="Class", words=True), Column(title="Δ\u00a0recall"), Column(title="p")]
    columns += [Column(title="95 % CI"), Column(title=DRAWN, ends=scale.ends)]
    columns += [Column(title=result.a, run=run_a), Column(title=result.b, run=run_b), Column(title="Support")]
    return Table(
        id=f"classes{number}",
        caption=f"{result.b} − {result.a}: difference of recall in percentage points, with its {INTERVAL} {BY_SOURCE}; "
        "p, corrected for the classes (Holm); recall of both in percent.",
        columns=columns,
        bodies=[("", rows)],
        sortable=True,
        source="per_class_differences",
    )


def _support(report: Report) -> str:
    """Return what the column Support counts, and how often each clip is tested."""
    times = {row.tests / row.support for row in report.runs[0].per_class if row.support}
    if times == {1.0}:
        return "Support: clips."
    count = times.pop() if len(times) == 1 else 0.5
    return (
        f"Support: clips; each is tested {count:g} times." if count % 1 == 0 else "Support: clips, tested repeatedly."
    )


def shown_order(report: Report) -> list[int]:
    """Return the classes of the page's confusion matrices in order: all, or of many those with most errors."""
    if len(report.order) <= MATRIX_CLASSES:
        return list(report.order)
    errors = [0] * len(report.class_names)
    for run in report.runs:
        for number, row in enumerate(run.confusion):
            errors[number] += sum(row) - row[number]
    most = set(sorted(report.order, key=lambda number: -errors[number])[:MATRIX_CLASSES])
    return [number for number in report.order if number in most]


def matrices(report: Report, order: Sequence[int]) -> list[Matrix]:
    """Return one confusion matrix per run with the classes of `order`."""
    names = report.class_names
    position = {names[number]: place for place, number in enumerate(order)}
    result = []
    for number, run in enumerate(report.runs):
        cells, totals = run.confusion, [sum(row) for row in run.confusion]
        pairs = (
            (position[pair.true], position[pair.predicted])
            for pair in run.most_confused
            if pair.true in position and pair.predicted in position
        )
        result.append(
            Matrix(
                run=number,
                tint=tint(number),
                name=run.name,
                names=[names[i] for i in order],
                first=next(pairs, None),
                rows=[[_square(cells[i][j], totals[i], names[i], names[j]) for j in order] for i in order],
            )
        )
    return result


def confused(report: Report) -> Table:
    """Return the most confused pairs of any run, with every run's count."""
    names, runs = report.class_names, report.runs
    number = {name: place for place, name in enumerate(names)}
    pairs = dict.fromkeys((pair.true, pair.predicted) for run in runs for pair in run.most_confused)
    rows = []
    for true, other in pairs:
        lines = [run.confusion[number[true]] for run in runs]
        cells = [Cell(text=true, value=true), Cell(text=other, value=other)]
        for line in lines:
            n = line[number[other]]
            cells += [Cell(text=f"{n:,}", value=n), Cell(text=fraction_text(n / max(1, sum(line))), value=n)]
        rows.append((sum(line[number[other]] for line in lines), cells))
    rows.sort(key=lambda row: -row[0])
    columns = [Column(title="True class", words=True), Column(title="Predicted class", words=True)]
    columns += [Column(title=title) for title in ("Results", "%")] * len(runs)
    groups = [("", 2, None), *((run.name, 2, tint(place)) for place, run in enumerate(runs))]
    return Table(
        id="pairs",
        caption="Most confused pairs, pooled over the splits: results, and percent of the true class’s results.",
        columns=columns,
        bodies=[("", [cells for _, cells in rows])],
        groups=groups if len(runs) > 1 else (),
        sortable=True,
        source="confusion",
    )


def metadata(report: Report) -> Table:
    """Return top-1 by the metadata in the clips' names, one group per field."""
    scale = Scale(low=0, high=1)
    bodies: dict[str, list[list[Cell]]] = {}
    for row in report.by_metadata:
        bars = tuple(scale.bar(result.accuracy, result.ci95, tint(i)) for i, result in enumerate(row.runs))
        cells = [Cell(text=row.value), Cell(text=f"{row.n:,}"), Cell(bars=bars)]
        for result in row.runs:
            low, high = (percent(end) for end in result.ci95)
            cells.append(Cell(text=percent(result.accuracy), notes=(f"{low} – {high}",)))
        cells += [Cell(text=signed(delta.value), notes=(from_to(delta.ci95),)) for delta in row.deltas]
        bodies.setdefault(row.field, []).append(cells)
    columns = [Column(title="Clips", words=True), Column(title="Results"), Column(title=DRAWN, ends=scale.ends)]
    columns += [Column(title=run.name, run=tint(place)) for place, run in enumerate(report.runs)]
    columns += [Column(title=f"{run.name} − {report.runs[0].name}") for run in report.runs[1:]]
    return Table(
        id="kinds",
        caption="Top-1 in percent by the metadata in HMDB51’s file names, pooled over the splits; below each its "
        f"{INTERVAL} {BY_SOURCE}, not corrected for the number of groups.",
        columns=columns,
        bodies=list(bodies.items()),
        source="metadata",
    )


def cost(report: Report) -> Table:
    """Return accuracy and cost, one row per run."""
    rows = []
    for number, run in enumerate(report.runs):
        spent, top1 = run.cost, run.summary["top1"]
        low, high = (percent(end) for end in top1.ci95)
        rate = "–" if spent.clips_per_second is None else f"{spent.clips_per_second:,.3g}"
        rows.append(
            [
                Cell(text=run.name, run=tint(number)),
                Cell(text=percent(top1.mean), notes=(f"{low} – {high}",)),
                Cell(text="–" if spent.gmac is None else f"{spent.gmac:,.4g}"),
                Cell(text=rate, notes=(spent.device,) if spent.device else ()),
                *(Cell(text=duration(value)) for value in (spent.extract, spent.fit, spent.predict)),
            ]
        )
    titles = ["Top-1", "GMAC per video", "Clips per second", "Extraction", "Fitting", "Prediction"]
    return Table(
        id="costtable",
        caption="Accuracy and cost: top-1 in percent; multiply-adds of the encoder for all views of one video; speed "
        "of the encoder, and the time to extract all clips at that speed; time to fit the heads of all splits and to "
        "predict. – is not recorded.",
        columns=[Column(title="Run", words=True), *(Column(title=title) for title in titles)],
        bodies=[("", rows)],
        source="cost",
    )


def duplicates(report: Report) -> Table | None:
    """Return top-1 with and without the test clips that have a near-duplicate in training; None where none has."""
    duplicates = report.analysis.duplicates if report.analysis else None
    if not duplicates or not duplicates.clips:
        return None
    rows = [
        [
            Cell(text=effect.name, run=tint(number)),
            *(Cell(text=percent(value)) for value in (effect.top1, effect.without, effect.flagged)),
        ]
        for number, effect in enumerate(duplicates.effect)
    ]
    titles = ["All results", "Without near-duplicates", "Near-duplicates alone"]
    return Table(
        id="duplicatetable",
        caption="Top-1 in percent, pooled over the splits, with and without the test clips that have a near-duplicate "
        "in the training set.",
        columns=[Column(title="Run", words=True), *(Column(title=title) for title in titles)],
        bodies=[("", rows)],
        source="near_duplicates",
    )


def stack(parts: Sequence[tuple[str, int, int | None]]) -> list[dict[str, Any]]:
    """Return the parts (label, number, color) of a total with their widths in percent."""
    total = max(1, sum(n for _, n, _ in parts))
    return [{"label": label, "n": f"{n:,}", "width": round(100 * n / total, 2), "run": run} for label, n, run in parts]


def _recall_interval(row: ClassRow, scale: Scale) -> list[Cell]:
    if row.recall_ci95 is None or row.recall is None:
        return [Cell(text="–"), Cell()]
    low, high = (percent(end) for end in row.recall_ci95)
    bar = scale.bar(row.recall, row.recall_ci95, 0)
    return [Cell(text=f"{low} – {high}", value=row.recall_ci95[0]), Cell(bars=(bar,))]


def _square(n: int, total: int, true: str, predicted: str) -> dict[str, Any] | None:
    if not n:
        return None
    fraction = n / total
    outcome = "recognized" if true == predicted else f"predicted as {predicted}"
    return {
        "text": fraction_text(fraction),
        "fill": round(8 + 92 * fraction, 1),  # the smallest fraction is still visible
        "dark": fraction > DARK,
        "label": f"{true} {outcome}: {n:,} of {pluralize(total, 'result')} ({percent(fraction)} %)",
    }


def _reach(ends: Sequence[float]) -> float:
    """Return a round bound for a scale about zero."""
    most = max((abs(end) for end in ends), default=0.0)
    return next((step for step in (0.01, 0.02, 0.05) if most <= step), max(0.1, ceil(10 * most) / 10))


def _winner(ends: Interval, p: float, a: int, b: int) -> int | None:
    """Return the color of the better run where the difference is significant."""
    return None if p >= ALPHA else b if ends[0] > 0 else a if ends[1] < 0 else None


def _sort(value: float | None) -> float | str:
    return "" if value is None else value
