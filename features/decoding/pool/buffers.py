"""Shared memory that decoding workers write frames into, and the memory limit of a worker."""

from __future__ import annotations

import errno
import math
import mmap
import os
import resource
import sys
import tempfile

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.pool.messages import Slot

SLOT_ALIGNMENT = 1 << 20
"""Slots are whole multiples of this many bytes, so that videos of similar size share them."""


class BufferPool:
    """Slots of anonymous shared memory, each for one video at a time, reused when the consumer has released it.

    Memory that has been written before costs no page faults: new memory for every video would make decoding an HMDB51
    clip about a tenth slower.

    Parameters
    ----------
    max_bytes : int
        Largest slot. Slots do not count against the memory that this process may allocate: how many of them the
        consumer holds is not the decoder's fault.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.free: list[int] = []
        """Free slots, the last released last: parts of it may still be in the processor's cache."""
        self._maps: dict[int, mmap.mmap] = {}
        self._addresses: dict[int, int] = {}
        self._descriptors: dict[int, int] = {}  # of slots that the supervisor has not mapped yet
        self._dropped: list[int] = []
        self._next = 0

    def allocate(self, shape: tuple[int, ...], dtype: type[np.uint8] = np.uint8) -> NDArray[np.uint8]:
        """Return an array over a free or new slot; the slot stays free until it is exported."""
        size = math.prod(shape)
        fitting = (slot for slot in reversed(self.free) if len(self._maps[slot]) >= size)
        slot = next(fitting, None)
        slot = self._create(size) if slot is None else slot
        return np.frombuffer(self._maps[slot], dtype, size).reshape(shape)

    def export(self, array: NDArray[np.uint8]) -> tuple[Slot, int | None]:
        """Return the slot of an array, and its file descriptor if it is new; an array of other memory is copied.

        Raises
        ------
        MemoryError
            If a copy needs a slot that is too large.
        """
        address = array.ctypes.data
        slot = next((free for free in self.free if self._addresses[free] == address), None)
        if slot is None:
            copy = self.allocate(array.shape)
            copy[...] = array
            return self.export(copy)
        self.free.remove(slot)
        descriptor = self._descriptors.pop(slot, None)
        dropped, self._dropped = tuple(self._dropped), []
        return Slot(slot, 0 if descriptor is None else len(self._maps[slot]), dropped), descriptor

    def _create(self, size: int) -> int:
        """Make a slot, in place of the largest of the free ones, which are all too small."""
        if self.free:
            small = max(self.free, key=lambda slot: len(self._maps[slot]))
            self.free.remove(small)
            _raise_limit(-len(self._maps.pop(small)))
            if (descriptor := self._descriptors.pop(small, None)) is not None:
                os.close(descriptor)
            else:
                self._dropped.append(small)
        if size > self._max_bytes:
            raise MemoryError
        size = max(1, -(-size // SLOT_ALIGNMENT)) * SLOT_ALIGNMENT
        _raise_limit(size)
        try:
            descriptor = _anonymous_file(size)
            memory = mmap.mmap(descriptor, size)
        except OSError as error:
            raise MemoryError(str(error)) if error.errno in (errno.ENOMEM, errno.ENOSPC) else error from error
        slot, self._next = self._next, self._next + 1
        self._maps[slot], self._descriptors[slot] = memory, descriptor
        self._addresses[slot] = np.frombuffer(memory, np.uint8).ctypes.data
        self.free.append(slot)
        return slot


def _anonymous_file(size: int) -> int:
    """Return the descriptor of `size` bytes of memory without a name, so that none is left after a crash."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("actionvit-frames")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _raise_limit(extra: int) -> None:
    """Let this process allocate `extra` bytes more, if it is limited at all."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        set_limit(limit + extra)


def set_limit(size: int) -> None:
    """Limit the memory that this process may allocate, at most to its hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))
