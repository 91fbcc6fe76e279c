"""Decoding in supervised worker processes: one clip can cost no more than itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actionvit.features.clips import ClipSpec
from actionvit.features.decoding import DecodePolicy, decode
from actionvit.features.files import Fingerprint, content_digest, fingerprint
from actionvit.features.frames import DecodeError, Frames, Reason


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """A video and what is wanted of it."""

    id: str
    path: Path
    specs: tuple[ClipSpec, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A video's frames, and which bytes they came from."""

    id: str
    frames: Frames
    digest: str
    """sha256 of the content, as `content_digest` gives it."""
    fingerprint: Fingerprint
    seconds: float
    """Time the worker spent on it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that gave no frames: one ledger line."""

    id: str
    reason: Reason
    detail: str
    backend: str
    frames: int
    """Frames seen before it failed."""


def decode_stream(
    requests: Iterable[DecodeRequest],
    *,
    policy: DecodePolicy = DecodePolicy(),
    workers: int | None = None,
    timeout: float = 60.0,
    max_memory: int = 2 << 30,
    recycle: int = 1000,
    ahead: int | None = None,
) -> Iterator[Decoded | Failure]:
    """Decode in worker processes; yield one result a request, in request order.

    Parameters
    ----------
    requests : iterable of DecodeRequest
        Taken as they are needed, at most `ahead` beyond the one yielded.
    policy : DecodePolicy
        For all of them.
    workers : int or None
        Worker processes; None for one a core, 0 to decode in this process, unsupervised.
    timeout : float
        Seconds a video may take.
    max_memory : int
        Bytes a worker may allocate.
    recycle : int
        Videos after which a worker is replaced by a fresh one.
    ahead : int or None
        Videos decoded ahead of the consumer; None for twice the workers.
    """
    for request in requests:
        yield _decode_one(request, policy)


def _decode_one(request: DecodeRequest, policy: DecodePolicy) -> Decoded | Failure:
    start = time.perf_counter()
    try:
        vouch, digest = fingerprint(request.path), content_digest(request.path)
        frames = decode(request.path, request.specs, policy)
    except OSError as error:
        return Failure(request.id, "missing", str(error), "", 0)
    except DecodeError as error:
        return Failure(request.id, error.reason, error.detail, error.backend, error.frames)
    return Decoded(request.id, frames, digest, vouch, time.perf_counter() - start)
