"""Running out of memory: fewer views at once where that helps, one line where it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from actionvit.errors import ActionVitError

logger = logging.getLogger(__name__)
T = TypeVar("T")

# What torch says where it has no exception of its own: of the CPU, of cuBLAS' workspace, of Apple's GPUs.
_SAID = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory is full, or the machine's."""
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in _SAID)


@contextmanager
def in_a_line() -> Iterator[None]:
    """Make of memory that ends where no smaller piece would help what the command line prints."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ActionVitError(
            f"out of memory ({str(error).splitlines()[0]}): train fewer blocks, or use a smaller --num-frames or --size"
        ) from error


class Pieces:
    """How many views are computed at once: half as many from each time on that memory is full.

    Parameters
    ----------
    most : int or None
        To begin with; None for all that there are.
    remedy : str
        What may be done where a single view is too much.
    """

    def __init__(self, most: int | None, *, remedy: str) -> None:
        self.most, self.remedy = most, remedy

    def over(self, number: int, compute: Callable[[slice], T], *, begin: Callable[[], None] = lambda: None) -> list[T]:
        """Return what `compute` makes of each piece of `number` views; each attempt starts with `begin`.

        Raises
        ------
        ActionVitError
            If a single view does not fit into memory.
        """
        while True:
            piece = min(self.most or number, number)
            try:
                begin()
                return [compute(slice(start, start + piece)) for start in range(0, number, piece or 1)]
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if piece <= 1:
                    raise ActionVitError(f"one view does not fit into memory; {self.remedy}") from error
                self.most = piece // 2
                logger.warning("out of memory: going on with %d views at once, the batch as it was", self.most)
            # Not in the handler: the exception holds on to all that was computed.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
