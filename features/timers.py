"""Seconds per phase of an encoder, on synchronous and on asynchronous devices."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

NAMES = ("copy", "prepare", "forward")


class PhaseTimer:
    """Seconds that a device was busy with each phase: `copy` to it, `prepare` (resize, crop, normalize), `forward`.

    CUDA runs queued work later, so its seconds come from events on the stream that does the work and count once they
    have completed. Copies run on a stream of their own: `copy` overlaps with the other phases.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = dict.fromkeys(NAMES, 0.0)
        self._pending: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds per phase of the work completed so far."""
        while self._pending and self._pending[0][2].query():  # type: ignore[no-untyped-call]
            name, start, end = self._pending.popleft()
            self._seconds[name] += start.elapsed_time(end) / 1000
        return dict(self._seconds)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Measure the work done, or queued on the current stream, inside the context."""
        if self._device.type != "cuda":
            start = time.perf_counter()
            yield
            if self._device.type == "mps":
                torch.mps.synchronize()
            self._seconds[name] += time.perf_counter() - start
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        yield
        end.record()
        self._pending.append((name, begin, end))
