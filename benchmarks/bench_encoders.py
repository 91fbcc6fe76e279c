"""Frozen transformers encoders: the forward pass of `extract --encoder` against a plain transformers script.

    python benchmarks/bench_encoders.py                       # CLIP ViT-B/16 and VideoMAE base; minutes on two cores
    python benchmarks/bench_encoders.py --family clip --depth 2 --repeats 3

Both get the same decoded frames (320 × 240) in memory, and prepare and embed one clip at a time. Weights are random.
The plain script uses the processor and the `from_pretrained` model of the family, with SDPA attention in inference
mode. Repetitions alternate, as does the side that begins, so that other load affects both equally. The results are the
median ratios of wall-clock time and of CPU time, which other programs affect less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import torch
import transformers
from PIL import Image

from actionvit.features.decoding import Frames
from actionvit.features.sampling import clip_indices
from actionvit.features.transformers_encoder import find_encoder

VIT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "image_size": 224, "patch_size": 16}
FAMILIES = {
    "clip": ("CLIPVisionModel", VIT, "CLIPImageProcessorPil", False),
    "videomae": ("VideoMAEModel", {**VIT, "num_frames": 16}, "VideoMAEImageProcessorPil", True),
}


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(folder: Path, family: str, options: argparse.Namespace) -> dict:
    model_class, config, processor_class, video = FAMILIES[family]
    cls, processor = getattr(transformers, model_class), getattr(transformers, processor_class)()
    torch.manual_seed(0)
    config = {**config, "num_hidden_layers": options.depth}
    if options.small:
        config |= {"hidden_size": 48, "intermediate_size": 96}
    cls(cls.config_class(**config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    model = cls.from_pretrained(folder, attn_implementation="sdpa").eval()
    job = find_encoder(str(folder))
    encoder = job.load("cpu")
    data = np.random.default_rng(0).integers(0, 256, (job.spec.num_frames, 240, 320, 3), dtype=np.uint8)
    frames = Frames(data=data, index=np.arange(len(data)), count=len(data), backend="noise")
    index = clip_indices(frames.count, job.spec)[0]

    def plain() -> torch.Tensor:
        images = [Image.fromarray(data[number]) for number in index]
        with torch.inference_mode():
            output = model(processor(images, return_tensors="pt")["pixel_values"])
        return output.last_hidden_state[0].mean(0) if video else output.pooler_output.mean(0)

    difference = float((torch.from_numpy(encoder.encode(frames)["clip"][0]) - plain()).abs().max())
    ours, theirs = [], []
    for number in range(options.repeats):
        sides = [(ours, lambda: encoder.encode(frames)), (theirs, plain)]
        for times, work in sides if number % 2 else reversed(sides):
            times.append(seconds(work))
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "family": family,
        "ours_s": round(min(wall for wall, _ in ours), 4),
        "plain_s": round(min(wall for wall, _ in theirs), 4),
        "times_faster": round(statistics.median(plain[0] / ours[0] for ours, plain in pairs), 3),
        "times_less_cpu": round(statistics.median(plain[1] / ours[1] for ours, plain in pairs), 3),
        "max_difference": difference,
        "gmac": round(job.gmac, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="narrow models, to test the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "encoders.json")
    options = parser.parse_args()
    rows = []
    for family in options.family:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(Path(folder), family, options))
        print(rows[-1])
    machine.write(options.out, {"machine": machine.describe("transformers", "pillow"), "rows": rows})


if __name__ == "__main__":
    main()
