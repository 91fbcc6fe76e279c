"""`actionvit extract` with every video cached: the whole command as a process, start-up included.

There are two datasets: one with the layout of HMDB51, 6,766 files and official lists, and one with a million files in
class folders. The files are empty and the embeddings are constants, because neither is read if size and time of a file
match its row. The command reads the lists, the folders, the `stat` of each file, the tables of the store, and the
weights, which are hashed each time.
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
from typing import Any

import machine
import numpy as np

from actionvit.features.decoding import DecodePolicy
from actionvit.features.fingerprint import fingerprint
from actionvit.features.store.catalog import store_folder
from actionvit.features.store.parts import Row
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.variants import clip_spec
from actionvit.features.video_record import VideoRecord
from actionvit.pipeline.datasets import Dataset, load_dataset
from actionvit.pipeline.extraction.job import Job, feature_key

ARRAYS = {"index": np.zeros((1, 1), np.int8)}
HMDB51 = 6766


def make_videos(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"class_{number % 51:02}"
        if number < 51:
            folder.mkdir(parents=True)
        (folder / f"a_film_of_some_name_{folder.name}_f_cm_np1_fr_med_{number}.avi").touch()


def make_lists(root: Path) -> None:
    """Write lists with 70 training and 30 test clips per class, as in the official ones; the others are unused."""
    (root / "splits").mkdir()
    for folder in sorted(root.glob("class_*")):
        names = sorted(path.name for path in folder.iterdir())
        codes = [1] * 70 + [2] * 30 + [0] * (len(names) - 100)
        for split in (1, 2, 3):
            lines = [f"{name} {codes[(place + 50 * split) % len(names)]} \n" for place, name in enumerate(names)]
            (root / "splits" / f"{folder.name}_test_split{split}.txt").write_text("".join(lines))


def make_store(dataset: Dataset, cache: Path, job: Job) -> None:
    key = feature_key(job, DecodePolicy())
    folder = store_folder(cache, dataset.name, job.variant, key)
    info = dataset.record | {"weights": job.source}
    store = FeatureStore.create(folder, key=key, dataset=dataset.name, variant=job.variant, info=info)
    with Writer(store, flush_bytes=2400 << 10) as out:  # as many rows per part as with 8 x 768 numbers
        for number, each in enumerate(dataset.videos):
            out.append(Row(VideoRecord(each.id, f"{number:064x}", fingerprint(each.path), 30, (), "pyav"), ARRAYS))


def run(command: list[str]) -> tuple[float, float, str]:
    """Return seconds, peak MiB and the printed text."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output
    return time.perf_counter() - began, used.ru_maxrss / 1024, output


def measure(root: Path, cache: Path, source: str | None, count: int, repeats: int) -> dict[str, Any]:
    variant = "base" if source else "tiny"
    job = Job(variant=variant, weights=find_weights(variant, source), spec=clip_spec(variant))
    make_store(load_dataset(root), cache, job)
    command = [sys.executable, "-m", "actionvit", "extract", str(root), "--cache", str(cache), "--variant", variant]
    command += ["--weights", source] if source else []
    runs = [run(command) for _ in range(repeats + 1)][1:]  # the first run fills the disk cache
    for _, _, output in runs:
        assert f"{count} of {count} videos cached ({count} already cached)" in output, output
    seconds = [took for took, _, _ in runs]
    size = job.weights.file.stat().st_size if job.weights.file else 0
    result = {"videos": count, "variant": variant, "weights_mb": round(size / 1e6), "repeats": repeats}
    spread = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    record = {**result, "seconds": spread, "peak_mib": max(peak for _, peak, _ in runs)}
    print(
        f"{count:>9,} {variant:5} {round(size / 1e6):6} {spread['median']:8.2f} {record['peak_mib']:9.0f}", flush=True
    )
    return record


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "# `actionvit extract` with every video cached",
        "",
        "Written by `benchmarks/bench_rerun.py`; see its docstring for the method.",
        "",
        "| unchanged videos | weights digested | median | range | peak memory |",
        "|---:|---:|---:|---:|---:|",
    ]
    for record in results:
        took, weights = record["seconds"], f"{record['weights_mb']} MB" if record["weights_mb"] else "built in"
        spread = f"{took['min']:.2f}–{took['max']:.2f} s"
        lines.append(
            f"| {record['videos']:,} | {weights} | {took['median']:.2f} s | {spread} | {record['peak_mib']:.0f} MiB |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a folder of base weights")
    parser.add_argument("--many", type=int, default=1_000_000, help="files of the large dataset; 0 skips it")
    parser.add_argument(
        "--repeats", type=int, default=7, help="repetitions on HMDB51; a third of them on the large dataset"
    )
    parser.add_argument("--out", type=Path, help="JSON file; a Markdown table is written beside it")
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    results = []
    print(f"{'videos':>9} {'':5} {'MB':>6} {'seconds':>8} {'peak MiB':>9}")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        root, cache = Path(name) / "hmdb51", Path(name) / "cache"
        make_videos(root, HMDB51)
        make_lists(root)
        for source in (None, options.weights) if options.weights else (None,):
            results.append(measure(root, cache, source, HMDB51, options.repeats))
        if options.many:
            make_videos(Path(name) / "large", options.many)
            results.append(measure(Path(name) / "large", cache, None, options.many, max(1, options.repeats // 3)))
    if options.out:
        machine.write(options.out, {"machine": machine.describe("h5py", "numpy"), "results": results})
        options.out.with_suffix(".md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
