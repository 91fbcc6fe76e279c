"""The report's numbers as a page's tables show them. No template computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

from actionvit.pipeline.reporting.table import Cell, Column, Matrix, Scale, Table, tint
from actionvit.pipeline.reporting.text import (
    ALPHA,
    METRIC_TITLES,
    count,
    metric,
    p_value,
    percent,
    seconds,
    share_text,
    signed,
)

Found = Mapping[str, Any]


def results(found: Found) -> Table:
    """Return the headline: a row a run, a column a metric; top-1 and its interval drawn too."""
    ends = [run["summary"]["top1"]["ci95"] for run in found["runs"]]
    scale = Scale(low=floor(10 * min(low for low, _ in ends)) / 10, high=ceil(10 * max(high for _, high in ends)) / 10)
    rows = []
    for number, run in enumerate(found["runs"]):
        top1 = run["summary"]["top1"]
        bar = scale.bar(top1["mean"], top1["ci95"], tint(number))
        cells = [Cell(text=run["name"], run=tint(number)), Cell(bars=(bar,))]
        for name in METRIC_TITLES:
            value = run["summary"][name]
            low, high = (metric(name, end) for end in value["ci95"])
            spread = () if value["std"] is None else (f"± {metric(name, value['std'])}",)
            cells.append(Cell(text=metric(name, value["mean"]), notes=(f"{low} – {high}", *spread)))
        rows.append(cells)
    n = len(found["runs"][0]["splits"])
    caption = "Results of one split, and below each its 95 % interval by source."
    if n > 1:
        caption = f"Means of {n} splits; below each its 95 % interval by source, and ± the standard deviation between "
        caption += "the splits."
    caption += " Shares in percent; top-1 and its interval are drawn as well."
    columns = [Column(title="Run", words=True), Column(title="Top-1, drawn", ends=scale.ends)]
    columns += [Column(title=title) for title in METRIC_TITLES.values()]
    return Table(id="headline", caption=caption, columns=columns, bodies=[("", rows)], source="summary")


def comparison(found: Found, one: Mapping[str, Any], number: int) -> Table:
    """Return a comparison's differences, a row a metric."""
    runs = {run["name"]: run["summary"] for run in found["runs"]}
    reach = _reach([end for delta in one["delta"].values() for end in delta["ci95"]])
    scale = Scale(low=-reach, high=reach)
    rows = []
    for name, delta in one["delta"].items():
        winner = _winner(delta["ci95"], one["p_holm"] if name == "top1" else 1.0, tint(number))
        rows.append(
            [
                Cell(text=METRIC_TITLES[name]),
                Cell(text=metric(name, runs[one["a"]][name]["mean"])),
                Cell(text=metric(name, runs[one["b"]][name]["mean"])),
                Cell(text=signed(delta["value"]), run=winner),
                Cell(text=_to(delta["ci95"])),
                Cell(bars=(scale.bar(delta["value"], delta["ci95"], winner),)),
            ]
        )
    columns = [Column(title="Metric", words=True), Column(title=one["a"], run=0)]
    columns += [Column(title=one["b"], run=tint(number))]
    columns += [
        Column(title="Difference"),
        Column(title="95 % interval"),
        Column(title="The same, drawn", ends=scale.ends),
    ]
    caption = f"{one['b']} − {one['a']}, paired: differences in points, with 95 % intervals by source."
    return Table(id=f"comparison{number}", caption=caption, columns=columns, bodies=[("", rows)], source="comparisons")


def classes(found: Found) -> Table:
    """Return the per-class table: precision, recall, F1 a run, and the difference of recall to the first run."""
    several = len(found["runs"]) > 1
    ends = [end for one in found["comparisons"] for row in one["per_class"] if row["ci95"] for end in row["ci95"]]
    reach = _reach(ends)
    scale = Scale(low=-reach, high=reach) if several else Scale(low=0, high=1)
    rows = []
    for place, name in enumerate(found["class_names"]):
        support = found["runs"][0]["per_class"][place]["support"]
        cells = [Cell(text=name, value=name), Cell(text=f"{support:,}", value=support)]
        for run in found["runs"]:
            row = run["per_class"][place]
            cells += [Cell(text=percent(row[key]), value=_sort(row[key])) for key in ("precision", "recall", "f1")]
            cells += [] if several else _recall_interval(row, scale)
        for number, one in enumerate(found["comparisons"], 1):
            cells += _delta_cells(one["per_class"][place], tint(number), scale)
        rows.append(cells)
    groups: list[tuple[str, int, int | None]] = [("", 2, None)]
    groups += [(run["name"], 3, tint(number)) for number, run in enumerate(found["runs"])]
    groups += [(f"{one['b']} − {one['a']}", 4, None) for one in found["comparisons"]]
    columns = [Column(title="Class", words=True), Column(title="Support")]
    columns += [Column(title=title) for title in ("Precision", "Recall", "F1")] * len(found["runs"])
    interval = [Column(title="95 % interval"), Column(title="The same, drawn", ends=scale.ends)]
    for _ in found["comparisons"]:
        columns += [Column(title="Δ\u00a0recall"), *interval, Column(title="p")]
    columns += [] if several else interval
    caption = "Every class, pooled over the splits, in percent; – is 0/0."
    if several:
        caption += (
            " Differences of recall in points, with 95 % intervals by source; p with sources exchanged whole and "
        )
        caption += "Holm’s correction over the classes."
    else:
        caption += " The interval, by source, is recall’s."
    return Table(
        id="classtable",
        caption=caption,
        columns=columns,
        bodies=[("", rows)],
        groups=groups if several else (),
        sortable=True,
        source="per_class_differences" if several else "per_class",
    )


def matrices(found: Found) -> list[Matrix]:
    """Return a confusion matrix a run, all in one order of classes."""
    order, names = found["order"], found["class_names"]
    made = []
    for number, run in enumerate(found["runs"]):
        cells, totals = run["confusion"], [sum(row) for row in run["confusion"]]
        rows = [[_square(cells[i][j], totals[i], names[i], names[j]) for j in order] for i in order]
        pairs = [(names.index(pair["true"]), names.index(pair["predicted"])) for pair in run["most_confused"][:1]]
        first = next(((order.index(i), order.index(j)) for i, j in pairs), None)
        made.append(
            Matrix(
                run=number,
                tint=tint(number),
                name=run["name"],
                names=[names[i] for i in order],
                numbers=order,
                first=first,
                rows=rows,
            )
        )
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
        for line in lines:
            n = line[number[taken]]
            cells += [Cell(text=f"{n:,}", value=n), Cell(text=share_text(n / max(1, sum(line))), value=n)]
        rows.append((sum(line[number[taken]] for line in lines), cells))
    rows.sort(key=lambda row: -row[0])
    columns = [Column(title="True class", words=True), Column(title="Taken for", words=True)]
    columns += [Column(title=title) for title in ("Results", "%")] * len(runs)
    groups: list[tuple[str, int, int | None]] = [("", 2, None)]
    groups += [(run["name"], 2, tint(place)) for place, run in enumerate(runs)]
    return Table(
        id="pairs",
        caption="Most confused pairs, pooled over the splits: results, and percent of the true class’s.",
        columns=columns,
        bodies=[("", [cells for _, cells in rows])],
        groups=groups if len(runs) > 1 else (),
        sortable=True,
        source="confusion",
    )


def metadata(found: Found) -> Table:
    """Return top-1 by what the clips' names tell, a group a field."""
    scale = Scale(low=0, high=1)
    bodies: dict[str, list[list[Cell]]] = {}
    for row in found["by_metadata"]:
        bars = tuple(scale.bar(one["accuracy"], one["ci95"], tint(i)) for i, one in enumerate(row["runs"]))
        cells = [Cell(text=row["value"]), Cell(text=f"{row['n']:,}"), Cell(bars=bars)]
        for one in row["runs"]:
            low, high = (percent(end) for end in one["ci95"])
            cells += [Cell(text=percent(one["accuracy"])), Cell(text=f"{low} – {high}")]
        for delta in row["deltas"]:
            cells += [Cell(text=signed(delta["value"])), Cell(text=_to(delta["ci95"]))]
        bodies.setdefault(row["field"], []).append(cells)
    columns = [
        Column(title="Clips", words=True),
        Column(title="Results"),
        Column(title="The same, drawn", ends=scale.ends),
    ]
    columns += [Column(title=title) for title in ("Top-1", "95 % interval")] * len(found["runs"])
    columns += [Column(title=title) for title in ("Δ", "95 % interval")] * len(found["comparisons"])
    groups: list[tuple[str, int, int | None]] = [("", 3, None)]
    groups += [(run["name"], 2, tint(place)) for place, run in enumerate(found["runs"])]
    groups += [(f"{one['b']} − {one['a']}", 2, None) for one in found["comparisons"]]
    return Table(
        id="kinds",
        caption="Top-1 in percent by what HMDB51’s file names tell of the clips, pooled over the splits, with 95 % "
        "intervals by source. Not corrected for looking at many groups.",
        columns=columns,
        bodies=list(bodies.items()),
        groups=groups if len(found["runs"]) > 1 else (),
        source="metadata",
    )


def cost(found: Found) -> Table:
    """Return what the accuracy takes."""
    rows = []
    for number, run in enumerate(found["runs"]):
        spent, top1 = run["cost"], run["summary"]["top1"]
        rate, low, high = spent.get("clips_per_second"), *(percent(end) for end in top1["ci95"])
        device = (spent["device"],) if "device" in spent else ()
        rows.append(
            [
                Cell(text=run["name"], run=tint(number)),
                Cell(text=percent(top1["mean"]), notes=(f"{low} – {high}",)),
                Cell(text="–" if spent.get("gmac") is None else f"{spent['gmac']:,.4g}"),
                Cell(text="–" if rate is None else f"{rate:,.3g}", notes=device),
                *(Cell(text=seconds(spent.get(key))) for key in ("extract", "fit", "predict")),
            ]
        )
    titles = ["Top-1", "GMAC a video", "Clips a second", "Embedding all", "Fitting", "Predicting"]
    return Table(
        id="costtable",
        caption="Accuracy, and what it takes: multiply-adds of the encoder for all views of one video, clips that it "
        "embeds a second, seconds for all clips at that rate, and for the heads of all splits. – is not recorded.",
        columns=[Column(title="Run", words=True), *(Column(title=title) for title in titles)],
        bodies=[("", rows)],
        source="cost",
    )


def duplicates(found: Found) -> Table:
    """Return top-1 with and without the test clips that have a near-duplicate in training."""
    rows = [
        [
            Cell(text=one["name"], run=tint(number)),
            *(Cell(text=percent(one[key])) for key in ("top1", "without", "flagged")),
        ]
        for number, one in enumerate(found["analysis"]["duplicates"]["effect"])
    ]
    titles = ["All results", "Without them", "Them alone"]
    return Table(
        id="duplicatetable",
        caption="Top-1 in percent, pooled over the splits, with and without the test clips that have a near-duplicate "
        "in training.",
        columns=[Column(title="Run", words=True), *(Column(title=title) for title in titles)],
        bodies=[("", rows)],
        source="near_duplicates",
    )


def stack(parts: Sequence[tuple[str, int, int | None]]) -> list[dict[str, Any]]:
    """Return the parts of a whole with their widths in percent; `run` gives the colour."""
    total = max(1, sum(n for _, n, _ in parts))
    return [{"label": label, "n": f"{n:,}", "width": round(100 * n / total, 2), "run": run} for label, n, run in parts]


def _recall_interval(row: Mapping[str, Any], scale: Scale) -> list[Cell]:
    if row["recall_ci95"] is None:
        return [Cell(text="–"), Cell()]
    low, high = (percent(end) for end in row["recall_ci95"])
    bar = scale.bar(row["recall"], row["recall_ci95"], 0)
    return [Cell(text=f"{low} – {high}", value=row["recall_ci95"][0]), Cell(bars=(bar,))]


def _delta_cells(row: Mapping[str, Any], run: int, scale: Scale) -> list[Cell]:
    if row["ci95"] is None:
        return [Cell(text="–"), Cell(text="–"), Cell(), Cell(text="–")]
    winner = _winner(row["ci95"], row["p_holm"], run)
    return [
        Cell(text=signed(row["delta"]), value=row["delta"], run=winner),
        Cell(text=_to(row["ci95"]), value=row["ci95"][0]),
        Cell(bars=(scale.bar(row["delta"], row["ci95"], winner),)),
        Cell(text=p_value(row["p_holm"]), value=row["p_holm"]),
    ]


def _square(n: int, total: int, true: str, taken: str) -> dict[str, Any] | None:
    if not n:
        return None
    share = n / total
    said = "recognised" if true == taken else f"taken for {taken}"
    text = f"{true} {said}: {n:,} of {count(total, 'result')} ({percent(share)} %)"
    return {"text": share_text(share), "share": _full(share), "dark": share > DARK, "said": text}


DARK = 0.63
"""The share of a confusion matrix's square from which its text turns from ink to paper: both read well there."""


def _full(share: float) -> float:
    """Return how far a square's colour goes from paper to full, in percent; the least share can still be seen."""
    return round(8 + 92 * share, 1)


def _reach(ends: Sequence[float]) -> float:
    """Return a round bound for a scale about zero."""
    most = max((abs(end) for end in ends), default=0.0)
    return next((step for step in (0.01, 0.02, 0.05) if most <= step), max(0.1, ceil(10 * most) / 10))


def _winner(ends: Sequence[float], p: float, run: int) -> int | None:
    """Return whose colour a difference takes: the better run's, where one can be shown."""
    return None if p >= ALPHA else run if ends[0] > 0 else 0 if ends[1] < 0 else None


def _to(ends: Sequence[float]) -> str:
    return f"{signed(ends[0])} to {signed(ends[1])}"


def _sort(value: float | None) -> float | str:
    return "" if value is None else value
