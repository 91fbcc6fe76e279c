"""Time and memory of each stage against videos, classes, width and views, with the fitted power.

    python benchmarks/bench_growth.py                     # half an hour
    python benchmarks/bench_growth.py --small             # tiny sizes, to check that it runs

One size at a time is varied, starting from 2,000 videos, 50 classes, width 384 and one view. Extraction (`tiny`) starts
from 50 drawn clips; classes are varied over 6,000 videos, so that each has at least six. Each measurement runs in its
own process with one thread; memory is the growth of its peak resident set. The power is the slope of a linear fit to
the logarithms over the upper half of the sizes, where constant costs are negligible. A measurement is skipped if the
previous one predicts more than `--limit` seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import machine
import numpy as np
from bench_report import draw_run

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Sizes:
    """The size of the data; every stage uses some of it."""

    videos: int = 2000
    classes: int = 50
    width: int = 384
    views: int = 1


VARIED = {
    "videos": [100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000],
    "classes": [10, 30, 100, 300, 1000],
    "width": [192, 384, 768, 1408],
    "views": [1, 3, 6, 10, 15],
}
SMALL = {"videos": [60, 120], "classes": [3, 6], "width": [8, 16], "views": [1, 3]}
STAGES: dict[str, tuple[str, ...]] = {
    "extract": ("videos", "views"),
    "list and plan": ("videos",),
    "store write": ("videos", "width", "views"),
    "store read": ("videos", "width", "views"),
    "folds": ("videos", "classes"),
    "linear fit": ("videos", "classes", "width"),
    "linear grid": ("videos", "classes", "width"),
    "knn grid": ("videos", "classes", "width"),
    "centroid grid": ("videos", "classes", "width"),
    "mlp fit": ("videos", "classes", "width"),
    "predict": ("videos", "classes", "width"),
    "metrics": ("videos", "classes"),
    "report": ("videos", "classes"),
}
"""The sizes that each stage depends on."""


def embeddings(sizes: Sizes):
    """Draw embeddings (videos, width), class numbers and sources of three clips each; every class has two sources."""
    rng = np.random.default_rng(0)
    source = np.arange(sizes.videos) // 3
    y = source % min(sizes.classes, max(2, sizes.videos // 6))
    means = rng.normal(size=(sizes.classes, sizes.width)).astype(np.float32)
    X = means[y]
    X += 2 * rng.normal(size=(int(source.max()) + 1, sizes.width)).astype(np.float32)[source]
    for start in range(0, len(X), 10_000):
        X[start : start + 10_000] += rng.normal(size=X[start : start + 10_000].shape).astype(np.float32)
    return X, y, source


def prepare(stage: str, sizes: Sizes, folder: Path) -> Callable[[], object]:
    """Make the data of a stage, load its libraries, and return the work to be measured."""
    if stage == "extract":
        return extraction(sizes, folder)
    if stage == "list and plan":
        return planning(sizes, folder)
    if stage.startswith("store"):
        return storing(stage, sizes, folder)
    if stage in ("metrics", "report"):
        return reporting(stage, sizes, folder)
    from actionvit.heads import CentroidProbe, KNNProbe, LinearProbe, MLPProbe, grid_search
    from actionvit.heads.selection import assign_folds

    X, y, source = embeddings(sizes)
    if stage == "mlp fit":
        import torch

        torch.set_num_threads(1)
    few = LinearProbe().fit(X[:60], y[:60])  # libraries are loaded before the clock starts
    return {
        "folds": lambda: assign_folds(y, source, folds=5, seed=0),
        "linear fit": lambda: LinearProbe().fit(X, y),
        "linear grid": lambda: grid_search(LinearProbe(), X, y, groups=source),
        "knn grid": lambda: grid_search(KNNProbe(), X, y, groups=source),
        "centroid grid": lambda: grid_search(CentroidProbe(), X, y, groups=source),
        "mlp fit": lambda: MLPProbe(epochs=3).fit(X, y),
        "predict": lambda: few.predict_log_proba(X),
    }[stage]


def extraction(sizes: Sizes, folder: Path) -> Callable[[], object]:
    """Extract drawn clips with `tiny`, decoded in this process."""
    import actionvit
    from actionvit.pipeline.datasets.synthetic.dataset import plan_clips, write_clip

    def extract(clips: list, name: str):
        for clip in clips:
            write_clip(folder / name, clip)
        dataset = actionvit.load_dataset(folder / name)
        crops = 3 if sizes.views % 3 == 0 else 1
        views = {"num_clips": sizes.views // crops, "crops": crops}
        return lambda: actionvit.extract(dataset, "tiny", cache=folder / "cache", workers=0, device="cpu", **views)

    import torch

    torch.set_num_threads(1)
    clips = plan_clips(clips=sizes.videos + 12)
    extract(clips[:12], "first")()  # libraries are loaded and the model is warm before the clock starts
    return extract(clips[12:], "clips")


def planning(sizes: Sizes, folder: Path) -> Callable[[], object]:
    """Read a list of files, and plan their extraction into an empty store."""
    from actionvit.features.store.plan import make_plan
    from actionvit.features.store.store import FeatureStore
    from actionvit.pipeline.datasets.loading import load_dataset

    lines = []
    for number in range(sizes.videos):
        place = folder / f"{number // 1000:03}"
        if number % 1000 == 0:
            place.mkdir()
            (place / "000.mp4").write_bytes(b"x")
        else:
            os.link(place / "000.mp4", place / f"{number % 1000:03}.mp4")  # links are faster to make than files
        lines.append(f"{place.name}/{number % 1000:03}.mp4 {number % 400}\n")
    (folder / "all.txt").write_text("".join(lines), encoding="utf-8")
    store = FeatureStore.create(folder / "store", key=store_key(), dataset="d", variant="v", info={})

    def plan() -> None:
        dataset = load_dataset(folder / "all.txt")
        plan = make_plan(store, [(video.id, video.path) for video in dataset.videos])
        assert len(plan.missing) == sizes.videos

    return plan


def storing(stage: str, sizes: Sizes, folder: Path) -> Callable[[], object]:
    """Write rows of clip embeddings (views, width), or read them in random order."""
    from actionvit.features.fingerprint import Fingerprint
    from actionvit.features.store.parts import Row
    from actionvit.features.store.store import FeatureStore
    from actionvit.features.store.writer import Writer
    from actionvit.features.video_record import VideoRecord

    row = np.random.default_rng(0).normal(size=(sizes.views, sizes.width)).astype(np.float32)
    ids = [f"class_{number % 50:02}/clip_{number:07}.avi" for number in range(sizes.videos)]
    store = FeatureStore.create(folder / "store", key=store_key(), dataset="d", variant="v", info={})

    def write() -> None:
        with Writer(store) as writer:
            for number, id in enumerate(ids):
                record = VideoRecord(id, f"{number:064x}", Fingerprint(1, number), 30, (), "pyav")
                writer.append(Row(record, {"clip": row + np.float32(number)}))

    if stage == "store write":
        return write
    write()
    mixed = np.random.default_rng(1).permutation(ids).tolist()
    return lambda: FeatureStore.open(folder / "store").read(mixed, "clip")


def store_key():
    """Return the key of a store without an encoder."""
    from actionvit.features.store.keys import FeatureKey

    settings = {"model": {}, "clip": {}, "preprocessing": {}, "outputs": {}}
    return FeatureKey(weights="0" * 64, decoder="", precision="fp32", schema=1, **settings)


def reporting(stage: str, sizes: Sizes, folder: Path) -> Callable[[], object]:
    """Compute the metrics of a run, one test result per video, or write its report."""
    from actionvit.pipeline.reporting import writer
    from actionvit.pipeline.runs import measure, read_run

    writer.LARGE = sys.maxsize  # draw in this process
    draw_run(folder / "run", classes=sizes.classes, clips=sizes.videos)
    run = read_run(folder / "run")
    if stage == "metrics":
        return lambda: measure(run.predictions, n_train={"official-1": 2 * sizes.videos})
    return lambda: writer.report([run], output=folder / "report")


def measure_stage(stage: str, sizes: Sizes) -> dict[str, float]:
    """Run one stage in this process; return its CPU seconds and the growth of the peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(stage, sizes, Path(folder))
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


def run(stage: str, sizes: Sizes) -> dict[str, float]:
    """Measure one stage in a separate process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, str(Path(__file__).resolve()), "--one", stage, json.dumps(asdict(sizes))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **threads})
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def vary(stage: str, name: str, base: Sizes, values: list[int], limit: float) -> dict:
    """Measure one stage for growing values of one size, until the next measurement would exceed the limit."""
    rows: list[dict] = []
    for value in values:
        if len(rows) > 1:
            before, last = rows[-2:]
            steps = np.log(value / last[name]) / np.log(last[name] / before[name])
            if last["seconds"] * max(last["seconds"] / before["seconds"], 1.0) ** steps > limit:
                break
        rows.append({name: value, **run(stage, replace(base, **{name: value}))})
        print(f"  {stage} with {value} {name}: {rows[-1]['seconds']:.3f} s, {rows[-1]['MB']:.0f} MB", flush=True)
    measured = [row[name] for row in rows]
    return {
        "rows": rows,
        "power of time": power(measured, [row["seconds"] for row in rows]),
        "power of memory": power(measured, [row["MB"] for row in rows]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--limit", type=float, default=60, help="maximum seconds per measurement")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "growth.json")
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "SIZES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_stage(options.one[0], Sizes(**json.loads(options.one[1])))))
        return
    varied, base = (SMALL, Sizes(60, 3, 8)) if options.small else (VARIED, Sizes())
    result = {"machine": machine.describe("numpy", "scikit-learn"), "around": asdict(base), "stages": {}}
    for stage in options.stages:
        curves = result["stages"][stage] = {}
        for name in STAGES[stage]:
            videos = 50 if stage == "extract" else 6 * max(varied["classes"]) if name == "classes" else base.videos
            curves[name] = vary(stage, name, replace(base, videos=videos), varied[name], options.limit)
        machine.write(options.out, result)
    print("\nstage            power of time; of memory")
    for stage, curves in result["stages"].items():
        for name, curve in curves.items():
            print(f"{stage:16} {name:8} {curve['power of time']!s:>6} {curve['power of memory']!s:>6}")


if __name__ == "__main__":
    main()
