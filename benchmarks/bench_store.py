"""The feature store beside what people write themselves: `np.savez` a video, and h5py appends.

Each row is K = 1, T = 8, D = 768 in float32 (27 kB with `clip` and `index`). Write, resume (open the store and plan
over as many unchanged files, one a row), read all rows' `frame` in random parts, verify. The peers sync nothing,
check nothing, and an h5py append that is killed leaves no file that opens.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from actionvit.features.files import fingerprint
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.store import FeatureStore, Row
from actionvit.features.store.verify import verify

KEY = FeatureKey(
    weights="0" * 64, model={}, clip={}, preprocessing={}, decoder="", precision="fp32", outputs={}, schema=1
)
FRAME = np.random.RandomState(0).rand(1, 8, 768).astype(np.float32)
INDEX = np.arange(8, dtype=np.int32)[None]


def arrays(number: int) -> dict[str, np.ndarray]:
    frame = FRAME + np.float32(number)
    return {"clip": frame.mean(1), "frame": frame, "index": INDEX}


def ours(folder: Path, rows: int, files: list[tuple[str, Path]]) -> dict[str, float]:
    def write() -> None:
        store = FeatureStore.create(folder, key=KEY, dataset="d", variant="v", info={})
        with store.writer() as out:
            for number, (id, path) in enumerate(files):
                out.append(Row(id, f"{number:064x}", fingerprint(path), 30, (), "pyav", arrays(number)))

    def resume() -> None:
        assert len(FeatureStore.open(folder).plan(files).known) == rows

    def read() -> None:
        store = FeatureStore.open(folder)
        order = np.random.RandomState(1).permutation(rows)
        for start in range(0, rows, 100_000):  # a part of it at a time: 10⁶ rows are 27 GB
            store.read([files[at][0] for at in np.sort(order[start : start + 100_000])], "frame")

    def check() -> None:
        assert verify(folder) == []

    return {
        name: timed(work) for name, work in (("write", write), ("resume", resume), ("read", read), ("verify", check))
    }


def np_save(folder: Path, rows: int) -> dict[str, float]:
    def write() -> None:
        folder.mkdir()
        for number in range(rows):
            np.savez(folder / f"{number}.npz", **arrays(number))

    def resume() -> None:
        assert sum((folder / f"{number}.npz").exists() for number in range(rows)) == rows

    def read() -> None:
        for number in range(rows):
            with np.load(folder / f"{number}.npz") as file:
                file["frame"]

    return {name: timed(work) for name, work in (("write", write), ("resume", resume), ("read", read))}


def h5_append(folder: Path, rows: int) -> dict[str, float]:
    def write() -> None:
        with h5py.File(folder, "w") as out:
            for name, array in arrays(0).items():
                out.create_dataset(name, (0, *array.shape), array.dtype, maxshape=(None, *array.shape), chunks=True)
            for number in range(rows):
                for name, array in arrays(number).items():
                    out[name].resize(number + 1, axis=0)
                    out[name][number] = array

    def read() -> None:
        with h5py.File(folder) as source:
            for start in range(0, rows, 10_000):
                source["frame"][start : start + 10_000]

    return {name: timed(work) for name, work in (("write", write), ("read", read))}


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def size_of(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*")) if path.is_dir() else path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append", help="[default: 1000 and 100000]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    print(
        f"{'rows':>9} {'what':10} {'write s':>9} {'resume s':>9} {'read s':>9} {'verify s':>9} {'B/row':>8} {'MB/s':>7}"
    )
    for rows in options.rows or [1000, 100_000]:
        with tempfile.TemporaryDirectory(dir=options.scratch) as name:
            folder = Path(name)
            (folder / "data").mkdir()
            files = [(f"{number:07}", folder / "data" / f"{number:07}") for number in range(rows)]
            for _, path in files:
                path.touch()
            whats: dict[str, Callable[[Path], dict[str, float]]] = {"store": partial(ours, rows=rows, files=files)}
            if not options.no_peers:
                whats |= {"np.savez": partial(np_save, rows=rows), "h5 append": partial(h5_append, rows=rows)}
            for what, work in whats.items():
                runs, size = [], 0
                for repeat in range(options.repeats):
                    at = folder / f"{what}-{repeat}"
                    runs.append(work(at))
                    size = size_of(at)
                    shutil.rmtree(at) if at.is_dir() else at.unlink()
                times = {phase: statistics.median(run[phase] for run in runs) for phase in runs[0]}
                spread = {
                    phase: [min(run[phase] for run in runs), max(run[phase] for run in runs)] for phase in runs[0]
                }
                speed = size / times["write"] / 1e6
                cells = " ".join(
                    f"{times.get(phase, float('nan')):9.2f}" for phase in ("write", "resume", "read", "verify")
                )
                print(f"{rows:9} {what:10} {cells} {size / rows:8.0f} {speed:7.0f}", flush=True)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                found.append(
                    {"rows": rows, "what": what, "seconds": times, "range": spread, "bytes_a_row": size / rows}
                    | {"write_mb_s": speed, "peak_mib_so_far": peak}
                )
    if options.out:
        machine = {"platform": platform.platform(), "python": platform.python_version(), "h5py": h5py.version.version}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": machine, "results": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
