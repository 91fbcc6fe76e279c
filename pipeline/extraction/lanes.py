"""The loop around the encoder: decoded videos in, rows out, with decoding, forward and writing side by side."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.workers import Decoded
from actionvit.features.store.parts import Row
from actionvit.features.store.writer import Writer

Arrays = dict[str, NDArray[Any]]

IN_FLIGHT = 2
"""Batches a lane hands to the encoder before it waits for the first: one computing, one ready. Bounds the memory."""


class VideoEncoder(Protocol):
    """What the loop asks of an encoder; `features.timesformer.encoder.Encoder` is one."""

    @property
    def batch_videos(self) -> int:
        """Videos to hand over at once; 1 on the CPU, so that a row's bytes never depend on its neighbours."""

    def encode_many(self, videos: Sequence[Frames]) -> list[Arrays]:
        """Return each video's `clip (K, D)`, `frame (K, T, D)`, `index (K, T)` and what else was asked for."""


@dataclass(slots=True)
class Clock:
    """Seconds a phase was busy; phases overlap."""

    decode: float = 0.0
    """Summed over the workers."""
    forward: float = 0.0
    write: float = 0.0


@dataclass(slots=True)
class Lane:
    """One variant's way through the loop: gathers batches, encodes in the one encoder thread, writes in order."""

    encoder: VideoEncoder
    writer: Writer
    todo: frozenset[str]
    thread: ThreadPoolExecutor
    clock: Clock
    busy: float = 0.0
    """Seconds of this lane's encoder."""
    _batch: list[Decoded] = field(default_factory=list)
    _flying: deque[tuple[list[Decoded], Future[list[Arrays]]]] = field(default_factory=deque)

    def take(self, video: Decoded) -> None:
        """Queue a video; write what has been encoded meanwhile."""
        self._batch.append(video)
        if len(self._batch) >= self.encoder.batch_videos:
            self._submit()
        while self._flying and (len(self._flying) > IN_FLIGHT or self._flying[0][1].done()):
            self._write()

    def finish(self) -> None:
        """Encode and write whatever is queued."""
        if self._batch:
            self._submit()
        while self._flying:
            self._write()

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        self._flying.append((batch, self.thread.submit(self._encode, [video.frames for video in batch])))

    def _encode(self, frames: list[Frames]) -> list[Arrays]:
        began = time.perf_counter()
        arrays = self.encoder.encode_many(frames)
        took = time.perf_counter() - began
        self.clock.forward += took
        self.busy += took
        return arrays

    def _write(self) -> None:
        batch, future = self._flying.popleft()
        arrays = future.result()
        began = time.perf_counter()
        for video, quantities in zip(batch, arrays, strict=True):
            self.writer.append(
                Row(
                    id=video.id,
                    digest=video.digest,
                    fingerprint=video.fingerprint,
                    count=video.frames.count,
                    flags=video.frames.flags,
                    backend=video.frames.backend,
                    arrays=quantities,
                )
            )
        self.clock.write += time.perf_counter() - began
