"""An experiment's table as JSON, CSV and Markdown, and its curves as a figure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit import escape
from actionvit.features.atomic import atomic_path, atomic_write, make_folder, remove_leftovers
from actionvit.pipeline.reporting.drawing import MARKERS, PALETTE, drawing, plain_text
from actionvit.pipeline.reporting.figures import cost_figure
from actionvit.pipeline.reporting.model import Summary
from actionvit.pipeline.reporting.table import Cell, Column, Table, tidy, to_csv, to_markdown
from actionvit.pipeline.reporting.text import p_value, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTable:
    """A table in the two forms that a command prints."""

    record: Mapping[str, Any]
    """The content of the JSON file: `caption`, `about`, `rows` and `findings`."""
    markdown: str
    """The content of the Markdown file."""


def write_table(
    folder: Path,
    stem: str,
    rows: Sequence[Row],
    *,
    caption: str,
    about: Mapping[str, Any],
    findings: Sequence[str] = (),
) -> WrittenTable:
    """Write `STEM.json` (full numbers and their origin), `STEM.csv` and `STEM.md`, each atomically; return the table.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    stem : str
        Name of the files.
    rows : sequence of mapping
        Values by column; a metric is a mapping with `mean` or `value`, `ci95` and optionally `std`.
    caption : str
        Description of the table.
    about : mapping
        Origin of the rows: dataset, command, options.
    findings : sequence of str
        Conclusions from the rows, in words.

    Raises
    ------
    ActionVitError
        If a file cannot be written; earlier ones of that name are then unchanged.
    """
    record = {
        "caption": caption,
        "about": dict(about),
        "rows": [dict(row) for row in rows],
        "findings": list(findings),
    }
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    listed = "".join(f"\n- {line}" for line in findings)
    texts = {
        ".json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        ".csv": to_csv(tidy(names, [[row.get(name) for name in names] for row in flat])),
        ".md": f"{caption}\n\n{markdown(rows)}{listed and listed + chr(10)}",
    }
    _clean(folder)
    for suffix, text in texts.items():
        atomic_write(folder / f"{stem}{suffix}", escape.encode(text))
    return WrittenTable(record=record, markdown=texts[".md"])


def _clean(folder: Path) -> None:
    """Make a folder if it does not exist, and remove temporary files of killed processes."""
    make_folder(folder)
    remove_leftovers(folder)


def _write_figure(figure: Figure, path: Path) -> None:
    """Write an image atomically, in the format of the path's suffix."""
    _clean(path.parent)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=130)


def markdown(rows: Sequence[Row]) -> str:
    """Return a Markdown table, fractions in percent.

    A metric is `mean ± standard deviation between splits [95 % interval]`, a difference `+1.2 [−0.3, +2.7]` in points.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    numbers = {name for row in rows for name, value in row.items() if isinstance(value, Mapping)}
    columns = [Column(title=name.replace("_", " "), words=name not in numbers) for name in names]
    cells = [[Cell(text=_text(row.get(name, ""), name)) for name in names] for row in rows]
    return to_markdown(Table(columns=columns, bodies=[("", cells)]))


def curves_figure(
    rows: Sequence[Row], path: Path, *, x: str, y: str, series: str, names: tuple[str, str], log: bool = True
) -> Path:
    """Draw a metric `y` of the rows against their column `x` with 95 % intervals, one line per value of `series`.

    `names` are the titles of the axes. On a logarithmic axis series are slightly apart, so that intervals at one x can
    be distinguished.
    """
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        groups = list(dict.fromkeys(row[series] for row in rows))
        for number, name in enumerate(groups):
            line = sorted(((row[x], row[y]) for row in rows if row[series] == name), key=lambda point: point[0])
            shift = 1.012 ** (number - (len(groups) - 1) / 2) if log else 1.0
            means = [100 * value["mean"] for _, value in line]
            below = [max(0.0, 100 * (value["mean"] - value["ci95"][0])) for _, value in line]
            above = [max(0.0, 100 * (value["ci95"][1] - value["mean"])) for _, value in line]
            axes.errorbar(
                [place * shift for place, _ in line],
                means,
                [below, above],
                marker=MARKERS[number % len(MARKERS)],
                color=PALETTE[number % len(PALETTE)],
                markersize=4,
                capsize=2,
                linewidth=1,
                label=plain_text(str(name)),
            )
        if log:
            axes.set_xscale("log")
            ticks = sorted({row[x] for row in rows})
            axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
            axes.minorticks_off()
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        _write_figure(figure, path)
    return path


def accuracy_by_cost(rows: Sequence[Row], path: Path, *, x: str, y: str) -> Path:
    """Draw a metric against a cost, one color per series; return `path`.

    Parameters
    ----------
    rows : sequence of mapping
        Values by column, with the columns `series` and `setting` (the label at a row's cost).
    path : Path
        The image file; its folder is made if it does not exist.
    x, y : str
        Columns of the cost and of the metric.
    """
    points: dict[str, list[tuple[float, Summary]]] = {}
    for row in rows:
        value = Summary(mean=row[y]["mean"], std=row[y].get("std"), ci95=tuple(row[y]["ci95"]))
        points.setdefault(row["series"], []).append((row[x], value))
    name = y.replace("top1", "top-1").replace("_", " ")
    figure = cost_figure(
        points,
        x_name=f"{x} per video",
        y_name=f"{name[0].upper()}{name[1:]}, %",
        settings={row["setting"]: row[x] for row in rows},
    )
    with drawing():
        _write_figure(figure, path)
    return path


def histograms_figure(
    histograms: Mapping[str, Sequence[Sequence[int]]], path: Path, *, class_names: Sequence[str]
) -> Path:
    """Draw the number of clips per class and shard: one panel per kind of sharding, one row per shard, one scale.

    Parameters
    ----------
    histograms : mapping of str to sequences of shape (shards, C)
        Number of clips by kind of sharding.
    path : Path
        The image file.
    class_names : sequence of C str
    """
    from matplotlib.figure import Figure

    most = max(count for rows in histograms.values() for row in rows for count in row)
    with drawing():
        figure = Figure(figsize=(max(5.2, 0.32 * len(class_names) + 1), 6.0), layout="constrained")
        panels = figure.subplots(len(histograms), sharex=True)
        for axes, (how, rows) in zip(panels, histograms.items(), strict=True):
            axes.imshow(rows, cmap="Blues", vmin=0, vmax=most, aspect="auto")
            for shard, row in enumerate(rows):
                for column, count in enumerate(row):
                    shade = "white" if count > 0.6 * most else "black"
                    axes.text(column, shard, str(count), ha="center", va="center", fontsize=6, color=shade)
            axes.set_yticks(range(len(rows)), [str(shard + 1) for shard in range(len(rows))])
            axes.set_ylabel("Shard")
            axes.set_title(how)
        panels[-1].set_xticks(range(len(class_names)), [plain_text(name) for name in class_names], rotation=90)
        panels[-1].set_xlabel("Class")
        _write_figure(figure, path)
    return path


def chosen_in_words(search: Mapping[str, Any]) -> str:
    """Return `C 0.01` or `epochs 30, queries 4`; empty if no setting could be scored."""
    chosen = search["chosen"]
    named = chosen if isinstance(chosen, Mapping) else {search["parameter"]: chosen}
    return ", ".join(f"{name} {_plain(value)}" for name, value in named.items() if value is not None)


def chosen_counts(searches: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return each chosen setting in words with its number of searches, sorted by value."""
    counts: Counter[str] = Counter()
    order: dict[str, list[tuple[bool, Any]]] = {}
    for search in searches:
        counts[words := chosen_in_words(search)] += 1
        values = _values(search["chosen"], search["parameter"]).values()
        order[words] = [(isinstance(value, str), value) for value in values if value is not None]
    return sorted(counts.items(), key=lambda item: order[item[0]])


def edge_notes(searches: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence per parameter that at least half of the searches chose at an edge of its grid.

    It names a grid with two more values beyond that edge; whole numbers do not go below 1.
    """
    notes = []
    for name in sorted({name for search in searches for name in search["at_edge"]}):
        chosen = Counter(_values(s["chosen"], s["parameter"])[name] for s in searches if name in s["at_edge"])
        if 2 * chosen.total() < len(searches):
            continue
        tried = sorted({_values(value, s["parameter"])[name] for s in searches for value in s["values"]})
        value, count = chosen.most_common(1)[0]
        grid = [*tried, *_beyond(tried[-2:])] if value == tried[-1] else [*_beyond(tried[1::-1])[::-1], *tried]
        if len(grid) == len(tried):
            continue
        notes.append(
            f"{name} {_plain(value)}, an edge of its grid, was chosen in {count} of {len(searches)} splits;"
            f" widen it with grid={name}={','.join(map(_plain, grid))}"
        )
    return notes


def _values(value: Any, parameter: str) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {parameter: value}


def _beyond(ends: Sequence[float]) -> list[float]:
    """Return two values that continue a series with these last two, the outermost last."""
    before, last = ends
    factor = last / before if before else 0.0
    if factor <= 0:
        return []
    more = [float(f"{last * factor**power:.3g}") for power in (1, 2)]
    if isinstance(last, int):
        return [value for value in dict.fromkeys(map(round, more)) if value >= 1 and value != last]
    return more


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _flat(row: Row) -> dict[str, Any]:
    """Return a row with each metric in columns `NAME`, `NAME_std`, `NAME_low`, `NAME_high`."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            low, high = value["ci95"] or (None, None)
            spread = {f"{name}_std": value["std"]} if "std" in value else {}
            flat |= {name: value.get("mean", value.get("value")), **spread, f"{name}_low": low, f"{name}_high": high}
        else:
            flat[name] = value
    return flat


def _text(value: Any, name: str) -> str:
    if isinstance(value, Mapping) and "value" in value:
        return "{} [{}, {}]".format(*(signed(number) for number in (value["value"], *value["ci95"])))
    if isinstance(value, Mapping):
        spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
        interval = "" if value["ci95"] is None else " [{:.1f}, {:.1f}]".format(*(100 * end for end in value["ci95"]))
        return f"{100 * value['mean']:.1f}{spread}{interval}"
    if isinstance(value, float):
        return p_value(value) if name == "p" else f"{value:g}"
    return str(value)
