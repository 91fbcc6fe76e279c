"""Requests to decode a video, and the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.policy import DecodePolicy
from actionvit.features.sampling import ClipSpec, Segment
from actionvit.features.video_record import VideoRecord


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """A video, or a segment of it, and the clips to sample from it."""

    id: str
    path: Path
    specs: tuple[ClipSpec, ...]
    segment: Segment | None = None
    """Sample within this segment only. Requests for segments of one video share one open file if they follow each
    other; in order of their starts they are cheapest."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The sampled frames of a video or segment, and the record that is stored with its embeddings."""

    record: VideoRecord
    """Its `digest` is the `content_digest` of the file, or the `segment_digest` of a segment."""
    frames: Frames
    """Valid as long as any array over them is referenced."""
    seconds: float
    """Time that the worker spent."""

    @property
    def id(self) -> str:
        """The id of the request."""
        return self.record.id


class WorkerConfig(NamedTuple):
    """Settings that a worker receives once."""

    policy: DecodePolicy
    max_memory: int
    """Bytes that the worker may allocate beyond what it needs to start."""


class Slot(NamedTuple):
    """The piece of shared memory that holds a result's pixels."""

    number: int
    nbytes: int
    """Size of the pixels."""
    new_bytes: int
    """Size of the slot if it is new (its file descriptor follows), else 0."""
    dropped: tuple[int, ...]
    """Numbers of slots that will not be used again."""
