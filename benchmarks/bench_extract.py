"""Extraction of real clips against a simple loop, and against the slower of decoding and the forward pass alone.

    python benchmarks/bench_extract.py data/hmdb51     # 3 rounds of 24 clips of base; ten minutes on two cores
    python benchmarks/bench_extract.py data/hmdb51 --clips 4 --rounds 1 --depth 1

Each round runs four contenders in turn on the same clips: the plain loop (decord, transformers' eager model, one clip
at a time), `extract` into a new cache on disk, decoding alone (the same workers, frames discarded), and the forward
pass alone (frames in memory). Times exclude loading libraries and weights, but include starting decoding workers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

import machine
import peers
from transformers import TimesformerModel

from actionvit.features.decoding import DecodePolicy, DecodeRequest, decode, decode_stream
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.encoder import Encoder
from actionvit.features.timesformer.variants import VARIANTS, clip_spec
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.extraction.extract import extract
from actionvit.pipeline.extraction.job import Job


def chosen(root: Path, into: Path, clips: int, rounds: int) -> list[Path]:
    """Link `clips` videos per round, distributed over the classes, into class folders; return one folder per round."""
    by_class = [sorted(folder.glob("*.avi")) for folder in sorted(root.iterdir()) if folder.is_dir()]
    turns = [path for row in zip(*by_class, strict=False) for path in row][: clips * rounds]
    if len(turns) < clips * rounds:
        raise SystemExit(f"{root}: got {len(turns)} clips in classes of equal size, expected {clips * rounds}")
    folders = []
    for number in range(rounds):
        folder = into / f"round{number}"
        for path in turns[number * clips : (number + 1) * clips]:
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            (folder / path.parent.name / path.name).symlink_to(path.resolve())
        folders.append(folder)
    return folders


def measure(
    folder: Path, cache: Path, job: Job, encoder: Encoder, model: TimesformerModel, workers: int | None
) -> dict:
    """Return the seconds of each contender for the clips of one round."""
    dataset = load_dataset(folder, format="folder")
    paths = [video.path for video in dataset.videos]
    _, plain = peers.plain_loop(paths, model, "cpu")
    summary = extract(
        dataset, [job], cache=cache, workers=workers, device="cpu", make_encoder=lambda job, device: encoder
    )
    began = time.perf_counter()
    requests = (DecodeRequest(video.id, video.path, (job.spec,)) for video in dataset.videos)
    with closing(decode_stream(requests, policy=DecodePolicy(), workers=workers)) as stream:
        decoded = sum(1 for _ in stream)
    decoding = time.perf_counter() - began
    frames = [decode(path, [job.spec]) for path in paths]
    began = time.perf_counter()
    for each in frames:
        encoder.encode(each)
    forward = time.perf_counter() - began
    assert decoded == len(paths) == summary.outcomes[0].embedded
    return {
        "plain": plain,
        "ours": summary.loop,
        "decode_only": decoding,
        "forward_only": forward,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="class folders of AVI files")
    parser.add_argument("--variant", choices=list(VARIANTS), default="base")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--workers", type=int, help="decoding processes of actionvit; default: one per core")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "extract.json")
    options = parser.parse_args()
    spec = clip_spec(options.variant)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "model"
        config = {"num_frames": spec.num_frames, "image_size": spec.size, "num_hidden_layers": options.depth}
        peers.write_random_model(weights, **config)
        job = Job(variant=options.variant, weights=find_weights(options.variant, weights), spec=spec)
        encoder = Encoder(job.weights, spec, device="cpu", precision="fp32")
        model = TimesformerModel.from_pretrained(weights).eval()
        rounds = []
        for folder in chosen(options.root, Path(scratch), options.clips, options.rounds):
            rounds.append(measure(folder, Path(scratch) / "cache", job, encoder, model, options.workers))
            print({name: round(value, 3) for name, value in rounds[-1].items()})
    seconds = {
        name: sum(seconds_of_round[name] for seconds_of_round in rounds)
        for name in ("plain", "ours", "decode_only", "forward_only")
    }
    clips = options.clips * options.rounds
    result = {
        "variant": options.variant,
        "clips": clips,
        "clips_per_s": {name: round(clips / value, 3) for name, value in seconds.items()},
        "times_plain": round(seconds["plain"] / seconds["ours"], 3),
        "share_of_the_slower_half": round(max(seconds["decode_only"], seconds["forward_only"]) / seconds["ours"], 3),
        "rounds": [{name: round(value, 3) for name, value in seconds_of_round.items()} for seconds_of_round in rounds],
    }
    for name, value in result.items():
        if name != "rounds":
            print(f"{name:26} {value}")
    machine.write(options.out, {"machine": machine.describe("transformers", "av", "decord2"), **result})


if __name__ == "__main__":
    main()
