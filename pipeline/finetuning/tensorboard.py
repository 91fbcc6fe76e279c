"""TensorBoard event files, written where the extra `actionvit[tensorboard]` is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


@contextmanager
def tensorboard_log(folder: Path, *, enabled: bool = True) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that writes an epoch's scalars to an event file in `folder`; a no-op without TensorBoard."""
    if not enabled or find_spec("tensorboard") is None:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()

    try:
        yield log
    finally:
        writer.close()
