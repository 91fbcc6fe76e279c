"""Extraction at the scale of Kinetics, on paper: hours, bytes, metadata operations and merge time for 1 to 64 workers.

Two parts, `measure` on this machine and `simulate` from the figures of a results file:

- measure: the driver's work for ROWS rows of small embeddings (16 numbers per row, so that the tables count and not
  the disk): assign videos to shards, merge, plan. And file-system calls per publication, counted on a real writer.
- simulate: workers with one GPU each take shards from a queue. Nodes fail at random (exponential, one failure per
  NODE_HOURS) and are replaced. A lost shard keeps its published rows, which the next attempt copies. The driver's plan
  and merge are serial.

Stage costs per video come from other committed results: decode, forward and write of one GPU machine (gpu.json), bytes
per row and time per row to write (store.json).
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
import numpy as np

from actionvit.features.fingerprint import Fingerprint
from actionvit.features.store.catalog import shard_number
from actionvit.features.store.compaction import publish_part
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.merge import merge_stores
from actionvit.features.store.parts import Row, table_of
from actionvit.features.store.plan import make_plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.video_record import VideoRecord

RESULTS = Path(__file__).parent / "results"
KEY = FeatureKey(
    weights="0" * 64, model={}, clip={}, preprocessing={}, decoder="", precision="fp32", outputs={}, schema=1
)
SHARDS = 8
PART_ROWS = 2400
"""About as many rows as a part of 64 MiB has with 8 x 768 numbers per row."""
VECTOR = np.zeros((1, 16), np.float32)


def video(data: Path, number: int) -> tuple[str, Path]:
    id = f"class_{number % 400:03}/some_video_of_a_usual_name_{number:08}.mp4"
    return id, data / id


def row(number: int, id: str) -> Row:
    record = VideoRecord(id, f"{number:064x}", Fingerprint(0, number), 300, (), "pyav")
    return Row(record, {"clip": VECTOR})


def make_shard(folder: Path, numbers: list[int], data: Path) -> FeatureStore:
    """A shard's store, in full parts as a writer leaves them, without the time that a writer takes."""
    store = FeatureStore.create(folder, key=KEY, dataset="d", variant="v", info={})
    for sequence, start in enumerate(range(0, len(numbers), PART_ROWS)):
        table = table_of([row(number, video(data, number)[0]) for number in numbers[start : start + PART_ROWS]])
        publish_part(store, sequence, table, {"clip": np.repeat(VECTOR[None], len(table), 0)})
    return store


def timed(work: Callable[[], object]) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    return {**seconds, "peak_mib": peak / 1024}


def measure(rows: int, scratch: Path | None) -> dict[str, Any]:
    """Time the driver's serial work for some rows; the peak of memory is that of the process so far."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        data, cache = Path(name) / "data", Path(name) / "cache"
        for number in range(min(400, rows)):
            video(data, number)[1].parent.mkdir(parents=True)
        for number in range(rows):
            path = video(data, number)[1]
            path.touch()
            os.utime(path, ns=(number, number))
        groups: dict[int, list[int]] = {}

        def assign() -> None:
            for number in range(rows):
                groups.setdefault(shard_number(video(data, number)[0], SHARDS), []).append(number)

        phases = {"assign": timed(assign)}
        shards = [make_shard(cache / f"v.shard-{index}-of-{SHARDS}", groups[index], data) for index in sorted(groups)]
        target = cache / "v"
        phases["merge"] = timed(lambda: merge_stores(shards, target))
        files = [video(data, number) for number in range(rows)]

        def plan() -> None:
            current = make_plan(FeatureStore.open(target), files)
            assert len(current.cached) == rows and not current.pending

        phases["plan"] = timed(plan)
        size = sum(path.stat().st_size for path in target.iterdir())
    for phase in phases.values():
        phase["us_per_row"] = phase["cpu_seconds"] / rows * 1e6  # without the time of other programs
    return {"rows": rows, "shards": SHARDS, "bytes_per_row": size / rows, "phases": phases}


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of this process that a shared file system's metadata server answers."""
    counts: Counter[str] = Counter()
    names = ("open", "stat", "lstat", "rename", "replace", "unlink", "mkdir", "scandir", "listdir", "fsync")
    originals = {name: getattr(os, name) for name in names}

    def count(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return originals[name](*arguments, **options)

        return call

    for name in names:
        setattr(os, name, count(name))
    try:
        yield counts
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def measure_publications(publications: int = 60) -> dict[str, Any]:
    """Count file-system calls per publication, including merges of small parts into larger ones."""
    with tempfile.TemporaryDirectory() as name:
        store = FeatureStore.create(Path(name) / "v", key=KEY, dataset="d", variant="v", info={})
        with counted_calls() as counts, Writer(store, flush_seconds=0) as out:
            for number in range(publications):
                out.append(row(number, video(Path(name), number)[0]))
    return {"calls": dict(counts), "per_publication": round(sum(counts.values()) / publications, 1)}


def stage_costs() -> dict[str, float]:
    """Seconds per video of each stage, and bytes per row, from committed results."""
    gpu = json.loads((RESULTS / "gpu.json").read_text(encoding="utf-8"))
    run = next(row for row in gpu["end_to_end"] if row["variant"] == "base" and row["way"] == "ours")
    store = json.loads((RESULTS / "store.json").read_text(encoding="utf-8"))
    million = next(row for row in store["results"] if row["rows"] == 1_000_000 and row["what"] == "store")
    busy = {f"{stage}_s": seconds / run["clips"] for stage, seconds in run["stage_seconds"].items()}
    return {
        **busy,
        "decode_cores": gpu["machine"]["cores"],
        "video_s": 1 / run["clips_per_s"],
        "start_up_s": run["start_up_s"],
        "row_write_s": million["phases"]["write"]["us_a_row"] / 1e6,
        "bytes_per_row": million["bytes_a_row"],
    }


def seconds_per_video(costs: dict[str, float], options: argparse.Namespace) -> float:
    """The slowest of the overlapping stages on one worker."""
    decode = costs["decode_s"] / costs["decode_cores"] * options.decode_factor
    return max(decode, costs["prepare_s"] + costs["forward_s"], costs["write_s"], costs["video_s"])


def run_shards(
    chance: random.Random, videos: int, workers: int, costs: dict[str, float], options: argparse.Namespace
) -> dict[str, float]:
    """Simulate the shards of one extraction, without the driver's work."""
    per_video = seconds_per_video(costs, options)
    shard = videos / (options.shards_per_worker * workers)
    setup = options.start_seconds + shard * options.stat_ms / 1e3
    waiting = [0.0] * (options.shards_per_worker * workers)  # published rows of each shard to run
    free = [(0.0, worker) for worker in range(workers)]
    totals = {"seconds": 0.0, "publications": 0.0, "copied": 0.0, "losses": 0.0}
    while waiting:
        now, worker = heapq.heappop(free)
        published = waiting.pop(0)
        copy = published * (costs["row_write_s"] + options.hash_ms / 1e3)
        needed = setup + copy + (shard - published) * per_video
        failure = chance.expovariate(1 / (options.node_hours * 3600))
        seconds = min(failure, needed)
        embedding = max(0.0, seconds - setup - copy)
        pause = 0.0
        if failure < needed:
            waiting.append(published + max(0.0, embedding - options.flush_seconds) / per_video)
            pause = options.replacement_minutes * 60
            totals["losses"] += 1
        totals["publications"] += embedding / options.flush_seconds
        totals["copied"] += published
        totals["seconds"] = max(totals["seconds"], now + seconds)
        heapq.heappush(free, (now + seconds + pause, worker))
    return totals


def simulate(videos: int, workers: int, costs: dict[str, float], options: argparse.Namespace) -> dict[str, Any]:
    """Return the means over several simulated extractions."""
    runs = [run_shards(random.Random(seed), videos, workers, costs, options) for seed in range(options.runs)]
    mean = {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}
    plan = videos * (costs["plan_row_s"] + options.stat_ms / 1e3)
    merge = videos * costs["merge_row_s"]
    total = mean["seconds"] + merge + 2 * plan  # the last extraction plans once more, and finds nothing to do
    publications = mean["publications"] + 2 * videos / PART_ROWS
    calls = 3 * videos + mean["copied"] + publications * costs["calls_per_publication"]
    return {
        "videos": videos,
        "workers": workers,
        "hours": total / 3600,
        "extract_hours": mean["seconds"] / 3600,
        "plan_hours": 2 * plan / 3600,
        "merge_hours": merge / 3600,
        "efficiency": videos * seconds_per_video(costs, options) / (total * workers),
        "node_losses": mean["losses"],
        "rows_copied": round(mean["copied"]),
        "cache_gb": videos * costs["bytes_per_row"] / 1e9,
        "written_gb": (2 * videos + mean["copied"]) * costs["bytes_per_row"] / 1e9,
        "metadata_calls": round(calls),
        "metadata_calls_per_s": calls / total,
    }


def say(result: dict[str, Any]) -> None:
    print(
        f"{result['videos']:>11,} {result['workers']:>4} {result['hours']:8.2f} h ="
        f" extract {result['extract_hours']:8.2f} + plan {result['plan_hours']:6.2f}"
        f" + merge {result['merge_hours']:5.2f};"
        f" {result['efficiency']:4.0%}, {result['node_losses']:4.1f} lost, {result['written_gb']:7.1f} GB,"
        f" {result['metadata_calls_per_s']:6.0f} calls/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append", help="measure so many rows  [default: 10000 and 10**6]")
    parser.add_argument("--videos", type=int, action="append", help="simulate so many  [default: 240000 and 10**7]")
    parser.add_argument("--workers", type=int, action="append", help="[default: 1 2 4 8 16 32 64]")
    parser.add_argument("--shards-per-worker", type=int, default=8)
    parser.add_argument("--decode-factor", type=float, default=8.0, help="decoding of one video, in measured clips")
    parser.add_argument("--stat-ms", type=float, default=0.3, help="one stat on the shared file system")
    parser.add_argument("--hash-ms", type=float, default=5.0, help="reading one video again to copy its row")
    parser.add_argument("--flush-seconds", type=float, default=5.0)
    parser.add_argument("--start-seconds", type=float, default=15.0, help="of one attempt: libraries and weights")
    parser.add_argument("--node-hours", type=float, default=24.0, help="mean time to the loss of a node")
    parser.add_argument("--replacement-minutes", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=50, help="simulations to average over")
    parser.add_argument("--measured", type=Path, help="take the measured part from this earlier result")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.measured:
        earlier = json.loads(options.measured.read_text(encoding="utf-8"))
        described, measured, publications = earlier["machine"], earlier["measured"], earlier["publications"]
    else:
        described = machine.describe("h5py", "numpy")
        measured = [measure(rows, options.scratch) for rows in options.rows or [10_000, 1_000_000]]
        publications = measure_publications()
    for result in measured:
        cells = [f"{name} {phase['us_per_row']:.1f} us" for name, phase in result["phases"].items()]
        print(f"{result['rows']:>11,} rows: {', '.join(cells)} per row, {result['phases']['plan']['peak_mib']:.0f} MiB")
    phases = measured[-1]["phases"]
    costs = stage_costs() | {
        "plan_row_s": phases["plan"]["us_per_row"] / 1e6,
        "merge_row_s": phases["merge"]["us_per_row"] / 1e6 + stage_costs()["row_write_s"],
        "calls_per_publication": publications["per_publication"],
    }
    results = [
        simulate(videos, workers, costs, options)
        for videos in options.videos or [240_000, 10_000_000]
        for workers in options.workers or [1, 2, 4, 8, 16, 32, 64]
    ]
    for result in results:
        say(result)
    if options.out:
        paths = ("rows", "videos", "workers", "measured", "scratch", "out")
        assumed = {name: value for name, value in vars(options).items() if name not in paths}
        report = {"machine": described, "measured": measured, "publications": publications, "costs": costs}
        machine.write(options.out, {**report, "assumed": assumed, "simulated": results})


if __name__ == "__main__":
    main()
