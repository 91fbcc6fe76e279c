"""TimeSformer on a GPU: the forward alone, and extraction from files to the cache, each beside the plain loop.

    python benchmarks/bench_gpu.py                        # base, HR and both at once, 512 clips
    python benchmarks/bench_gpu.py --profile              # also writes the time per kernel of each forward

`benchmarks/gpu.sh` runs this with the other GPU benchmarks on a bare machine. Weights are random (seeded), the clips
are drawn on the spot: mpeg4 AVI files of 320 × 240 pixels and 40 to 100 frames, as HMDB51's. The result is written
after every row, so that a run that is cut off keeps its rows.

Share of the peak: the multiply-adds that the result needs, by the best bf16 matmul measured in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
HMDB51 = 6766


def draw(job: tuple[Path, int, bool]) -> None:
    """Write one unique clip of drifting blobs and grain."""
    import numpy as np

    from actionvit.pipeline.datasets.synthetic.dataset import write_avi

    path, seed, small = job
    random = np.random.RandomState(seed)
    height, width = (48, 64) if small else (240, 320)
    scene = random.randint(0, 256, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.int16)
    grain = random.randint(-12, 13, (height, width, 1)).astype(np.int16)
    step = random.randint(1, 5, 2)
    count = random.randint(40, 101) // (4 if small else 1)
    frames = (np.roll(scene, (step[0] * t, step[1] * t), (0, 1)) + np.roll(grain, 7 * t, 1) for t in range(count))
    write_avi(path, np.stack([frame.clip(0, 255).astype(np.uint8) for frame in frames]))


def draw_all(root: Path, clips: int, small: bool) -> None:
    for label in range(8):
        (root / f"class{label}").mkdir(parents=True)
    jobs = [(root / f"class{number % 8}" / f"{number:05d}.avi", number, small) for number in range(clips)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(draw, jobs, chunksize=4))


def rate(work: Callable[[], object], views: int, device: str, seconds: float) -> float:
    """Return views per second, the best of several repetitions; each queues three calls before it synchronizes."""
    import peers

    work()
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0 or time.perf_counter() < end:
        peers.wait(device)
        began = time.perf_counter()
        for _ in range(3):
            work()
        peers.wait(device)
        best = max(best, 3 * views / (time.perf_counter() - began))
    return best


def largest(make: Callable[[int], Callable[[], object]], views: int) -> tuple[Callable[[], object], int]:
    """Halve the batch until it fits into memory."""
    import torch

    while True:
        work = make(views)
        try:
            work()
        except torch.OutOfMemoryError:
            if views == 1:
                raise
            views //= 2
        else:
            return work, views


def forwards(variant: str, folder: Path, device: str, options, peak: float) -> list[dict]:
    """Return one row per implementation of the forward pass: views per second, TFLOP/s, fraction of the peak."""
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.variants import gmac

    spec, weights = sized(variant, options), find_weights("base", folder)
    needed = gmac(weights.config, spec, needed=True)
    forwards = [*eager_forwards(folder, spec, device, options)]
    for compiled in (False, True) if options.compile else (False,):
        forwards.append(own_forward(weights, spec, device, options, variant, compiled))
    if options.compile:  # number of views after which the compile time is amortized
        plain, fast = forwards[-2:]
        gain = 1 / plain["views_per_s"] - 1 / fast["views_per_s"]
        fast["wins_after_views"] = round((fast["start_up_s"] - plain["start_up_s"]) / gain) if gain > 0 else None
    rows = []
    for row in forwards:
        gmac_per_s = needed * row["views_per_s"]
        more = {"tflop_per_s": short(2 * gmac_per_s / 1e3), "share_of_peak": short(gmac_per_s / peak)}
        rows.append({"variant": variant, **row, "views_per_s": round(row["views_per_s"], 2), **more})
        print(rows[-1])
    return rows


def short(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.3g}")


def eager_forwards(folder: Path, spec, device: str, options) -> list[dict]:
    import torch
    from transformers import TimesformerModel

    model, rows = TimesformerModel.from_pretrained(folder).eval().to(device), []
    for way, autocast in (("transformers fp32", False), ("transformers bf16 autocast", True)):

        def make(views: int, autocast: bool = autocast) -> Callable[[], object]:
            pixels = torch.randn(views, spec.num_frames, 3, spec.size, spec.size, device=device)

            def work() -> object:
                kind = torch.device(device).type
                with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=autocast):
                    return model(pixels).last_hidden_state[:, 0]

            return work

        run, views = largest(make, options.batch_size)
        rows.append({"way": way, "batch": views, "views_per_s": rate(run, views, device, options.seconds)})
    return rows


def own_forward(weights, spec, device: str, options, variant: str, compiled: bool) -> dict:
    import peers
    import torch

    from actionvit.features.timesformer.encoder import Encoder

    began = time.perf_counter()
    encoder = Encoder(weights, spec, device=device, precision="bf16", compile=compiled)
    views = encoder.batch_views
    pixels = torch.randn(views, spec.num_frames, 3, spec.size, spec.size, device=device).to(encoder.dtype)
    encoder.forward(pixels)
    peers.wait(device)
    startup = time.perf_counter() - began
    per_s = rate(lambda: encoder.forward(pixels), views, device, options.seconds)
    way = "ours bf16, compiled" if compiled else "ours bf16"
    if options.profile:
        profile(encoder, pixels, options.out.with_name(f"{options.out.stem}-{variant}{'-compiled' * compiled}.txt"))
    return {"way": way, "batch": views, "views_per_s": per_s, "start_up_s": round(startup, 1)}


def profile(encoder, pixels, out: Path) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if pixels.is_cuda else [])]
    with recording(activities=kinds) as recorded:
        encoder.forward(pixels).clip.cpu()
    key = "self_device_time_total" if pixels.is_cuda else "self_cpu_time_total"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(recorded.key_averages().table(sort_by=key, row_limit=30), encoding="utf-8")


def end_to_end(variant: str, folder: Path, root: Path, scratch: Path, device: str, options) -> list[dict]:
    """Return one row per pipeline from files to embeddings."""
    import peers
    from transformers import TimesformerModel

    from actionvit.pipeline.datasets import load_dataset

    paths = [video.path for video in load_dataset(root, format="folder").videos]
    rows = []
    if importlib.util.find_spec("decord") is not None:
        model = TimesformerModel.from_pretrained(folder).eval().to(device)
        few = paths[: options.plain_clips]
        for way, autocast in (("plain loop fp32", False), ("plain loop bf16 autocast", True)):
            peers.plain_loop(few[:2], model, device, autocast=autocast)
            _, seconds = peers.plain_loop(few, model, device, autocast=autocast)
            rows.append(
                {"variant": variant, "way": way, "clips": len(few), "clips_per_s": round(len(few) / seconds, 2)}
            )
        del model
    rows.append(own_extraction({variant: folder}, root, scratch, device, options))
    rows[-1]["times_the_other_ways"] = [round(rows[-1]["clips_per_s"] / row["clips_per_s"], 1) for row in rows[:-1]]
    for row in rows:
        print(row)
    return rows


def own_extraction(folders: dict[str, Path], root: Path, scratch: Path, device: str, options) -> dict:
    """Return the row of `extract` with one variant, or with several from one decode."""
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.pipeline.datasets import load_dataset
    from actionvit.pipeline.extraction.extract import extract
    from actionvit.pipeline.extraction.job import Job

    jobs = [
        Job(variant=variant, weights=find_weights(variant, folder), spec=sized(variant, options), precision="bf16")
        for variant, folder in folders.items()
    ]
    name = " + ".join(folders)
    cache = scratch / f"cache-{name.replace(' ', '')}"
    dataset = load_dataset(root, format="folder")
    summary = extract(dataset, jobs, cache=cache, device=device, workers=options.workers)
    per_s, (bottleneck, fraction) = summary.outcomes[0].embedded / summary.loop, summary.limit
    return {
        "variant": name,
        "way": "ours",
        "clips": summary.outcomes[0].embedded,
        "clips_per_s": round(per_s, 2),
        "start_up_s": round(summary.start, 1),
        "bound_by": bottleneck,
        "share_of_that_limit": round(fraction, 3),
        "stage_seconds": {
            name: round(getattr(summary.stage_seconds, name), 2) for name in summary.stage_seconds.__slots__
        },
        "hmdb51_projected_s": round(summary.start + HMDB51 / per_s, 1),
    }


def sized(variant: str, options):
    from actionvit.features.timesformer.variants import clip_spec
    from actionvit.features.view_settings import ViewSettings

    return clip_spec(variant, ViewSettings(num_frames=2, size=32)) if options.small else clip_spec(variant)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", nargs="+", choices=("base", "hr"), default=["base", "hr"])
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--plain-clips", type=int, default=64, help="clips for the plain loops, which are slow")
    parser.add_argument("--batch-size", type=int, default=32, help="views per transformers batch, at most")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds per forward pass")
    parser.add_argument("--workers", type=int, help="decoding processes; default: one per core")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--small", action="store_true", help="two narrow blocks, 2 × 32, to test the script on a CPU")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options, scratch: Path) -> None:
    import machine
    import peers
    import torch

    from actionvit.features.timesformer.matmul_peak import matmul_rates

    if not torch.cuda.is_available() and not options.small:
        raise SystemExit("torch finds no GPU; --small tests the script on the CPU")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"drawing {options.clips} clips")
    draw_all(scratch / "clips", options.clips, options.small)
    best = matmul_rates(
        device, "bf16", shapes=[(64, 64, 64)] if options.small else None, seconds=min(options.seconds, 1.0)
    )
    peak = max(best.values())
    head = {"machine": machine.describe("transformers", "av", "decord2"), "peak_tflop_per_s": short(2 * peak / 1e3)}
    rows: dict[str, list[dict]] = {"forward": [], "end_to_end": []}
    result = {**head, "matmuls_gmac_per_s": {str(shape): round(r, 1) for shape, r in best.items()}, **rows}
    folders = {variant: scratch / f"model-{variant}" for variant in options.variant}
    for variant, folder in folders.items():
        spec = sized(variant, options)
        narrow = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        config = {"num_frames": spec.num_frames, "image_size": spec.size, **(narrow if options.small else {})}
        peers.write_random_model(folder, **config)
        rows["forward"] += forwards(variant, folder, device, options, peak)
        machine.write(options.out, result)
        rows["end_to_end"] += end_to_end(variant, folder, scratch / "clips", scratch, device, options)
        machine.write(options.out, result)
    if len(folders) > 1:
        rows["end_to_end"].append(own_extraction(folders, scratch / "clips", scratch, device, options))
        print(rows["end_to_end"][-1])
        machine.write(options.out, result)


if __name__ == "__main__":
    main()
