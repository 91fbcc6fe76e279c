"""The report's figures: SVG and PNG for a paper, SVG in a page's colours; the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, BACK = "#1b1f24", "#5c6670", "#d5dade", "#fefefe"
PALETTE = ("#2f6db3", "#c4570c", "#2c8060", "#8457a6", "#8f7a12", "#4a5560")
"""A run's colour, by its place; they differ in lightness too, and markers differ."""
MARKERS = "osD^vP"

RC: Any = {
    "svg.hashsalt": "actionvit",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}

Draw = Callable[["Figure"], None]
"""Puts axes and marks on an empty figure."""


def confusion_figure(cells: Sequence[Sequence[int]], class_names: Sequence[str], order: Sequence[int]) -> Figure:
    """Draw a confusion matrix (C, C) as shares of each true class, classes in `order`."""
    matrix = np.asarray(cells, dtype=np.float64)[np.ix_(order, order)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [_plain(class_names[place]) for place in order]
    side = max(3.2, 1.6 + 0.22 * len(names))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for row, column in zip(*np.nonzero(matrix), strict=True) if len(names) <= 25 else ():
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", color=colour, size=6)
        figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class").outline.set_visible(False)

    return _figure((side + 0.6, side), draw)


def recall_figure(recalls: Mapping[str, Sequence[float | None]], class_names: Sequence[str]) -> Figure:
    """Draw each class's recall, a mark a run joined by a line, classes by the first run's."""
    first = [value if value is not None else -1.0 for value in next(iter(recalls.values()))]
    order = sorted(range(len(class_names)), key=lambda number: (first[number], class_names[number]))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, number in enumerate(order):
            known = [100 * value for values in recalls.values() if (value := values[number]) is not None]
            if len(known) > 1:
                axes.plot([min(known), max(known)], [place, place], color=LINE, linewidth=1.5, zorder=1)
        for run, (name, values) in enumerate(recalls.items()):
            marks = [(100 * value, place) for place, n in enumerate(order) if (value := values[n]) is not None]
            axes.plot([x for x, _ in marks], [y for _, y in marks], linestyle="", label=name, **_style(run))
        axes.set_yticks(range(len(order)), [_plain(class_names[number]) for number in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        _percent_axis(axes, "x", "recall, %")
        figure.legend(loc="outside upper left", ncols=1)

    return _figure((4.2, 0.9 + 0.15 * len(recalls) + 0.17 * len(order)), draw)


def reliability_figure(bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw accuracy against confidence, a line a run, the area of a mark as the bin's clips."""

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

    return _figure((3.4, 3.3 + 0.15 * len(bins)), draw)


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

    return _figure((3.4, 3.3 + 0.15 * len(curves)), draw)


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

    return _figure((4.2, 0.9 + 0.15 * len(names) + 0.27 * len(rows)), draw)


def lines_figure(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x_name: str, y_name: str, log: bool = False
) -> Figure:
    """Draw curves (x, y) by name: what a search scored, a learning curve, a sweep."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for run, (name, (x, y)) in enumerate(lines.items()):
            axes.plot(x, y, label=name, linewidth=1, **_style(run, 3))
        if log:
            axes.set_xscale("log")
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left")

    return _figure((3.4, 2.6 + 0.15 * len(lines)), draw)


def projection_figure(projection: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Draw the embeddings in two dimensions, errors marked, a few clips as thumbnails (h, w, 3) by id."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    points = projection["points"]
    place = np.array([(point["x"], point["y"]) for point in points])
    missed = np.array([point["right"] < 0.5 for point in points])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.scatter(
            place[~missed, 0], place[~missed, 1], 9, color=SOFT, alpha=0.55, linewidths=0, label="right in most results"
        )
        axes.scatter(
            place[missed, 0],
            place[missed, 1],
            16,
            color=PALETTE[1],
            marker="x",
            linewidths=0.9,
            label="wrong in most results",
        )
        for point, at in zip(points, place, strict=True):
            if point["id"] in pictures:
                image = OffsetImage(pictures[point["id"]], zoom=0.5)
                box = {"edgecolor": SOFT, "linewidth": 0.5}
                axes.add_artist(AnnotationBbox(image, at, frameon=True, pad=0.1, bboxprops=box, zorder=4))
                text: dict[str, Any] = {
                    "textcoords": "offset points",
                    "ha": "center",
                    "va": "top",
                    "size": 6.5,
                    "zorder": 5,
                }
                plate = {"facecolor": BACK, "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
                axes.annotate(_plain(point["true"]), at, (0, -14), bbox=plate, **text)
        explained = [f" ({100 * share:.0f} % of the variance)" for share in projection["explained"]] or ["", ""]
        axes.set_xlabel(f"{projection['method'].upper()} 1{explained[0]}")
        axes.set_ylabel(f"{projection['method'].upper()} 2{explained[-1]}")
        axes.set_xticks([])
        axes.set_yticks([])
        figure.legend(loc="outside upper left", ncols=2)

    return _figure((7.0, 5.6), draw)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `PATH.svg` and `PATH.png`; return both."""
    from matplotlib import rc_context

    files = [path.with_name(path.name + suffix) for suffix in (".svg", ".png")]
    with rc_context(RC):
        figure.savefig(files[0], metadata={"Date": None})
        figure.savefig(files[1], dpi=150)
    return files


def inline(figure: Figure, name: str, label: str) -> str:
    """Return SVG to stand in a page: its text is text, its colours are the page's, its ids are its own."""
    from html import escape

    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL
    )
    svg = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1]) * 4 / 3  # type: ignore[index]
    for colour, value in {INK: "currentColor", SOFT: "var(--soft)", LINE: "var(--line)", BACK: "var(--back)"}.items():
        svg = svg.replace(colour, value)
    for place, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--run{place})")
    head = f'<svg class="chart" role="img" aria-label="{escape(label)}" style="width:{width:.0f}px"'
    return re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf"{head} \1>", svg, count=1)


def _figure(size: tuple[float, float], draw: Draw) -> Figure:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
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
