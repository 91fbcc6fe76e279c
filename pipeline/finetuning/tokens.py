"""Training views through the frozen blocks, once: a store of tokens that the last blocks train from."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.decoding.decode import DecodePolicy, decoder_version
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest
from actionvit.features.decoding.pool.supervisor import decode_stream
from actionvit.features.failures import Failure, Reason
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.catalog import store_folder
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import Row
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.outputs import RESIZE
from actionvit.pipeline.datasets.dataset import Dataset, Video
from actionvit.pipeline.finetuning.augment import CANDIDATES
from actionvit.pipeline.finetuning.classifier import Frozen
from actionvit.pipeline.finetuning.clips import Held, Loaded, ViewSpec, in_threads
from actionvit.pipeline.finetuning.micro_batch import Pieces
from actionvit.pipeline.finetuning.sampling import Item
from actionvit.pipeline.finetuning.spec import Kept

logger = logging.getLogger(__name__)
SCHEMA = 1
OF_THE_MACHINE: tuple[Reason, ...] = ("timeout", "crashed", "memory")
"""Failures that another try may not have: a training without a clip is another training."""


def token_key(
    weights: Weights, frozen: Frozen, spec: ViewSpec, videos: Sequence[Video], *, policy: DecodePolicy, kept: Kept
) -> FeatureKey:
    """Return everything that the tokens depend on.

    Labels are no part of it but for classes that are never mirrored, whose videos' ids are digested.
    """
    sided = sorted(video.id for video in videos if spec.augment and video.label in spec.augment.keep_sides)
    augment = asdict(spec.augment) if spec.augment else None
    if augment:
        augment["keep_sides"] = (
            hashlib.sha256("\n".join(sided).encode("utf-8", "surrogateescape")).hexdigest() if sided else None
        )
    return FeatureKey(
        weights=weights.digest,
        model=asdict(weights.shape),
        clip=asdict(spec.clip),
        preprocessing={"resize": RESIZE, "mean": list(spec.mean), "std": list(spec.std)},
        decoder=policy.key,
        precision=frozen.precision,
        outputs={
            "frozen_blocks": frozen.first,
            "views": spec.views if spec.augment else 0,
            "augment": augment,
            "candidates": CANDIDATES if spec.augment else 0,
            "seed": spec.seed if spec.augment else 0,
            "kept": kept,
        },
        schema=SCHEMA,
    )


def token_bytes(weights: Weights, frozen: Frozen, spec: ViewSpec, kept: Kept) -> int:
    """Return how many bytes a video's tokens take."""
    K, T, D = spec.clip.views, spec.clip.num_frames, weights.shape.width
    views = K + (max(spec.views - 1, 0) if spec.augment else 0)
    if frozen.first == weights.shape.depth:
        return views * D * 4
    return views * T * (1 + (spec.clip.size // weights.shape.patch) ** 2) * D * (2 if kept == "fp16" else 4)


def _check_room(folder: Path, needed: int, videos: int, spec: ViewSpec) -> None:
    free = shutil.disk_usage(folder).free
    if needed < free:
        return
    raise ActionVitError(
        f"{folder}: the tokens of {videos} videos would take {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free:"
        f" give fewer --cached-views (now {spec.views}), another --cache, --train head, or --no-tokens"
    )


def token_store(
    dataset: Dataset,
    videos: Sequence[Video],
    weights: Weights,
    frozen: Frozen,
    spec: ViewSpec,
    *,
    variant: str,
    cache: Path,
    policy: DecodePolicy,
    kept: Kept = "fp16",
) -> FeatureStore:
    """Return the store of some videos' tokens, beside the embeddings, as `DATASET/VARIANT-tokens-DIGEST`.

    It may be empty; `extract_tokens` fills it.
    """
    key = token_key(weights, frozen, spec, videos, policy=policy, kept=kept)
    name = f"{variant}-tokens"
    info = {"root": str(dataset.root.resolve()), "layout": dataset.layout, "videos": len(dataset.videos)}
    info["weights"] = weights.source
    folder = store_folder(cache, dataset.name, name, key)
    return FeatureStore.create(folder, key=key, dataset=dataset.name, variant=name, info=info)


def extract_tokens(
    store: FeatureStore,
    videos: Sequence[Video],
    weights: Weights,
    frozen: Frozen,
    spec: ViewSpec,
    *,
    policy: DecodePolicy,
    kept: Kept = "fp16",
    retry: bool = True,
    workers: int | None = None,
    timeout: float = 60.0,
    on_start: Callable[[int, int], None] = lambda videos, size: None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Compute what a `token_store` lacks of its videos' tokens: `plain (K, ...)`, and `view0`, `view1`, ... (...).

    The store resumes and verifies as those of embeddings do. With `retry`, videos are tried again whose failure lay
    with the machine.

    Raises
    ------
    ActionVitError
        If another process writes the store, it cannot be written, or there is not enough room.
    """
    by_id = {video.id: video for video in videos}
    plan = store.plan([(video.id, video.path) for video in videos], decoder=decoder_version())
    failed = store.failures() if retry else []
    again = {failure.id for failure in failed if failure.reason in OF_THE_MACHINE} & by_id.keys()
    # Not adopted from a video of the same content: which views are drawn follows from the id.
    new = {*plan.todo, *plan.copies}
    todo = sorted(new | again)
    if not todo:
        return
    size = len(todo) * token_bytes(weights, frozen, spec, kept)
    _check_room(store.folder, size, len(todo), spec)
    on_start(len(todo), size)
    requests = [DecodeRequest(id, by_id[id].path, _frames(spec)) for id in todo]
    pieces = Pieces(None, remedy="give fewer --num-frames or a smaller --size")

    def views(item: Decoded | Failure) -> tuple[Decoded | Failure, dict[str, Tensor]]:
        return item, {} if isinstance(item, Failure) else dict(_views(spec, item.frames, by_id[item.id]))

    def tokens(view: Tensor) -> NDArray[Any]:
        return np.concatenate(pieces.over(len(view), lambda part: _tokens(frozen, view[part], kept)))

    with (
        store.writer(wait=not new) as writer,  # another training may be trying the same again
        closing(decode_stream(requests, policy=policy, workers=workers, timeout=timeout)) as stream,
        closing(in_threads(views, stream)) as made,
    ):
        for done, (item, pixels) in enumerate(made, start=1):
            if isinstance(item, Failure):
                writer.add_failure(item)
            else:
                arrays = {name: tokens(view) for name, view in pixels.items()}
                frames = item.frames
                writer.append(
                    Row(item.id, item.digest, item.fingerprint, frames.count, frames.flags, frames.backend, arrays)
                )
            on_video(done, len(requests))


def _views(spec: ViewSpec, frames: Any, video: Video) -> Iterator[tuple[str, Tensor]]:
    yield "plain", spec.plain(Held.of(frames, spec.clip))
    if spec.augment is not None and spec.views > 1:
        held = Held.of(frames, spec.candidates)
        for number in range(1, spec.views):
            yield f"view{number}", spec.training(held, video, number)[None]


def _frames(spec: ViewSpec) -> tuple[ClipSpec, ...]:
    """Return what to decode for all views."""
    return (spec.clip, spec.candidates) if spec.augment and spec.views > 1 else (spec.clip,)


def _tokens(frozen: Frozen, pixels: Tensor, kept: Kept) -> NDArray[Any]:
    """Return tokens (K, ...) of views as they are to be kept."""
    tokens = frozen(pixels)
    if kept == "fp16" and tokens.ndim > 2:  # clip embeddings are small: no reason to round them
        tokens = tokens.half()
        if not torch.isfinite(tokens).all():
            raise ActionVitError("tokens of these weights leave fp16's range (65,504): use --token-precision fp32")
    return np.asarray(tokens.cpu().numpy())


class CachedClips:
    """Inputs from a store of tokens: no video is opened, no frozen block computed.

    Parameters
    ----------
    videos : sequence of Video
        What rows and items number.
    store : FeatureStore
        A `token_store` that `extract_tokens` has filled.
    spec : ViewSpec
        The store's.
    memory : int
        Bytes of tokens to keep; what does not fit is read again in every epoch.
    """

    cached = True

    def __init__(self, videos: Sequence[Video], store: FeatureStore, spec: ViewSpec, *, memory: int = 0) -> None:
        self.videos, self.store, self.spec = videos, store, spec
        self._room, self._kept = memory, dict[tuple[int, str], NDArray[Any]]()
        ids = {video.id for video in videos}  # the store may know of videos that are gone
        self.failures: dict[str, str] = {
            failure.id: failure.reason for failure in store.failures() if failure.id in ids
        }

    def train(self, steps: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """Yield each step's input as it is kept, (b, T, 1 + P, D), or (b, D) where all blocks are frozen."""
        for step in steps:
            items = [item for item in step if self.videos[item.video].id not in self.failures]
            inputs = [torch.from_numpy(self._view(item)) for item in items]
            x = torch.stack(inputs) if inputs else torch.empty(0)
            yield Loaded(items, x, np.ones(len(items)))

    def test(self, rows: Sequence[int], *, once: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, its K plain views' tokens), which may be training views too: `once` changes nothing."""
        for row in rows:
            if self.videos[row].id not in self.failures:
                yield row, torch.from_numpy(self._read(row, "plain"))

    def marks(self, rows: Sequence[int]) -> list[str]:
        """Return the digests of the videos' bytes, as they were when they went through the frozen blocks."""
        ids = [self.videos[row].id for row in rows]
        known = [id for id in ids if id not in self.failures]
        found = {row.id: row.digest for row in self.store.rows(known)}
        return [found.get(id, "failed") for id in ids]

    def _view(self, item: Item) -> NDArray[Any]:
        number = self.spec.choose(item.rng("view"))
        assert number is not None
        if self.spec.kind(number) == "plain":
            return np.asarray(self._read(item.video, "plain")[number])
        return np.asarray(self._read(item.video, f"view{number}")[0])

    def _read(self, row: int, name: str) -> NDArray[Any]:
        if (found := self._kept.get((row, name))) is not None:
            return found
        found = np.asarray(self.store.read([self.videos[row].id], name)[0])
        if found.nbytes <= self._room:
            self._room -= found.nbytes
            self._kept[row, name] = found
        return found
