"""A model with a few thousand parameters and a handful of drawn clips: real fine-tuning in seconds.

As a script, `python tiny_model.py STEP finetune ...` is `actionvit finetune ...`, killed by SIGKILL in its STEP-th
step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import Weights, find_weights
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.state_dict import tensor_shapes, to_transformers
from actionvit.pipeline.datasets import Dataset, load_dataset
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.datasets.synthetic.motions import draw_clip, draw_scene
from actionvit.pipeline.finetuning.spec import AugmentSpec, FinetuneSpec, LossSpec, OptimSpec, SamplingSpec, TrainSpec

SHAPE = TimeSformerConfig(width=32, depth=3, heads=2, mlp=48, patch=16, num_frames=4, image_size=32)
CLIP = ClipSpec(num_frames=4, size=32)
MOTIONS = ("move_left", "move_right", "grow")


def write_weights(folder: Path, shape: TimeSformerConfig = SHAPE, seed: int = 0) -> Path:
    """Write random weights as a Hugging Face folder, as `--weights` takes it."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in tensor_shapes(shape).items():
        value = torch.randn(size, generator=random) * (0.2 if len(size) == 1 else 0.5 * float(size[-1]) ** -0.5)
        tensors[to_transformers(name)] = value + 1.0 if "norm" in name and name.endswith("weight") else value
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    config: dict[str, Any] = {
        "model_type": "timesformer",
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp,
        "patch_size": shape.patch,
        "num_frames": shape.num_frames,
        "image_size": shape.image_size,
        "hidden_act": shape.act,
        "layer_norm_eps": shape.eps,
        "attention_type": "divided_space_time",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def weights(folder: Path) -> Weights:
    return find_weights("tiny", write_weights(folder))


def write_clips(root: Path, *, sources: int = 6, clips: int = 2, motions: tuple[str, ...] = MOTIONS) -> Dataset:
    """Draw `clips` clips of each of `sources` films per class, with HMDB51 names."""
    for label, motion in enumerate(motions):
        (root / motion).mkdir(parents=True)
        for source in range(sources):
            scene = draw_scene(np.random.RandomState([label, source]))
            for clip in range(clips):
                pixels = draw_clip(
                    motion, np.random.RandomState([label, source, clip]), frames=10, size=(48, 64), scene=scene
                )
                write_avi(root / motion / f"Film{label}{source}_{motion}_f_nm_np1_fr_goo_{clip}.avi", pixels)
    return load_dataset(root)


def spec(**changes: Any) -> FinetuneSpec:
    """A spec for the small model; keywords may be fields of any of its parts."""
    training = TrainSpec(
        epochs=2,
        patience=0,
        drop_path=0.2,
        sampling=SamplingSpec(batch=8),
        optim=OptimSpec(lr=3e-3),
        loss=LossSpec(),
    )
    parts = {part: getattr(training, part) for part in ("sampling", "optim", "loss")}
    for name in list(changes):
        for part, value in parts.items():
            if name in type(value).__dataclass_fields__:
                parts[part] = replace(value, **{name: changes.pop(name)})
                break
    inner = {name: changes.pop(name) for name in list(changes) if name in TrainSpec.__dataclass_fields__}
    whole = FinetuneSpec(
        variant="tiny",
        clip=CLIP,
        augment=AugmentSpec(),
        protocol="grouped",
        folds=3,
        splits=("grouped-1",),
        refit=False,
        training=replace(training, **parts, **inner),
    )
    return replace(whole, **changes)


def command(dataset: Dataset, weights: Weights, folder: Path, *more: str) -> list[str]:
    """Return the arguments of a small `actionvit finetune`."""
    options = {
        "--variant": "tiny", "--num-frames": "4", "--size": "32", "--weights": weights.source, "--epochs": "3",
        "--cache": folder / "cache", "--runs": folder / "runs", "--run-name": "run", "--protocol": "grouped",
        "--folds": "3", "--split": "grouped-1", "--batch-size": "8", "--lr": "3e-3", "--workers": "0",
        "--device": "cpu",
    }  # fmt: skip
    flat = [str(part) for pair in options.items() for part in pair]
    return ["finetune", str(dataset.root), *flat, *more]


def save_some_checkpoint(folder: Path) -> None:
    from actionvit.pipeline.finetuning.checkpoints import save_checkpoint

    save_checkpoint(folder, {"now/weight": torch.ones(3, 2), "optimizer/0.step": torch.tensor(5.0)}, {"epoch": 3})


def die_in_step(number: int) -> None:
    """Kill this process after the backward pass of a step and before its gradients are used."""
    from actionvit.pipeline.finetuning.trainer import Trainer

    gradients, count = Trainer._gradients, iter(range(1, sys.maxsize))

    def counted(self: Trainer, *arguments: Any) -> Any:
        found = gradients(self, *arguments)
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    Trainer._gradients = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    from actionvit.cli import main

    die_in_step(int(sys.argv[1]))
    main(sys.argv[2:])
