"""Decoding in supervised worker processes: one clip can cost no more than itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_stream(
    requests: Iterable[DecodeRequest],
    *,
    policy: DecodePolicy = DecodePolicy(),
    workers: int | None = None,
    timeout: float = 60.0,
    max_memory: int = 4 << 30,
    recycle: int = 1000,
    ahead: int | None = None,
) -> Generator[Decoded | Failure, None, None]:
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
    if workers == 0:
        for request in requests:
            yield _decode_one(request, policy)
        return
    from pebble import ProcessPool

    count = available_cores() if workers is None else workers
    flying: deque[tuple[DecodeRequest, Any]] = deque()
    # Spawned, not forked: the parent may hold threads and a GPU.
    pool = ProcessPool(count, recycle, _start_worker, (max_memory,), multiprocessing.get_context("spawn"))
    try:
        for request in requests:
            flying.append((request, pool.schedule(_decode_one, args=(request, policy), timeout=timeout)))
            if len(flying) > (ahead or 2 * count):
                yield _result(*flying.popleft())
        while flying:
            yield _result(*flying.popleft())
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _start_worker(max_memory: int) -> None:
    """Prepare a worker: it dies with its parent, says nothing, and cannot eat the machine's memory."""
    import ctypes
    import resource

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its workers
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # FFmpeg's complaints
    os.close(silent)
    resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))


def _die_with_parent() -> None:
    """Leave when the parent is gone, also where it went before the kernel was asked to tell."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _result(request: DecodeRequest, future: Any) -> Decoded | Failure:
    """Wait for a video; a worker that hung or died cost this one alone."""
    from pebble import ProcessExpired

    try:
        result: Decoded | Failure = future.result()
    except TimeoutError:
        return Failure(request.id, "timeout", "not decoded in time; --timeout gives more", "", 0)
    except ProcessExpired as error:
        return Failure(request.id, "crashed", f"the decoder died (exit code {error.exitcode})", "", 0)
    return result


def _decode_one(request: DecodeRequest, policy: DecodePolicy) -> Decoded | Failure:
    start = time.perf_counter()
    try:
        vouch, digest = fingerprint(request.path), content_digest(request.path)
        frames = decode(request.path, request.specs, policy)
    except OSError as error:
        return Failure(request.id, "missing", error.strerror or str(error), "", 0)
    except MemoryError:
        return Failure(request.id, "memory", "needs more memory than a worker may have", "", 0)
    except DecodeError as error:
        return Failure(request.id, error.reason, error.detail, error.backend, error.frames)
    return Decoded(request.id, frames, digest, vouch, time.perf_counter() - start)
