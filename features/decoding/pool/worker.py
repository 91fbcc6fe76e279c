"""A worker process as its supervisor sees it: a socket, a queue, and shared memory."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pickle
import signal
import subprocess
import time
import weakref
from collections import deque
from multiprocessing import reduction
from typing import NamedTuple

from actionvit.errors import ActionVitError
from actionvit.features.child_process import ChildProcess
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest, Slot, WorkerConfig
from actionvit.features.failures import Failure, Reason
from actionvit.features.sampling import ClipSpec

START_SECONDS = 120.0
"""Time that a worker may take to start."""


class Task(NamedTuple):
    """A request that was sent to a worker."""

    number: int
    request: DecodeRequest
    sent_at: float
    """Monotonic time."""


class Worker:
    """A worker process. It answers requests in the order in which they were sent."""

    def __init__(self, config: WorkerConfig) -> None:
        self.queue: deque[Task] = deque()
        """Requests without an answer; the worker decodes the first."""
        self.answered = 0
        self.busy_since = time.monotonic() + START_SECONDS
        """Monotonic time at which it began with the first of the queue; while it starts, that much later."""
        self._started = False
        self._specs: tuple[ClipSpec, ...] | None = None
        self._slots: dict[int, mmap.mmap] = {}
        self._arrays: dict[int, type[ctypes.Array[ctypes.c_ubyte]]] = {}  # over slots; a new type takes long to make
        self._released: deque[int] = deque()  # finalizers append to it, in any thread
        try:
            self._child = ChildProcess("actionvit.features.decoding.pool.main")
        except OSError as error:
            raise ActionVitError(f"cannot start a decoding worker ({error}); choose fewer workers=") from error
        self.socket = self._child.socket
        with contextlib.suppress(OSError):  # the worker is already dead; receiving reports it
            self.socket.send(config)

    def send(self, number: int, request: DecodeRequest) -> None:
        """Queue a request, and return the slots that the consumer has released."""
        freed = [self._released.popleft() for _ in range(len(self._released))]
        now = time.monotonic()
        if not self.queue and self._started:
            self.busy_since = now
        self.queue.append(Task(number, request, now))
        new_specs = None if self._specs == request.specs else request.specs  # mostly equal for all requests
        with contextlib.suppress(OSError):  # the worker is dead; receiving reports it
            # Not `send`, which makes a pickler for each message.
            self.socket.send_bytes(pickle.dumps((request.id, str(request.path), new_specs, request.segment, freed)))
        self._specs = request.specs

    def receive(self) -> tuple[int, Decoded | Failure] | None:
        """Read a result and its number; None for the message that the worker has started.

        Raises
        ------
        EOFError, OSError
            If the worker is dead.
        """
        answer = self.socket.recv()
        if answer == "started":
            self._started = True
            self.busy_since = time.monotonic()
            return None
        finished_at, message, slot = answer
        memory = [] if slot is None else [self._memory(slot)]  # of the pixels, which are not in the message
        result: Decoded | Failure = pickle.loads(message, buffers=memory)  # noqa: S301 - from our own process
        number = self.queue.popleft().number
        if self.queue:  # it began with the next one at once, unless that came later
            self.busy_since = max(finished_at, self.queue[0].sent_at)
        self.answered += 1
        return number, result

    def _memory(self, slot: Slot) -> ctypes.Array[ctypes.c_ubyte]:
        """Return a buffer over a slot, pixels first, which is released when the last array over it is gone."""
        if slot.new_bytes:
            try:
                descriptor = reduction.recv_handle(self.socket)
            except RuntimeError as error:  # raised by the standard library if the descriptor could not be received
                raise ActionVitError("too many open files: raise the limit with `ulimit -n 4096`") from error
            self._slots[slot.number] = mmap.mmap(descriptor, slot.new_bytes)
            self._arrays[slot.number] = ctypes.c_ubyte * slot.new_bytes
            os.close(descriptor)
        for number in slot.dropped:
            del self._slots[number], self._arrays[number]
        # numpy keeps this object, and not an array over it, as the base of every view.
        memory = self._arrays[slot.number].from_buffer(self._slots[slot.number])
        weakref.finalize(memory, self._released.append, slot.number).atexit = False
        return memory

    def check_started(self) -> None:
        """Raise ActionVitError if it never started: then no video is the cause."""
        if not self._started:
            self._child.process.kill()
            code = self._child.process.wait()
            raise ActionVitError(f"a decoding worker does not start (exit code {code}){self._child.stderr_tail()}")

    @property
    def was_killed(self) -> bool:
        """Whether the process ended by SIGKILL, as the kernel ends processes where memory runs out."""
        return self._child.process.poll() == -signal.SIGKILL

    def exit_reason(self) -> tuple[Reason, str]:
        """Return why the process ended. Raises ActionVitError if it never started."""
        try:
            code = self._child.process.wait(5)
        except subprocess.TimeoutExpired:
            return "crashed", "the decoder closed its connection"
        self.check_started()
        if code == -signal.SIGKILL:
            return "crashed", "the decoder was killed (SIGKILL): perhaps the machine ran out of memory"
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return "crashed", f"the decoder {how}{self._child.stderr_tail()}"

    def end(self) -> None:
        """Kill the process, which holds nothing to save. Frames that it decoded stay valid."""
        self._child.end()
