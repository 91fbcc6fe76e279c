"""A worker process as its supervisor sees it: a socket, a queue, and the shared memory it lends."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from multiprocessing import Pipe, reduction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest
from actionvit.features.decoding.video import DecodePolicy
from actionvit.features.failures import Failure, Reason
from actionvit.features.fingerprint import Fingerprint
from actionvit.features.sampling import ClipSpec

START_SECONDS = 120.0
"""A worker that has not started after this long never will."""
START = """
import sys
sys.path[:] = {!r}  # the parent's, and not the folder it happens to run in
from actionvit.features.decoding.pool.lifeline import tie
tie({})
from actionvit.features.decoding.pool.main import main
main({})
"""
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")}


class Setup(NamedTuple):
    """What a worker is told once."""

    policy: DecodePolicy
    max_memory: int
    decoder: str


class Lent(NamedTuple):
    """A video's frames as they cross over: everything but the pixels, which lie in a slot of shared memory."""

    id: str
    slot: int
    new_bytes: int
    """Size of the slot if it is new (its file descriptor follows), else 0."""
    dropped: tuple[int, ...]
    """Slots that will not be used again."""
    shape: tuple[int, ...]
    about: tuple[NDArray[np.int64], int, str, tuple[str, ...], float | None]
    """Index, count, backend, flags and duration of `Frames`."""
    digest: str
    fingerprint: Fingerprint
    seconds: float


class Task(NamedTuple):
    """A request on its way through a worker."""

    number: int
    request: DecodeRequest
    sent: float
    """When, on the monotonic clock."""


class Worker:
    """One worker process. Requests are answered in the order they were sent."""

    def __init__(self, setup: Setup) -> None:
        self.queue: deque[Task] = deque()
        """What was sent and is not answered; the worker is at the first."""
        self.answered = 0
        self.busy_since = time.monotonic() + START_SECONDS
        """When it began with the first of the queue; while it starts, that much later."""
        self._started = False
        self._specs: tuple[ClipSpec, ...] | None = None
        self._slots: dict[int, mmap.mmap] = {}
        self._free: deque[int] = deque()  # appended to by finalizers, in whatever thread these run
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self.socket, theirs = Pipe()
        # The worker dies when the other end of this closes, however this process ends.
        watched, self._life = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", START.format(sys.path, watched, theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(), watched),
                env={**os.environ, **ONE_THREAD},
            )
        except OSError as error:
            raise ActionVitError(f"cannot start a decoding worker ({error}); give fewer with `--workers`") from error
        finally:
            theirs.close()
            os.close(watched)
        with contextlib.suppress(OSError):  # it has died at once; receiving says so
            self.socket.send(setup)

    def send(self, number: int, request: DecodeRequest) -> None:
        """Queue a request, and give back the slots that the consumer has dropped."""
        freed = [self._free.popleft() for _ in range(len(self._free))]
        now = time.monotonic()
        if not self.queue and self._started:
            self.busy_since = now
        self.queue.append(Task(number, request, now))
        with contextlib.suppress(OSError):  # it has died; receiving says so
            self.socket.send(
                (request.id, str(request.path), None if self._specs == request.specs else request.specs, freed)
            )
        self._specs = request.specs  # told once: most often all requests ask for the same

    def receive(self) -> tuple[int, Decoded | Failure] | None:
        """Read an answer; None for the word that it has started. Raises EOFError or OSError if it is gone."""
        answer = self.socket.recv()
        if answer == "started":
            self._started = True
            self.busy_since = time.monotonic()
            return None
        done, result = answer
        if isinstance(result, Lent):
            frames = self._frames(result)
            result = Decoded(result.id, frames, result.digest, result.fingerprint, result.seconds)
        number = self.queue.popleft().number
        if self.queue:  # with which it began when it was done with this one, unless it had to wait for it
            self.busy_since = max(done, self.queue[0].sent)
        self.answered += 1
        return number, result

    def _frames(self, lent: Lent) -> Frames:
        """Return frames over the shared memory, which is given back when the last array over them is gone."""
        if lent.new_bytes:
            try:
                handle = reduction.recv_handle(self.socket)
            except RuntimeError as error:  # what the standard library makes of a descriptor that found no place
                raise ActionVitError("too many open files: raise the limit with `ulimit -n 4096`") from error
            self._slots[lent.slot] = mmap.mmap(handle, lent.new_bytes)
            os.close(handle)
        for slot in lent.dropped:
            del self._slots[slot]
        size = math.prod(lent.shape)
        # numpy keeps this object, not an array over it, as the base of every view.
        memory = (ctypes.c_ubyte * size).from_buffer(self._slots[lent.slot])
        weakref.finalize(memory, self._free.append, lent.slot).atexit = False
        data: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(lent.shape)  # type: ignore[call-overload]
        return Frames(data, *lent.about)

    def must_have_started(self) -> None:
        """Raise ActionVitError if it never started: then no video is to blame."""
        if not self._started:
            self._process.kill()
            code = self._process.wait()
            raise ActionVitError(f"a decoding worker does not start (exit code {code}){self._last_words()}")

    def epitaph(self) -> tuple[Reason, str]:
        """Say what killed it. Raises ActionVitError if it never started."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "crashed", "the decoder fell silent"
        self.must_have_started()
        if code == -signal.SIGKILL:
            return "crashed", "the decoder was killed (SIGKILL): perhaps the machine ran out of memory"
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return "crashed", f"the decoder {how}{self._last_words()}"

    def _last_words(self) -> str:
        """Return the last line of its stderr, behind a colon, if there is one."""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 4000))
        said = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f": {said[-1][:200]}" if said else ""

    def end(self) -> None:
        """Kill it; it holds nothing that needs care. Frames that it lent stay valid."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a dead network disk, and dies when it may
            self._process.wait(5)
        self.socket.close()
        os.close(self._life)
        self._stderr.close()
