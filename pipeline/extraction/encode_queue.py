"""The loop around the encoder: decoded videos in, rows out, with decoding, forward and writing side by side."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.decoding import Decoded
from actionvit.features.encoder import EncodeFuture, VideoEncoder
from actionvit.features.store.parts import Row
from actionvit.features.store.writer import Writer
from actionvit.features.video_record import VideoRecord

IN_FLIGHT = 2
"""Batches a lane hands to the encoder before it waits for the first: one computing, one ready."""
BATCH_VIDEOS, BATCH_BYTES = 128, 512 << 20
"""What a batch may hold of videos, each of which is an open file, and of frames; with `IN_FLIGHT` this bounds both."""


@dataclass(slots=True)
class Clock:
    """Seconds a phase was busy; phases overlap."""

    decode: float = 0.0
    """Summed over the workers."""
    copy: float = 0.0
    """Of frames to the device."""
    prepare: float = 0.0
    """Resizing, cropping, normalising."""
    forward: float = 0.0
    write: float = 0.0

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add an encoder's `seconds`."""
        self.copy += seconds["copy"]
        self.prepare += seconds["prepare"]
        self.forward += seconds["forward"]


@dataclass(slots=True)
class Lane:
    """One variant's way through the loop: gathers batches, encodes in the one encoder thread, writes in order."""

    encoder: VideoEncoder
    writer: Writer
    todo: frozenset[str]
    thread: ThreadPoolExecutor
    clock: Clock
    _batch: list[Decoded] = field(default_factory=list)
    _flying: deque[tuple[list[VideoRecord], Future[EncodeFuture]]] = field(default_factory=deque)
    """Records of videos being encoded; their frames are freed once the encoder has taken them."""

    @property
    def busy(self) -> float:
        """Seconds that this lane's encoder was busy so far; copies go on beside it."""
        seconds = self.encoder.seconds
        return seconds["prepare"] + seconds["forward"]

    def take(self, video: Decoded) -> None:
        """Queue a video; write what has been encoded meanwhile."""
        self._batch.append(video)
        size = sum(one.frames.data.nbytes for one in self._batch)
        if len(self._batch) >= min(self.encoder.batch_videos, BATCH_VIDEOS) or size >= BATCH_BYTES:
            self._submit()
        while self._flying and (len(self._flying) > IN_FLIGHT or self._first_is_ready()):
            self._write()

    def finish(self) -> None:
        """Encode and write whatever is queued."""
        if self._batch:
            self._submit()
        while self._flying:
            self._write()
        self.clock.add(self.encoder.seconds)

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        records = [video.record for video in batch]
        self._flying.append((records, self.thread.submit(self.encoder.submit, [video.frames for video in batch])))

    def _first_is_ready(self) -> bool:
        future = self._flying[0][1]
        return future.done() and future.result().done()

    def _write(self) -> None:
        records, future = self._flying.popleft()
        arrays = future.result().result()
        began = time.perf_counter()
        for record, quantities in zip(records, arrays, strict=True):
            _require_finite(record.id, quantities)
            self.writer.append(Row(record, quantities))
        self.clock.write += time.perf_counter() - began


def _require_finite(id: str, quantities: Mapping[str, NDArray[Any]]) -> None:
    """Raise before NaN or Inf is cached."""
    for name, array in quantities.items():
        if np.isfinite(array).all():
            continue
        if name.startswith("tokens") and np.isfinite(quantities["clip"]).all():
            raise ActionVitError(
                f"{id}: {name} exceed fp16's range (65,504), in which tokens are stored: leave out --save-tokens-after,"
                " or save the tokens of an earlier block"
            )
        raise ActionVitError(
            f"{id}: its embedding contains NaN or Inf. In fp16 (maximum 65,504) use --precision bf16 or fp32; otherwise"
            " check the weights. Cached rows are unaffected"
        )
