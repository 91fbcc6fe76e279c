"""TensorBoard event files, written where the extra `actionvit[tensorboard]` is installed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError


@contextmanager
def tensorboard_log(folder: Path, *, enabled: bool = True) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that writes an epoch's scalars to an event file in `folder`; a no-op without TensorBoard.

    TensorBoard's own writer does so in a thread, whose errors would end in tracebacks.

    Raises
    ------
    ActionVitError
        If the file cannot be written.
    """
    if not enabled or find_spec("tensorboard") is None:
        yield lambda row: None
        return
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time_ns()
    name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now % 10**9}"
    path = folder / name

    def write(*events: Any) -> None:
        try:
            with path.open("ab") as file:
                for event in events:
                    RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            raise ActionVitError(
                f"{path}: cannot be written: {error.strerror}; fix this and continue with resume="
            ) from error

    def log(row: Mapping[str, float]) -> None:
        values = [Summary(value=[Summary.Value(tag=name, simple_value=value)]) for name, value in row.items()]
        write(*(Event(wall_time=time.time(), step=int(row["epoch"]), summary=value) for value in values))

    folder.mkdir(parents=True, exist_ok=True)
    write(Event(wall_time=time.time(), file_version="brain.Event:2"))
    yield log
