"""Decoding in supervised worker processes: one video can cost no more than itself.

Each worker is a fresh interpreter without torch (`pool.main`), spoken to through a socket of its own, so that
killing one leaves nobody else waiting for a lock. The supervisor is the generator itself: no threads.

Frames come through shared memory that a worker writes once and the consumer reads in place. Nothing is copied, and
nothing has a name that could be left behind: the memory is freed, or lent to a later video, when the consumer drops
its last array over it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from multiprocessing.connection import wait
from types import TracebackType

from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest, decode_one, fail, find_decoder
from actionvit.features.decoding.pool.worker import Setup, Worker
from actionvit.features.decoding.video import DecodePolicy
from actionvit.features.failures import Failure, Reason

DEFAULT_POLICY = DecodePolicy()
DEPTH = 2
"""Videos handed to a worker at once, so that it need not wait for the next while the consumer is busy."""

MAX_AHEAD = 2 << 30
"""Bytes of frames decoded ahead of the consumer, judged by the largest video so far: large videos, fewer of them."""
GRACE = 5.0
"""Seconds that count against a worker while the consumer is away, who may have been stopped with it (Ctrl-Z); and
that it is watched before it is found to be late, if the timeout is not shorter."""
SLICE = 0.25
"""Seconds that the supervisor waits at a time."""


def decode_stream(
    requests: Iterable[DecodeRequest],
    *,
    policy: DecodePolicy = DEFAULT_POLICY,
    workers: int | None = None,
    timeout: float = 60.0,
    max_memory: int = 4 << 30,
    recycle: int = 2000,
    ahead: int | None = None,
    decoder: str = "actionvit.features.decoding.video:decode",
) -> Generator[Decoded | Failure, None, None]:
    """Decode in worker processes; yield one result a request, in request order.

    Closing the generator, or any exception, ends the workers at once; so does the death of this process.

    Parameters
    ----------
    requests : iterable of DecodeRequest
        Taken as they are needed, at most `ahead` beyond the one yielded.
    policy : DecodePolicy
        For all of them.
    workers : int or None
        Worker processes; None for one a core, 0 to decode in this process, unsupervised.
    timeout : float
        Seconds a video may take; then its worker is killed.
    max_memory : int
        Bytes a worker may allocate on top of what it needs to start.
    recycle : int
        Videos after which a worker is replaced by a fresh one.
    ahead : int or None
        Videos decoded ahead of the consumer; None for three times the workers.
    decoder : str
        `module:function` that the workers call as `decode`; for tests and experiments.

    Raises
    ------
    ActionVitError
        If workers cannot be started at all.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers: got {workers}, expected 0 or more")
    if workers == 0:
        here = find_decoder(decoder)
        for request in requests:
            yield decode_one(request, policy, here)
        return
    count = workers or available_cores()
    with _Pool(Setup(policy, max_memory, decoder), count, timeout, recycle) as pool:
        for request in requests:
            pool.submit(request)
            while pool.pending > (3 * count if ahead is None else ahead) or pool.crowded:
                yield pool.next()
        while pool.pending:
            yield pool.next()


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """Workers, what each is busy with, and the results that are not due yet."""

    def __init__(self, setup: Setup, count: int, timeout: float, recycle: int) -> None:
        self._setup = setup
        self._count = count
        self._timeout = timeout
        self._recycle = recycle
        self._workers: list[Worker] = []
        self._backlog: deque[tuple[int, DecodeRequest]] = deque()
        self._results: dict[int, Decoded | Failure] = {}
        self._submitted = self._yielded = 0
        self._largest = 0  # bytes of frames that a video had
        self._watched = time.monotonic()  # until when

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end()

    @property
    def pending(self) -> int:
        """Requests whose results are not yielded yet."""
        return self._submitted - self._yielded

    @property
    def crowded(self) -> bool:
        """Whether the requests that are pending may need too much memory between them."""
        room = MAX_AHEAD // self._largest if self._largest else DEPTH * self._count
        return self.pending > max(1, room)

    def submit(self, request: DecodeRequest) -> None:
        """Take a request; a free worker starts on it."""
        self._backlog.append((self._submitted, request))
        self._submitted += 1
        self._feed()

    def next(self) -> Decoded | Failure:
        """Return the result that is due, waiting for it."""
        while self._yielded not in self._results:
            self._step()
        result = self._results.pop(self._yielded)
        self._yielded += 1
        return result

    def _feed(self) -> None:
        while self._backlog:
            if len(self._workers) < self._count and all(worker.queue for worker in self._workers):
                self._workers.append(Worker(self._setup))
            fresh = [worker for worker in self._workers if worker.answered + len(worker.queue) < self._recycle]
            worker = min(fresh, key=lambda worker: len(worker.queue), default=None)
            if worker is None or len(worker.queue) >= DEPTH:
                return
            worker.send(*self._backlog.popleft())

    def _step(self) -> None:
        """Wait until a worker says something or a deadline passes, and act on it."""
        self._feed()
        first = min(worker.busy_since for worker in self._workers if worker.queue) + self._timeout
        ready = self._watch(max(first - time.monotonic(), min(GRACE, self._timeout)))
        for worker in [worker for worker in self._workers if worker.socket in ready]:
            if not self._receive(worker):
                self._replace(worker, *worker.epitaph())
        if ready:  # a message may be all that a deadline waits for: read them all before judging
            return
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.queue]:
            if now >= worker.busy_since + self._timeout:
                worker.must_have_started()
                self._replace(worker, "timeout", f"not decoded within {self._timeout:g} s")

    def _watch(self, seconds: float) -> set[object]:
        """Wait until workers say something, for so long at most; return the sockets of those that did.

        What passes beyond the time asked for is taken off nobody's timeout: this process was stopped (Ctrl-Z) or got
        no processor, and so, most likely, did they. The slices bound what of a stop is not seen to be one.
        """
        sockets = [worker.socket for worker in self._workers]
        self._forgive(GRACE)  # of the time that the consumer had, no more counts
        ready: Sequence[object] = ()
        while seconds > 0 and not ready:
            asked = min(seconds, SLICE)
            ready = wait(sockets, asked)
            self._forgive(asked)
            seconds -= asked
        return set(ready)

    def _forgive(self, most: float) -> None:
        """Let no more than `most` seconds since the last look count against the workers."""
        now = time.monotonic()
        late = max(0.0, now - self._watched - most)
        for worker in self._workers:
            if worker.busy_since < now:  # else it is still starting, or has just been given its video
                worker.busy_since = min(now, worker.busy_since + late)
        self._watched = now

    def _receive(self, worker: Worker) -> bool:
        """Read a result; False if the worker is gone."""
        try:
            answer = worker.receive()
        except (EOFError, OSError):
            return False
        if answer is None:  # it has started
            return True
        number, result = answer
        self._results[number] = result
        if isinstance(result, Decoded):
            self._largest = max(self._largest, result.frames.data.nbytes)
        starved = isinstance(result, Failure) and result.reason == "memory"  # what it holds, the next would lack
        if starved or (worker.answered >= self._recycle and not worker.queue):
            self._replace(worker)
        return True

    def _replace(self, worker: Worker, reason: Reason | None = None, detail: str = "") -> None:
        """End a worker; with a reason, the video it is at has failed. What it had not begun goes back in line."""
        worker.end()
        self._workers.remove(worker)
        if reason is not None:
            task = worker.queue.popleft()
            self._results[task.number] = fail(task.request, reason, detail, self._setup.policy.decoder)
        self._backlog.extendleft((task.number, task.request) for task in reversed(worker.queue))
