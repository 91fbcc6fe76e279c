"""The main loop of a decoding worker: requests in, results out, pixels through shared memory. Imports no torch."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import pickle
import resource
import sys
import time
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path

from actionvit.features.decoding.pool.buffers import BufferPool, set_limit
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest, WorkerConfig
from actionvit.features.decoding.pool.task import OUT_OF_MEMORY, RequestDecoder, failure
from actionvit.features.sampling import ClipSpec


def main(socket: int) -> None:
    """Answer requests on `socket` until it closes."""
    connection = Connection(socket)
    config: WorkerConfig = connection.recv()
    import av  # noqa: F401 - loaded before memory is limited and time is measured

    _limit_memory(config.max_memory)
    gc.freeze()  # loaded modules stay; the collector need not scan them again
    connection.send("started")
    buffers = BufferPool(config.max_memory)
    decoder = RequestDecoder(config.policy, buffers.allocate)
    specs: tuple[ClipSpec, ...] = ()
    with contextlib.suppress(EOFError, OSError):  # the supervisor is gone
        while True:
            video_id, path, new_specs, segment, freed = connection.recv()
            specs = new_specs or specs
            buffers.free.extend(freed)
            _answer(connection, buffers, decoder, DecodeRequest(video_id, Path(path), specs, segment))


def _answer(connection: Connection, buffers: BufferPool, decoder: RequestDecoder, request: DecodeRequest) -> None:
    """Decode and send the result; its pixels stay in their buffer, of which only number and descriptor are sent."""
    result = decoder.decode(request)
    slot = descriptor = None
    if isinstance(result, Decoded):
        try:
            slot, descriptor = buffers.export(result.frames.data)
        except MemoryError:
            result = failure(request, "memory", OUT_OF_MEMORY, result.frames.backend)
    message = pickle.dumps(result, 5, buffer_callback=lambda pixels: None)  # which are not in the message
    connection.send_bytes(pickle.dumps((time.monotonic(), message, slot)))
    if descriptor is not None:
        reduction.send_handle(connection, descriptor, os.getppid())
        os.close(descriptor)


def _limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes more than it has; further allocations fail as `memory`.

    If the machine runs out of memory before that, the kernel is to kill this process and not its parent.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        with open("/proc/self/statm") as file:  # noqa: PTH123 - read before pathlib would allocate
            pages = int(file.read().split()[0])
        set_limit(pages * mmap.PAGESIZE + extra)
