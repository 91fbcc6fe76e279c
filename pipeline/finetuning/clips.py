"""Model inputs from video files: frames are decoded, resized, cached in memory up to a limit, and made into views."""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.features.decoding import DecodePolicy, DecodeRequest, Frames, available_cores, decode_stream
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import fingerprint
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.features.transforms import resize_short_side, views
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.finetuning.augment import CANDIDATES, draw_view, normalize
from actionvit.pipeline.finetuning.sampling import Sample
from actionvit.pipeline.finetuning.spec import AugmentSpec

logger = logging.getLogger(__name__)
ViewKind = Literal["plain", "drawn"]
MAX_THREADS = 16
"""Threads that make views; each holds a video's frames and views in memory."""
S_ = TypeVar("S_")
T_ = TypeVar("T_")


@dataclass(frozen=True, slots=True)
class Batch:
    """A step's input on one rank: b clips; clips that do not decode are left out."""

    samples: Sequence[Sample]
    """b samples, in the order of x."""
    x: Tensor
    """(b, ...), input of `FrozenBlocks` or of the trained part."""
    weight: NDArray[np.float64]
    """(b,), weight of each sample's own clip; below 1 where another is blended in."""


class Clips(Protocol):
    """A source of model inputs: video files, or cached tokens."""

    cached: bool
    """Whether inputs are outputs of the frozen blocks."""
    videos: Sequence[Video]
    """The videos that rows and samples index."""
    spec: ViewSpec
    failures: dict[str, str]
    """Reason by id of the videos that failed."""

    def train(self, steps: Iterable[Sequence[Sample]]) -> Iterator[Batch]:
        """Yield each step's input."""

    def test(self, rows: Sequence[int], *, once: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, its K plain views) for each video that decodes, in order; `once`: not needed in later epochs."""

    def content_ids(self, rows: Sequence[int]) -> list[str]:
        """Return a string per video that changes with its content, as far as known without reading the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """Settings of the views made from pixels: plain views and training views."""

    clip: ClipSpec
    """The plain views; num_frames and size of all views."""
    augment: AugmentSpec | None
    """None to train on the plain views."""
    views: int = 0
    """Training views per clip, the same in all epochs: the first plain one, then augmented ones; 0: always new."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int = 0

    @property
    def candidates(self) -> ClipSpec:
        """Frames that augmented views are drawn from, resized to an eighth more than a view."""
        T, S = self.clip.num_frames, self.clip.size
        return ClipSpec(num_frames=T * CANDIDATES, size=S + S // 8)

    def choose(self, rng: np.random.Generator) -> int | None:
        """Return the number of the training view to use; None for a new one."""
        number = self.clip.views if self.augment is None else self.views
        return int(rng.integers(number)) if number else None

    def kind(self, number: int | None) -> ViewKind:
        """Return the sampling of the frames that a training view is made from."""
        return "plain" if self.augment is None or number == 0 else "drawn"

    def plain_index(self, number: int | None) -> int:
        """Return the plain view (0 to K - 1) for the training view of this number (augmented: the middle)."""
        return (number or 0) if self.augment is None else self.clip.views // 2

    def frames(self, kind: ViewKind) -> ClipSpec:
        """Return the frames to decode for a kind of view."""
        return self.clip if kind == "plain" else self.candidates

    def plain(self, cached: CachedFrames) -> Tensor:
        """Return the plain views (K, T, 3, S, S)."""
        rows = torch.from_numpy(cached.positions(clip_indices(cached.count, self.clip)))
        return views(cached.pixels, rows, self.clip, self.mean, self.std)

    def training(
        self, cached: CachedFrames, video: Video, number: int | None, rng: np.random.Generator | None = None
    ) -> Tensor:
        """Return a training view (T, 3, S, S).

        Parameters
        ----------
        cached : CachedFrames
            Frames of the view's kind.
        video : Video
        number : int or None
            Number of the view, which determines its augmentation; None for a new one, drawn from `rng`.
        rng : numpy.random.Generator, optional
        """
        if self.kind(number) == "plain":
            return self.plain(cached)[self.plain_index(number)]
        if number is not None:
            rng = np.random.default_rng([self.seed, number, zlib.crc32(video.id.encode("utf-8", "surrogateescape"))])
        assert rng is not None and self.augment is not None
        T, S = self.clip.num_frames, self.clip.size
        view = draw_view(cached.pixels.permute(0, 3, 1, 2), self.augment, rng, num_frames=T, size=S, label=video.label)
        return normalize(view, self.mean, self.std)


@dataclass(frozen=True, slots=True)
class CachedFrames:
    """A video's resized frames for one kind of view."""

    pixels: Tensor
    """(F, h, w, 3), uint8."""
    index: NDArray[np.int64]
    """(F,), their positions in the video."""
    count: int
    """Frames of the video."""

    @classmethod
    def of(cls, frames: Frames, spec: ClipSpec) -> CachedFrames:
        """Keep the frames that a spec needs, resized to its size."""
        index = np.unique(clip_indices(frames.count, spec))
        data = torch.from_numpy(frames.data[frames.positions(index)])
        return cls(resize_short_side(data, spec.size).permute(0, 2, 3, 1).contiguous(), index, frames.count)

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of `pixels` that hold these frames of the video."""
        return np.searchsorted(self.index, index).astype(np.int64)


class FileClips:
    """Model inputs decoded from the video files.

    Parameters
    ----------
    videos : sequence of Video
        The videos that rows and samples index.
    spec : ViewSpec
    policy, workers, timeout
        As for `decode_stream`.
    memory : int
        Bytes of resized frames to cache; other frames are decoded again in every epoch.
    """

    cached = False

    def __init__(
        self,
        videos: Sequence[Video],
        spec: ViewSpec,
        *,
        policy: DecodePolicy = DecodePolicy(),
        workers: int | None = None,
        timeout: float = 60.0,
        memory: int = 2 << 30,
    ) -> None:
        self.videos, self.spec, self.policy, self.workers, self.timeout = videos, spec, policy, workers, timeout
        self.failures: dict[str, str] = {}
        self._free, self._cache = memory, dict[tuple[ViewKind, int], CachedFrames]()

    def train(self, steps: Iterable[Sequence[Sample]]) -> Iterator[Batch]:
        """Yield each step's input while the next ones are decoded."""
        planned = [[(sample, self._choices(sample)) for sample in samples] for samples in steps]
        choices = [choices for step in planned for _, choices in step]
        requests = [(self.spec.kind(choice.number), choice.row) for pair in choices for choice in pair]
        with closing(self._stream(requests)) as stream:
            frames = ([(choice, next(stream)) for choice in pair] for pair in choices)
            with closing(thread_map(self._views, frames)) as views:
                for step in planned:
                    yield _batch([(sample, next(views)) for sample, _ in step])

    def test(self, rows: Sequence[int], *, once: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, plain views (K, T, 3, S, S)) of the videos that decode.

        Frames needed `once` are not cached, unless training views are made of the same frames.
        """
        keep = not once or self.spec.augment is None or self.spec.views > 0
        with closing(self._stream([("plain", row) for row in rows], keep=keep)) as stream:
            for row, frames in zip(rows, stream, strict=True):
                if frames is not None:
                    yield row, self.spec.plain(frames)

    def content_ids(self, rows: Sequence[int]) -> list[str]:
        """Return the videos' sizes in bytes; modification times change where files are only copied."""
        return [_size(self.videos[row].path) for row in rows]

    def _choices(self, sample: Sample) -> list[_Choice]:
        """Return the view of the sample's clip, and that of the clip blended into it."""
        choices = []
        for second, row in enumerate([sample.video] if sample.mix is None else [sample.video, sample.mix.video]):
            rng = sample.rng("view", second=second == 1)
            choices.append(_Choice(row, self.spec.choose(rng), rng))
        return choices

    def _views(self, choices: Sequence[tuple[_Choice, CachedFrames | None]]) -> list[Tensor | None]:
        """Return a sample's views, None for a video that failed."""
        return [
            None if frames is None else self.spec.training(frames, self.videos[choice.row], choice.number, choice.rng)
            for choice, frames in choices
        ]

    def _stream(
        self, requests: Sequence[tuple[ViewKind, int]], *, keep: bool = True
    ) -> Generator[CachedFrames | None, None, None]:
        """Yield the frames of each kind and row, in order, from memory or file; None for a video that fails."""
        resolved = {
            request for request in requests if request in self._cache or self.videos[request[1]].id in self.failures
        }
        pending = [
            DecodeRequest(
                self.videos[row].id, self.videos[row].path, (self.spec.frames(kind),), self.videos[row].segment
            )
            for kind, row in requests
            if (kind, row) not in resolved
        ]
        workers = self.workers if pending else 0
        with closing(decode_stream(pending, policy=self.policy, workers=workers, timeout=self.timeout)) as stream:
            for request in requests:
                if request in resolved:
                    yield self._cache.get(request)
                    continue
                decoded = next(stream)
                if isinstance(decoded, Failure):
                    self._fail(decoded)
                    yield None
                else:
                    frames = CachedFrames.of(decoded.frames, self.spec.frames(request[0]))
                    yield self._keep(request, frames) if keep else frames

    def _keep(self, request: tuple[ViewKind, int], frames: CachedFrames) -> CachedFrames:
        if request not in self._cache and frames.pixels.nbytes <= self._free:
            self._free -= frames.pixels.nbytes
            self._cache[request] = frames
        return frames

    def _fail(self, failure: Failure) -> None:
        if failure.id not in self.failures:
            logger.warning("%s: %s (%s): skipped", failure.id, failure.reason, failure.detail)
        self.failures[failure.id] = failure.reason


def _size(path: Path) -> str:
    try:
        return str(fingerprint(path).size)
    except OSError:
        return "missing"


@dataclass(frozen=True, slots=True)
class _Choice:
    """A training view to make."""

    row: int
    number: int | None
    rng: np.random.Generator


def _batch(views: Sequence[tuple[Sample, Sequence[Tensor | None]]]) -> Batch:
    """Blend and stack views; a sample is left out if any of its clips failed."""
    samples, inputs, weights = [], [], []
    for sample, clips in views:
        decoded = [clip for clip in clips if clip is not None]
        if len(decoded) < len(clips):
            continue
        x, weight = (decoded[0], 1.0) if sample.mix is None else _blend(sample, decoded[0], decoded[1])
        samples.append(sample)
        inputs.append(x)
        weights.append(weight)
    return Batch(samples, torch.stack(inputs) if inputs else torch.empty(0), np.array(weights))


def _blend(sample: Sample, first: Tensor, second: Tensor) -> tuple[Tensor, float]:
    """Return two views (T, 3, S, S) blended into one, and the weight of the first."""
    assert sample.mix is not None
    if not sample.mix.cut:
        return sample.mix.weight * first + (1 - sample.mix.weight) * second, sample.mix.weight
    S, rng = first.shape[-1], sample.rng("drop")
    side = round(S * np.sqrt(1 - sample.mix.weight))
    top, left = (int(rng.integers(S - side + 1)) for _ in range(2))
    first = first.clone()
    first[..., top : top + side, left : left + side] = second[..., top : top + side, left : left + side]
    return first, 1 - side**2 / S**2


def thread_map(function: Callable[[S_], T_], items: Iterable[S_]) -> Generator[T_, None, None]:
    """Yield `function(item)` in order, computed ahead by a thread per core, each with one torch thread.

    One torch thread each, so that sums are taken in the same order on every machine.
    """
    count, threads = min(available_cores(), MAX_THREADS), torch.get_num_threads()
    pending: deque[Future[T_]] = deque()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        torch.set_num_threads(threads)  # the setting of the pool's threads would apply to later threads too


def prefetch(items: Iterator[T_]) -> Iterator[T_]:
    """Yield an iterator's items while a thread computes the next one."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, items, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
