"""Fine-tuning on one split: divide the training set, train, and score the test set once."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.decoding import DecodePolicy
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.model import load_timesformer
from actionvit.heads.calibration import fit_temperature
from actionvit.heads.linear import LinearProbe
from actionvit.heads.selection import grid_search
from actionvit.pipeline.datasets.dataset import Dataset, Split, Video
from actionvit.pipeline.datasets.splits import require_validation
from actionvit.pipeline.finetuning.checkpoints import has_checkpoint
from actionvit.pipeline.finetuning.classifier import Classifier, FrozenBlocks, num_frozen_blocks
from actionvit.pipeline.finetuning.clips import Clips
from actionvit.pipeline.finetuning.distributed import ProcessGroup
from actionvit.pipeline.finetuning.identity import training_identity
from actionvit.pipeline.finetuning.sampling import class_counts
from actionvit.pipeline.finetuning.scoring import predict_views
from actionvit.pipeline.finetuning.spec import FinetuneSpec, Progress, TrainerState
from actionvit.pipeline.finetuning.tensorboard import tensorboard_log
from actionvit.pipeline.finetuning.trainer import Trainer
from actionvit.pipeline.finetuning.validation import validation_mask
from actionvit.text import abbreviate

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainValRows:
    """A training set divided into rows to train on and rows that select the epoch."""

    train: NDArray[np.intp]
    val: NDArray[np.intp]
    """Rows of other sources."""
    histograms: NDArray[np.int64]
    """(R, C): clips of each class that each rank trains on in the first epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """The outcome of one split."""

    split: Split
    state: TrainerState
    """Of the training that selected the epoch."""
    refit: TrainerState | None
    """Of the training on training and validation set together; None without refit."""
    weights: dict[str, NDArray[np.float32]]
    """Trained tensors by name: of the refit, otherwise of the best epoch."""
    temperature: float
    """Fitted to the validation set, before the refit; logits are divided by it."""
    logits: NDArray[np.float64]
    """(m, K, C) of the test videos' plain views."""
    tested: tuple[Video, ...]
    """The m test videos that decode."""
    trained: tuple[str, ...]
    """Ids of the training set's videos that decode, including the validation set."""
    n_train: int
    """Videos that `weights` were trained on: without refit, the validation set is not among them."""
    histograms: NDArray[np.int64]
    """(R, C): clips of each class that each rank trained on in the first epoch."""
    failures: dict[str, str]
    """Reason by id of the videos that do not decode."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalModel:
    """A model trained on all videos with the number of epochs that the splits selected."""

    state: TrainerState
    weights: dict[str, NDArray[np.float32]]
    temperature: float
    """Fitted to the test logits of all splits, which come from models that were not trained on these clips."""
    trained: tuple[str, ...]
    """Ids of the videos that decode."""
    seconds: float


@dataclass(slots=True, kw_only=True)
class TrainingContext:
    """Folders, processes, resources and callbacks of a fine-tuning; none of them changes a number."""

    cache: Path
    folder: Path
    """Folder of the checkpoints, one subfolder per split."""
    ranks: ProcessGroup = field(default_factory=ProcessGroup)
    policy: DecodePolicy = field(default_factory=DecodePolicy)
    workers: int | None = None
    timeout: float = 60.0
    memory: int = 2 << 30
    """Bytes of decoded frames, or of tokens, to keep in memory."""
    resume: bool = False
    flush_seconds: float = 0.0
    """Minimum time between checkpoints."""
    on_split: Callable[[str, TrainValRows], None] = lambda name, rows: None
    on_step: Callable[[str, Progress], None] = lambda name, progress: None
    on_epoch: Callable[[str, dict[str, float]], None] = lambda name, row: None
    on_tokens: Callable[[int, int], None] = lambda videos, size: None
    """Called with the number of videos to run through the frozen blocks and the size of their tokens in bytes."""
    on_video: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that the trainings of a fine-tuning have in common."""

    dataset: Dataset
    weights: Weights
    clips: Clips
    spec: FinetuneSpec
    context: TrainingContext


def load_model(weights: Weights, n_classes: int, spec: FinetuneSpec, device: str) -> Classifier:
    """Return the pretrained encoder with a classifier that is initialized to zero."""
    num_frozen = num_frozen_blocks(spec.train, weights.config.depth)
    model = Classifier(load_timesformer(weights), n_classes, num_frozen=num_frozen, checkpointing=spec.checkpointing)
    return model.to(device)


def finetune_split(job: Job, split: Split) -> FinetuneResult:
    """Train on a split's training set, select the epoch on its validation part, refit, and score the test set once.

    Raises
    ------
    ActionVitError
        If no test clip decodes, no validation set can be formed, or training fails (see `Trainer.run`).
    """
    began, ranks, dataset, clips = time.perf_counter(), job.context.ranks, job.dataset, job.clips
    _require_test_clips(split, ranks.gather_dict(clips.failures))
    train_rows, val_rows = train_val_rows(dataset, split, dataset.y, job.spec)
    rows = _rows(job, train_rows, val_rows)
    missing = [dataset.class_names[label] for label in np.setdiff1d(dataset.y[train_rows], dataset.y[val_rows])]
    if missing and ranks.is_main:
        logger.warning("%s: the validation set has no clip of %s", split.name, abbreviate(missing))
    folder, refit = job.context.folder / split.name, None
    trainer, state = _train(job, split.name, rows, folder)
    logits, decoded = trainer.scores(val_rows)
    temperature = fit_temperature(logits[decoded], dataset.y[val_rows][decoded])
    if job.spec.refit:
        train_rows = np.sort(np.concatenate([train_rows, val_rows]))
        rows_of_both = _rows(job, train_rows, val_rows[:0])
        trainer, refit = _train(job, f"{split.name} refit", rows_of_both, folder / "refit", stop_after=state.best_epoch)
    test_rows = video_rows(dataset, split.test)
    logits, decoded = trainer.scores(test_rows, once=True)
    failures = ranks.gather_dict(clips.failures)
    _require_test_clips(split, failures)
    return FinetuneResult(
        split=split,
        state=state,
        refit=refit,
        weights=_arrays(trainer.model),
        temperature=temperature,
        logits=logits[decoded],
        tested=tuple(dataset.videos[row] for row in test_rows[decoded]),
        histograms=rows.histograms,
        trained=tuple(id for id in (*split.train, *fit_val(split, job.spec)) if id not in failures),
        n_train=sum(dataset.videos[row].id not in failures for row in train_rows),
        failures=failures,
        seconds=time.perf_counter() - began,
    )


def train_final(job: Job, results: Sequence[FinetuneResult]) -> FinalModel:
    """Train on all videos, without validation, for the median of the numbers of epochs that the splits selected."""
    began, dataset = time.perf_counter(), job.dataset
    everything = np.arange(len(dataset.videos))
    epochs = statistics.median_low([result.state.best_epoch for result in results])
    rows = _rows(job, everything, everything[:0])
    trainer, state = _train(job, "final", rows, job.context.folder / "final", stop_after=epochs)
    failures = job.context.ranks.gather_dict(job.clips.failures)
    logits = np.concatenate([result.logits for result in results])
    y = dataset.labels_of([video for result in results for video in result.tested])
    return FinalModel(
        state=state,
        weights=_arrays(trainer.model),
        temperature=fit_temperature(logits, y),
        trained=tuple(video.id for video in dataset.videos if video.id not in failures),
        seconds=time.perf_counter() - began,
    )


def _rows(job: Job, train_rows: NDArray[np.intp], val_rows: NDArray[np.intp]) -> TrainValRows:
    sampling, world = job.spec.training.sampling, job.context.ranks.world
    n_classes = len(job.dataset.class_names)
    histograms = class_counts(job.dataset.y[train_rows], sampling, epoch=1, world=world, n_classes=n_classes)
    return TrainValRows(train=train_rows, val=val_rows, histograms=histograms)


def _arrays(model: Classifier) -> dict[str, NDArray[np.float32]]:
    return {name: value.detach().cpu().numpy() for name, value in model.trained().items()}


def _train(
    job: Job, name: str, rows: TrainValRows, folder: Path, *, stop_after: int | None = None
) -> tuple[Trainer, TrainerState]:
    """Train a model on some rows, or resume its checkpoint in `folder`; return its trainer, with the best weights."""
    dataset, spec, clips, context, ranks = job.dataset, job.spec, job.clips, job.context, job.context.ranks
    context.on_split(name, rows)
    y, train_rows = dataset.y, rows.train
    model = load_model(job.weights, len(dataset.class_names), spec, ranks.device)
    frozen = FrozenBlocks(model.encoder, spec.clip, model.num_frozen, ranks.device, bf16=spec.training.autocast)
    if spec.start == "probe" and not has_checkpoint(folder):

        def embed(x: Tensor) -> Tensor:
            return model.embedding(x.to(ranks.device).float() if clips.cached else frozen(x))

        X, decoded = predict_views(embed, clips, train_rows, job.weights.config.width, ranks, once=True)
        sources = [dataset.videos[row].source for row in train_rows[decoded]]
        init_head_from_probe(model, X[decoded].mean(1), y[train_rows][decoded], sources, spec)
    identity = training_identity(dataset, train_rows, rows.val, job.weights, spec, clips, world=ranks.world)
    trainer = Trainer(
        model,
        frozen,
        clips,
        y,
        train_rows=train_rows,
        val_rows=rows.val,
        spec=spec.training,
        ranks=ranks,
        folder=folder,
        identity=identity if stop_after is None else {**identity, "epochs": stop_after},
        flush_seconds=context.flush_seconds,
    )
    with tensorboard_log(folder, enabled=ranks.is_main) as log:

        def on_epoch(row: dict[str, float]) -> None:
            log(row)
            context.on_epoch(name, row)

        state = trainer.run(
            resume=context.resume,
            stop_after=stop_after,
            on_step=lambda progress: context.on_step(name, progress),
            on_epoch=on_epoch,
        )
    return trainer, state


def _require_test_clips(split: Split, failures: Mapping[str, str]) -> None:
    """Raise if every test clip has failed: before training if a cache knows it, otherwise after."""
    if set(split.test) <= failures.keys():
        first = split.test[0]
        raise ActionVitError(
            f"split {split.name}: none of its {len(split.test)} test clips decodes ({first}: {failures[first]});"
            " repair them and continue with resume=True"
        )


def video_rows(dataset: Dataset, ids: Sequence[str]) -> NDArray[np.intp]:
    """Return the row of each video id in `dataset.videos`."""
    row_of = {video.id: row for row, video in enumerate(dataset.videos)}
    return np.array([row_of[id] for id in ids], dtype=np.intp)


def fit_val(split: Split, spec: FinetuneSpec) -> tuple[str, ...]:
    """Return the ids of the validation set that came with the data, where it selects the epoch."""
    return split.val if spec.select_on == "val" else ()


def train_val_rows(
    dataset: Dataset, split: Split, y: NDArray[np.intp], spec: FinetuneSpec
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on and the validation rows: a part of the training set by source, or the set of its own.

    Raises
    ------
    ActionVitError
        If no source can be spared for validation, or a validation set is asked for and the split has none.
    """
    rows = video_rows(dataset, split.train)
    if spec.select_on == "val":
        require_validation(split)
        return rows, video_rows(dataset, split.val)
    sources = np.array([dataset.videos[row].source for row in rows])
    in_val = validation_mask(y[rows], sources, share=spec.validation, seed=spec.training.sampling.seed)
    if not in_val.any():
        raise ActionVitError(
            f"split {split.name}: no training source can be spared for validation: each is the only source of a class,"
            " or too large; add sources, raise val_fraction=, or use `actionvit probe`"
        )
    return rows[~in_val], rows[in_val]


def init_head_from_probe(
    model: Classifier, X: NDArray[np.float64], y: NDArray[np.intp], sources: Sequence[str], spec: FinetuneSpec
) -> None:
    """Set the classifier to a linear probe, whose C is selected by cross-validation over sources.

    Parameters
    ----------
    model : Classifier
        Changed in place; unchanged with fewer than two classes or sources.
    X : ndarray of shape (n, D)
        Clip embeddings of the training videos.
    y : ndarray of int, shape (n,)
        Class numbers.
    sources : sequence of n str
    spec : FinetuneSpec
        Gives the loss and the selection metric.
    """
    if len(np.unique(y)) < 2 or len(set(sources)) < 2:
        return
    loss = spec.training.loss
    head = LinearProbe(class_weight=loss.class_weight, logit_adjust=loss.logit_adjust)
    probe = grid_search(head, X, y, groups=sources, criterion=spec.training.criterion).head
    assert isinstance(probe, LinearProbe)
    logger.info("the head starts as a linear probe with C = %g", probe.C)
    with torch.no_grad():
        # For classes without training clips: low enough never to win, but finite, so that gradients are not zero.
        model.head.bias.fill_(-20.0)
        model.head.weight[probe.classes_] = torch.from_numpy(probe.coef_).to(model.head.weight)
        model.head.bias[probe.classes_] = torch.from_numpy(probe.intercept_).to(model.head.bias)
