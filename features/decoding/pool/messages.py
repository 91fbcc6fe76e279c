"""What is asked of a decoding worker, and what it answers."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actionvit.features.decoding.convert import Allocate
from actionvit.features.decoding.decode import DecodePolicy, decode
from actionvit.features.decoding.frames import DecodeError, Frames, Reason
from actionvit.features.fingerprint import Fingerprint, content_digest, fingerprint
from actionvit.features.sampling import ClipSpec


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


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that gave no frames: one ledger line."""

    id: str
    reason: Reason
    detail: str
    backend: str
    frames: int
    """Frames seen before it failed."""


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
            vouch, digest = fingerprint(request.path), content_digest(request.path)
            frames = decoder(request.path, request.specs, policy, allocate)
            if fingerprint(request.path) == vouch:
                return Decoded(request.id, frames, digest, vouch, time.perf_counter() - start)
    except MemoryError:
        return Failure(request.id, "memory", "needs more memory than a worker may have", policy.decoder, 0)
    except DecodeError as error:
        return Failure(request.id, error.reason, error.detail, error.backend, error.frames)
    except OSError as error:
        return Failure(request.id, "missing", error.strerror or str(error), "", 0)
    except Exception as error:  # of a decoder that met what nobody foresaw; it costs this video alone, by name
        return Failure(request.id, "crashed", f"{type(error).__name__}: {' '.join(str(error).split())}", "", 0)
    return Failure(request.id, "corrupt", "the file changes while it is read", policy.decoder, 0)
