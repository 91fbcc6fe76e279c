"""An epoch of the last blocks from cached tokens, against the same epoch through the frozen blocks.

    python benchmarks/bench_finetune.py                         # base, last:1 and last:4; some minutes on two cores
    python benchmarks/bench_finetune.py --device cuda --train last:1 all --clips 64 --batch 16 --peer
    python benchmarks/bench_finetune.py --clips 4 --depth 2 --train last:1

Both methods use the same views of the same synthetic clips (240 × 320 pixels, 40 frames) in the same steps, and end at
the same loss except for rounding tokens to fp16. Weights are random. The comparison favors the slower method: its
decoded and resized frames stay in memory, whereas tokens are read from the file each time (`--frame-cache-gib 0`). CPU
seconds are reported in addition to wall-clock seconds because other programs affect them less.

`--peer` times steps of transformers' model with the same trained blocks, batch and precision, its pixels already on the
device. On a GPU both compute in bf16 autocast, and the largest allocated memory stands beside clips per second.
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
import torch

from actionvit.features.decoding import DecodePolicy
from actionvit.features.sampling import ClipSpec
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
    spec: FinetuneSpec, weights: Weights, clips: Clips, frozen: FrozenBlocks, folder: Path, device: str
) -> list[dict[str, float]]:
    """Train on all clips; return the wall-clock seconds, CPU seconds and loss of each epoch."""
    rows, losses = np.arange(len(clips.videos)), []
    model = load_model(weights, 2, spec, device)
    parts = {
        "train_rows": rows,
        "val_rows": rows,
        "spec": spec.training,
        "ranks": ProcessGroup(device=device),
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
    autocast, device = options.device != "cpu", options.device
    sampling = SamplingSpec(batch=options.batch)
    training = TrainSpec(epochs=options.epochs, patience=0, sampling=sampling, autocast=autocast)
    spec = FinetuneSpec(
        variant=options.variant, train=train, clip=shaped(options), augment=AugmentSpec(), views=2, training=training
    )
    views = view_spec(weights, spec)
    model = load_model(weights, 2, spec, device)
    frozen = FrozenBlocks(model.encoder, spec.clip, model.num_frozen, device, bf16=autocast)
    ways: dict[str, Clips] = {"through the frozen blocks": FileClips(dataset.videos, views, workers=options.workers)}
    row: dict = {"train": train, "batch": options.batch}
    if train != "all":
        began = time.perf_counter()
        where = {"variant": options.variant, "cache": scratch / "cache", "policy": DecodePolicy()}
        store = token_store(dataset, dataset.videos, weights, frozen, views, **where)
        parts = {"policy": where["policy"], "workers": options.workers}
        extract_tokens(store, dataset.videos, weights, frozen, views, **parts)
        store.refresh()
        row["tokens_once_s"] = round(time.perf_counter() - began, 2)
        ways["from tokens"] = CachedClips(dataset.videos, store, views)
    row["ways"] = {}
    for way, clips in ways.items():
        reset_memory(device)
        history = epochs(spec, weights, clips, frozen, scratch / f"{train} {way}".replace(":", ""), device)
        counted = history[1:]  # the first epoch decodes
        figures = {name: [round(epoch[name], 4) for epoch in counted] for name in ("s", "cpu_s")}
        seconds = statistics.median(epoch["s"] for epoch in counted)
        figures |= {"clips_per_s": round(len(dataset.videos) / seconds, 2), "memory_gib": memory_gib(device)}
        row["ways"][way] = {**figures, "loss": counted[-1]["loss"]}
        print(f"{train} {way:26} {row['ways'][way]} per counted epoch", flush=True)
    if options.peer:
        reset_memory(device)
        row["transformers"] = peer_steps(scratch / "model", train, options)
        print(f"{train} {'transformers':26} {row['transformers']}", flush=True)
    if train != "all":
        slow, fast = row["ways"].values()
        times = {
            name: round(statistics.median(slow[name]) / statistics.median(fast[name]), 2) for name in ("s", "cpu_s")
        }
        row |= {"times_faster": times["s"], "times_less_cpu": times["cpu_s"]}
        print(f"{train} tokens are {times['s']} times faster, by the cores' seconds {times['cpu_s']}", flush=True)
    return row


def shaped(options: argparse.Namespace) -> ClipSpec:
    return clip_spec(options.variant, frames=2, size=32) if options.small else clip_spec(options.variant)


def reset_memory(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_gib(device: str) -> float | None:
    """Return the largest memory allocated on a GPU since `reset_memory`."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.startswith("cuda") else None


def peer_steps(folder: Path, train: str, options: argparse.Namespace) -> dict:
    """Return clips per second and memory of transformers' model, the same blocks trained with AdamW."""
    from transformers import TimesformerForVideoClassification

    spec = shaped(options)
    model = TimesformerForVideoClassification.from_pretrained(folder, num_labels=2).train().to(options.device)
    if train != "all":
        blocks = int(train.removeprefix("last:"))
        model.timesformer.requires_grad_(False)
        for module in (*model.timesformer.encoder.layer[-blocks:], model.timesformer.layernorm):
            module.requires_grad_(True)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    pixels = torch.randn(options.batch, spec.num_frames, 3, spec.size, spec.size, device=options.device)
    labels = torch.arange(options.batch, device=options.device) % 2
    seconds = []
    for _ in range(4):
        peers.wait(options.device)
        began = time.perf_counter()
        with torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=options.device != "cpu"):
            loss = torch.nn.functional.cross_entropy(model(pixels).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        peers.wait(options.device)
        seconds.append(time.perf_counter() - began)
    rate = options.batch / statistics.median(seconds[1:])
    return {"clips_per_s": round(rate, 2), "memory_gib": memory_gib(options.device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=list(VARIANTS), default="base")
    parser.add_argument("--train", nargs="+", default=["last:1", "last:4"])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4, help="including the first, which is not counted")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes")
    parser.add_argument("--peer", action="store_true", help="also time transformers' model")
    parser.add_argument("--small", action="store_true", help="narrow blocks on 2 × 32 views, to try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetune.json")
    options = parser.parse_args()
    spec, precision = shaped(options), "fp32" if options.device == "cpu" else "bf16 autocast"
    config = {"num_frames": spec.num_frames, "image_size": spec.size, "num_hidden_layers": options.depth}
    if options.small:
        config |= {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    shape = {"variant": options.variant, "clips": options.clips, "batch": options.batch, "precision": precision}
    result = {"machine": machine.describe("h5py", "transformers"), **shape, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        peers.write_random_model(scratch / "model", **config)
        weights = find_weights(options.variant, scratch / "model")
        dataset = drawn(scratch / "clips", options.clips)
        for train in options.train:
            result["rows"].append(measure(train, dataset, weights, options, scratch))
            machine.write(options.out, result)


if __name__ == "__main__":
    main()
