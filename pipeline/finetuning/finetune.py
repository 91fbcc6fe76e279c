"""Stage 2 by training: the head, the last blocks or the whole encoder, for each split; the test set scored once."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.decoding.decode import DecodePolicy
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.model import pretrained
from actionvit.features.timesformer.outputs import quantities
from actionvit.heads.linear import LinearProbe
from actionvit.heads.selection import select
from actionvit.pipeline.datasets.dataset import Dataset, Split, Video
from actionvit.pipeline.datasets.splits import default_protocol, make_splits
from actionvit.pipeline.finetuning.checkpoints import has_checkpoint
from actionvit.pipeline.finetuning.classifier import Classifier, Frozen, first_trained
from actionvit.pipeline.finetuning.clips import Clips, FileClips, ViewSpec
from actionvit.pipeline.finetuning.distributed import Ranks
from actionvit.pipeline.finetuning.events import EventFile
from actionvit.pipeline.finetuning.micro_batch import in_a_line
from actionvit.pipeline.finetuning.sampling import class_counts
from actionvit.pipeline.finetuning.scoring import fit_temperature, plain_outputs
from actionvit.pipeline.finetuning.spec import FinetuneSpec, Progress, State
from actionvit.pipeline.finetuning.tokens import CachedClips, extract_tokens, token_store
from actionvit.pipeline.finetuning.trainer import Training
from actionvit.pipeline.finetuning.validation import validation_part
from actionvit.pipeline.text import abbreviate

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """One split done."""

    split: Split
    state: State
    weights: dict[str, NDArray[np.float32]]
    """What was trained, by name, at the best epoch."""
    temperature: float
    """Fitted to the validation part; logits are to be divided by it."""
    logits: NDArray[np.float64]
    """(m, K, C) of the test videos' plain views."""
    tested: tuple[Video, ...]
    """The m test videos that decode."""
    trained: tuple[str, ...]
    """Ids of the training videos that decode, those of the validation part included."""
    histograms: NDArray[np.int64]
    """(R, C): how often each rank met each class in the first epoch."""
    failures: dict[str, str]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """How a training set is used."""

    fit: NDArray[np.intp]
    """Rows to train on."""
    held: NDArray[np.intp]
    """Rows of other sources, to choose by."""
    histograms: NDArray[np.int64]
    """(R, C): how often each rank meets each class in the first epoch."""


@dataclass(slots=True, kw_only=True)
class Workplace:
    """Where and with what a fine-tuning is done: nothing of it changes a number."""

    cache: Path
    folder: Path
    """Of the checkpoints, a folder a split."""
    ranks: Ranks = field(default_factory=Ranks)
    policy: DecodePolicy = field(default_factory=DecodePolicy)
    workers: int | None = None
    timeout: float = 60.0
    memory: int = 2 << 30
    """Bytes of decoded frames, or of tokens, to keep."""
    resume: bool = False
    flush_seconds: float = 0.0
    """Checkpoints are no closer together than this; what a kill may cost beyond an epoch."""
    on_split: Callable[[Split, Parts], None] = lambda split, parts: None
    on_step: Callable[[Split, Progress], None] = lambda split, progress: None
    on_epoch: Callable[[Split, dict[str, float]], None] = lambda split, row: None
    on_tokens: Callable[[int, int], None] = lambda videos, size: None
    """Told how many videos are to go through the frozen blocks, and how many bytes that makes."""
    on_video: Callable[[int, int], None] = lambda done, total: None


def finetune(dataset: Dataset, weights: Weights, spec: FinetuneSpec, place: Workplace) -> list[Tuned]:
    """Train and test on every split that the spec asks for.

    Raises
    ------
    ActionVitError
        If a split or a choice is not to be had, a checkpoint is of another training, or memory does not suffice.
    """
    splits = chosen_splits(dataset, spec)
    quantities(weights.shape, spec.clip)  # raises if the size is no whole number of patches
    if spec.augment and (unknown := sorted(set(spec.augment.keep_sides) - set(dataset.class_names))):
        raise ActionVitError(
            f"--no-flip-class {unknown[0]}: no such class; there are {abbreviate(dataset.class_names)}"
        )
    if len(dataset.class_names) < 2:
        raise ActionVitError(f"dataset `{dataset.name}`: has one class, and nothing to tell it from")
    for split in splits:  # a split that cannot be is found before others are trained
        _parts(dataset, split, dataset.y, spec)
    with in_a_line():
        clips = _clips(dataset, splits, weights, spec, place)
        return [_tune(dataset, split, weights, clips, spec, place) for split in splits]


def chosen_splits(dataset: Dataset, spec: FinetuneSpec) -> list[Split]:
    """Return the splits to do, in order."""
    protocol = spec.protocol or default_protocol(dataset)
    seed = spec.training.sampling.seed
    splits = make_splits(dataset, protocol, folds=spec.folds, test_fraction=spec.test_fraction, seed=seed)
    names = [split.name for split in splits]
    if unknown := [name for name in spec.splits if name not in names]:
        raise ActionVitError(f"--split {unknown[0]}: got no such split, expected one of {', '.join(names)}")
    return [split for split in splits if not spec.splits or split.name in spec.splits]


def load_model(weights: Weights, n_classes: int, spec: FinetuneSpec, device: str) -> Classifier:
    """Return the pretrained encoder with a head at zero."""
    first = first_trained(spec.train, weights.shape.depth)
    return Classifier(pretrained(weights), n_classes, first=first, checkpointing=spec.checkpointing).to(device)


def view_spec(weights: Weights, spec: FinetuneSpec) -> ViewSpec:
    """Return how pixels become views for these weights."""
    return ViewSpec(
        clip=spec.clip,
        augment=spec.augment,
        views=spec.views,
        mean=weights.mean,
        std=weights.std,
        seed=spec.training.sampling.seed,
    )


def _clips(dataset: Dataset, splits: Sequence[Split], weights: Weights, spec: FinetuneSpec, place: Workplace) -> Clips:
    """Return the inputs of all splits; rows number the dataset's videos."""
    views, videos = view_spec(weights, spec), dataset.videos
    if not spec.tokens:
        return FileClips(
            videos, views, policy=place.policy, workers=place.workers, timeout=place.timeout, memory=place.memory
        )
    used = {id for split in splits for id in (*split.train, *split.test)}
    first = first_trained(spec.train, weights.shape.depth)
    model = load_model(weights, 1, spec, place.ranks.device)
    frozen = Frozen(model.encoder, spec.clip, first, place.ranks.device, bf16=spec.training.autocast)
    those = [video for video in videos if video.id in used]
    how: dict[str, Any] = {"policy": place.policy, "kept": spec.tokens}

    def store() -> FeatureStore:
        return token_store(dataset, those, weights, frozen, views, variant=spec.variant, cache=place.cache, **how)

    # A training that has begun goes on with the clips it began with.
    begun = any(has_checkpoint(place.folder / split.name) for split in splits)
    if place.ranks.first:
        extract_tokens(
            *(store(), those, weights, frozen, views),
            **how,
            retry=not begun,
            workers=place.workers,
            timeout=place.timeout,
            on_start=place.on_tokens,
            on_video=place.on_video,
        )
    place.ranks.wait()
    return CachedClips(videos, store(), views, memory=place.memory)


def _tune(
    dataset: Dataset, split: Split, weights: Weights, clips: Clips, spec: FinetuneSpec, place: Workplace
) -> Tuned:
    began, ranks = time.perf_counter(), place.ranks
    _require_tests(split, ranks.union(clips.failures))
    y = dataset.y
    fit, held = _parts(dataset, split, y, spec)
    unseen = [dataset.class_names[label] for label in np.setdiff1d(y[fit], y[held])]
    if unseen and ranks.first:
        logger.warning("%s: the validation part shows no clip of %s", split.name, abbreviate(unseen))
    sampling, n_classes = spec.training.sampling, len(dataset.class_names)
    histograms = class_counts(y[fit], sampling, epoch=1, world=ranks.world, n_classes=n_classes)
    place.on_split(split, Parts(fit=fit, held=held, histograms=histograms))
    model = load_model(weights, len(dataset.class_names), spec, ranks.device)
    frozen = Frozen(model.encoder, spec.clip, model.first, ranks.device, bf16=spec.training.autocast)
    folder = place.folder / split.name
    if spec.start == "probe" and not has_checkpoint(folder):

        def embed(x: Tensor) -> Tensor:
            return model.embedding(x.to(ranks.device).float() if clips.cached else frozen(x))

        found, known = plain_outputs(embed, clips, fit, weights.shape.width, ranks, once=True)
        start_from_probe(
            model, found[known].mean(1), y[fit][known], [dataset.videos[row].source for row in fit[known]], spec
        )
    training = Training(
        model,
        frozen,
        clips,
        y,
        fit=fit,
        held=held,
        spec=spec.training,
        ranks=ranks,
        folder=folder,
        identity=identity_of(dataset, fit, held, weights, spec, clips, world=ranks.world),
        flush_seconds=place.flush_seconds,
    )
    with EventFile(folder) if ranks.first else nullcontext() as events:

        def tell(row: dict[str, float]) -> None:
            if events:
                events.add(int(row["epoch"]), row)
            place.on_epoch(split, row)

        state = training.run(
            resume=place.resume, on_step=lambda progress: place.on_step(split, progress), on_epoch=tell
        )
    logits, known = training.scores(held)
    temperature = fit_temperature(logits[known], y[held][known])
    test = rows_of(dataset, split.test)
    logits, known = training.scores(test, once=True)
    failures = ranks.union(clips.failures)
    _require_tests(split, failures)
    tensors = {name: value.detach().cpu().numpy() for name, value in model.trained().items()}
    return Tuned(
        split=split,
        state=state,
        weights=tensors,
        temperature=temperature,
        logits=logits[known],
        tested=tuple(dataset.videos[row] for row in test[known]),
        histograms=histograms,
        trained=tuple(id for id in split.train if id not in failures),
        failures=failures,
        seconds=time.perf_counter() - began,
    )


def _require_tests(split: Split, failures: Mapping[str, str]) -> None:
    """Refuse a split whose test clips are all known to fail: before the training, where a cache knows; else after."""
    if set(split.test) <= failures.keys():
        first = split.test[0]
        raise ActionVitError(
            f"split {split.name}: none of its {len(split.test)} test clips decodes ({first}: {failures[first]});"
            " mend them, and --resume"
        )


def rows_of(dataset: Dataset, ids: Sequence[str]) -> NDArray[np.intp]:
    """Return the videos' numbers, in the order of ids."""
    at = {video.id: row for row, video in enumerate(dataset.videos)}
    return np.array([at[id] for id in ids], dtype=np.intp)


def _parts(
    dataset: Dataset, split: Split, y: NDArray[np.intp], spec: FinetuneSpec
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cut a training set in two, by source: rows to train on, rows to choose by."""
    rows = rows_of(dataset, split.train)
    sources = np.array([dataset.videos[row].source for row in rows])
    held = validation_part(y[rows], sources, share=spec.validation, seed=spec.training.sampling.seed)
    if not held.any():
        raise ActionVitError(
            f"split {split.name}: no training source can be spared to choose the epoch by: each is the only one of a"
            " class, or too large a part; add sources, raise --val-fraction, or use `actionvit probe`"
        )
    return rows[~held], rows[held]


def identity_of(
    dataset: Dataset,
    fit: NDArray[np.intp],
    held: NDArray[np.intp],
    weights: Weights,
    spec: FinetuneSpec,
    clips: Clips,
    *,
    world: int,
) -> dict[str, Any]:
    """Return what decides a training's numbers, for a checkpoint to be compared by.

    What only saves memory is no part of it: a training may go on where there is less. Nor is the number of ranks, but
    where each draws from a part of its own.
    """
    plain: dict[str, Any] = asdict(replace(spec, splits=(), checkpointing=False))
    del plain["training"]["micro_batch"]
    parts = [(part, dataset.videos[row]) for part, rows in (("fit", fit), ("held", held)) for row in rows]
    lines = ["\t".join((part, video.id, video.label, video.source)) for part, video in parts]
    return {
        **_leaves(plain),
        "weights": weights.digest,
        "classes": list(dataset.class_names),
        "clips": _digest(lines),
        "files": _digest(clips.marks([*fit, *held])),
        "processes": world if spec.training.sampling.deal == "sharded" else None,
    }


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name, so that an error can name the one that differs."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def start_from_probe(
    model: Classifier, X: NDArray[np.float64], y: NDArray[np.intp], sources: Sequence[str], spec: FinetuneSpec
) -> None:
    """Make the head the linear probe of embeddings X (n, D) with classes y, its C chosen among them by source."""
    if len(np.unique(y)) < 2 or len(set(sources)) < 2:
        return
    loss = spec.training.loss
    head = LinearProbe(class_weight=loss.class_weight, logit_adjust=loss.logit_adjust)
    won = select(head, X, y, grid=head.default_grid, groups=sources, criterion=spec.training.criterion).head
    assert isinstance(won, LinearProbe)
    logger.info("the head starts as a linear probe with C = %g", won.C)
    with torch.no_grad():
        # A class without a training clip is never right; -20 keeps its gradient alive, unlike minus infinity.
        model.head.bias.fill_(-20.0)
        model.head.weight[won.classes_] = torch.from_numpy(won.coef_).to(model.head.weight)
        model.head.bias[won.classes_] = torch.from_numpy(won.intercept_).to(model.head.bias)
