"""Queue between decoding and one encoder: batches decoded videos, encodes them in a thread, writes rows in order."""

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
"""Batches submitted before the first result is awaited: one computing, one ready."""
BATCH_VIDEOS, BATCH_BYTES = 128, 512 << 20
"""Maximum videos (each keeps a file open) and bytes of frames per batch; with `IN_FLIGHT` they bound memory."""


@dataclass(slots=True)
class StageSeconds:
    """Busy seconds per stage; stages overlap."""

    decode: float = 0.0
    """Sum over the workers."""
    copy: float = 0.0
    """Copies of frames to the device."""
    prepare: float = 0.0
    """Resizing, cropping, normalizing."""
    forward: float = 0.0
    write: float = 0.0

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add an encoder's `seconds`."""
        self.copy += seconds["copy"]
        self.prepare += seconds["prepare"]
        self.forward += seconds["forward"]


@dataclass(slots=True)
class EncodeQueue:
    """The queue of one encoder: gathers batches, encodes in the shared encoder thread, writes in order."""

    encoder: VideoEncoder
    writer: Writer
    todo: frozenset[str]
    thread: ThreadPoolExecutor
    stage_seconds: StageSeconds
    _batch: list[Decoded] = field(default_factory=list)
    _in_flight: deque[tuple[list[VideoRecord], Future[EncodeFuture]]] = field(default_factory=deque)
    """Records of videos being encoded; their frames are freed once the encoder has taken them."""

    @property
    def busy_seconds(self) -> float:
        """Busy seconds of this encoder so far; copies overlap with them and do not count."""
        seconds = self.encoder.seconds
        return seconds["prepare"] + seconds["forward"]

    def put(self, video: Decoded) -> None:
        """Queue a video, and write the rows that are ready."""
        self._batch.append(video)
        size = sum(queued.frames.data.nbytes for queued in self._batch)
        if len(self._batch) >= min(self.encoder.batch_videos, BATCH_VIDEOS) or size >= BATCH_BYTES:
            self._submit()
        while self._in_flight and (len(self._in_flight) > IN_FLIGHT or self._first_is_ready()):
            self._write()

    def finish(self) -> None:
        """Encode and write all queued videos."""
        if self._batch:
            self._submit()
        while self._in_flight:
            self._write()
        self.stage_seconds.add(self.encoder.seconds)

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        records = [video.record for video in batch]
        self._in_flight.append((records, self.thread.submit(self.encoder.submit, [video.frames for video in batch])))

    def _first_is_ready(self) -> bool:
        future = self._in_flight[0][1]
        return future.done() and future.result().done()

    def _write(self) -> None:
        records, future = self._in_flight.popleft()
        arrays = future.result().result()
        began = time.perf_counter()
        for record, quantities in zip(records, arrays, strict=True):
            _require_finite(record.id, quantities)
            self.writer.append(Row(record, quantities))
        self.stage_seconds.write += time.perf_counter() - began


def _require_finite(id: str, quantities: Mapping[str, NDArray[Any]]) -> None:
    """Raise before NaN or Inf is cached."""
    for name, array in quantities.items():
        if np.isfinite(array).all():
            continue
        if name.startswith("tokens") and np.isfinite(quantities["clip"]).all():
            raise ActionVitError(
                f"{id}: {name} exceed fp16's range (65,504), in which tokens are stored: leave out save_tokens_after=,"
                " or save the tokens of an earlier block"
            )
        raise ActionVitError(
            f"{id}: its embedding contains NaN or Inf. In fp16 (maximum 65,504) use precision=bf16 or fp32; otherwise"
            " check the weights. Cached rows are unaffected"
        )
