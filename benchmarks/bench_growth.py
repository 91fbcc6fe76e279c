"""Time and memory of each stage of a probe against videos, classes and width, with the fitted power.

    python benchmarks/bench_growth.py                     # some ten minutes
    python benchmarks/bench_growth.py --small             # tiny sizes, to check that it runs

One size at a time is varied, starting from 2,000 videos, 50 classes and width 384. Each measurement runs in its own
process with one thread; memory is the growth of its peak resident set. The power is the slope of a linear fit to the
logarithms over the upper half of the sizes, where constant costs are negligible. A measurement is skipped if the
previous one predicts more than `--limit` seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import machine
import numpy as np

HERE = Path(__file__).resolve().parent
BASE = {"videos": 2000, "classes": 50, "width": 384}
SIZES = {
    "videos": [100, 300, 1000, 3000, 10_000, 30_000, 100_000],
    "classes": [10, 30, 100, 300, 1000],
    "width": [192, 384, 768, 1408],
}
SMALL = {"videos": [60, 120], "classes": [3, 6], "width": [8, 16]}
STAGES = ("folds", "linear fit", "linear grid", "knn grid", "centroid grid", "mlp fit", "predict")


def embeddings(videos: int, classes: int, width: int):
    """Draw embeddings (videos, width), class numbers and sources of three clips each; every class has two sources."""
    rng = np.random.default_rng(0)
    source = np.arange(videos) // 3
    y = source % min(classes, max(2, videos // 6))
    means = rng.normal(size=(classes, width)).astype(np.float32)
    X = means[y] + 2 * rng.normal(size=(int(source.max()) + 1, width)).astype(np.float32)[source]
    return X + rng.normal(size=X.shape).astype(np.float32), y, source


def measure(stage: str, videos: int, classes: int, width: int) -> dict[str, float]:
    """Run one stage in this process; return its CPU seconds and the growth of the peak memory in MB."""
    from actionvit.heads import CentroidProbe, KNNProbe, LinearProbe, MLPProbe, grid_search
    from actionvit.heads.selection import assign_folds

    X, y, source = embeddings(videos, classes, width)
    if stage == "mlp fit":
        import torch

        torch.set_num_threads(1)
    few = LinearProbe().fit(X[:60], y[:60])  # libraries are loaded before the clock starts
    work = {
        "folds": lambda: assign_folds(y, source, folds=5, seed=0),
        "linear fit": lambda: LinearProbe().fit(X, y),
        "linear grid": lambda: grid_search(LinearProbe(), X, y, groups=source),
        "knn grid": lambda: grid_search(KNNProbe(), X, y, groups=source),
        "centroid grid": lambda: grid_search(CentroidProbe(), X, y, groups=source),
        "mlp fit": lambda: MLPProbe(epochs=3).fit(X, y),
        "predict": lambda: few.predict_log_proba(X),
    }[stage]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    peak = peak_memory()
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    return {"seconds": seconds, "MB": round((peak_memory() - peak) / 1024, 1)}


def peak_memory() -> int:
    """Return the peak resident set of this process in KiB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def power(sizes, values) -> float | None:
    """Return the slope of log(value) over log(size) in the upper half of the sizes; None with too few points."""
    half = slice(len(sizes) // 2 - (len(sizes) < 4), None)
    x, v = np.array(sizes[half], dtype=float), np.array(values[half], dtype=float)
    if len(x) < 2 or (v <= 0).any():
        return None
    return round(float(np.polyfit(np.log(x), np.log(v), 1)[0]), 2)


def run(stage: str, sizes: dict[str, int]) -> dict[str, float]:
    """Measure one stage in a separate process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, str(Path(__file__).resolve()), "--one", stage, *(str(size) for size in sizes.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **threads})
    values: dict[str, float] = json.loads(done.stdout)
    return values


def sweep(stage: str, name: str, base: dict[str, int], sizes: list[int], limit: float) -> dict:
    """Measure one stage for growing values of one size, until the next measurement would exceed the limit."""
    rows: list[dict] = []
    for size in sizes:
        if rows and rows[-1]["seconds"] * (size / rows[-1][name]) ** 2 > limit:
            break
        rows.append({name: size, **run(stage, {**base, name: size})})
        print(f"  {stage} with {size} {name}: {rows[-1]['seconds']:.3f} s, {rows[-1]['MB']:.0f} MB", flush=True)
    measured = [row[name] for row in rows]
    return {
        "rows": rows,
        "power of time": power(measured, [row["seconds"] for row in rows]),
        "power of memory": power(measured, [row["MB"] for row in rows]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--limit", type=float, default=60, help="maximum seconds per measurement")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "growth.json")
    parser.add_argument("--one", nargs=4, metavar=("STAGE", "VIDEOS", "CLASSES", "WIDTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], *map(int, options.one[1:]))))
        return
    sizes, base = (SMALL, {"videos": 60, "classes": 3, "width": 8}) if options.small else (SIZES, BASE)
    result = {"machine": machine.describe("numpy", "scikit-learn"), "around": base, "stages": {}}
    for stage in options.stages:
        result["stages"][stage] = {name: sweep(stage, name, base, sizes[name], options.limit) for name in sizes}
    print("\nstage            power of time in videos, classes, width   power of memory in the same")
    for stage, curves in result["stages"].items():
        powers = [[curve[f"power of {what}"] for curve in curves.values()] for what in ("time", "memory")]
        print(f"{stage:16} {powers[0]!s:>42} {powers[1]!s:>32}")
    machine.write(options.out, result)


if __name__ == "__main__":
    main()
