"""Training clips from video files: decoded, shrunk, kept in memory as far as that goes, made into views."""

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

from actionvit.features.decoding.decode import DecodePolicy
from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.pool.messages import DecodeRequest
from actionvit.features.decoding.pool.supervisor import available_cores, decode_stream
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import fingerprint
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.features.transforms import resized, views
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.finetuning.augment import CANDIDATES, AugmentSpec, draw_view, normalised
from actionvit.pipeline.finetuning.sampling import Item

logger = logging.getLogger(__name__)
Kind = Literal["plain", "drawn"]
MOST_THREADS = 16
"""That make views: each holds a video's frames and views in memory."""
S_ = TypeVar("S_")
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

    def test(self, rows: Sequence[int], *, once: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, its K plain views) for each video that decodes, in order; `once` if not again in every epoch."""

    def marks(self, rows: Sequence[int]) -> list[str]:
        """Return a word a video that changes with its content, as far as that can be told without reading it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """How pixels become views, plain ones and training ones."""

    clip: ClipSpec
    """The plain views; T and S of all."""
    augment: AugmentSpec | None
    """None to train on the plain views."""
    views: int = 0
    """Training views a clip has, in all epochs the same: the first plain one and augmented ones; 0 for fresh ones."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int = 0

    @property
    def candidates(self) -> ClipSpec:
        """Which frames training views are drawn from, and how small they are kept: an eighth larger than a view."""
        T, S = self.clip.num_frames, self.clip.size
        return ClipSpec(num_frames=T * CANDIDATES, size=S + S // 8)

    def choose(self, rng: np.random.Generator) -> int | None:
        """Return the number of the training view that it is this time; None for a fresh one."""
        number = self.clip.views if self.augment is None else self.views
        return int(rng.integers(number)) if number else None

    def kind(self, number: int | None) -> Kind:
        """Return which frames a training view is made of."""
        return "plain" if self.augment is None or number == 0 else "drawn"

    def frames(self, kind: Kind) -> ClipSpec:
        """Return what to decode."""
        return self.clip if kind == "plain" else self.candidates

    def plain(self, held: Held) -> Tensor:
        """Return the plain views (K, T, 3, S, S)."""
        rows = torch.from_numpy(held.positions(clip_indices(held.count, self.clip)))
        return views(held.pixels, rows, self.clip, self.mean, self.std)

    def training(self, held: Held, video: Video, number: int | None, rng: np.random.Generator | None = None) -> Tensor:
        """Return a training view (T, 3, S, S) of frames of its kind; a fresh one, number None, is drawn from `rng`."""
        if self.augment is None or number == 0:
            return self.plain(held)[number]
        if number is not None:
            rng = np.random.default_rng([self.seed, number, zlib.crc32(video.id.encode("utf-8", "surrogateescape"))])
        assert rng is not None
        T, S = self.clip.num_frames, self.clip.size
        view = draw_view(held.pixels.permute(0, 3, 1, 2), self.augment, rng, num_frames=T, size=S, label=video.label)
        return normalised(view, self.mean, self.std)


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
        chosen = [[(item, self._choices(item)) for item in items] for items in steps]
        wanted = [(self.spec.kind(one.number), one.row) for step in chosen for _, ones in step for one in ones]
        with closing(self._stream(wanted)) as stream:
            held = ([(one, next(stream)) for one in ones] for step in chosen for _, ones in step)
            with closing(in_threads(self._views, held)) as made:
                for step in chosen:
                    yield _loaded([(item, next(made)) for item, _ in step])

    def test(self, rows: Sequence[int], *, once: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, plain views (K, T, 3, S, S)) of the videos that decode; frames needed `once` take no memory.

        Unless training views are made of the same frames.
        """
        keep = not once or self.spec.augment is None or self.spec.views > 0
        with closing(self._stream([("plain", row) for row in rows], keep=keep)) as stream:
            for row, held in zip(rows, stream, strict=True):
                if held is not None:
                    yield row, self.spec.plain(held)

    def marks(self, rows: Sequence[int]) -> list[str]:
        """Return the videos' sizes in bytes: times change where files are only copied."""
        return [_size(self.videos[row].path) for row in rows]

    def _choices(self, item: Item) -> list[_Choice]:
        """Return the item's clip, and the one blended into it."""
        found = []
        for second, row in enumerate([item.video] if item.mix is None else [item.video, item.mix.video]):
            rng = item.rng("view", second=second == 1)
            found.append(_Choice(row, self.spec.choose(rng), rng))
        return found

    def _views(self, chosen: Sequence[tuple[_Choice, Held | None]]) -> list[Tensor | None]:
        """Return an item's views, None for a video that failed."""
        return [
            None if held is None else self.spec.training(held, self.videos[one.row], one.number, one.rng)
            for one, held in chosen
        ]

    def _stream(self, wanted: Sequence[tuple[Kind, int]], *, keep: bool = True) -> Generator[Held | None, None, None]:
        """Yield the frames of each kind and row, in order, from memory or file; None for a video that fails."""
        known = {at for at in wanted if at in self._kept or self.videos[at[1]].id in self.failures}
        requests = [
            DecodeRequest(self.videos[row].id, self.videos[row].path, (self.spec.frames(kind),))
            for kind, row in wanted
            if (kind, row) not in known
        ]
        workers = self.workers if requests else 0
        with closing(decode_stream(requests, policy=self.policy, workers=workers, timeout=self.timeout)) as stream:
            for at in wanted:
                if at in known:
                    yield self._kept.get(at)
                    continue
                item = next(stream)
                if isinstance(item, Failure):
                    self._fail(item)
                    yield None
                else:
                    held = Held.of(item.frames, self.spec.frames(at[0]))
                    yield self._keep(at, held) if keep else held

    def _keep(self, at: tuple[Kind, int], held: Held) -> Held:
        if at not in self._kept and held.pixels.nbytes <= self._room:
            self._room -= held.pixels.nbytes
            self._kept[at] = held
        return held

    def _fail(self, failure: Failure) -> None:
        if failure.id not in self.failures:
            logger.warning("%s: %s (%s): takes no part", failure.id, failure.reason, failure.detail)
        self.failures[failure.id] = failure.reason


def _size(path: Path) -> str:
    try:
        return str(fingerprint(path).size)
    except OSError:
        return "missing"


@dataclass(frozen=True, slots=True)
class _Choice:
    """A training view to come."""

    row: int
    number: int | None
    rng: np.random.Generator


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


def in_threads(make: Callable[[S_], T_], items: Iterable[S_]) -> Generator[T_, None, None]:
    """Yield what `make` makes of each item, in order: a thread a core, each computing alone, as many items ahead.

    Alone, so that sums are in the same order on every machine.
    """
    count, threads = min(available_cores(), MOST_THREADS), torch.get_num_threads()
    waiting: deque[Future[T_]] = deque()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)  # what the pool's threads set holds for later threads of others too


def ahead(items: Iterator[T_]) -> Iterator[T_]:
    """Yield what an iterator yields, the next one being made in a thread meanwhile."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, items, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
