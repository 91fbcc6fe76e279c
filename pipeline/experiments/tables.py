"""An experiment's table as JSON, CSV and Markdown, and its curves as a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actionvit.pipeline.reporting.figures import RC
from actionvit.pipeline.reporting.text import p_value, signed

Row = Mapping[str, Any]


def write_table(
    folder: Path,
    stem: str,
    rows: Sequence[Row],
    *,
    caption: str,
    about: Mapping[str, Any],
    findings: Sequence[str] = (),
) -> list[Path]:
    """Write `STEM.json` (numbers in full, and what made them), `STEM.csv` and `STEM.md`; return the files.

    `findings` say in words what the rows show.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{stem}{suffix}" for suffix in (".json", ".csv", ".md")]
    value = {
        "caption": caption,
        "about": dict(about),
        "rows": [dict(row) for row in rows],
        "findings": list(findings),
    }
    files[0].write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with files[1].open("w", encoding="utf-8", newline="") as stream:
        flat = [_flat(row) for row in rows]
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in flat for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    listed = "".join(f"\n- {line}" for line in findings)
    files[2].write_text(f"{caption}\n\n{markdown(rows)}\n{listed and listed + chr(10)}", encoding="utf-8")
    return files


def markdown(rows: Sequence[Row]) -> str:
    """Return a Markdown table, shares in percent.

    A metric shows as `mean ± deviation between splits [95 % interval]`, a difference as `+1.2 [−0.3, +2.7]` in points.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    measured = {name for row in rows for name, value in row.items() if isinstance(value, Mapping)}
    heading = "| " + " | ".join(name.replace("_", " ") for name in names) + " |"
    rule = "|" + "|".join("--:" if name in measured else "---" for name in names) + "|"
    body = ["| " + " | ".join(_cell(row.get(name, ""), name) for name in names) + " |" for row in rows]
    return "\n".join([heading, rule, *body])


def curves_figure(
    rows: Sequence[Row], path: Path, *, x: str, y: str, series: str, names: tuple[str, str], log: bool = True
) -> Path:
    """Draw a metric `y` of the rows against their column `x`, a line a value of `series`, with 95 % intervals.

    `names` are those of the axes. On a logarithmic axis series stand a little apart, so that intervals at one place can
    be told from each other.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(RC):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        found = list(dict.fromkeys(row[series] for row in rows))
        for number, (marker, name) in enumerate(zip("osD^v<>P*X" * 10, found, strict=False)):
            line = sorted(((row[x], row[y]) for row in rows if row[series] == name), key=lambda point: point[0])
            means = [100 * value["mean"] for _, value in line]
            below = [100 * (value["mean"] - value["ci95"][0]) for _, value in line]
            above = [100 * (value["ci95"][1] - value["mean"]) for _, value in line]
            apart = 1.012 ** (number - (len(found) - 1) / 2) if log else 1.0
            at = [place * apart for place, _ in line]
            error = [[max(0.0, v) for v in below], [max(0.0, v) for v in above]]
            axes.errorbar(at, means, error, marker=marker, markersize=4, capsize=2, linewidth=1, label=str(name))
        if log:
            axes.set_xscale("log")
            ticks = sorted({row[x] for row in rows})
            axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
            axes.minorticks_off()
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=130)
    return path


def cost_figure(rows: Sequence[Row], path: Path, *, x: str, y: str) -> Path:
    """Draw a metric `y` against a cost `x`, a colour a `series`, with 95 % intervals; `setting` is written at its cost.

    Series stand a little apart, so that intervals at one cost can be told from each other.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    series = list(dict.fromkeys(row["series"] for row in rows))
    with rc_context(RC):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for number, (marker, name) in enumerate(zip("osD^v<>P*X" * 10, series, strict=False)):
            own = [row for row in rows if row["series"] == name]
            apart = 1.02 ** (number - (len(series) - 1) / 2)
            ends = [[100 * abs(row[y]["ci95"][side] - row[y]["mean"]) for row in own] for side in (0, 1)]
            at, means = [row[x] * apart for row in own], [100 * row[y]["mean"] for row in own]
            axes.errorbar(
                at, means, ends, marker=marker, markersize=4, capsize=2, linewidth=1, linestyle="", label=name
            )
        axes.set_xscale("log")
        axes.minorticks_off()
        costs = {row["setting"]: row[x] for row in rows}
        axes.set_xticks(sorted(set(costs.values())), [f"{cost:g}" for cost in sorted(set(costs.values()))], rotation=60)
        for setting, cost in costs.items():
            place = (cost, 0.01)
            axes.annotate(
                setting, place, xycoords=axes.get_xaxis_transform(), rotation=90, fontsize=6, color="0.4", ha="right"
            )
        axes.set_xlabel(f"{x} a video")
        axes.set_ylabel(f"{y.replace('top1', 'top-1').replace('_', ' ')}, %")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=130)
    return path


def histograms_figure(
    histograms: Mapping[str, Sequence[Sequence[int]]], path: Path, *, class_names: Sequence[str]
) -> Path:
    """Draw how many clips of each class every shard holds: a panel a way of sharding, a row a shard, one scale."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    most = max(count for rows in histograms.values() for row in rows for count in row)
    with rc_context(RC):
        figure = Figure(figsize=(max(5.2, 0.32 * len(class_names) + 1), 6.0), layout="constrained")
        panels = figure.subplots(len(histograms), sharex=True)
        for axes, (how, rows) in zip(panels, histograms.items(), strict=True):
            axes.imshow(rows, cmap="Blues", vmin=0, vmax=most, aspect="auto")
            for shard, row in enumerate(rows):
                for place, count in enumerate(row):
                    shade = "white" if count > 0.6 * most else "black"
                    axes.text(place, shard, str(count), ha="center", va="center", fontsize=6, color=shade)
            axes.set_yticks(range(len(rows)), [str(shard + 1) for shard in range(len(rows))])
            axes.set_ylabel("shard")
            axes.set_title(how)
        panels[-1].set_xticks(range(len(class_names)), class_names, rotation=90)
        figure.savefig(path, dpi=130)
    return path


def chosen_in_words(search: Mapping[str, Any]) -> str:
    """Return `C 0.01` or `epochs 30, queries 4`; nothing where no setting could be judged."""
    chosen = search["chosen"]
    named = chosen if isinstance(chosen, Mapping) else {search["parameter"]: chosen}
    return ", ".join(f"{name} {_plain(value)}" for name, value in named.items() if value is not None)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _flat(row: Row) -> dict[str, Any]:
    """Spread a metric over `NAME`, `NAME_std`, `NAME_low`, `NAME_high`."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            low, high = value["ci95"] or (None, None)
            spread = {f"{name}_std": value["std"]} if "std" in value else {}
            flat |= {name: value.get("mean", value.get("value")), **spread, f"{name}_low": low, f"{name}_high": high}
        else:
            flat[name] = value
    return flat


def _cell(value: Any, name: str) -> str:
    if isinstance(value, Mapping) and "value" in value:
        return "{} [{}, {}]".format(*(signed(share) for share in (value["value"], *value["ci95"])))
    if isinstance(value, Mapping):
        spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
        interval = "" if value["ci95"] is None else " [{:.1f}, {:.1f}]".format(*(100 * end for end in value["ci95"]))
        return f"{100 * value['mean']:.1f}{spread}{interval}"
    if isinstance(value, float):
        return p_value(value) if name == "p" else f"{value:g}"
    return str(value)
