"""The report's figures, as SVG and PNG; the same numbers give the same SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RC: Any = {"svg.hashsalt": "actionvit", "font.family": "DejaVu Sans", "font.size": 8}


def confusion_figure(
    cells: Sequence[Sequence[int]], class_names: Sequence[str], order: Sequence[int], path: Path
) -> list[Path]:
    """Draw a confusion matrix (C, C) as shares of each true class, classes in `order`; return the files."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    matrix = np.asarray(cells, dtype=np.float64)[np.ix_(order, order)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [class_names[place].replace("_", " ") for place in order]
    side = max(3.2, 1.6 + 0.22 * len(names))
    with rc_context(RC):
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(names) <= 25:
            for row, column in zip(*np.nonzero(matrix), strict=True):
                colour = "white" if shares[row, column] > 0.5 else "black"
                text = f"{matrix[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, size=6)
        figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
        return _save(figure, path)


def recall_figure(recalls: Mapping[str, Sequence[float | None]], class_names: Sequence[str], path: Path) -> list[Path]:
    """Draw each class's recall, a dot a run, classes by the first run's; return the files."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    first = [value if value is not None else -1.0 for value in next(iter(recalls.values()))]
    order = sorted(range(len(class_names)), key=lambda number: (first[number], class_names[number]))
    with rc_context(RC):
        figure = Figure(figsize=(5.5, 1.1 + 0.19 * len(order)), layout="constrained")
        axes = figure.subplots()
        for marker, (name, values) in zip("osD^v<>P*X" * 10, recalls.items(), strict=False):
            known = [(100 * value, place) for place, n in enumerate(order) if (value := values[n]) is not None]
            axes.plot([x for x, _ in known], [y for _, y in known], marker, label=name, markersize=4, alpha=0.8)
        axes.set_yticks(range(len(order)), [class_names[number].replace("_", " ") for number in order])
        axes.set_xlim(-2, 102)
        axes.set_xlabel("recall, %")
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="best", frameon=False)
        return _save(figure, path)


def _save(figure: Figure, path: Path) -> list[Path]:
    files = [path.with_name(path.name + suffix) for suffix in (".svg", ".png")]
    options: list[dict[str, Any]] = [{"metadata": {"Date": None}}, {"dpi": 130}]
    for file, given in zip(files, options, strict=True):
        figure.savefig(file, **given)
    return files
