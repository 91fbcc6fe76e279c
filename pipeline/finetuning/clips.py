"""Training clips from video files: decoded, shrunk, kept in memory as far as that goes, made into views."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.features.clips import ClipSpec, clip_indices
from actionvit.features.decoding.decode import DecodePolicy
from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.workers import DecodeRequest, Failure, decode_stream
from actionvit.features.transforms import resized, views
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.finetuning.augment import CANDIDATES, AugmentSpec, draw_view, normalised
from actionvit.pipeline.finetuning.sampling import Item

logger = logging.getLogger(__name__)
Kind = Literal["train", "test"]
T_ = TypeVar("T_")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A step's input on one rank; b clips of the n asked for, those left out having failed to decode."""

    items: Sequence[Item]
    """b, in the order of x."""
    x: Tensor
    """(b, ...), what `Frozen` or the model takes in."""
    share: NDArray[np.float64]
    """(b,), what of each input is the item's own clip; below 1 where another is mixed in."""


class Clips(Protocol):
    """Where a training's inputs come from: files, or cached tokens."""

    cached: bool
    """Whether inputs have seen the frozen blocks already."""
    videos: Sequence[Video]
    """What rows and items number."""
    spec: ViewSpec
    failures: dict[str, str]
    """Reason by id of videos that gave nothing."""

    def train(self, steps: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """Yield each step's input."""

    def test(self, rows: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, its K plain views) for each video that decodes, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """How pixels become views, plain ones and training ones."""

    clip: ClipSpec
    """The plain views; T and S of all."""
    augment: AugmentSpec | None
    """None to train on the plain views."""
    views: int = 0
    """Different training views a clip, the same in all epochs; 0 for a fresh one every time."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int = 0

    @property
    def candidates(self) -> ClipSpec:
        """Which frames training views are drawn from, and how small they are kept: an eighth larger than a view."""
        T, S = self.clip.num_frames, self.clip.size
        return ClipSpec(num_frames=T * CANDIDATES, size=S + S // 8)

    def specs(self, *kinds: Kind) -> tuple[ClipSpec, ...]:
        """Return what to decode."""
        return tuple(self.clip if kind == "test" or self.augment is None else self.candidates for kind in kinds)

    def plain(self, held: Held) -> Tensor:
        """Return the plain views (K, T, 3, S, S)."""
        rows = torch.from_numpy(held.positions(clip_indices(held.count, self.clip)))
        return views(held.pixels, rows, self.clip, self.mean, self.std)

    def drawn(self, held: Held, rng: np.random.Generator, label: str) -> Tensor:
        """Return a training view (T, 3, S, S) of candidate frames: an augmented one, or any of the plain ones."""
        if self.augment is None:
            return self.plain(held)[rng.integers(self.clip.views)]
        T, S = self.clip.num_frames, self.clip.size
        view = draw_view(held.pixels.permute(0, 3, 1, 2), self.augment, rng, num_frames=T, size=S, label=label)
        return normalised(view, self.mean, self.std)

    def fixed(self, held: Held, id: str, number: int, label: str) -> Tensor:
        """Return one of the `views` training views that a clip has in all epochs."""
        return self.drawn(held, np.random.default_rng([self.seed, number, zlib.crc32(id.encode())]), label)


@dataclass(frozen=True, slots=True)
class Held:
    """A video's frames for one purpose, shrunk."""

    pixels: Tensor
    """(F, h, w, 3), uint8."""
    index: NDArray[np.int64]
    """(F,), where in the video they lie."""
    count: int

    @classmethod
    def of(cls, frames: Frames, spec: ClipSpec) -> Held:
        """Keep what a spec asks for, the short side at its size."""
        index = np.unique(clip_indices(frames.count, spec))
        data = torch.from_numpy(frames.data[frames.positions(index)])
        return cls(resized(data, spec.size).permute(0, 2, 3, 1).contiguous(), index, frames.count)

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in `pixels` frames of the video lie."""
        return np.searchsorted(self.index, index).astype(np.int64)


class FileClips:
    """Inputs from the videos themselves.

    Parameters
    ----------
    videos : sequence of Video
        What rows and items number.
    spec : ViewSpec
    policy, workers, timeout
        As `decode_stream` takes them.
    memory : int
        Bytes of shrunk frames to keep; what does not fit is decoded again in every epoch.
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
        self._room, self._kept = memory, dict[tuple[Kind, int], Held]()

    def train(self, steps: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """Yield each step's input, the next ones being decoded meanwhile."""
        steps = [list(items) for items in steps]
        wanted = [row for items in steps for item in items for row in _rows(item)]
        with closing(self._stream("train", wanted)) as stream:
            for items in steps:
                views = [(item, [self._view(item, next(stream), i) for i in range(len(_rows(item)))]) for item in items]
                yield _loaded(views)

    def test(self, rows: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, plain views (K, T, 3, S, S)) of the videos that decode."""
        with closing(self._stream("test", rows)) as stream:
            for row, held in zip(rows, stream, strict=True):
                if held is not None:
                    yield row, self.spec.plain(held)

    def _view(self, item: Item, held: Held | None, which: int) -> Tensor | None:
        if held is None:
            return None
        video, rng = self.videos[_rows(item)[which]], item.rng("view", second=which == 1)
        if self.spec.views:
            return self.spec.fixed(held, video.id, int(rng.integers(self.spec.views)), video.label)
        return self.spec.drawn(held, rng, video.label)

    def _stream(self, kind: Kind, rows: Sequence[int]) -> Generator[Held | None, None, None]:
        """Yield frames a row, in order, from memory or file; None for a video that does not decode."""
        known = {row for row in rows if (kind, row) in self._kept or self.videos[row].id in self.failures}
        (spec,) = self.spec.specs(kind)
        requests = [
            DecodeRequest(self.videos[row].id, self.videos[row].path, (spec,)) for row in rows if row not in known
        ]
        workers = self.workers if requests else 0
        with closing(decode_stream(requests, policy=self.policy, workers=workers, timeout=self.timeout)) as stream:
            for row in rows:
                if row in known:
                    yield self._kept.get((kind, row))
                    continue
                item = next(stream)
                if isinstance(item, Failure):
                    self._fail(item)
                    yield None
                else:
                    yield self._keep((kind, row), Held.of(item.frames, spec))

    def _keep(self, at: tuple[Kind, int], held: Held) -> Held:
        if at not in self._kept and held.pixels.nbytes <= self._room:
            self._room -= held.pixels.nbytes
            self._kept[at] = held
        return held

    def _fail(self, failure: Failure) -> None:
        if failure.id not in self.failures:
            logger.warning("%s: %s (%s): takes no part", failure.id, failure.reason, failure.detail)
        self.failures[failure.id] = failure.reason


def _rows(item: Item) -> list[int]:
    return [item.video] if item.mix is None else [item.video, item.mix.video]


def _loaded(views: Sequence[tuple[Item, Sequence[Tensor | None]]]) -> Loaded:
    """Blend and stack; an item goes with any of its clips."""
    items, inputs, shares = [], [], []
    for item, parts in views:
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            continue
        x, share = (whole[0], 1.0) if item.mix is None else _blend(item, whole[0], whole[1])
        items.append(item)
        inputs.append(x)
        shares.append(share)
    return Loaded(items, torch.stack(inputs) if inputs else torch.empty(0), np.array(shares))


def _blend(item: Item, first: Tensor, second: Tensor) -> tuple[Tensor, float]:
    """Return two views (T, 3, S, S) as one, and the first one's share of it."""
    assert item.mix is not None
    if not item.mix.cut:
        return item.mix.share * first + (1 - item.mix.share) * second, item.mix.share
    S, rng = first.shape[-1], item.rng("drop")
    side = round(S * np.sqrt(1 - item.mix.share))
    top, left = (int(rng.integers(S - side + 1)) for _ in range(2))
    first = first.clone()
    first[..., top : top + side, left : left + side] = second[..., top : top + side, left : left + side]
    return first, 1 - side**2 / S**2


def ahead(items: Iterator[T_]) -> Iterator[T_]:
    """Yield what an iterator yields, the next one being made in a thread meanwhile."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, items, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
