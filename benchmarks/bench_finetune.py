"""An epoch of the last blocks from cached tokens, against the same epoch through the frozen blocks.

    python benchmarks/bench_finetune.py                         # base, last:1 and last:4; some minutes on two cores
    python benchmarks/bench_finetune.py --clips 4 --depth 2 --train last:1

Both methods use the same views of the same synthetic clips (240 × 320 pixels, 40 frames) in the same steps, and end at
the same loss except for rounding tokens to fp16. Weights are random. The comparison favors the slower method: its
decoded and resized frames stay in memory, whereas tokens are read from the file each time (`--frame-cache-gib 0`). CPU
seconds are reported in addition to wall-clock seconds because other programs affect them less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
import peers

from actionvit.features.decoding import DecodePolicy
from actionvit.features.timesformer.checkpoint import Weights, find_weights
from actionvit.features.timesformer.variants import VARIANTS, clip_spec
from actionvit.pipeline.datasets import Dataset, load_dataset
from actionvit.pipeline.datasets.synthetic.dataset import draw_clip, draw_scene, write_avi
from actionvit.pipeline.finetuning.classifier import FrozenBlocks
from actionvit.pipeline.finetuning.clips import Clips, FileClips
from actionvit.pipeline.finetuning.distributed import ProcessGroup
from actionvit.pipeline.finetuning.finetune import view_spec
from actionvit.pipeline.finetuning.spec import AugmentSpec, FinetuneSpec, SamplingSpec, TrainSpec
from actionvit.pipeline.finetuning.split import load_model
from actionvit.pipeline.finetuning.tokens import CachedClips, extract_tokens, token_store
from actionvit.pipeline.finetuning.trainer import Trainer


def drawn(root: Path, clips: int) -> Dataset:
    for number in range(clips):
        motion = ("move_left", "grow")[number % 2]
        (root / motion).mkdir(parents=True, exist_ok=True)
        rng = np.random.RandomState(number)
        write_avi(
            root / motion / f"{number}.avi", draw_clip(motion, rng, frames=40, size=(240, 320), scene=draw_scene(rng))
        )
    return load_dataset(root)


def epochs(
    spec: FinetuneSpec, weights: Weights, clips: Clips, frozen: FrozenBlocks, folder: Path
) -> list[dict[str, float]]:
    """Train on all clips; return the wall-clock seconds, CPU seconds and loss of each epoch."""
    rows, losses = np.arange(len(clips.videos)), []
    model = load_model(weights, 2, spec, "cpu")
    parts = {
        "train_rows": rows,
        "val_rows": rows,
        "spec": spec.training,
        "ranks": ProcessGroup(),
        "folder": folder,
        "identity": {},
    }
    trainer = Trainer(model, frozen, clips, rows % 2, **parts)
    for epoch in range(1, spec.training.epochs + 1):
        before = time.process_time()
        row = trainer._epoch(epoch, lambda progress: None)
        losses.append({"s": row["seconds"], "cpu_s": time.process_time() - before, "loss": row["loss"]})
    return losses


def measure(train: str, dataset: Dataset, weights: Weights, options: argparse.Namespace, scratch: Path) -> dict:
    training = TrainSpec(epochs=options.epochs, patience=0, sampling=SamplingSpec(batch=options.batch))
    spec = FinetuneSpec(
        variant=options.variant,
        train=train,
        clip=clip_spec(options.variant),
        augment=AugmentSpec(),
        views=2,
        training=training,
    )
    views = view_spec(weights, spec)
    model = load_model(weights, 2, spec, "cpu")
    frozen = FrozenBlocks(model.encoder, spec.clip, model.num_frozen, "cpu")
    began = time.perf_counter()
    where = {"variant": options.variant, "cache": scratch / "cache", "policy": DecodePolicy()}
    store = token_store(dataset, dataset.videos, weights, frozen, views, **where)
    extract_tokens(store, dataset.videos, weights, frozen, views, policy=where["policy"], workers=0)
    store.refresh()
    once = round(time.perf_counter() - began, 2)
    ways: dict[str, Clips] = {
        "through the frozen blocks": FileClips(dataset.videos, views, workers=0),
        "from tokens": CachedClips(dataset.videos, store, views),
    }
    rows = {}
    for way, clips in ways.items():
        history = epochs(spec, weights, clips, frozen, scratch / f"{train} {way}".replace(":", ""))
        counted = history[1:]  # the first epoch decodes
        rows[way] = {name: [round(row[name], 4) for row in counted] for name in ("s", "cpu_s")}
        rows[way]["loss"] = counted[-1]["loss"]
        print(f"{train} {way:26} {rows[way]} a counted epoch", flush=True)
    slow, fast = rows.values()
    times = {name: round(statistics.median(slow[name]) / statistics.median(fast[name]), 2) for name in ("s", "cpu_s")}
    print(f"{train} tokens are {times['s']} times faster, by the cores' seconds {times['cpu_s']}", flush=True)
    return {
        "train": train,
        "ways": rows,
        "times_faster": times["s"],
        "times_less_cpu": times["cpu_s"],
        "tokens_once_s": once,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=list(VARIANTS), default="base")
    parser.add_argument("--train", nargs="+", default=["last:1", "last:4"])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4, help="including the first, which is not counted")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetune.json")
    options = parser.parse_args()
    spec = clip_spec(options.variant)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        config = {"num_frames": spec.num_frames, "image_size": spec.size, "num_hidden_layers": options.depth}
        peers.write_random_model(scratch / "model", **config)
        weights = find_weights(options.variant, scratch / "model")
        dataset = drawn(scratch / "clips", options.clips)
        rows = [measure(train, dataset, weights, options, scratch) for train in options.train]
    shape = {"variant": options.variant, "clips": options.clips, "batch": options.batch, "precision": "fp32"}
    machine.write(options.out, {"machine": machine.describe("h5py"), **shape, "rows": rows})


if __name__ == "__main__":
    main()
