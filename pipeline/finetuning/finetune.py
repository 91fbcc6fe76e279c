"""Stage 2 by training: fine-tune the head, the last blocks or the whole encoder on every split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actionvit.errors import SettingError
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.outputs import output_spec
from actionvit.pipeline.datasets.dataset import Dataset, Split
from actionvit.pipeline.datasets.splits import check_classes, default_protocol, make_splits
from actionvit.pipeline.finetuning.checkpoints import has_checkpoint
from actionvit.pipeline.finetuning.classifier import FrozenBlocks, num_frozen_blocks
from actionvit.pipeline.finetuning.clips import Clips, FileClips, ViewSpec
from actionvit.pipeline.finetuning.micro_batch import oom_as_user_error
from actionvit.pipeline.finetuning.spec import FinetuneSpec
from actionvit.pipeline.finetuning.split import (
    FinalModel,
    FinetuneResult,
    Job,
    TrainingContext,
    finetune_split,
    fit_val,
    load_model,
    train_final,
    train_val_rows,
)
from actionvit.pipeline.finetuning.tokens import CachedClips, extract_tokens, token_store
from actionvit.text import abbreviate


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """Results of all splits, and the final model if the spec asks for one."""

    splits: list[FinetuneResult]
    final: FinalModel | None


def finetune(dataset: Dataset, weights: Weights, spec: FinetuneSpec, context: TrainingContext) -> Finetuned:
    """Train and test on every split that the spec selects; with `spec.final`, then train on all videos.

    Parameters
    ----------
    dataset : Dataset
        Videos, labels and official splits.
    weights : Weights
        The pretrained encoder.
    spec : FinetuneSpec
        Every setting that changes a number.
    context : TrainingContext
        Folders, processes and callbacks, which do not.

    Raises
    ------
    ActionVitError
        If a split or setting is invalid for the dataset, a checkpoint belongs to another training, or memory does not
        suffice.
    """
    splits = selected_splits(dataset, spec)
    output_spec(weights.config, spec.clip)  # raises if the size is not a multiple of the patch size
    if spec.augment and (unknown := sorted(set(spec.augment.keep_sides) - set(dataset.class_names))):
        raise SettingError(f"no_flip_class: got {unknown[0]}, expected one of {abbreviate(dataset.class_names)}")
    for split in splits:  # an impossible split is reported before others are trained
        train_val_rows(dataset, split, dataset.y, spec)
    with oom_as_user_error():
        clips = _clips(dataset, splits, weights, spec, context)
        job = Job(dataset=dataset, weights=weights, clips=clips, spec=spec, context=context)
        results = [finetune_split(job, split) for split in splits]
        return Finetuned(splits=results, final=train_final(job, results) if spec.final else None)


def selected_splits(dataset: Dataset, spec: FinetuneSpec) -> list[Split]:
    """Return the splits to train on, in order; refuse a dataset of one class."""
    check_classes(dataset)
    protocol = spec.protocol or default_protocol(dataset)
    seed = spec.training.sampling.seed
    splits = make_splits(dataset, protocol, folds=spec.folds, test_fraction=spec.test_fraction, seed=seed)
    names = [split.name for split in splits]
    if unknown := [name for name in spec.splits if name not in names]:
        raise SettingError(f"split: got {unknown[0]}, expected one of {', '.join(names)}")
    return [split for split in splits if not spec.splits or split.name in spec.splits]


def view_spec(weights: Weights, spec: FinetuneSpec) -> ViewSpec:
    """Return how these weights' views are made from pixels."""
    return ViewSpec(
        clip=spec.clip,
        augment=spec.augment,
        views=spec.views,
        mean=weights.mean,
        std=weights.std,
        seed=spec.training.sampling.seed,
    )


def _clips(
    dataset: Dataset, splits: Sequence[Split], weights: Weights, spec: FinetuneSpec, context: TrainingContext
) -> Clips:
    """Return the model inputs of all splits; extracts missing tokens. Rows index the dataset's videos."""
    views, videos = view_spec(weights, spec), dataset.videos
    if not spec.tokens:
        return FileClips(
            videos,
            views,
            policy=context.policy,
            workers=context.workers,
            timeout=context.timeout,
            memory=context.memory,
        )
    ids = {id for split in splits for id in (*split.train, *fit_val(split, spec), *split.test)}
    num_frozen = num_frozen_blocks(spec.train, weights.config.depth)
    device = context.ranks.device
    encoder = load_model(weights, 1, spec, device).encoder
    frozen = FrozenBlocks(encoder, spec.clip, num_frozen, device, bf16=spec.training.autocast)
    used = [video for video in videos if video.id in ids or spec.final]
    settings: dict[str, Any] = {"policy": context.policy, "token_dtype": spec.tokens}

    def store() -> FeatureStore:
        return token_store(dataset, used, weights, frozen, views, variant=spec.variant, cache=context.cache, **settings)

    # A resumed training keeps its set of clips.
    begun = any(has_checkpoint(context.folder / split.name) for split in splits)

    def extract() -> None:
        extract_tokens(
            *(store(), used, weights, frozen, views),
            **settings,
            retry=not begun,
            workers=context.workers,
            timeout=context.timeout,
            on_start=context.on_tokens,
            on_video=context.on_video,
        )

    context.ranks.on_main(extract)
    return CachedClips(videos, store(), views, memory=context.memory)
