"""The feature store against two simple alternatives: `np.save` per video, and appending with h5py.

Each row of the store is K = 1, T = 8, D = 768 in float32, with `clip` and `index` (27.7 kB of numbers); the peers keep
`frame` alone (24.6 kB), without sync or checks, and an h5py file may be unreadable after a kill while it was open.

- write: rows one by one, and at the end `os.sync`, so that all candidates are on the disk
- resume: open the store and plan over as many unchanged files, one per row; for np.save, check that each file exists
- read: `frame` of all rows, 100,000 at a time, each time in a random order
- verify: read every byte and compare it with the written one

Every phase runs in a process of its own, to measure its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np

from actionvit.features.fingerprint import fingerprint
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import Row
from actionvit.features.store.plan import make_plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer
from actionvit.features.video_record import VideoRecord

KEY = FeatureKey(
    weights="0" * 64, model={}, clip={}, preprocessing={}, decoder="", precision="fp32", outputs={}, schema=1
)
FRAME = np.random.RandomState(0).rand(1, 8, 768).astype(np.float32)
INDEX = np.arange(8, dtype=np.int32)[None]
BLOCK = 100_000
PHASES = {
    "store": ("write", "resume", "read", "verify"),
    "np.save": ("write", "resume", "read"),
    "h5py append": ("write", "read"),
}


def frame(number: int) -> np.ndarray:
    return FRAME + np.float32(number)


def video(data: Path, number: int) -> tuple[str, Path]:
    """Return the id and the path of a video, about as long as those of HMDB51."""
    folder = f"class_{number % 51:02}"
    name = f"a_film_of_some_name_class_{number % 51:02}_f_cm_np1_fr_med_{number}.avi"
    return f"{folder}/{name}", data / folder / name


def blocks(rows: int) -> Iterator[np.ndarray]:
    random = np.random.RandomState(1)
    for start in range(0, rows, BLOCK):
        yield start + random.permutation(min(BLOCK, rows - start))


def store_write(at: Path, data: Path, rows: int) -> None:
    store = FeatureStore.create(at, key=KEY, dataset="d", variant="v", info={})
    with Writer(store) as out:
        for number in range(rows):
            id, path = video(data, number)
            arrays = {"clip": frame(number).mean(1), "frame": frame(number), "index": INDEX}
            out.append(Row(VideoRecord(id, f"{number:064x}", fingerprint(path), 30, (), "pyav"), arrays))


def store_resume(at: Path, data: Path, rows: int) -> None:
    plan = make_plan(FeatureStore.open(at), [video(data, number) for number in range(rows)])
    assert len(plan.cached) == rows and not plan.pending


def store_read(at: Path, data: Path, rows: int) -> None:
    store = FeatureStore.open(at)
    for numbers in blocks(rows):
        values = store.read([video(data, number)[0] for number in numbers.tolist()], "frame")
        np.testing.assert_array_equal(values[0], frame(int(numbers[0])))


def store_verify(at: Path, data: Path, rows: int) -> None:
    assert verify_store(at) == []


def save_write(at: Path, data: Path, rows: int) -> None:
    at.mkdir()
    for number in range(rows):
        np.save(at / f"{number}.npy", frame(number))


def save_resume(at: Path, data: Path, rows: int) -> None:
    assert all((at / f"{number}.npy").exists() for number in range(rows))


def save_read(at: Path, data: Path, rows: int) -> None:
    for numbers in blocks(rows):
        np.stack([np.load(at / f"{number}.npy") for number in numbers.tolist()])


def append_write(at: Path, data: Path, rows: int) -> None:
    with h5py.File(at, "w") as out:
        frames = out.create_dataset("frame", (0, 1, 8, 768), np.float32, maxshape=(None, 1, 8, 768), chunks=True)
        for number in range(rows):
            frames.resize(number + 1, axis=0)
            frames[number] = frame(number)


def append_read(at: Path, data: Path, rows: int) -> None:
    with h5py.File(at) as source:
        for numbers in blocks(rows):
            order = np.argsort(numbers)  # h5py needs ascending rows
            source["frame"][numbers[order]]


WORK = {
    ("store", "write"): store_write,
    ("store", "resume"): store_resume,
    ("store", "read"): store_read,
    ("store", "verify"): store_verify,
    ("np.save", "write"): save_write,
    ("np.save", "resume"): save_resume,
    ("np.save", "read"): save_read,
    ("h5py append", "write"): append_write,
    ("h5py append", "read"): append_read,
}


def run_phase(what: str, phase: str, at: Path, data: Path, rows: int) -> None:
    """Run one phase in this process and print its time and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    WORK[what, phase](at, data, rows)
    if phase == "write":
        os.sync()
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**took, "peak_mib": peak / 1024, "start_mib": before / 1024}))


def in_process(what: str, phase: str, at: Path, data: Path, rows: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--phase", what, phase, str(at), str(data), str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def size_of(path: Path) -> int:
    """Return the bytes on disk in whole blocks, as counted by `du`."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(each.stat().st_blocks * 512 for each in files)


def middle(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(rows: int, repeats: int, what: str, scratch: Path, data: Path) -> dict[str, Any]:
    figures: dict[str, list[dict[str, float]]] = {phase: [] for phase in PHASES[what]}
    size = 0
    for repeat in range(repeats):
        folder = scratch / f"{what}-{repeat}"
        for phase in PHASES[what]:
            figures[phase].append(in_process(what, phase, folder, data, rows))
        size = size_of(folder)
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    phases = {
        phase: {
            "seconds": middle([run["seconds"] for run in runs]),
            "us_a_row": statistics.median(run["seconds"] for run in runs) / rows * 1e6,
            "peak_mib": max(run["peak_mib"] for run in runs),
            "cpu_seconds": statistics.median(run["cpu"] for run in runs),
        }
        for phase, runs in figures.items()
    }
    for phase in set(phases) - {"resume"}:
        phases[phase]["mb_s"] = size / phases[phase]["seconds"]["median"] / 1e6
    return {"rows": rows, "what": what, "repeats": repeats, "bytes_a_row": size / rows, "phases": phases}


def say(result: dict[str, Any]) -> None:
    cells = []
    for phase in PHASES["store"]:
        figures = result["phases"].get(phase)
        speed = f"{figures['mb_s']:.0f} MB/s" if figures and "mb_s" in figures else ""
        cells.append(
            f"{figures['seconds']['median']:9.2f} s {speed:>9} {figures['peak_mib']:6.0f} MiB" if figures else " " * 32
        )
    print(f"{result['rows']:>9,} {result['what']:12} {result['bytes_a_row']:7.0f} " + " | ".join(cells), flush=True)


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "# Speed and size of the feature store",
        "",
        "Written by `benchmarks/bench_store.py`; its docstring describes the phases. Median seconds (µs per row; peak",
        "memory of the process).",
        "",
        "| rows | | bytes per row on disk | write | resume | read | verify |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        cells = []
        for phase in PHASES["store"]:
            figures = result["phases"].get(phase)
            text = (
                f"{figures['seconds']['median']:.2f} s ({figures['us_a_row']:.1f}; {figures['peak_mib']:.0f} MiB)"
                if figures
                else "–"
            )
            cells.append(text)
        lines.append(
            f"| {result['rows']:,} | {result['what']} | {result['bytes_a_row']:,.0f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append", help="[default: 1000 and 100000]")
    parser.add_argument(
        "--repeats", type=int, default=3, help="repetitions for up to 100,000 rows; more are measured once"
    )
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file; a Markdown table is written beside it")
    parser.add_argument("--scratch", type=Path, help="folder for the stores; 10⁶ rows take 30 GB at a time")
    parser.add_argument("--phase", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        what, phase, folder, data, rows = options.phase
        run_phase(what, phase, Path(folder), Path(data), int(rows))
        return
    results = []
    heads = " | ".join(f"{phase:>32}" for phase in PHASES["store"])
    print(f"{'rows':>9} {'':12} {'B/row':>7} {heads}")
    for rows in options.rows or [1000, 100_000]:
        with tempfile.TemporaryDirectory(dir=options.scratch) as name:
            data = Path(name) / "data"
            for number in range(rows):
                path = video(data, number)[1]
                if number < 51:
                    path.parent.mkdir(parents=True)
                path.touch()
            for what in PHASES if not options.no_peers else ["store"]:
                results.append(measure(rows, options.repeats if rows <= 100_000 else 1, what, Path(name), data))
                say(results[-1])
    if options.out:
        machine.write(options.out, {"machine": machine.describe("h5py", "numpy"), "results": results})
        options.out.with_suffix(".md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
