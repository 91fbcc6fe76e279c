"""Shared memory that a decoding worker lends to its supervisor, and the limit on what the worker may allocate."""

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

from actionvit.features.decoding.pool.messages import Decoded
from actionvit.features.decoding.pool.worker import Lent

GRAIN = 1 << 20
"""Slots are whole multiples of this many bytes, so that videos of about one size share them."""


class Slots:
    """Pieces of anonymous shared memory, each for one video at a time, used again when the consumer is done with it.

    Memory that has been written before costs no page faults: a new piece for every video would make decoding an
    HMDB51 clip about a tenth slower.

    Parameters
    ----------
    most : int
        Bytes that a piece may have. How many of them the consumer holds is not this process's doing: none counts
        against the memory it may allocate.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.free: list[int] = []
        """The last freed last: what of it the processor's cache still holds is the cheapest to write to."""
        self._maps: dict[int, mmap.mmap] = {}
        self._handles: dict[int, int] = {}  # of slots that the supervisor has not mapped yet
        self._dropped: list[int] = []
        self._next = 0
        self._last: tuple[NDArray[np.uint8], int] | None = None

    def allocate(self, shape: tuple[int, ...], dtype: type[np.uint8] = np.uint8) -> NDArray[np.uint8]:
        """Return an array over a free slot, or over a new one; it stays free until it is lent."""
        size = math.prod(shape)
        fitting = (slot for slot in reversed(self.free) if len(self._maps[slot]) >= size)
        slot = next(fitting, None)
        slot = self._create(size) if slot is None else slot
        array = np.frombuffer(self._maps[slot], dtype, size).reshape(shape)
        self._last = array, slot
        return array

    def lend(self, decoded: Decoded) -> tuple[Lent, int | None]:
        """Return what to send of a decoded video, and the file descriptor of its slot if that is new."""
        frames = decoded.frames
        if self._last is None or frames.data is not self._last[0]:  # a decoder with arrays of its own
            self.allocate(frames.data.shape)[...] = frames.data
        assert self._last is not None
        slot, self._last = self._last[1], None
        self.free.remove(slot)
        handle = self._handles.pop(slot, None)
        dropped, self._dropped = tuple(self._dropped), []
        about = (frames.index, frames.count, frames.backend, frames.flags, frames.duration)
        size = 0 if handle is None else len(self._maps[slot])
        shape, vouch = frames.data.shape, decoded.fingerprint
        return Lent(decoded.id, slot, size, dropped, shape, about, decoded.digest, vouch, decoded.seconds), handle

    def _create(self, size: int) -> int:
        """Make a slot; one that proved too small makes room for it."""
        if self.free:
            small = max(self.free, key=lambda slot: len(self._maps[slot]))
            self.free.remove(small)
            _widen_limit(-len(self._maps.pop(small)))
            if (handle := self._handles.pop(small, None)) is not None:
                os.close(handle)
            else:
                self._dropped.append(small)
        if size > self._most:
            raise MemoryError
        size = max(1, -(-size // GRAIN)) * GRAIN
        _widen_limit(size)
        try:
            handle = _anonymous_file(size)
            memory = mmap.mmap(handle, size)
        except OSError as error:
            raise MemoryError(str(error)) if error.errno in (errno.ENOMEM, errno.ENOSPC) else error from error
        slot, self._next = self._next, self._next + 1
        self._maps[slot], self._handles[slot] = memory, handle
        self.free.append(slot)
        return slot


def _anonymous_file(size: int) -> int:
    """Return the descriptor of `size` bytes of memory without a name, which no death can leave behind."""
    if sys.platform == "linux":
        handle = os.memfd_create("actionvit-frames")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle


def _widen_limit(extra: int) -> None:
    """Let this process allocate so much more; nothing where it is not limited."""
    now, _ = resource.getrlimit(resource.RLIMIT_AS)
    if now != resource.RLIM_INFINITY:
        set_limit(now + extra)


def set_limit(size: int) -> None:
    """Limit what this process may allocate, within what the one that started it set for good."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if most == resource.RLIM_INFINITY else min(size, most), most))
