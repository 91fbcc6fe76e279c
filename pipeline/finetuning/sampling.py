"""Which clips make which step of which epoch on which rank: pure functions of the seed, so that nothing needs saving.

Every random choice of training follows from (seed, epoch, position in the epoch): a resumed training, and one on
another number of ranks, draws the same clips and the same views without any generator's state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.heads.weighting import Sampler, sampling_rates

Deal = Literal["shuffled", "class-aware", "sharded"]
Purpose = Literal["view", "drop"]


@dataclass(frozen=True, slots=True)
class Mix:
    """A second clip blended into an item."""

    video: int
    position: int
    share: float
    """Of the first clip."""
    cut: bool
    """Whether a box of the second clip replaces the first's pixels (CutMix), or all pixels are averaged (mixup)."""


@dataclass(frozen=True, slots=True)
class Item:
    """One clip of one step."""

    video: int
    """Row of the training videos."""
    seed: int
    epoch: int
    position: int
    """In the epoch, over all ranks."""
    mix: Mix | None = None

    def rng(self, purpose: Purpose, *, second: bool = False) -> np.random.Generator:
        """Return the generator of one thing that is random about the item, or about the clip blended into it."""
        position = self.mix.position if second and self.mix else self.position
        return np.random.default_rng([self.seed, self.epoch, position, ("view", "drop").index(purpose)])

    def of_rows(self, rows: NDArray[np.intp]) -> Item:
        """Return the item with its videos numbered as `rows` does: rows[0] for 0."""
        mix = self.mix and replace(self.mix, video=int(rows[self.mix.video]))
        return replace(self, video=int(rows[self.video]), mix=mix)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How an epoch is cut into steps."""

    batch: int
    """Clips a step, over all ranks."""
    sampler: Sampler = "uniform"
    """Every clip once an epoch, or as many draws in which all classes come alike."""
    deal: Deal = "shuffled"
    """How a step's clips go to ranks: in turn; in turn by class, so that ranks see the same classes; or `sharded`, each
    rank drawing from a fixed part of the training set in the order of ids, as naive data parallelism does."""
    mixup: float = 0.0
    """α of Beta(α, α), the share of the first clip (Zhang et al., ICLR 2018); 0 for none."""
    cutmix: float = 0.0
    """α likewise (Yun et al., ICCV 2019); with both, either is drawn half of the time."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no sampling can be."""
        if self.deal not in get_args(Deal):
            raise ValueError(f"deal: got {self.deal!r}, expected one of {', '.join(get_args(Deal))}")
        if self.batch < 1:
            raise ValueError(f"batch: got {self.batch}, expected at least 1")


def epoch_steps(
    y: NDArray[np.intp], spec: SamplingSpec, *, epoch: int, rank: int = 0, world: int = 1
) -> tuple[list[list[Item]], list[int]]:
    """Return a rank's items of each step, and each step's number of items over all ranks.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class numbers of the training videos.
    spec : SamplingSpec
    epoch, rank, world : int
        Which epoch, which of how many ranks.
    """
    rng = np.random.default_rng([spec.seed, epoch])
    number = -(-len(y) // spec.batch)
    if spec.deal == "sharded":
        shards = [_order(y[part], spec.sampler, rng, part) for part in np.array_split(np.arange(len(y)), world)]
        shares = list(zip(*(np.array_split(shard, number) for shard in shards), strict=True))
        steps = [np.concatenate(each) for each in shares]
        dealt = [np.repeat(np.arange(world), [len(share) for share in each]) for each in shares]
    else:
        steps = np.array_split(_order(y, spec.sampler, rng, np.arange(len(y))), number)
        dealt = [_dealt(rows, y, spec.deal, step, world) for step, rows in enumerate(steps)]
    items, position = [], 0
    for step, (rows, to) in enumerate(zip(steps, dealt, strict=True)):
        # Items first, then who gets them: what an item shows must not depend on the number of ranks.
        whole = _items(rows, spec, epoch, position, step)
        items.append([item for item, owner in zip(whole, to, strict=True) if owner == rank])
        position += len(rows)
    return items, [len(rows) for rows in steps]


def _order(y: NDArray[np.intp], sampler: Sampler, rng: np.random.Generator, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    if sampler == "uniform" or not len(rows):
        return rng.permutation(rows)
    return rng.choice(rows, len(rows), p=sampling_rates(y, sampler))


def _dealt(rows: NDArray[np.intp], y: NDArray[np.intp], deal: Deal, step: int, world: int) -> NDArray[np.intp]:
    """Return each clip's rank: in turn, or with `class-aware` in turn by class; the first card goes round."""
    order = np.argsort(y[rows], kind="stable") if deal == "class-aware" else np.arange(len(rows))
    rank = np.empty(len(rows), dtype=np.intp)
    rank[order] = (np.arange(len(rows)) + step) % world
    return rank


def _items(rows: NDArray[np.intp], spec: SamplingSpec, epoch: int, first: int, step: int) -> list[Item]:
    items = [Item(int(row), spec.seed, epoch, first + i) for i, row in enumerate(rows)]
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(spec, kind)]
    if not kinds:
        return items
    rng = np.random.default_rng([spec.seed, epoch, step, len(rows)])
    mixed = []
    for item, other in zip(items, rng.permutation(len(items)), strict=True):
        kind = kinds[rng.integers(len(kinds))]
        share = float(rng.beta(getattr(spec, kind), getattr(spec, kind)))
        mix = Mix(items[other].video, items[other].position, share, kind == "cutmix")
        mixed.append(Item(item.video, item.seed, item.epoch, item.position, mix))
    return mixed


def class_counts(
    y: NDArray[np.intp], spec: SamplingSpec, *, epoch: int, world: int, n_classes: int
) -> NDArray[np.int64]:
    """Return how often each rank meets each class in an epoch, (R, C)."""
    ranks = [epoch_steps(y, spec, epoch=epoch, rank=rank, world=world)[0] for rank in range(world)]
    seen = [np.array([y[item.video] for step in steps for item in step], dtype=np.intp) for steps in ranks]
    return np.stack([np.bincount(each, minlength=n_classes) for each in seen]).astype(np.int64)


def unevenness(histograms: NDArray[np.int64]) -> float:
    """Return the mean distance of ranks' class shares (R, C) from all ranks' together: 0 alike, towards 1 disjoint."""
    shares = histograms / np.maximum(histograms.sum(1, keepdims=True), 1)
    whole = histograms.sum(0) / max(histograms.sum(), 1)
    return float(np.abs(shares - whole).sum(1).mean() / 2)
