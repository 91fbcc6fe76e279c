"""Cached tokens: the outputs of the frozen blocks for a fixed set of views, in a store beside the embeddings."""

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
from actionvit.features.decoding import Decoded, DecodePolicy, DecodeRequest, decode_stream, decoder_version
from actionvit.features.failures import Failure, Reason
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.catalog import store_folder
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import Row
from actionvit.features.store.plan import make_plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.outputs import RESIZE
from actionvit.pipeline.datasets.dataset import Dataset, Video
from actionvit.pipeline.finetuning.augment import CANDIDATES
from actionvit.pipeline.finetuning.classifier import FrozenBlocks
from actionvit.pipeline.finetuning.clips import Batch, CachedFrames, ViewSpec, thread_map
from actionvit.pipeline.finetuning.micro_batch import MicroBatcher
from actionvit.pipeline.finetuning.sampling import Sample
from actionvit.pipeline.finetuning.spec import TokenDtype

logger = logging.getLogger(__name__)
SCHEMA = 1
RETRYABLE: tuple[Reason, ...] = ("timeout", "crashed", "memory")
"""Failures of the machine, not of the video. They are retried: without these clips it would be a different training."""


def token_key(
    weights: Weights,
    frozen: FrozenBlocks,
    spec: ViewSpec,
    videos: Sequence[Video],
    *,
    policy: DecodePolicy,
    token_dtype: TokenDtype,
) -> FeatureKey:
    """Return the store key: everything that the tokens depend on. Parameters are as for `token_store`.

    Labels are not part of it, except that the ids of the videos of never-mirrored classes are digested.
    """
    not_mirrored = sorted(video.id for video in videos if spec.augment and video.label in spec.augment.keep_sides)
    augment = asdict(spec.augment) if spec.augment else None
    if augment:
        augment["keep_sides"] = (
            hashlib.sha256("\n".join(not_mirrored).encode("utf-8", "surrogateescape")).hexdigest()
            if not_mirrored
            else None
        )
    return FeatureKey(
        weights=weights.digest,
        model=asdict(weights.config),
        clip=asdict(spec.clip),
        preprocessing={"resize": RESIZE, "mean": list(spec.mean), "std": list(spec.std)},
        decoder=policy.key,
        precision=frozen.precision,
        outputs={
            "frozen_blocks": frozen.num_frozen,
            "views": spec.views if spec.augment else 0,
            "augment": augment,
            "candidates": CANDIDATES if spec.augment else 0,
            "seed": spec.seed if spec.augment else 0,
            "kept": token_dtype,
        },
        schema=SCHEMA,
    )


def token_bytes(weights: Weights, frozen: FrozenBlocks, spec: ViewSpec, token_dtype: TokenDtype) -> int:
    """Return the size of a video's tokens in bytes."""
    K, T, D = spec.clip.views, spec.clip.num_frames, weights.config.width
    views = K + (max(spec.views - 1, 0) if spec.augment else 0)
    if frozen.num_frozen == weights.config.depth:
        return views * D * 4
    return views * T * (1 + (spec.clip.size // weights.config.patch) ** 2) * D * (2 if token_dtype == "fp16" else 4)


def _check_room(folder: Path, needed: int, videos: int, spec: ViewSpec) -> None:
    free = shutil.disk_usage(folder).free
    if needed < free:
        return
    raise ActionVitError(
        f"{folder}: the tokens of {videos} videos would take {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free:"
        f" use fewer cached_views= (now {spec.views}), another cache=, train=head, or tokens=False"
    )


def token_store(
    dataset: Dataset,
    videos: Sequence[Video],
    weights: Weights,
    frozen: FrozenBlocks,
    spec: ViewSpec,
    *,
    variant: str,
    cache: Path,
    policy: DecodePolicy,
    token_dtype: TokenDtype = "fp16",
) -> FeatureStore:
    """Open or create the store of the videos' tokens, `DATASET/VARIANT-tokens-DIGEST`; `extract_tokens` fills it.

    Parameters
    ----------
    dataset, videos : Dataset, sequence of Video
        The dataset, and those of its videos that are trained or tested on.
    weights, frozen : Weights, FrozenBlocks
        The pretrained encoder, and its frozen blocks.
    spec : ViewSpec
        The views whose tokens are stored.
    variant : str
    cache : Path
        The cache root.
    policy : DecodePolicy
    token_dtype : {"fp16", "fp32"}
        Precision of the stored tokens.
    """
    key = token_key(weights, frozen, spec, videos, policy=policy, token_dtype=token_dtype)
    name = f"{variant}-tokens"
    info = dataset.record | {"weights": weights.source}
    folder = store_folder(cache, dataset.name, name, key)
    return FeatureStore.create(folder, key=key, dataset=dataset.name, variant=name, info=info)


def extract_tokens(
    store: FeatureStore,
    videos: Sequence[Video],
    weights: Weights,
    frozen: FrozenBlocks,
    spec: ViewSpec,
    *,
    policy: DecodePolicy,
    token_dtype: TokenDtype = "fp16",
    retry: bool = True,
    workers: int | None = None,
    timeout: float = 60.0,
    on_start: Callable[[int, int], None] = lambda videos, size: None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Compute the missing tokens of a `token_store`: arrays `plain (K, ...)`, `view1 (1, ...)`, `view2`, ... per video.

    The store resumes and verifies like a store of embeddings.

    Parameters
    ----------
    store : FeatureStore
    videos, weights, frozen, spec, policy, token_dtype
        As for `token_store`.
    retry : bool
        Try videos again that timed out, crashed a decoder or ran out of memory.
    workers, timeout
        As for `decode_stream`.
    on_start : callable
        Called with the number of missing videos and the size of their tokens in bytes.
    on_video : callable
        Called with (videos done, videos to do) after each video.

    Raises
    ------
    ActionVitError
        If another process writes the store, it cannot be written, or there is not enough room.
    """
    by_id = {video.id: video for video in videos}
    plan = make_plan(
        store,
        [(video.id, video.path) for video in videos],
        segments={video.id: video.segment for video in videos if video.segment is not None},
        decoder_version=decoder_version(),
    )
    failed = store.failures() if retry else []
    retried = {failure.id for failure in failed if failure.reason in RETRYABLE} & by_id.keys()
    # Rows of videos with the same content are not reused: the views depend on the id.
    new = {*plan.pending, *plan.reusable}
    todo = sorted(new | retried)
    if not todo:
        return
    size = len(todo) * token_bytes(weights, frozen, spec, token_dtype)
    _check_room(store.folder, size, len(todo), spec)
    on_start(len(todo), size)
    requests = [DecodeRequest(id, by_id[id].path, _frames(spec), by_id[id].segment) for id in todo]
    micro_batcher = MicroBatcher(None, remedy="give fewer num_frames= or a smaller size=")

    def views(decoded: Decoded | Failure) -> tuple[Decoded | Failure, dict[str, Tensor]]:
        return decoded, {} if isinstance(decoded, Failure) else dict(_views(spec, decoded.frames, by_id[decoded.id]))

    def tokens(view: Tensor) -> NDArray[Any]:
        return np.concatenate(micro_batcher.map(len(view), lambda part: _tokens(frozen, view[part], token_dtype)))

    with (
        Writer(store, wait=not new) as writer,  # another training may be retrying the same videos
        closing(decode_stream(requests, policy=policy, workers=workers, timeout=timeout)) as stream,
        closing(thread_map(views, stream)) as viewed,
    ):
        for done, (decoded, pixels) in enumerate(viewed, start=1):
            if isinstance(decoded, Failure):
                writer.add_failure(decoded)
            else:
                arrays = {name: tokens(view) for name, view in pixels.items()}
                writer.append(Row(decoded.record, arrays))
            on_video(done, len(requests))


def _views(spec: ViewSpec, frames: Any, video: Video) -> Iterator[tuple[str, Tensor]]:
    yield "plain", spec.plain(CachedFrames.of(frames, spec.clip))
    if spec.augment is not None and spec.views > 1:
        candidates = CachedFrames.of(frames, spec.candidates)
        for number in range(1, spec.views):
            yield f"view{number}", spec.training(candidates, video, number)[None]


def _frames(spec: ViewSpec) -> tuple[ClipSpec, ...]:
    """Return the frames to decode for all views."""
    return (spec.clip, spec.candidates) if spec.augment and spec.views > 1 else (spec.clip,)


def _tokens(frozen: FrozenBlocks, pixels: Tensor, token_dtype: TokenDtype) -> NDArray[Any]:
    """Return tokens (K, ...) of views in the precision to store."""
    tokens = frozen(pixels)
    if token_dtype == "fp16" and tokens.ndim > 2:  # clip embeddings are small and stay fp32
        tokens = tokens.half()
        if not torch.isfinite(tokens).all():
            raise ActionVitError("tokens of these weights exceed fp16's range (65,504): use token_precision=fp32")
    return np.asarray(tokens.cpu().numpy())


class CachedClips:
    """Model inputs from a store of tokens: no video is decoded and no frozen block is run.

    Parameters
    ----------
    videos : sequence of Video
        The videos that rows and samples index.
    store : FeatureStore
        A `token_store`, filled by `extract_tokens`.
    spec : ViewSpec
        The spec that the store was made with.
    memory : int
        Bytes of tokens to keep in memory; the rest is read again in every epoch.
    """

    cached = True

    def __init__(self, videos: Sequence[Video], store: FeatureStore, spec: ViewSpec, *, memory: int = 0) -> None:
        self.videos, self.store, self.spec = videos, store, spec
        self._free, self._cache = memory, dict[tuple[int, str], NDArray[Any]]()
        ids = {video.id for video in videos}  # the store may have rows of videos that are gone
        self.failures: dict[str, str] = {
            failure.id: failure.reason for failure in store.failures() if failure.id in ids
        }

    def train(self, steps: Iterable[Sequence[Sample]]) -> Iterator[Batch]:
        """Yield each step's tokens, (b, T, 1 + P, D), or embeddings (b, D) where all blocks are frozen."""
        for step in steps:
            samples = [sample for sample in step if self.videos[sample.video].id not in self.failures]
            inputs = [torch.from_numpy(self._view(sample)) for sample in samples]
            x = torch.stack(inputs) if inputs else torch.empty(0)
            yield Batch(samples, x, np.ones(len(samples)))

    def test(self, rows: Sequence[int], *, once: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, its K plain views' tokens); `once` has no effect, as training uses the plain views too."""
        for row in rows:
            if self.videos[row].id not in self.failures:
                yield row, torch.from_numpy(self._read(row, "plain"))

    def content_ids(self, rows: Sequence[int]) -> list[str]:
        """Return the digests of the videos' bytes at the time of extraction."""
        ids = [self.videos[row].id for row in rows]
        decoded = [id for id in ids if id not in self.failures]
        digests = {record.id: record.digest for record in self.store.records(decoded)}
        return [digests.get(id, "failed") for id in ids]

    def _view(self, sample: Sample) -> NDArray[Any]:
        number = self.spec.choose(sample.rng("view"))
        assert number is not None
        if self.spec.kind(number) == "plain":
            return np.asarray(self._read(sample.video, "plain")[self.spec.plain_index(number)])
        return np.asarray(self._read(sample.video, f"view{number}")[0])

    def _read(self, row: int, name: str) -> NDArray[Any]:
        if (tokens := self._cache.get((row, name))) is not None:
            return tokens
        tokens = np.asarray(self.store.read([self.videos[row].id], name)[0])
        if tokens.nbytes <= self._free:
            self._free -= tokens.nbytes
            self._cache[row, name] = tokens
        return tokens
