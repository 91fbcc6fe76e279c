"""Train the built-in `tiny` encoder on clips that are drawn as they are needed, and write its weights.

    OMP_NUM_THREADS=2 python experiments/train_tiny.py --out tiny.safetensors --work /tmp/tiny --epochs 60

Each clip is a motion (12) of a shape (6) before a new place, seen by a moving camera; the class is the pair, so that
the encoder must tell what moves and how. No clip comes twice. Kill it and run it again: it goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from actionvit.features.timesformer.model import TimeSformer
from actionvit.features.timesformer.tiny import TINY, tiny_weights
from actionvit.features.timesformer.variants import clip_spec
from actionvit.features.timesformer.weights import MEAN, STD
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.datasets.motions import MOTIONS, draw_clip, draw_scene
from actionvit.pipeline.finetuning.augment import AugmentSpec, draw_view, normalised
from actionvit.pipeline.finetuning.classifier import Classifier, Frozen
from actionvit.pipeline.finetuning.clips import Loaded, ViewSpec
from actionvit.pipeline.finetuning.distributed import Ranks
from actionvit.pipeline.finetuning.loss import LossSpec
from actionvit.pipeline.finetuning.sampling import Item, SamplingSpec
from actionvit.pipeline.finetuning.schedule import OptimSpec
from actionvit.pipeline.finetuning.train_spec import Progress, TrainSpec
from actionvit.pipeline.finetuning.training import Training

SHAPES = ("disc", "box", "triangle", "ring", "cross", "drop")
CLASSES = len(MOTIONS) * len(SHAPES)
# Mirrored, a move to the right is one to the left: no flips. Crops and colours may vary.
AUGMENT = AugmentSpec(window=1.0, area=0.5, flip=False, colours=2, strength=0.5)


class DrawnClips:
    """Inputs drawn on the spot: row r is of class r mod 72, and what else it shows follows from the item."""

    cached = False

    def __init__(self, rows: int) -> None:
        self.videos = [Video(id=str(row), path=Path(), label="", source=str(row)) for row in range(rows)]
        self.spec = ViewSpec(clip=clip_spec("tiny"), augment=AUGMENT, mean=MEAN, std=STD)
        self.failures: dict[str, str] = {}

    def train(self, steps: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """Yield each step's clips, all of them new."""
        for items in steps:
            views = [self._draw(item.video, item.rng("view")) for item in items]
            yield Loaded(items, torch.stack(views), np.ones(len(items)))

    def test(self, rows: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield clips that are the same every time."""
        for row in rows:
            yield row, self._draw(row, np.random.default_rng([1, row]))[None]

    def _draw(self, row: int, rng: np.random.Generator) -> Tensor:
        motion, shape = MOTIONS[row % CLASSES % len(MOTIONS)], SHAPES[row % CLASSES // len(MOTIONS)]
        random = np.random.RandomState(rng.integers(2**32))
        scene = replace(draw_scene(random), shape=shape)
        T, S = self.spec.clip.num_frames, self.spec.clip.size
        clip = draw_clip(
            motion,
            random,
            frames=T,
            size=(S + S // 8, S + S // 2),
            camera_motion=float(rng.uniform(0, 0.08)) * (rng.random() < 0.6),
            noise=int(rng.integers(0, 13)),
            scene=scene,
        )
        # Every frame is wanted: times are drawn where the clip is, by its own bend and pace.
        frames = torch.from_numpy(clip).permute(0, 3, 1, 2)
        whole = draw_view(frames, AUGMENT, rng, num_frames=T, size=S, label="")
        return normalised(whole, MEAN, STD)


def main() -> None:
    """Train, telling of every epoch; write the best epoch's weights in fp16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--clips", type=int, default=2880, help="an epoch")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=51)
    arguments = parser.parse_args()
    rows = np.arange(arguments.clips + 5 * CLASSES)
    encoder = TimeSformer(TINY)
    encoder.load_state_dict({name: torch.from_numpy(array) for name, array in tiny_weights().items()})
    model = Classifier(encoder, CLASSES, first=-1)
    spec = TrainSpec(
        epochs=arguments.epochs,
        patience=0,
        criterion="log_loss",
        drop_path=0.0,
        autocast=True,  # bf16 products: on processors that have them a third faster, and as good
        sampling=SamplingSpec(batch=arguments.batch, seed=arguments.seed),
        optim=OptimSpec(lr=arguments.lr, layer_decay=1.0, warmup=0.02, ema=0.995),
        loss=LossSpec(label_smoothing=0.05),
    )
    training = Training(
        model,
        Frozen(encoder, clip_spec("tiny"), -1, "cpu"),
        DrawnClips(len(rows)),
        (rows % CLASSES).astype(np.intp),
        fit=rows[: arguments.clips],
        held=rows[arguments.clips :],
        spec=spec,
        ranks=Ranks(),
        folder=arguments.work,
        identity={name: str(value) for name, value in vars(arguments).items()},
    )
    began = time.perf_counter()

    def tell(row: dict[str, float]) -> None:
        click.echo(f"{time.perf_counter() - began:6.0f} s { ({name: round(value, 4) for name, value in row.items()}) }")

    def step(progress: Progress) -> None:
        if progress.step % 30 == 0:
            click.echo(
                f"  {progress.epoch}.{progress.step}: {progress.loss:.3f} {progress.accuracy:.3f} "
                f"{progress.clips_per_second:.1f}/s"
            )

    training.run(resume=True, on_step=step, on_epoch=tell)
    tensors = {name: value.detach().half().contiguous() for name, value in encoder.state_dict().items()}
    save_file(tensors, arguments.out)


if __name__ == "__main__":
    main()
