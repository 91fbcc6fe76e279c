"""Out-of-memory handling: halve the micro-batch where that helps, otherwise fail with a one-line error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from actionvit.errors import ActionVitError
from actionvit.text import first_line

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Messages where torch raises no OutOfMemoryError: the CPU allocator, cuBLAS' workspace, Apple's GPUs.
_MESSAGES = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device's or the machine's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in _MESSAGES)


@contextmanager
def oom_as_user_error() -> Iterator[None]:
    """Raise ActionVitError for an out-of-memory error that no smaller micro-batch could avoid."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ActionVitError(
            f"out of memory ({first_line(error)}): train fewer blocks, or use a smaller num_frames= or size="
        ) from error


class MicroBatcher:
    """Computes a batch in micro-batches, and halves their size each time memory runs out.

    Parameters
    ----------
    size : int or None
        Initial number of views per micro-batch; None for the whole batch.
    remedy : str
        Advice for the error message when a single view does not fit.
    """

    def __init__(self, size: int | None, *, remedy: str) -> None:
        self.size, self.remedy = size, remedy

    def map(self, count: int, compute: Callable[[slice], T], *, begin: Callable[[], None] = lambda: None) -> list[T]:
        """Return `compute(rows)` for each micro-batch of `count` views; each attempt starts with `begin()`.

        Raises
        ------
        ActionVitError
            If a single view does not fit into memory.
        """
        while True:
            size = min(self.size or count, count)
            try:
                begin()
                return [compute(slice(start, start + size)) for start in range(0, count, size or 1)]
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size <= 1:
                    raise ActionVitError(f"one view does not fit into memory; {self.remedy}") from error
                self.size = size // 2
                logger.warning(
                    "out of memory: continuing with %d views at once; the batch size is unchanged", self.size
                )
            # Outside the handler: the exception keeps all computed tensors alive.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
