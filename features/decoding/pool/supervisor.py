"""Decoding in supervised worker processes: a video that hangs or kills its decoder fails alone.

Each worker is a fresh interpreter without torch (`pool.main`) with a socket of its own, so that killing one leaves no
other process waiting for a lock. The supervisor is the generator itself; it has no threads.

Frames come through shared memory that a worker writes once and the consumer reads in place. The memory has no name
that could be left behind; it is reused or freed when the consumer drops its last array over it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from selectors import EVENT_READ, DefaultSelector
from types import TracebackType

from actionvit.features.decoding.policy import DecodePolicy, decoder_version
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest, WorkerConfig
from actionvit.features.decoding.pool.task import RequestDecoder, failure
from actionvit.features.decoding.pool.worker import Worker
from actionvit.features.failures import Failure, Reason

PREFETCH = 2
"""Requests queued per worker, so that it need not wait for the next while the consumer is busy."""
AHEAD_PER_WORKER = 3
"""Videos decoded ahead of the consumer, per worker."""
MAX_AHEAD = 2 << 30
"""Bytes of frames decoded ahead of the consumer, judged by the largest video so far."""
MAX_MEMORY = 4 << 30
"""Bytes that a worker may allocate in addition to its memory at startup."""
RECYCLE = 2000
"""Videos after which a worker is replaced by a fresh one."""
GRACE = 5.0
"""At most this many seconds between two polls count towards a timeout, since the whole process group may have been
suspended (Ctrl-Z). Also the minimum time to poll before declaring a timeout, if the timeout is not shorter."""
POLL_SECONDS = 0.25
"""Longest single wait for results."""


def decode_stream(
    requests: Iterable[DecodeRequest],
    *,
    policy: DecodePolicy = DecodePolicy(),
    workers: int | None = None,
    timeout: float = 60.0,
) -> Generator[Decoded | Failure, None, None]:
    """Decode in worker processes; yield one result per request, in request order.

    Closing the generator, or any exception, ends the workers at once; so does the death of this process.

    Parameters
    ----------
    requests : iterable of DecodeRequest
        Consumed as needed: at most `AHEAD_PER_WORKER` per worker ahead of the result that was yielded last.
    policy : DecodePolicy
    workers : int, optional
        Worker processes; by default one per core. 0 decodes in this process, unsupervised.
    timeout : float
        Seconds per video, after which its worker is killed.

    Raises
    ------
    ActionVitError
        If workers cannot be started at all.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers: got {workers}, expected 0 or more")
    with closing(_decode(requests, policy, available_cores() if workers is None else workers, timeout)) as results:
        for result in results:
            yield replace(result, decoder_version=decoder_version()) if isinstance(result, Failure) else result


def _decode(
    requests: Iterable[DecodeRequest], policy: DecodePolicy, count: int, timeout: float
) -> Generator[Decoded | Failure, None, None]:
    if count == 0:
        decoder = RequestDecoder(policy)
        try:
            for request in requests:
                yield decoder.decode(request)
        finally:
            decoder.close()
        return
    with _Pool(WorkerConfig(policy, MAX_MEMORY), count, timeout) as pool:
        for request in requests:
            pool.submit(request)
            while pool.pending > AHEAD_PER_WORKER * count or pool.over_memory_budget:
                yield pool.next()
        while pool.pending:
            yield pool.next()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """Workers, their queues, and the results that are not due yet."""

    def __init__(self, config: WorkerConfig, count: int, timeout: float) -> None:
        self._config = config
        self._count = count
        self._timeout = timeout
        self._workers: list[Worker] = []
        self._selector = DefaultSelector()
        self._backlog: deque[tuple[int, DecodeRequest]] = deque()
        self._retries: deque[tuple[int, DecodeRequest]] = deque()
        """Requests whose worker was killed once: each is tried again with no other worker beside it."""
        self._retried: set[int] = set()
        self._results: dict[int, Decoded | Failure] = {}
        self._submitted = self._yielded = 0
        self._largest = 0  # bytes of frames of a video
        self._polled_at = time.monotonic()

    def __enter__(self) -> _Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_workers()
        self._selector.close()

    @property
    def pending(self) -> int:
        """Requests whose results are not yielded yet."""
        return self._submitted - self._yielded

    @property
    def over_memory_budget(self) -> bool:
        """Whether the pending requests may need too much memory together."""
        affordable = MAX_AHEAD // self._largest if self._largest else PREFETCH * self._count
        return self.pending > max(1, affordable)

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
        self._retried.discard(self._yielded)
        self._yielded += 1
        return result

    def _feed(self) -> None:
        """Send requests to workers with room in their queues; start workers while all are busy."""
        if self._retried:
            queued = [task.number for worker in self._workers for task in worker.queue]
            if self._retries and not queued:
                self._end_workers()  # they hold memory
                self._start_worker().send(*self._retries.popleft())
                return
            if self._retries or not self._retried.isdisjoint(queued):
                return
        while self._backlog:
            if len(self._workers) < self._count and all(worker.queue for worker in self._workers):
                self._start_worker()
            fresh = [worker for worker in self._workers if worker.answered + len(worker.queue) < RECYCLE]
            worker = min(fresh, key=lambda worker: len(worker.queue), default=None)
            if worker is None or len(worker.queue) >= PREFETCH:
                return
            worker.send(*self._backlog.popleft())

    def _step(self) -> None:
        """Wait for a message or a deadline, and handle it."""
        self._feed()
        first = min(worker.busy_since for worker in self._workers if worker.queue) + self._timeout
        ready = self._poll(max(first - time.monotonic(), min(GRACE, self._timeout)))
        for worker in ready:
            if not self._receive(worker):
                self._handle_death(worker)
        if ready:  # a deadline may depend on a message: read them all first
            return
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.queue]:
            if now >= worker.busy_since + self._timeout:
                worker.check_started()
                self._replace(worker, "timeout", f"not decoded within {self._timeout:g} s")

    def _poll(self, seconds: float) -> list[Worker]:
        """Wait for messages of workers, at most so many seconds; return the workers that have sent some.

        Time beyond the requested wait (the process was suspended or got no processor) does not count towards
        timeouts. Short waits limit how much of a suspension is missed.
        """
        self._exclude_suspended_time(GRACE)  # the consumer's time since the last poll
        ready: list[Worker] = []
        while seconds > 0 and not ready:
            step = min(seconds, POLL_SECONDS)
            ready = [key.data for key, _ in self._selector.select(step)]
            self._exclude_suspended_time(step)
            seconds -= step
        return ready

    def _exclude_suspended_time(self, expected: float) -> None:
        """Count no more than `expected` seconds since the last poll towards the workers' timeouts."""
        now = time.monotonic()
        excess = max(0.0, now - self._polled_at - expected)
        for worker in self._workers:
            if worker.busy_since < now:  # else it is starting, or has just received its video
                worker.busy_since = min(now, worker.busy_since + excess)
        self._polled_at = now

    def _receive(self, worker: Worker) -> bool:
        """Read a result; False if the worker is dead."""
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
        out_of_memory = isinstance(result, Failure) and result.reason == "memory"  # its memory may be fragmented
        if out_of_memory or (worker.answered >= RECYCLE and not worker.queue):
            self._replace(worker)
        return True

    def _handle_death(self, worker: Worker) -> None:
        """Fail the video of a dead worker; try it again alone if the worker was killed, for memory most likely."""
        reason, detail = worker.exit_reason()
        task = worker.queue[0] if worker.queue else None
        if task is None:
            self._replace(worker)
        elif worker.was_killed and task.number not in self._retried:
            worker.queue.popleft()
            self._retried.add(task.number)
            self._retries.append((task.number, task.request))
            self._replace(worker)
        else:
            self._replace(worker, reason, detail + " (again, with no other worker)" * (task.number in self._retried))

    def _replace(self, worker: Worker, reason: Reason | None = None, detail: str = "") -> None:
        """End a worker; with a reason, its first request has failed. The others go back into the backlog."""
        self._end_worker(worker)
        if reason is not None:
            task = worker.queue.popleft()
            self._results[task.number] = failure(task.request, reason, detail, self._config.policy.backend)
        self._backlog.extendleft((task.number, task.request) for task in reversed(worker.queue))

    def _end_workers(self) -> None:
        for worker in list(self._workers):
            self._end_worker(worker)

    def _start_worker(self) -> Worker:
        worker = Worker(self._config)
        self._workers.append(worker)
        self._selector.register(worker.socket, EVENT_READ, worker)
        return worker

    def _end_worker(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.socket)
        worker.end()
