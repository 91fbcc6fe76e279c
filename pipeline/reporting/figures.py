"""The report's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit.pipeline.reporting.drawing import BACK, PALETTE, SOFT, class_text, drawn, plain_text, run_style
from actionvit.pipeline.reporting.model import ClassRow, MetadataRow, ProjectedClips, ReliabilityBin, Summary
from actionvit.pipeline.reporting.text import fraction_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    from actionvit.pipeline.reporting.curves import Chart

MOST_CLASSES = 120
"""Classes that a figure with one row per class shows: of more, half with the best and half with the worst recall."""

MOST_INCHES = 20.0
"""Largest side of a confusion figure, which bounds its memory: 4,000 × 4,000 pixels."""


NUMBERED = 25
"""Classes up to which the cells of a confusion figure have numbers."""

MOST_POINTS = 2000
"""Marks of a projection that SVG and PDF hold one by one; more are pixels, text and axes remain vectors."""


def confusion_figure(cells: Sequence[Sequence[int]], class_names: Sequence[str], order: Sequence[int]) -> Figure:
    """Draw a confusion matrix (C, C) of counts as percent of each true class, classes in `order`."""
    matrix = np.asarray(cells, dtype=np.float64)[np.ix_(order, order)]
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    n = len(order)
    names = [class_text(class_names[number]) for number in order]
    margin = 0.8 + 0.075 * min(30, max(map(len, names)))
    step = min(0.22 if n <= NUMBERED else 0.14, (MOST_INCHES - margin - 1) / n)
    side = max(1.4, step * n)
    width, height = margin + side + 1.1, margin + side + 0.3

    def draw(figure: Figure) -> None:
        # Fixed places: the constrained layout would measure every label several times.
        axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
        image = axes.imshow(100 * fractions, vmin=0, vmax=100, cmap="Blues", interpolation="none", aspect="auto")
        axes.set_axis_off()
        label: Any = {"size": min(8.0, 58 * side / n), "transform": axes.transData}
        for place, name in enumerate(names):
            axes.text(-0.7, place, name, ha="right", va="center", **label)
            axes.text(place, n - 0.3, name, ha="center", va="top", rotation=90, **label)
        figure.text(0.12 / width, (margin + side / 2) / height, "True class", rotation=90, va="center")
        figure.text((margin + side / 2) / width, 0.1 / height, "Predicted class", ha="center", va="bottom")
        for row, column in zip(*np.nonzero(matrix), strict=True) if n <= NUMBERED else ():
            color = "white" if fractions[row, column] > 0.5 else "black"
            text = fraction_text(fractions[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color, size=6)
        bar = figure.add_axes(
            ((margin + side + 0.2) / width, (margin + 0.15 * side) / height, 0.12 / width, 0.7 * side / height)
        )
        figure.colorbar(image, cax=bar, label="% of the true class").outline.set_visible(False)

    return drawn((width, height), draw, layout=None)


def classes_figure(rows: Mapping[str, Sequence[ClassRow]], class_names: Sequence[str]) -> Figure:
    """Draw each class's recall as a bar with its interval, one bar per run, the first run's best class on top.

    `rows` are by run.
    """
    first = [-1.0 if row.recall is None else row.recall for row in next(iter(rows.values()))]
    order = sorted(range(len(class_names)), key=lambda number: (-first[number], class_names[number]))
    if len(order) > MOST_CLASSES:
        order = [*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]]
    height = 0.8 / len(rows)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for run, (name, values) in enumerate(rows.items()):
            style = run_style(run, 2.4)
            marks = [(place, values[number]) for place, number in enumerate(order) if values[number].recall is not None]
            y = np.array([place - 0.4 + height * (run + 0.5) for place, _ in marks])
            recall = np.array([100 * (row.recall or 0.0) for _, row in marks])
            ends = np.array([row.recall_ci95 for _, row in marks]).reshape(-1, 2)
            # One collection: bars of their own take longer to make and to draw.
            axes.add_collection(_bars(y, recall, height * 0.88, color=style["color"], alpha=0.3, linewidth=0))
            axes.errorbar(
                recall, y, xerr=_errors(recall, ends), linestyle="", elinewidth=0.9, label=plain_text(name), **style
            )
        axes.set_yticks(range(len(order)), [class_text(class_names[number]) for number in order])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(order) - 0.4, -0.6)
        _percent_axis(axes, "x", "Recall, %")
        axes.set_xlim(0, 102)
        figure.legend(loc="outside upper left")

    return drawn((5.4, 0.6 + 0.16 * len(rows) + max(0.17, 0.05 + 0.095 * len(rows)) * len(order)), draw)


def reliability_figure(bins: Mapping[str, Sequence[ReliabilityBin]]) -> Figure:
    """Draw accuracy against confidence, one line per run, the area of a mark as the bin's number of results."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
        for run, (name, rows) in enumerate(bins.items()):
            full = [row for row in rows if row.confidence is not None and row.accuracy is not None]
            x, y = [100 * (row.confidence or 0) for row in full], [100 * (row.accuracy or 0) for row in full]
            most = max(row.count for row in full)
            area = [4 + 60 * row.count / most for row in full]
            style = run_style(run)
            axes.plot(x, y, color=style["color"], linewidth=1, zorder=2)
            axes.scatter(
                x, y, area, color=style["color"], marker=style["marker"], label=plain_text(name), zorder=3, linewidths=0
            )
        _percent_axis(axes, "x", "Confidence, %")
        _percent_axis(axes, "y", "Accuracy, %")
        figure.legend(loc="outside upper left")

    return drawn((3.4, 3.3 + 0.16 * len(bins)), draw)


def cmc_figure(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Draw top-k accuracy against k (the cumulative match curve), up to k = 20."""
    from matplotlib.ticker import MaxNLocator

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for run, (name, values) in enumerate(curves.items()):
            y = [100 * value for value in values[:20]]
            axes.plot(range(1, len(y) + 1), y, label=plain_text(name), linewidth=1, **run_style(run, 3))
        axes.set_xlabel("k")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("Top-k accuracy, %")
        axes.grid(axis="y")
        figure.legend(loc="outside upper left")

    return drawn((3.4, 3.3 + 0.16 * len(curves)), draw)


def metadata_figure(rows: Sequence[MetadataRow], names: Sequence[str]) -> Figure:
    """Draw top-1 with its interval for each value in the clips' names, one mark per run."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for run, name in enumerate(names):
            middle = np.array([100 * row.runs[run].accuracy for row in rows])
            ends = np.array([row.runs[run].ci95 for row in rows])
            y = np.arange(len(rows)) + 0.2 * (run - (len(names) - 1) / 2)
            style = run_style(run, 3.5)
            axes.errorbar(
                middle, y, xerr=_errors(middle, ends), linestyle="", elinewidth=1, label=plain_text(name), **style
            )
        axes.set_yticks(range(len(rows)), [plain_text(f"{row.field}: {row.value}") for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _percent_axis(axes, "x", "Top-1, %")
        figure.legend(loc="outside upper left")

    return drawn((4.2, 0.9 + 0.16 * len(names) + 0.27 * len(rows)), draw)


def cost_figure(
    points: Mapping[str, Sequence[tuple[float, Summary]]],
    *,
    x_name: str = "GMAC per video",
    y_name: str = "Top-1, %",
    settings: Mapping[str, float] | None = None,
) -> Figure:
    """Draw a metric with its interval against a cost on a logarithmic axis, one color per series.

    Parameters
    ----------
    points : mapping
        Cost and metric of each point, by the name of its series. Points of one cost are drawn beside each other.
    x_name, y_name : str
        Titles of the axes.
    settings : mapping, optional
        Costs by name, written along the axis.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    costs = sorted({cost for series in points.values() for cost, _ in series})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_xlim(costs[0] / 1.6, costs[-1] * 1.6)  # before the points: automatic limits may fail for one cost
        for number, (name, series) in enumerate(points.items()):
            x = np.array([cost for cost, _ in series]) * 1.025 ** (2 * number - len(points) + 1)
            y = np.array([100 * value.mean for _, value in series])
            ends = np.array([value.ci95 for _, value in series])
            style = run_style(number)
            axes.errorbar(x, y, yerr=_errors(y, ends), linestyle="", elinewidth=1, label=plain_text(name), **style)
        axes.set_xticks(costs)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.3g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        for setting, cost in (settings or {}).items():
            place: Any = {"xycoords": axes.get_xaxis_transform(), "rotation": 90, "ha": "right"}
            axes.annotate(plain_text(setting), (cost, 0.01), fontsize=6, color=SOFT, **place)
        axes.tick_params(axis="x", rotation=60 if len(costs) > 4 else 0)
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=max(1, min(len(points), 2)))

    return drawn((6.4, 4.0) if settings else (3.4, 2.6 + 0.16 * len(points)), draw)


def lines_figure(chart: Chart) -> Figure:
    """Draw the curves of a search or of training; the range between splits as a band."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, line in enumerate(chart.lines):
            style = run_style(number, 3) if len(line.x) <= 20 else {"color": PALETTE[number % len(PALETTE)]}
            axes.plot(line.x, line.y, label=plain_text(line.name), linewidth=1, **style)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=style["color"], alpha=0.18, linewidth=0)
        if chart.log:
            axes.set_xscale("log")
        axes.set_xlabel(plain_text(chart.x_name))
        axes.set_ylabel(plain_text(chart.y_name))
        axes.grid(axis="y")
        figure.legend(loc="outside upper left")

    return drawn((3.4, 2.6 + 0.16 * len(chart.lines)), draw)


def projection_figure(
    projection: ProjectedClips, class_order: Sequence[str], thumbnails: Mapping[str, NDArray[np.uint8]]
) -> Figure:
    """Draw the embeddings in two dimensions, colored by class, errors as crosses.

    Each class is named at one of its clips where there is room, with a thumbnail (h, w, 3) where there is one. In
    `class_order` neighbors get similar colors.
    """
    from matplotlib.lines import Line2D
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    points = projection.points
    xy = np.array([(point.x, point.y) for point in points])
    missed = np.array([point.correct < 0.5 for point in points])
    colors = dict(zip(class_order, _hues(len(class_order)), strict=True))
    color = np.array([colors[point.true] for point in points])
    text: Any = {"textcoords": "offset points", "ha": "center", "va": "top", "size": 6.5, "zorder": 5}
    plate = {"facecolor": BACK, "edgecolor": "none", "alpha": 0.8, "pad": 0.6}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        x, y = xy.T
        pixels: Any = {"rasterized": len(points) > MOST_POINTS}
        axes.scatter(x[~missed], y[~missed], s=9, color=color[~missed], alpha=0.7, linewidths=0, **pixels)
        axes.scatter(x[missed], y[missed], s=16, color=color[missed], marker="x", linewidths=0.9, **pixels)
        for point, place in zip(points, xy, strict=True):
            if point.id in thumbnails:
                image = OffsetImage(thumbnails[point.id], zoom=0.5)
                box = {"edgecolor": SOFT, "linewidth": 0.5}
                axes.add_artist(AnnotationBbox(image, place, frameon=True, pad=0.1, bboxprops=box, zorder=4))
            if point.id in projection.shown:
                offset = (0, -14) if point.id in thumbnails else (0, -3)
                axes.annotate(class_text(point.true), place, offset, bbox=plate, **text)
        explained = [f" ({100 * part:.0f} % of the variance)" for part in projection.explained] or ["", ""]
        axes.set_xlabel(f"{projection.method.upper()} 1{explained[0]}")
        axes.set_ylabel(f"{projection.method.upper()} 2{explained[-1]}")
        axes.set_xticks([])
        axes.set_yticks([])
        marks: Any = {"linestyle": "", "color": SOFT}
        correct = Line2D([], [], marker="o", markersize=3, label="correct in most results", **marks)
        wrong = Line2D([], [], marker="x", markersize=4, label="wrong in most results", **marks)
        figure.legend(handles=[correct, wrong], loc="outside upper left", ncols=2)

    return drawn((7.0, 5.6), draw)


def _bars(y: NDArray[np.float64], x: NDArray[np.float64], height: float, **style: Any) -> PolyCollection:
    """Return horizontal bars of lengths `x`, centered at `y`."""
    from matplotlib.collections import PolyCollection

    zero, low, high = np.zeros_like(x), y - height / 2, y + height / 2
    corners = np.stack([zero, low, x, low, x, high, zero, high], axis=-1)
    return PolyCollection(list(corners.reshape(-1, 4, 2)), **style)


def _errors(middle: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of error bars (2, N) for values in percent and intervals (N, 2) of fractions."""
    return np.maximum([middle - 100 * ends[:, 0], 100 * ends[:, 1] - middle], 0)


def _hues(n: int) -> list[tuple[float, float, float]]:
    """Return n colors around the color circle, each second one darker."""
    from colorsys import hls_to_rgb

    return [hls_to_rgb(number / n, (0.5, 0.36)[number % 2], 0.62) for number in range(n)]


def _percent_axis(axes: Axes, which: str, label: str) -> None:
    axes.set(**{f"{which}lim": (-2, 102), f"{which}label": label})
    axes.set(**{f"{which}ticks": range(0, 101, 20)})
    axes.grid(axis=which)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
