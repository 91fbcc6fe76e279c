"""Train the built-in `tiny` encoder on clips that are drawn during training, and write its weights.

    OMP_NUM_THREADS=1 python experiments/train_tiny.py --out features/timesformer/tiny.safetensors --work /tmp/tiny

Each clip shows one of twelve motions of one of six shapes on a random background, recorded by a moving camera. No clip
is repeated, but each is also played backwards, in the same step and with the label of the reversed motion: only the
order of the frames distinguishes the two.

With cross-entropy on motion and shape alone the loss does not fall for hours. Three changes help, found in pilots of
two minutes: Muon (Jordan, 2024) for the blocks' matrices; clips that grow from plain to cluttered over the first third
of training; and targets for every patch and frame (the shape's coverage, motion, growth, rotation and fading), so that
attention over frames learns from 128 patches per clip instead of one label. The clip embedding must also predict a
coarse picture of the clip, which helps on real clips. Most steps use small pictures, the last third full size.

After an interruption, training resumes from its last checkpoint with bit-identical results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from actionvit.features.timesformer.checkpoint import MEAN, STD
from actionvit.features.timesformer.model import TimeSformer
from actionvit.features.timesformer.state_dict import to_transformers
from actionvit.features.timesformer.variants import TINY
from actionvit.pipeline.datasets.synthetic.motions import BACKWARDS, MOTIONS, Drawn, Scene, draw_scene, draw_tracked
from actionvit.pipeline.finetuning.checkpoints import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from actionvit.pipeline.finetuning.schedule import EMA, lr_factor

SHAPES = ("disc", "box", "triangle", "ring", "cross", "drop")
REVERSED = np.array([MOTIONS.index({**BACKWARDS, **{v: k for k, v in BACKWARDS.items()}}.get(m, m)) for m in MOTIONS])
PATCH, LOOK = TINY.patch, 4
CHANGES = ("y", "x", "size", "angle", "opacity")
SEED = 51


@dataclass(frozen=True, slots=True)
class Plan:
    """The curriculum: picture sizes and difficulty by step."""

    steps: int
    clips: int
    """Clips per step; the second half is the first half in reverse order."""

    def view(self, step: int) -> tuple[int, int, int]:
        """Return clips, frames and side: small pictures for two thirds of the steps, then `tiny` or `tiny-hr`."""
        if step < self.steps * 2 // 3:
            return self.clips, 8, 64
        return (self.clips // 4, 16, 224) if step % 5 == 0 else (self.clips, 8, 112)

    def difficulty(self, step: int) -> float:
        """Return the difficulty from 0 (plain) to 1 (all of `draw_scene`), reached after a third of the steps."""
        return min(1.0, 3 * step / self.steps)


@dataclass(frozen=True, slots=True)
class Batch:
    """B clips and their targets."""

    pixels: Tensor
    """(B, T, 3, S, S), normalized."""
    motion: Tensor
    shape: Tensor
    patches: Tensor
    """(B, T, P, 6): the fraction covered by the shape, and if it is positive, the change of the shape per frame."""
    frames: Tensor
    """(B, T, 4): the shape's y, x, radius and opacity."""
    camera: Tensor
    """(B, 2): the total displacement of the camera."""


class DrawnBatches(IterableDataset[Batch]):
    """The batches of a range of steps, drawn in order."""

    def __init__(self, plan: Plan, first: int, last: int) -> None:
        self.plan, self.first, self.last = plan, first, last

    def __iter__(self) -> Iterator[Batch]:
        """Draw the batches, in one worker: several would draw the same ones."""
        for step in range(self.first, self.last):
            yield draw_batch(np.random.default_rng([SEED, step]), *self.plan.view(step), self.plan.difficulty(step))


def draw_batch(rng: np.random.Generator, clips: int, frames: int, size: int, difficulty: float) -> Batch:
    """Draw half of the requested clips; the other half are the same clips played backwards."""
    parts = [_draw(rng, frames, size, difficulty * min(1.0, 1.5 * rng.random())) for _ in range(clips // 2)]
    pixels, motion, shape, patches, places, camera = (np.stack(column) for column in zip(*parts, strict=True))
    turned = patches[:, ::-1].copy()
    turned[..., 1:] *= -1  # growth becomes shrinking
    x = torch.from_numpy(np.concatenate([pixels, pixels[:, ::-1]])).permute(0, 1, 4, 2, 3).float()
    return Batch(
        ((x / 255 - MEAN[0]) / STD[0]).contiguous(),
        torch.from_numpy(np.concatenate([motion, REVERSED[motion]])),
        torch.from_numpy(np.concatenate([shape, shape])),
        torch.from_numpy(np.concatenate([patches, turned])),
        torch.from_numpy(np.concatenate([places, places[:, ::-1]])),
        torch.from_numpy(np.concatenate([camera, -camera])),
    )


def _draw(rng: np.random.Generator, frames: int, size: int, difficulty: float) -> tuple[NDArray[np.generic], ...]:
    """Return pixels (T, S, S, 3), classes and the targets of `Batch` for one clip."""
    motion, shape = int(rng.integers(len(MOTIONS))), int(rng.integers(len(SHAPES)))
    random = np.random.RandomState(rng.integers(2**32))
    height, width = size, size + size // 3
    drawn = draw_tracked(
        MOTIONS[motion],
        random,
        frames=frames,
        size=(height, width),
        camera_motion=difficulty * rng.uniform(0, 0.1) * (rng.random() < 0.6),
        noise=int(difficulty * rng.integers(0, 14)),
        scene=_plainer(replace(draw_scene(random), shape=SHAPES[shape]), difficulty, rng),
    )
    x0 = int(rng.integers(width - size + 1))
    targets = _targets(drawn, x0, size)
    pixels = drawn.pixels[:, :, x0 : x0 + size].astype(np.float32)
    pixels = pixels * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25)
    if rng.random() < 0.5:
        pixels *= rng.uniform(0.8, 1.2, 3)
    return (np.clip(pixels, 0, 255).astype(np.uint8), np.array(motion), np.array(shape), *targets)


def _plainer(scene: Scene, difficulty: float, rng: np.random.Generator) -> Scene:
    """Return a simplified scene; at 0 it is a plain shape of the strongest contrast on a uniform background."""
    mean = scene.backdrop.mean()
    contrast = np.float32(20 if mean > 125 else 235)
    return replace(
        scene,
        backdrop=mean + np.float32(difficulty) * (scene.backdrop - mean),
        grain=scene.grain * np.array([1, 1, difficulty], dtype=np.float32),
        colours=contrast + np.float32(difficulty) * (scene.colours - contrast),
        stripes=scene.stripes * difficulty,
        clutter=scene.clutter[rng.random(len(scene.clutter)) < difficulty],
    )


def _targets(drawn: Drawn, left: int, size: int) -> tuple[NDArray[np.float32], ...]:
    """Return the targets of patches, frames and camera, scaled to similar magnitudes."""
    track, camera = drawn.track, np.rint(drawn.camera)
    y, x = track.y - camera[:, 0] / size, track.x - (camera[:, 1] + left) / size
    side, fine = size // PATCH, 4
    place = (np.arange(side * fine) + 0.5) / (side * fine)
    distance = np.hypot(place[None, :, None] - y[:, None, None], place[None, None, :] - x[:, None, None])
    inside = (distance < 0.85 * track.radius[:, None, None]).reshape(-1, side, fine, side, fine)
    cover = inside.mean((2, 4)).reshape(-1, side**2) * track.opacity[:, None]
    rates = np.gradient(
        np.stack([20 * y, 20 * x, 10 * np.log(track.radius), 3 * track.angle, 4 * track.opacity]), axis=1
    )
    patches = np.concatenate([cover[..., None], (cover > 0.05)[..., None] * rates.T[:, None]], axis=-1)
    frames = np.stack([y - 0.5, x - 0.5, 4 * track.radius - 0.8, track.opacity - 0.5], axis=1)
    return (
        patches.astype(np.float32),
        frames.astype(np.float32),
        (10 * (camera[-1] - camera[0]) / size).astype(np.float32),
    )


class Student(nn.Module):
    """The encoder with the prediction heads of its training."""

    def __init__(self) -> None:
        super().__init__()
        D = TINY.width
        self.encoder = TimeSformer(TINY)
        self.motion, self.shape, self.camera = nn.Linear(D, len(MOTIONS)), nn.Linear(D, len(SHAPES)), nn.Linear(D, 2)
        self.frames, self.patches = nn.Linear(D, 4), nn.Linear(D, 1 + len(CHANGES))
        self.look = nn.Linear(D, 4 * LOOK**2)
        self._start()

    def _start(self) -> None:
        """Draw matrices by fan-in; set position and time embeddings to sines and cosines, easy to distinguish."""
        for name, parameter in self.encoder.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=parameter[0].numel() ** -0.5)
            else:
                nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
        side, D = TINY.image_size // PATCH, TINY.width
        grid = torch.cartesian_prod(torch.arange(side), torch.arange(side)) / side
        waves = torch.cat([_waves(grid[:, axis], D // 2) for axis in (0, 1)], 1)
        mixed = torch.from_numpy(
            np.random.RandomState(SEED).permutation(D)
        )  # time embeddings must differ from position embeddings
        with torch.no_grad():
            nn.init.trunc_normal_(self.encoder.cls, std=0.02)
            self.encoder.position.zero_()[0, 1:] = 0.3 * waves
            self.encoder.time[0] = 0.3 * _waves(torch.arange(TINY.num_frames) / TINY.num_frames, D)[:, mixed]

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, and a dict of its terms and the accuracies."""
        encoder = self.encoder
        with torch.autocast("cpu", torch.bfloat16):
            embedding = encoder(batch.pixels, tokens_after=TINY.depth - 1)
        assert embedding.tokens is not None
        clip, frame, tokens = embedding.clip.float(), embedding.frame.float(), embedding.tokens[:, :, 1:].float()
        motion, shape = self.motion(clip), self.shape(clip)
        seen = batch.frames[..., 3] > 0  # where the shape is visible
        off = (self.frames(frame) - batch.frames) ** 2
        wrong = (self.patches(F.layer_norm(tokens, tokens.shape[-1:])) - batch.patches) ** 2
        covered = batch.patches[..., :1] > 0.05
        parts = {
            "motion": F.cross_entropy(motion, batch.motion),
            "shape": F.cross_entropy(shape, batch.shape),
            "frames": 20 * (off[..., :3].mean(-1) * seen).mean() + 4 * off[..., 3].mean(),
            "camera": F.mse_loss(self.camera(clip), batch.camera),
            "cover": 10 * wrong[..., 0].mean(),
            "look": F.mse_loss(self.look(clip), _look(batch.pixels)),
            "change": (wrong[..., 1:] * covered).sum() / covered.sum().clamp(1) / len(CHANGES),
        }
        losses = {name: float(value.detach()) for name, value in parts.items()}
        losses["motion right"] = float((motion.argmax(1) == batch.motion).float().mean())
        losses["shape right"] = float((shape.argmax(1) == batch.shape).float().mean())
        return torch.stack(list(parts.values())).sum(), losses


def _look(pixels: Tensor) -> Tensor:
    """Return a coarse picture of each clip, (B, 4 · 16): its mean frame, and where frames differ."""
    changes = 2 * pixels.diff(dim=1).abs().mean((1, 2))[:, None]
    return F.adaptive_avg_pool2d(torch.cat([pixels.mean(1), changes], 1), LOOK).flatten(1)


def _waves(at: Tensor, width: int) -> Tensor:
    """Return sines and cosines of positions in [0, 1), (n, width)."""
    turns = at[:, None] * 3 * torch.pi * 100.0 ** -(torch.arange(width // 2) / (width // 2))
    return torch.cat([turns.sin(), turns.cos()], 1)


def _optimizers(student: Student) -> dict[str, torch.optim.Optimizer]:
    """Return Muon for the blocks' matrices, AdamW for everything else."""
    named = dict(student.named_parameters())
    matrices = [p for name, p in named.items() if name.startswith("encoder.blocks.") and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in named.values() if id(p) not in chosen]
    return {
        "muon": torch.optim.Muon(matrices, lr=5e-3, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        "adamw": torch.optim.AdamW(rest, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    }


@torch.no_grad()
def _examine(student: Student, clips: int = 480) -> dict[str, float]:
    """Return the terms of the loss on new clips at full size and difficulty."""
    rng = np.random.default_rng([SEED, 1, 0])
    losses = [student(draw_batch(rng, 32, 8, 112, 1.0))[1] for _ in range(clips // 32)]
    return {name: float(np.mean([record[name] for record in losses])) for name in losses[0]}


def main() -> None:
    """Train all steps; write the EMA weights in fp16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--clips", type=int, default=32, help="clips per step")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    plan, student = Plan(arguments.steps, arguments.clips), Student()
    parameters = dict(student.named_parameters())
    optimizers, average = _optimizers(student), EMA(parameters, 0.998)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    first = _resume(arguments.work, parameters, average, optimizers)
    began, losses = time.perf_counter(), []
    batches = DataLoader(DrawnBatches(plan, first, plan.steps), batch_size=None, num_workers=1, prefetch_factor=8)
    for step, batch in enumerate(batches, start=first):
        loss, parts = student(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name] * lr_factor(step, plan.steps, 0.01)
            optimizer.step()
            optimizer.zero_grad()
        average.update(parameters)
        losses.append(parts)
        if (step + 1) % 100 == 0:
            means = {name: round(float(np.mean([record[name] for record in losses])), 3) for name in parts}
            click.echo(f"{step + 1}: {time.perf_counter() - began:.0f} s, {means}")
            losses.clear()
        if (step + 1) % 500 == 0:
            click.echo(f"{step + 1}: of other clips { ({k: round(v, 3) for k, v in _examine(student).items()}) }")
            _save(arguments.work, step + 1, parameters, average, optimizers)
    weights = {n.removeprefix("encoder."): v for n, v in average.values.items() if n.startswith("encoder.")}
    save_file({to_transformers(name): value.half().contiguous() for name, value in weights.items()}, arguments.out)


Optimizers = dict[str, torch.optim.Optimizer]


def _save(work: Path, step: int, parameters: dict[str, nn.Parameter], average: EMA, optimizers: Optimizers) -> None:
    groups = {"now": parameters, "average": average.values}
    groups |= {name: optimizer_tensors(optimizer) for name, optimizer in optimizers.items()}
    tensors = {f"{kind}/{name}": value for kind, group in groups.items() for name, value in group.items()}
    save_checkpoint(work, tensors, {"step": step})


def _resume(work: Path, parameters: dict[str, nn.Parameter], average: EMA, optimizers: Optimizers) -> int:
    """Restore the state of a checkpoint; return the next step."""
    if (saved := load_checkpoint(work)) is None:
        return 0
    tensors, state = saved
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        groups.setdefault(kind, {})[rest] = value
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(groups["now"][name])
    average.values, average.steps = groups["average"], state["step"]
    for name, optimizer in optimizers.items():
        restore_optimizer(optimizer, groups[name])
    return int(state["step"])


if __name__ == "__main__":
    main()
