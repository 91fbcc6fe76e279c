"""Compare decoding with common loops: decord's `get_batch`, and PyAV decoding every frame.

Each contender decodes the same clips for 8, for 16, and for 8 and 16 uniform frames (`base` + `hr`). All frames are
compared first and must be identical. The result is the CPU time of all processes, as clips per core-second. For worker
processes it is the difference between runs on one and on three times the clips, which excludes their start-up. Rounds
are interleaved, so that other load affects all contenders equally; the median over rounds is reported.

Independent loops in the same number of processes, without supervision and hashing, show the scaling limit of the
machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import decord
import machine
import numpy as np

from actionvit.features.decoding import Decoded, DecodeRequest, available_cores, decode, decode_stream
from actionvit.features.sampling import ClipSpec, union_indices

BASE, HR = ClipSpec(num_frames=8, size=224), ClipSpec(num_frames=16, size=448)
WORKLOADS = {"8": (BASE,), "16": (HR,), "8+16": (BASE, HR)}
ALONE, APART = "actionvit, no worker", "loops apart"
Specs = tuple[ClipSpec, ...]
Frames = np.ndarray


def decord_loop(paths: Sequence[Path], specs: Specs) -> Iterator[Frames]:
    for path in paths:
        reader = decord.VideoReader(str(path), num_threads=1)
        yield reader.get_batch(union_indices(len(reader), specs).tolist()).asnumpy()


def pyav_all(paths: Sequence[Path], specs: Specs) -> Iterator[Frames]:
    """Decode and convert every frame, then select some, as in most tutorials."""
    for path in paths:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        yield np.stack([images[number] for number in union_indices(len(images), specs)])


def pyav_picked(paths: Sequence[Path], specs: Specs) -> Iterator[Frames]:
    """Decode every frame, and convert only the sampled ones, with one thread."""
    for path in paths:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            frames = list(container.decode(video=0))
            picked = [
                frames[number].reformat(format="rgb24", threads=1) for number in union_indices(len(frames), specs)
            ]
            yield np.stack([frame.to_ndarray() for frame in picked])


def own_loop(paths: Sequence[Path], specs: Specs) -> Iterator[Frames]:
    for path in paths:
        yield decode(path, specs).data


def pool(workers: int) -> Callable[[Sequence[Path], Specs], Iterator[Frames]]:
    """Decode with supervised workers, which also hash every file."""

    def run(paths: Sequence[Path], specs: Specs) -> Iterator[Frames]:
        for item in decode_stream([DecodeRequest(str(path), path, specs) for path in paths], workers=workers):
            assert isinstance(item, Decoded), item
            yield item.frames.data

    return run


def drop_all(paths: Sequence[Path], specs: Specs) -> None:
    for _ in own_loop(paths, specs):
        pass


def apart(processes: int) -> Callable[[Sequence[Path], Specs], Iterator[Frames]]:
    """Run one independent loop per process, each on its part of the clips."""

    def run(paths: Sequence[Path], specs: Specs) -> Iterator[Frames]:
        fork = multiprocessing.get_context("fork")
        loops = [fork.Process(target=drop_all, args=(paths[first::processes], specs)) for first in range(processes)]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
            assert loop.exitcode == 0
        return iter(())

    return run


def cost(loop: Callable[[Sequence[Path], Specs], Iterator[Frames]], paths: Sequence[Path], specs: Specs) -> np.ndarray:
    """Return the wall-clock and CPU seconds of one run, including workers."""
    before, start = cpu(), time.perf_counter()
    for _ in loop(paths, specs):
        pass
    return np.array([time.perf_counter() - start, cpu() - before])


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def check(paths: Sequence[Path], loops: dict, specs: Specs) -> int:
    """Compare every frame of every contender; return the number of frames."""
    frames = 0
    for group in zip(*(loop(paths, specs) for loop in loops.values()), strict=True):
        for name, clips in zip(loops, group, strict=True):
            assert np.array_equal(clips, group[0]), f"{name} differs"
        frames += len(group[0])
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="a folder of clips")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=1, help="time only every n-th clip; all clips are compared")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "decode.json")
    options = parser.parse_args()
    paths = sorted(path for path in options.root.rglob("*") if path.suffix in (".avi", ".mp4", ".mkv", ".webm"))
    cores = available_cores()
    plain = {"decord get_batch": decord_loop, "PyAV, all frames": pyav_all, "PyAV, with care": pyav_picked}
    pools = {ALONE: own_loop, "actionvit, 1 worker": pool(1), f"actionvit, {cores} workers": pool(cores)}
    loops = {**plain, **pools}
    compared = {workload: check(paths, loops, specs) for workload, specs in WORKLOADS.items()}
    timed = paths[:: options.every]
    loops |= {f"{APART}, {number}": apart(number) for number in (1, cores)}
    seen: dict[tuple[str, str], list[np.ndarray]] = {}
    for _ in range(options.rounds):
        for workload, specs in WORKLOADS.items():
            for name, loop in loops.items():
                spent = cost(loop, timed, specs)
                if name not in plain and name != ALONE:
                    spent = (cost(loop, [*timed] * 3, specs) - spent) / 2
                seen.setdefault((workload, name), []).append(spent / len(timed))
    about = {
        "clips_compared": len(paths),
        "frames_compared": compared,
        "clips_timed": len(timed),
        "bytes_timed": sum(path.stat().st_size for path in timed),
        "rounds": options.rounds,
    }
    report(about, seen, cores, options.out)


def report(about: dict, seen: dict, cores: int, out: Path) -> None:
    """Print and write the tables."""
    middle = {key: np.median(np.stack(runs), axis=0) for key, runs in seen.items()}
    rows = []
    print(f"{'frames':8}{'contender':24}{'clips/core-s':>14}{'CPU ms/clip':>14}{'spread':>9}{'clips/s':>10}")
    for (workload, name), runs in seen.items():
        wall, used = middle[workload, name]
        spread = statistics.pstdev(run[1] for run in runs) / used
        rows.append(
            {
                "frames": workload,
                "contender": name,
                "clips_per_core_second": round(1 / used, 1),
                "cpu_ms_per_clip": round(1e3 * used, 3),
                "cpu_spread": round(spread, 3),
                "clips_per_second": round(1 / wall, 1),
            }
        )
        print(f"{workload:8}{name:24}{1 / used:14.1f}{1e3 * used:14.2f}{spread:9.1%}{1 / wall:10.1f}")
    targets = {}
    for workload in ("8", "16"):
        usual = min(middle[workload, name][1] for name in ("decord get_batch", "PyAV, all frames"))
        targets[f"{workload} frames, a core, against the best usual loop"] = usual / middle[workload, ALONE][1]
        targets[f"{workload} frames, the same with a worker, and hashing"] = (
            usual / middle[workload, "actionvit, 1 worker"][1]
        )
        careful = middle[workload, "PyAV, with care"][1]
        targets[f"{workload} frames, a core, against PyAV with care"] = careful / middle[workload, ALONE][1]
        single, many = middle[workload, "actionvit, 1 worker"][0], middle[workload, f"actionvit, {cores} workers"][0]
        targets[f"{workload} frames, {cores} workers, share of linear"] = single / many / cores
        single, most = middle[workload, f"{APART}, 1"][0], middle[workload, f"{APART}, {cores}"][0]
        targets[f"{workload} frames, {cores} loops apart, share of linear"] = single / most / cores
        targets[f"{workload} frames, {cores} workers, share of {cores} loops apart"] = most / many
    for name in (ALONE, "actionvit, 1 worker"):
        targets[f"8+16 together against 16 alone, {name}"] = middle["8+16", name][1] / middle["16", name][1]
    for name, value in targets.items():
        print(f"{name:64}{value:8.3f}")
    result = {
        "machine": machine.describe("av", "decord2", "numpy"),
        **about,
        "rows": rows,
        "targets": {name: round(float(value), 3) for name, value in targets.items()},
    }
    machine.write(out, result)


if __name__ == "__main__":
    main()
