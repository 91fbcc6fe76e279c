"""Requests to decode a video, and the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.policy import DecodePolicy
from actionvit.features.fingerprint import Fingerprint
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle quickly, as `Frames` does, with the record's fields as a tuple."""
        record = self.record
        fields = (record.id, record.digest, tuple(record.fingerprint), record.count, record.flags, record.backend)
        return _decoded, (fields, self.frames, self.seconds)


def _decoded(record: tuple[Any, ...], frames: Frames, seconds: float) -> Decoded:
    id, digest, fingerprint, count, flags, backend = record
    return Decoded(VideoRecord(id, digest, Fingerprint(*fingerprint), count, flags, backend), frames, seconds)


class WorkerConfig(NamedTuple):
    """Settings that a worker receives once."""

    policy: DecodePolicy
    max_memory: int
    """Bytes that the worker may allocate in addition to its memory at startup."""


class Slot(NamedTuple):
    """The piece of shared memory that holds a result's pixels."""

    number: int
    new_bytes: int
    """Size of the slot if it is new (its file descriptor follows), else 0."""
    dropped: tuple[int, ...]
    """Numbers of slots that will not be used again."""
