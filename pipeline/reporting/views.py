"""The report's numbers as a page shows them: text, what a sort compares, where a mark stands. No template computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from actionvit.pipeline.reporting.wording import ALPHA, METRIC_TITLES, count, metric, p_value, percent, seconds, signed

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An interval on a scale, in percent of its width: a line from `left`, `width` long, a dot `at`."""

    at: float
    left: float
    width: float
    zero: float | None = None
    """Where the scale's zero lies, for differences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str
    value: float | str = ""
    """What a sort compares; empty sorts last."""
    notes: tuple[str, ...] = ()
    """Small lines below the text."""
    bar: Bar | None = None
    run: int | None = None
    """Whose colour it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that says what it shows; the first cell of a row heads it."""

    id: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int, int | None]] = ()
    """Title, columns spanned and run of each group above the columns."""
    sortable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A stretch of numbers that marks are placed on."""

    low: float
    high: float

    def bar(self, at: float, ends: Sequence[float]) -> Bar:
        """Return where a value and its interval lie."""
        left, right = (self._place(end) for end in ends)
        zero = self._place(0.0) if self.low < 0 else None
        return Bar(at=self._place(at), left=left, width=round(right - left, 2), zero=zero)

    def _place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A confusion matrix, classes in the order shown."""

    run: int
    name: str
    names: Sequence[str]
    numbers: Sequence[int]
    """Class numbers in that order."""
    rows: Sequence[Sequence[Mapping[str, Any] | None]] = field(default_factory=tuple)
    """Cells with `n`, `share` (0 to 1), `dark`, `text`; None where there is nothing."""


def results(found: Found) -> Table:
    """Return the headline: a row a run, a column a metric; top-1's interval as a mark."""
    ends = [run["summary"]["top1"]["ci95"] for run in found["runs"]]
    scale = Scale(low=floor(10 * min(low for low, _ in ends)) / 10, high=ceil(10 * max(high for _, high in ends)) / 10)
    rows = []
    for number, run in enumerate(found["runs"]):
        cells = [Cell(text=run["name"], value=run["name"], run=number)]
        for name in METRIC_TITLES:
            value = run["summary"][name]
            low, high = (metric(name, end) for end in value["ci95"])
            spread = () if value["std"] is None else (f"± {metric(name, value['std'])}",)
            bar = scale.bar(value["mean"], value["ci95"]) if name == "top1" else None
            notes = (*spread, f"{low} – {high}")
            cells.append(Cell(text=metric(name, value["mean"]), value=value["mean"], notes=notes, bar=bar, run=number))
        rows.append(cells)
    n = len(found["runs"][0]["splits"])
    caption = "One split" if n == 1 else f"Mean of {n} splits, ± their standard deviation"
    caption += f"; below, its 95 % interval by source, drawn for top-1 from {percent(scale.low, 0)} to "
    caption += f"{percent(scale.high, 0)}. Shares in percent."
    return Table(id="headline", caption=caption, columns=["Run", *METRIC_TITLES.values()], rows=rows)


def comparison(found: Found, one: Mapping[str, Any], number: int) -> Table:
    """Return a comparison's differences, a row a metric."""
    runs = {run["name"]: run["summary"] for run in found["runs"]}
    reach = _reach([end for delta in one["delta"].values() for end in delta["ci95"]])
    scale = Scale(low=-reach, high=reach)
    rows = []
    for name, delta in one["delta"].items():
        rows.append(
            [
                Cell(text=METRIC_TITLES[name]),
                Cell(text=metric(name, runs[one["a"]][name]["mean"]), run=0),
                Cell(text=metric(name, runs[one["b"]][name]["mean"]), run=number),
                Cell(text=signed(delta["value"]), run=_winner(delta["ci95"], one["p_holm"], number)),
                Cell(text=_to(delta["ci95"]), bar=scale.bar(delta["value"], delta["ci95"])),
            ]
        )
    caption = f"Paired differences in points with 95 % intervals by source, drawn from −{percent(reach, 0)} to "
    caption += f"+{percent(reach, 0)}"
    return Table(
        id=f"comparison{number}",
        caption=caption,
        columns=["Metric", one["a"], one["b"], "Difference", "95 % interval"],
        rows=rows,
    )


def classes(found: Found) -> Table:
    """Return the per-class table: precision, recall, F1 a run, and the difference of recall to the first run."""
    several = len(found["runs"]) > 1
    ends = [end for one in found["comparisons"] for row in one["per_class"] if row["ci95"] for end in row["ci95"]]
    reach = _reach(ends)
    rows = []
    for place, name in enumerate(found["class_names"]):
        support = found["runs"][0]["per_class"][place]["support"]
        cells = [Cell(text=name, value=name), Cell(text=f"{support:,}", value=support)]
        for number, run in enumerate(found["runs"]):
            cells += _class_cells(run["per_class"][place], number, bar=not several)
        for number, one in enumerate(found["comparisons"], 1):
            cells += _delta_cells(one["per_class"][place], number, Scale(low=-reach, high=reach))
        rows.append(cells)
    groups: list[tuple[str, int, int | None]] = [("", 2, None)]
    groups += [(run["name"], 3, number) for number, run in enumerate(found["runs"])]
    groups += [(f"{one['b']} − {one['a']}", 3, number) for number, one in enumerate(found["comparisons"], 1)]
    columns = ["Class", "Results", *(["Precision", "Recall", "F1"] * len(found["runs"]))]
    columns += ["Δ\u00a0recall", "95 % interval", "p"] * len(found["comparisons"])
    caption = "Pooled over the splits, in percent; – is 0/0."
    caption += " Recall with its 95 % interval." if not several else ""
    if found["comparisons"]:
        caption += f" Differences in points, drawn from −{percent(reach, 0)} to +{percent(reach, 0)}; "
        caption += "p by sources, with Holm's correction over the classes."
    return Table(
        id="classtable", caption=caption, columns=columns, rows=rows, groups=groups if several else (), sortable=True
    )


def matrices(found: Found) -> list[Matrix]:
    """Return a confusion matrix a run, all in one order of classes."""
    order, names = found["order"], found["class_names"]
    made = []
    for number, run in enumerate(found["runs"]):
        cells, totals = run["confusion"], [sum(row) for row in run["confusion"]]
        rows = [[_square(cells[i][j], totals[i], names[i], names[j]) for j in order] for i in order]
        made.append(Matrix(run=number, name=run["name"], names=[names[i] for i in order], numbers=order, rows=rows))
    return made


def confused(found: Found) -> Table:
    """Return the most confused pairs of any run, with every run's count."""
    names, runs = found["class_names"], found["runs"]
    number = {name: place for place, name in enumerate(names)}
    pairs = dict.fromkeys((pair["true"], pair["predicted"]) for run in runs for pair in run["most_confused"])
    rows = []
    for true, taken in pairs:
        lines = [run["confusion"][number[true]] for run in runs]
        cells = [Cell(text=true, value=true), Cell(text=taken, value=taken)]
        for place, line in enumerate(lines):
            n = line[number[taken]]
            cells.append(Cell(text=f"{n:,}", value=n, notes=(f"{percent(n / max(1, sum(line)), 0)} %",), run=place))
        rows.append((sum(line[number[taken]] for line in lines), cells))
    rows.sort(key=lambda row: -row[0])
    caption = "Most confused pairs: results, and their share of the true class's"
    columns = ["True class", "Taken for", *(run["name"] for run in runs)]
    return Table(id="pairs", caption=caption, columns=columns, rows=[cells for _, cells in rows], sortable=True)


def metadata(found: Found) -> Table:
    """Return top-1 by what the clips' names tell."""
    rows = []
    for row in found["by_metadata"]:
        cells = [Cell(text=f"{row['field']}: {row['value']}"), Cell(text=f"{row['n']:,}")]
        for number, one in enumerate(row["runs"]):
            low, high = (percent(end) for end in one["ci95"])
            cells.append(Cell(text=percent(one["accuracy"]), notes=(f"{low} – {high}",), run=number))
        for delta in row["deltas"]:
            cells.append(Cell(text=signed(delta["value"]), notes=(_to(delta["ci95"]),)))
        rows.append(cells)
    columns = ["Clips", "Results", *(run["name"] for run in found["runs"])]
    columns += [f"{one['b']} − {one['a']}" for one in found["comparisons"]]
    caption = "Top-1 in percent with 95 % intervals by source, pooled over the splits"
    return Table(id="metadatatable", caption=caption, columns=columns, rows=rows)


def cost(found: Found) -> Table:
    """Return what the accuracy takes."""
    rows = []
    for number, run in enumerate(found["runs"]):
        spent, rate = run["cost"], run["cost"].get("clips_per_second")
        rows.append(
            [
                Cell(text=run["name"], run=number),
                Cell(text=percent(run["summary"]["top1"]["mean"])),
                Cell(text="–" if spent.get("gmac") is None else f"{spent['gmac']:,.4g}"),
                Cell(text="–" if rate is None else f"{rate:.3g}"),
                *(Cell(text=seconds(spent.get(key))) for key in ("extract", "fit", "predict")),
            ]
        )
    columns = ["Run", "Top-1", "GMAC a video", "Clips a second", "Extracting", "Fitting", "Predicting"]
    return Table(id="costtable", caption="Accuracy and what it takes", columns=columns, rows=rows)


def duplicates(found: Found) -> Table:
    """Return top-1 with and without the test clips that have a near-duplicate in training."""
    rows = [
        [
            Cell(text=one["name"], run=number),
            Cell(text=percent(one["top1"])),
            Cell(text=percent(one["without"])),
            Cell(text=percent(one["flagged"])),
        ]
        for number, one in enumerate(found["analysis"]["duplicates"]["effect"])
    ]
    columns = ["Run", "All results", "Without them", "Them alone"]
    caption = (
        "Top-1 in percent, pooled over the splits, with and without test clips that have a near-duplicate in training"
    )
    return Table(id="duplicatetable", caption=caption, columns=columns, rows=rows)


def stack(parts: Sequence[tuple[str, int, int | None]]) -> list[dict[str, Any]]:
    """Return the parts of a whole with their widths in percent; `run` gives the colour."""
    total = max(1, sum(n for _, n, _ in parts))
    return [{"label": label, "n": f"{n:,}", "width": round(100 * n / total, 2), "run": run} for label, n, run in parts]


def _class_cells(row: Mapping[str, Any], run: int, *, bar: bool) -> list[Cell]:
    cells = [Cell(text=percent(row[key]), value=_sort(row[key]), run=run) for key in ("precision", "recall", "f1")]
    if bar and row["recall_ci95"]:
        low, high = (percent(end) for end in row["recall_ci95"])
        mark = Scale(low=0, high=1).bar(row["recall"], row["recall_ci95"])
        cells[1] = Cell(text=percent(row["recall"]), value=row["recall"], notes=(f"{low} – {high}",), bar=mark, run=run)
    return cells


def _delta_cells(row: Mapping[str, Any], run: int, scale: Scale) -> list[Cell]:
    if row["ci95"] is None:
        return [Cell(text="–"), Cell(text="–"), Cell(text="–")]
    return [
        Cell(text=signed(row["delta"]), value=row["delta"], run=_winner(row["ci95"], row["p_holm"], run)),
        Cell(text=_to(row["ci95"]), value=row["ci95"][0], bar=scale.bar(row["delta"], row["ci95"])),
        Cell(text=p_value(row["p_holm"]), value=row["p_holm"]),
    ]


def _square(n: int, total: int, true: str, taken: str) -> dict[str, Any] | None:
    if not n:
        return None
    share = n / total
    said = "recognised" if true == taken else f"taken for {taken}"
    text = f"{true} {said}: {n:,} of {count(total, 'result')} ({percent(share)} %)"
    return {"n": n, "share": round(share, 3), "dark": share > 0.5, "text": text}


def _reach(ends: Sequence[float]) -> float:
    """Return a round bound for a scale about zero."""
    return max(0.1, ceil(10 * max((abs(end) for end in ends), default=0.1)) / 10)


def _winner(ends: Sequence[float], p: float, run: int) -> int | None:
    """Return whose colour a difference takes: the better run's, where one can be shown."""
    return None if p >= ALPHA else run if ends[0] > 0 else 0 if ends[1] < 0 else None


def _to(ends: Sequence[float]) -> str:
    return f"{signed(ends[0])} to {signed(ends[1])}"


def _sort(value: float | None) -> float | str:
    return "" if value is None else value
