"""What is asked of a decoding worker, and what it answers."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actionvit.features.decoding.convert import Allocate
from actionvit.features.decoding.frames import DecodeError, Frames
from actionvit.features.decoding.video import DecodePolicy, decode, decoder_version
from actionvit.features.failures import Failure, Reason
from actionvit.features.fingerprint import NO_FILE, Fingerprint, content_digest, fingerprint
from actionvit.features.sampling import ClipSpec
from actionvit.features.video_record import VideoRecord


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
    """The consumer's: valid as long as it keeps any array over them."""
    digest: str
    """sha256 of the content, as `content_digest` gives it."""
    fingerprint: Fingerprint
    seconds: float
    """Time the worker spent on it."""

    @property
    def record(self) -> VideoRecord:
        """The record to store beside the video's embeddings."""
        frames = self.frames
        return VideoRecord(self.id, self.digest, self.fingerprint, frames.count, frames.flags, frames.backend)


Decoder = Callable[[Path, Sequence[ClipSpec], DecodePolicy, Allocate], Frames]
"""What `decode` is, or does its work in a test."""


def find_decoder(name: str) -> Decoder:
    """Return what `module:function` names."""
    module, _, function = name.partition(":")
    found: Decoder = getattr(importlib.import_module(module), function)
    return found


def decode_one(
    request: DecodeRequest, policy: DecodePolicy, decoder: Decoder = decode, allocate: Allocate = np.empty
) -> Decoded | Failure:
    """Decode a video in this process; whatever is wrong with it becomes a `Failure`."""
    start = time.perf_counter()
    try:
        for _ in range(2):
            before, digest = fingerprint(request.path), content_digest(request.path)
            frames = decoder(request.path, request.specs, policy, allocate)
            if fingerprint(request.path) == before:
                return Decoded(request.id, frames, digest, before, time.perf_counter() - start)
    except MemoryError:
        return fail(request, "memory", "needs more memory than a worker may have", policy.decoder)
    except DecodeError as error:
        return fail(request, error.reason, error.detail, error.backend, error.frames)
    except OSError as error:
        return fail(request, "missing", error.strerror or str(error))
    except Exception as error:  # an unexpected decoder error: fail this video only
        return fail(request, "crashed", f"{type(error).__name__}: {error}")
    return fail(request, "corrupt", "the file changes while it is read", policy.decoder)


def fail(request: DecodeRequest, reason: Reason, detail: str, backend: str = "", frames_decoded: int = 0) -> Failure:
    """Return the record of a failure, with the file's present fingerprint."""
    try:
        now = fingerprint(request.path)
    except OSError:
        now = NO_FILE
    return Failure(
        id=request.id,
        reason=reason,
        detail=detail,
        backend=backend,
        frames_decoded=frames_decoded,
        fingerprint=now,
        decoder_version=decoder_version(),
    )
