"""Coverage of intervals and error rates of tests with trained heads, over a grid of simulated datasets ("worlds").

`python benchmarks/bench_intervals.py --worlds 0/2` draws data sets of two encoders, trains heads on every split, and
counts how often an interval contains the expectation and how often one of two equally good encoders is called better.
Finished worlds are kept in `results/intervals/` and not drawn again. The numbers depend on seeds, not on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from trained_worlds import World, class_means, trained_runs  # noqa: E402

from actionvit.evaluation.comparison import ALPHA, compare_scores  # noqa: E402
from actionvit.evaluation.metrics import compute_metrics  # noqa: E402
from actionvit.evaluation.summary import summarize  # noqa: E402

METRICS = ("top1", "mean_class_accuracy", "log_loss")


def grid() -> list[World]:
    """Return the worlds; heads and correlations are balanced against each of the other factors (a fraction of 2⁷)."""
    worlds = []
    cells = product((0.6, 0.3, 0.97, 0.85), (80, 200), (10, 25), ("even", "skewed"))
    for number, (accuracy, sources, classes, sizes) in enumerate(cells):
        head, correlation = ("ridge", "centroid")[_mixed(number, 0b10011)], (0.7, 0.0)[_mixed(number, 0b01110)]
        common = {"sources": sources, "classes": classes, "sizes": sizes, "accuracy": accuracy}
        worlds.append(World(**common, correlation=correlation, head=head))
    same = {"classes": 10, "correlation": 0.7}
    worlds.append(World(sources=100, sizes="even", accuracy=0.6, head="linear", **same))
    for sources, gain in product((80, 200), (1.1, 1.25)):
        worlds.append(World(sources=sources, sizes="even", accuracy=0.6, head="ridge", gain=gain, **same))
    return worlds


def _mixed(number: int, factors: int) -> int:
    """Return the parity of a world's levels of some two-level factors, given as bits of its number."""
    return (number & factors).bit_count() % 2


def measure(world: World, tries: int) -> list[dict[str, object]]:
    """Return one row per protocol."""
    means = class_means(world)
    values_of: dict[str, list[list[float]]] = {}
    for seed in range(tries):
        for name, design, (a, b) in trained_runs(world, means, seed):
            values_of.setdefault(name, []).append(_one(design, a, b, [str(k) for k in range(world.classes)]))
    rows = []
    for name, values in values_of.items():
        table = np.array(values)
        row: dict[str, object] = {**asdict(world), "protocol": name, "tries": tries}
        for place, metric in enumerate(METRICS):
            mean, low, high, delta, d_low, d_high, better = table[:, 7 * place : 7 * place + 7].T
            truth = 0.0 if world.gain == 1 else delta.mean()
            row[metric] = {
                "mean": round(float(mean.mean()), 4),
                "coverage": round(float(((low <= mean.mean()) & (mean.mean() <= high)).mean()), 4),
                "difference": round(float(truth), 4),
                "difference_coverage": round(float(((d_low <= truth) & (truth <= d_high)).mean()), 4),
                "called_better": round(float(better.mean()), 4),
            }
        row["any_class_called"] = round(float(table[:, -1].mean()), 4)
        rows.append(row)
    return rows


def _one(design, a, b, names) -> list[float]:
    splits = [
        compute_metrics(design.true[design.split == j], a[design.split == j]) for j in range(len(design.split_names))
    ]
    summary = summarize(splits, design, scores=a)
    comparison = compare_scores(design, a, b, names)
    values = []
    for metric in METRICS:
        delta = comparison["delta"][metric]
        low, high = delta["ci95"]
        better = delta["p"] < ALPHA and (low > 0 or high < 0)
        values += [summary[metric]["mean"], *summary[metric]["ci95"], delta["value"], low, high, better]
    return [*values, bool(comparison["classes"]["shown"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=300)
    parser.add_argument("--worlds", default="0/1", help="i/n: every n-th world from the i-th")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "intervals")
    options = parser.parse_args()
    part, parts = map(int, options.worlds.split("/"))
    options.output.mkdir(parents=True, exist_ok=True)
    for number, world in enumerate(grid()):
        file = options.output / f"{number:02}.json"
        if number % parts != part or file.is_file():
            continue
        rows = measure(world, options.tries if world.head != "linear" else options.tries // 3)
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(world, *(f"{row['protocol']}: {row['top1']}" for row in rows), sep="\n  ", flush=True)
    every = sorted(options.output.glob("[0-9][0-9].json"))
    rows = [row for file in every for row in json.loads(file.read_text(encoding="utf-8"))]
    lines = ",\n".join(" " + json.dumps(row, ensure_ascii=False) for row in rows)
    options.output.with_suffix(".json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
