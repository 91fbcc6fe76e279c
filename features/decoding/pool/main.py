"""What runs in a decoding worker: requests in, frames out through shared memory. Imports no torch."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import resource
import sys
import time
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path

from actionvit.features.decoding.pool.buffers import Slots, set_limit
from actionvit.features.decoding.pool.messages import Decoder, DecodeRequest, decode_one, fail, find_decoder
from actionvit.features.decoding.pool.worker import Setup
from actionvit.features.failures import Failure
from actionvit.features.sampling import ClipSpec


def main(socket: int) -> None:
    """Answer requests on `socket` until it closes."""
    connection = Connection(socket)
    setup: Setup = connection.recv()
    decoder = find_decoder(setup.decoder)
    import av  # noqa: F401 - loaded before memory is limited and time is measured

    _limit_memory(setup.max_memory)
    gc.freeze()  # what is loaded stays: the collector need not walk it again and again
    connection.send("started")
    slots = Slots(setup.max_memory)
    specs: tuple[ClipSpec, ...] = ()
    with contextlib.suppress(EOFError, OSError):  # the supervisor is gone
        while True:
            video_id, path, changed, freed = connection.recv()
            specs = changed or specs
            slots.free.extend(freed)
            _answer(connection, slots, DecodeRequest(video_id, Path(path), specs), setup, decoder)


def _answer(connection: Connection, slots: Slots, request: DecodeRequest, setup: Setup, decoder: Decoder) -> None:
    result = decode_one(request, setup.policy, decoder, slots.allocate)
    if isinstance(result, Failure):
        connection.send((time.monotonic(), result))
        return
    try:
        lent, handle = slots.lend(result)
    except MemoryError:
        failure = fail(request, "memory", "needs more memory than a worker may have", result.frames.backend)
        connection.send((time.monotonic(), failure))
        return
    connection.send((time.monotonic(), lent))
    if handle is not None:
        reduction.send_handle(connection, handle, os.getppid())
        os.close(handle)


def _limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes more than it has; beyond, allocations fail as `memory`.

    Should the machine run out of memory before that, the kernel is to end this process and not its parent.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        with open("/proc/self/statm") as file:  # noqa: PTH123 - read before pathlib would allocate
            pages = int(file.read().split()[0])
        set_limit(pages * mmap.PAGESIZE + extra)
