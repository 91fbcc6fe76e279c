"""The report's figures: SVG, PDF and PNG for a paper, SVG in a page's colours; the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit.pipeline.reporting.text import PALETTE_SIZE, share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from actionvit.pipeline.reporting.curves import Chart

INK, SOFT, LINE, BACK = "#1b1f24", "#5c6670", "#d5dade", "#fefefe"
PALETTE = ("#2f6db3", "#c4570c", "#2c8060", "#8457a6", "#8f7a12", "#4a5560")
"""A run's colour, by its place; they differ in lightness too, and markers differ."""
MARKERS = "osD^vP"
assert len(PALETTE) == len(MARKERS) == PALETTE_SIZE

RC: Any = {
    "svg.hashsalt": "actionvit",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "text.color": INK,
    "figure.facecolor": BACK,
    "axes.facecolor": "none",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}

Draw = Callable[["Figure"], None]
"""Puts axes and marks on an empty figure."""


def confusion_figure(cells: Sequence[Sequence[int]], class_names: Sequence[str], order: Sequence[int]) -> Figure:
    """Draw a confusion matrix (C, C) of counts as shares of each true class, in percent, classes in `order`."""
    matrix = np.asarray(cells, dtype=np.float64)[np.ix_(order, order)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [_plain(class_names[place]) for place in order]
    side = max(3.2, 1.6 + 0.22 * len(names))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(100 * shares, vmin=0, vmax=100, cmap="Blues", interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for row, column in zip(*np.nonzero(matrix), strict=True) if len(names) <= 25 else ():
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, share_text(shares[row, column]), ha="center", va="center", color=colour, size=6)
        figure.colorbar(image, ax=axes, shrink=0.7, label="% of the true class").outline.set_visible(False)

    return _figure((side + 0.6, side), draw)


def classes_figure(rows: Mapping[str, Sequence[Mapping[str, Any]]], class_names: Sequence[str]) -> Figure:
    """Draw each class's recall as a bar with its 95 % interval, a bar a run, the first run's best class on top.

    `rows` are by run, with `recall` and `recall_ci95` (None where a class has no results).
    """
    first = [-1.0 if row["recall"] is None else row["recall"] for row in next(iter(rows.values()))]
    order = sorted(range(len(class_names)), key=lambda number: (-first[number], class_names[number]))
    height = 0.8 / len(rows)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for run, (name, own) in enumerate(rows.items()):
            known = [(place, own[n]) for place, n in enumerate(order) if own[n]["recall"] is not None]
            at = np.array([place - 0.4 + height * (run + 0.5) for place, _ in known])
            recall = np.array([100 * row["recall"] for _, row in known])
            ends = 100 * np.array([row["recall_ci95"] for _, row in known]).T
            style = _style(run, 2.4)
            axes.barh(at, recall, height * 0.88, color=style["color"], alpha=0.3, linewidth=0)
            error = np.maximum([recall - ends[0], ends[1] - recall], 0)
            axes.errorbar(recall, at, xerr=error, linestyle="", elinewidth=0.9, label=name, **style)
        axes.set_yticks(range(len(order)), [_plain(class_names[number]) for number in order])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(order) - 0.4, -0.6)
        _percent_axis(axes, "x", "recall, %")
        axes.set_xlim(0, 102)
        figure.legend(loc="outside upper left")

    return _figure((5.4, 0.6 + 0.16 * len(rows) + max(0.17, 0.05 + 0.095 * len(rows)) * len(order)), draw)


def reliability_figure(bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw accuracy against confidence, a line a run, the area of a mark as the bin's results."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
        for run, (name, rows) in enumerate(bins.items()):
            full = [row for row in rows if row["count"]]
            x, y = ([100 * row[key] for row in full] for key in ("confidence", "accuracy"))
            most = max(row["count"] for row in full)
            area = [4 + 60 * row["count"] / most for row in full]
            style = _style(run)
            axes.plot(x, y, color=style["color"], linewidth=1, zorder=2)
            axes.scatter(x, y, area, color=style["color"], marker=style["marker"], label=name, zorder=3, linewidths=0)
        _percent_axis(axes, "x", "confidence, %")
        _percent_axis(axes, "y", "accuracy, %")
        figure.legend(loc="outside upper left")

    return _figure((3.4, 3.3 + 0.16 * len(bins)), draw)


def cmc_figure(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Draw top-k accuracy against k (the cumulative match curve), up to 20 classes."""
    from matplotlib.ticker import MaxNLocator

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for run, (name, values) in enumerate(curves.items()):
            shown = values[:20]
            axes.plot(range(1, len(shown) + 1), [100 * v for v in shown], label=name, linewidth=1, **_style(run, 3))
        axes.set_xlabel("k")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("top-k accuracy, %")
        axes.grid(axis="y")
        figure.legend(loc="outside upper left")

    return _figure((3.4, 3.3 + 0.16 * len(curves)), draw)


def metadata_figure(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Draw top-1 with its interval for each value that the clips' names tell, a mark a run."""
    labels = [f"{row['field']}: {row['value']}" for row in rows]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for run, name in enumerate(names):
            mid = np.array([100 * row["runs"][run]["accuracy"] for row in rows])
            low, high = (np.array([100 * row["runs"][run]["ci95"][end] for row in rows]) for end in (0, 1))
            place = np.arange(len(rows)) + 0.2 * (run - (len(names) - 1) / 2)
            error = np.maximum([mid - low, high - mid], 0)
            axes.errorbar(mid, place, xerr=error, linestyle="", elinewidth=1, label=name, **_style(run, 3.5))
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _percent_axis(axes, "x", "top-1, %")
        figure.legend(loc="outside upper left")

    return _figure((4.2, 0.9 + 0.16 * len(names) + 0.27 * len(rows)), draw)


def cost_figure(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw top-1 with its interval against the multiply-adds of a video, a mark a run; `runs` have all a `gmac`."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        costs = sorted({float(run["cost"]["gmac"]) for run in runs})
        for number, run in enumerate(runs):
            mean, ends = 100 * run["summary"]["top1"]["mean"], run["summary"]["top1"]["ci95"]
            twins = [place for place, one in enumerate(runs) if one["cost"]["gmac"] == run["cost"]["gmac"]]
            # Runs of one cost stand beside each other.
            at = run["cost"]["gmac"] * 1.06 ** (2 * twins.index(number) - len(twins) + 1)
            error = [[max(mean - 100 * ends[0], 0)], [max(100 * ends[1] - mean, 0)]]
            axes.errorbar([at], [mean], yerr=error, linestyle="", elinewidth=1, label=run["name"], **_style(number))
        axes.set_xlim(costs[0] / 1.6, costs[-1] * 1.6)
        axes.set_xticks(costs)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.3g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("GMAC a video")
        axes.set_ylabel("top-1, %")
        axes.grid(axis="y")
        figure.legend(loc="outside upper left")

    return _figure((3.4, 2.6 + 0.16 * len(runs)), draw)


def lines_figure(chart: Chart) -> Figure:
    """Draw curves: what a search scored, a learning curve, a sweep; the stretch between splits as a band."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, line in enumerate(chart.lines):
            style = _style(number, 3) if len(line.x) <= 20 else {"color": PALETTE[number % len(PALETTE)]}
            axes.plot(line.x, line.y, label=line.name, linewidth=1, **style)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=style["color"], alpha=0.18, linewidth=0)
        if chart.log:
            axes.set_xscale("log")
        axes.set_xlabel(chart.x_name)
        axes.set_ylabel(chart.y_name)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left")

    return _figure((3.4, 2.6 + 0.16 * len(chart.lines)), draw)


def projection_figure(projection: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Draw the embeddings in two dimensions, errors marked, a few clips as thumbnails (h, w, 3) by id."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    points = projection["points"]
    place = np.array([(point["x"], point["y"]) for point in points])
    missed = np.array([point["right"] < 0.5 for point in points])
    text: Any = {"textcoords": "offset points", "ha": "center", "va": "top", "size": 6.5, "zorder": 5}
    plate = {"facecolor": BACK, "edgecolor": "none", "alpha": 0.8, "pad": 0.6}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dots: Any = {"s": 9, "color": SOFT, "alpha": 0.55, "linewidths": 0}
        crosses: Any = {"s": 16, "color": PALETTE[1], "marker": "x", "linewidths": 0.9}
        for which, label, marks in (
            (~missed, "right in most results", dots),
            (missed, "wrong in most results", crosses),
        ):
            axes.scatter(place[which, 0], place[which, 1], label=label, **marks)
        for point, at in zip(points, place, strict=True):
            if point["id"] in pictures:
                image = OffsetImage(pictures[point["id"]], zoom=0.5)
                box = {"edgecolor": SOFT, "linewidth": 0.5}
                axes.add_artist(AnnotationBbox(image, at, frameon=True, pad=0.1, bboxprops=box, zorder=4))
                axes.annotate(_plain(point["true"]), at, (0, -14), bbox=plate, **text)
        explained = [f" ({100 * share:.0f} % of the variance)" for share in projection["explained"]] or ["", ""]
        axes.set_xlabel(f"{projection['method'].upper()} 1{explained[0]}")
        axes.set_ylabel(f"{projection['method'].upper()} 2{explained[-1]}")
        axes.set_xticks([])
        axes.set_yticks([])
        figure.legend(loc="outside upper left", ncols=2)

    return _figure((7.0, 5.6), draw)


def files(figure: Figure, name: str) -> dict[str, bytes]:
    """Return a figure as files by suffix: `.svg`, `.pdf` and `.png`; `name` keeps ids apart where many share a page."""
    from matplotlib import rc_context

    made = {}
    with rc_context({**RC, "svg.hashsalt": name}):
        for suffix, options in (
            (".svg", {"metadata": {"Date": None}}),
            (".pdf", {"metadata": {"CreationDate": None}}),
            (".png", {"dpi": 200}),
        ):
            file = io.BytesIO()
            figure.savefig(file, format=suffix[1:], **options)
            made[suffix] = file.getvalue()
    return made


def inline(svg: bytes, label: str) -> str:
    """Return an SVG file as an element of a page: its text is text, its colours are the page's."""
    from html import escape

    text = svg.decode()
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    text = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    width = float(re.search(r'width="([\d.]+)pt"', text)[1]) * 4 / 3  # type: ignore[index]
    for colour, value in {INK: "currentColor", SOFT: "var(--soft)", LINE: "var(--line)", BACK: "var(--back)"}.items():
        text = text.replace(colour, value)
    for place, colour in enumerate(PALETTE):
        text = text.replace(colour, f"var(--run{place})")
    head = f'<svg class="chart" role="img" aria-label="{escape(label)}" style="width:{width:.0f}px"'
    return re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf"{head} \1>", text, count=1)


def _figure(size: tuple[float, float], draw: Draw) -> Figure:
    """Return a drawn figure, laid out once and for all."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return figure


def _style(run: int, size: float = 4.5) -> dict[str, Any]:
    return {"color": PALETTE[run % len(PALETTE)], "marker": MARKERS[run % len(MARKERS)], "markersize": size}


def _percent_axis(axes: Axes, which: str, label: str) -> None:
    axes.set(**{f"{which}lim": (-2, 102), f"{which}label": label})
    axes.set(**{f"{which}ticks": range(0, 101, 20)})
    axes.grid(axis=which)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _plain(name: str) -> str:
    return name.replace("_", " ")
