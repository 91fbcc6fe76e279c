"""Assignment of clips to steps and ranks: pure functions of the seed, so no random state has to be saved.

Every random choice of training follows from (seed, epoch, position in the epoch): a resumed training, and one on
another number of ranks, draws the same clips and the same views.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actionvit.heads.weighting import Sampler, sampling_rates
from actionvit.pipeline.finetuning.spec import RankSampling, SamplingSpec

Purpose = Literal["view", "drop"]


@dataclass(frozen=True, slots=True)
class MixPartner:
    """A second clip that mixup or CutMix blends into a sample."""

    video: int
    position: int
    weight: float
    """Weight of the first clip."""
    cut: bool
    """CutMix: a box of the second clip replaces the first's pixels. Otherwise mixup: all pixels are averaged."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of one step."""

    video: int
    """Row of the training videos."""
    seed: int
    epoch: int
    position: int
    """Position in the epoch, counted over all ranks."""
    mix: MixPartner | None = None

    def rng(self, purpose: Purpose, *, second: bool = False) -> np.random.Generator:
        """Return the random generator for one purpose, of the sample's own clip or of its `second`, blended one."""
        position = self.mix.position if second and self.mix else self.position
        return np.random.default_rng([self.seed, self.epoch, position, ("view", "drop").index(purpose)])

    def of_rows(self, rows: NDArray[np.intp]) -> Sample:
        """Return the sample with video i renumbered to rows[i]."""
        mix = self.mix and replace(self.mix, video=int(rows[self.mix.video]))
        return replace(self, video=int(rows[self.video]), mix=mix)


def epoch_steps(
    y: NDArray[np.intp], spec: SamplingSpec, *, epoch: int, rank: int = 0, world: int = 1
) -> tuple[list[list[Sample]], list[int]]:
    """Return a rank's samples of each step, and each step's number of samples over all ranks.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class numbers of the training videos.
    spec : SamplingSpec
    epoch : int
        From 1.
    rank, world : int
        This rank and the number of ranks.
    """
    rng = np.random.default_rng([spec.seed, epoch])
    number = -(-len(y) // spec.batch)
    if spec.deal == "sharded":
        shards = [_order(y[part], spec.sampler, rng, part) for part in np.array_split(np.arange(len(y)), world)]
        parts = list(zip(*(np.array_split(shard, number) for shard in shards), strict=True))
        steps = [np.concatenate(step) for step in parts]
        owners = [np.repeat(np.arange(world), [len(part) for part in step]) for step in parts]
    else:
        steps = np.array_split(_order(y, spec.sampler, rng, np.arange(len(y))), number)
        owners = [assign_ranks(rows, y, spec.deal, step, world) for step, rows in enumerate(steps)]
    samples, position = [], 0
    for step, (rows, owner) in enumerate(zip(steps, owners, strict=True)):
        # All samples are drawn before they are assigned to ranks, so that they do not depend on the number of ranks.
        in_step = _samples(rows, spec, epoch, position, step)
        samples.append([sample for sample, its_rank in zip(in_step, owner, strict=True) if its_rank == rank])
        position += len(rows)
    return samples, [len(rows) for rows in steps]


def _order(y: NDArray[np.intp], sampler: Sampler, rng: np.random.Generator, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    if sampler == "uniform" or not len(rows):
        return rng.permutation(rows)
    return rng.choice(rows, len(rows), p=sampling_rates(y, sampler))


def assign_ranks(
    rows: NDArray[np.intp], y: NDArray[np.intp], rank_sampling: RankSampling, step: int, world: int
) -> NDArray[np.intp]:
    """Return each clip's rank, (m,), round-robin; the first rank rotates with the step.

    Parameters
    ----------
    rows : ndarray of int, shape (m,)
        The step's clips.
    y : ndarray of int, shape (n,)
        Class numbers of all training videos.
    rank_sampling : {"shuffled", "class-aware", "sharded"}
        `class-aware` assigns in the order of classes, any other in the order of `rows`.
    step, world : int
        Number of the step, and number of ranks.
    """
    order = np.argsort(y[rows], kind="stable") if rank_sampling == "class-aware" else np.arange(len(rows))
    rank = np.empty(len(rows), dtype=np.intp)
    rank[order] = (np.arange(len(rows)) + step) % world
    return rank


def _samples(rows: NDArray[np.intp], spec: SamplingSpec, epoch: int, first: int, step: int) -> list[Sample]:
    samples = [Sample(int(row), spec.seed, epoch, first + i) for i, row in enumerate(rows)]
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(spec, kind)]
    if not kinds:
        return samples
    rng = np.random.default_rng([spec.seed, epoch, step, len(rows)])
    mixed = []
    for sample, partner in zip(samples, rng.permutation(len(samples)), strict=True):
        kind = kinds[rng.integers(len(kinds))]
        weight = float(rng.beta(getattr(spec, kind), getattr(spec, kind)))
        mix = MixPartner(samples[partner].video, samples[partner].position, weight, kind == "cutmix")
        mixed.append(replace(sample, mix=mix))
    return mixed


def class_counts(
    y: NDArray[np.intp], spec: SamplingSpec, *, epoch: int, world: int, n_classes: int
) -> NDArray[np.int64]:
    """Return the number of clips of each class that each rank trains on in an epoch, (R, C).

    Parameters are as for `epoch_steps`; C is `n_classes`, R is `world`.
    """
    counts = []
    for rank in range(world):
        steps, _ = epoch_steps(y, spec, epoch=epoch, rank=rank, world=world)
        classes = np.array([y[sample.video] for step in steps for sample in step], dtype=np.intp)
        counts.append(np.bincount(classes, minlength=n_classes))
    return np.stack(counts).astype(np.int64)
