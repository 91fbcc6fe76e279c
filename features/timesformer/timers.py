"""Where an encoder's time goes, on devices that work at once and on those that work later."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

NAMES = ("copy", "prepare", "forward")


class Phases:
    """Seconds that a device was busy with each phase: `copy` to it, `prepare` (resize, crop, normalise), `forward`.

    On CUDA, where work is queued and done later, the seconds come from events on the stream that does the work; they
    are counted once they have happened. Copies have a stream of their own: `copy` overlaps with the others.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = dict.fromkeys(NAMES, 0.0)
        self._queued: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase, as far as they have happened."""
        while self._queued and self._queued[0][2].query():  # type: ignore[no-untyped-call]
            name, began, ended = self._queued.popleft()
            self._seconds[name] += began.elapsed_time(ended) / 1000
        return dict(self._seconds)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count what is done, or queued on the current stream, inside."""
        if self._device.type != "cuda":
            began = time.perf_counter()
            yield
            if self._device.type == "mps":
                torch.mps.synchronize()
            self._seconds[name] += time.perf_counter() - began
            return
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        yield
        end.record()
        self._queued.append((name, start, end))
