"""`actionvit report` of several drawn runs: the whole command as a process, start-up included.

    python benchmarks/bench_report.py                     # 51 classes, 1,530 clips in each of 3 splits, 4 runs

Scores are drawn so that the four runs have accuracies from 0.28 to 0.71. There is no peer that writes such a report.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np

HERE = Path(__file__).resolve().parent
KINDS = ("h_cm_np1_fr_med_0", "f_nm_np2_le_goo_1")
"""Ends of HMDB51's names, which the report groups by."""


def draw_run(folder: Path, *, classes: int, clips: int, splits: int = 1, skill: float = 0.5, seed: int = 0) -> None:
    """Write a run that tested `clips` clips in each split, four per source."""
    from actionvit.pipeline.runs import Predictions, measure, write_run

    rng = np.random.default_rng(seed)
    number = np.arange(splits * clips)
    source = number // 4
    y = source % classes
    scores = rng.random((len(y), classes), dtype=np.float32) ** 4
    scores[number, y] += skill * rng.random(len(y), dtype=np.float32)
    scores /= scores.sum(axis=1, keepdims=True)
    predictions = Predictions(
        id=np.array([f"class_{label:04}/clip_{clip:07}_{KINDS[clip % 2]}.avi" for clip, label in enumerate(y)]),
        split=np.array([f"official-{clip // clips + 1}" for clip in number]),
        true=y.astype(np.int64),
        scores=scores,
        source=np.array([f"film {number}" for number in source]),
        class_names=tuple(f"class_{number:04}" for number in range(classes)),
    )
    info = {
        "variant": "base",
        "gmac": 100.0 + seed,
        "dataset": {"name": "drawn", "root": "drawn", "videos": len(y), "notes": []},
        "coverage": {"videos": len(y), "cached": len(y), "missing": 0, "failed": 0, "flagged": 0},
        "command": [],
        "versions": {},
        "seeds": {},
        "protocol": "official",
        "head": {"kind": "linear", "C": 0.1},
        "timings": {},
    }
    metrics = measure(predictions, n_train=dict.fromkeys(predictions.split_names, 2 * clips))
    write_run(folder, info=info, predictions=predictions, metrics=metrics, head_tensors={}, head_config={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=51)
    parser.add_argument("--clips", type=int, default=1530, help="per split")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "report.json")
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("classes", "clips", "splits")}
    with tempfile.TemporaryDirectory() as scratch:
        runs = [Path(scratch) / f"run-{number}" for number in range(options.runs)]
        for number, run in enumerate(runs):
            draw_run(run, **sizes, skill=1 + number / 2, seed=number)
        output = Path(scratch) / "report"
        command = [sys.executable, "-m", "actionvit", "report", *map(str, runs), "--output", str(output)]
        command += ["--no-thumbnails", "--no-embeddings"]
        seconds, cpu = [], []
        for _ in range(options.repeats):
            began, before = time.perf_counter(), sum(os.times()[2:4])
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began)
            cpu.append(sum(os.times()[2:4]) - before)
        megabytes = round((output / "report.html").stat().st_size / 1e6, 2)
    result = {
        "machine": machine.describe("matplotlib", "numpy"),
        **sizes,
        "runs": options.runs,
        "seconds": {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)},
        "cpu_seconds": {"median": statistics.median(cpu), "min": min(cpu), "max": max(cpu)},
        "html_MB": megabytes,
    }
    print(
        f"{options.runs} runs, {options.classes} classes, {options.splits} splits: {result['seconds']['median']:.2f} s"
        f" ({min(seconds):.2f} to {max(seconds):.2f}), CPU {result['cpu_seconds']['median']:.2f} s, {megabytes} MB"
    )
    machine.write(options.out, result)


if __name__ == "__main__":
    main()
