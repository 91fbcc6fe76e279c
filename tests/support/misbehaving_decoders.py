"""Decoders that hang, die or exhaust memory, selected by the file's name, to test their supervision."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.features import child_process
from actionvit.features.decoding import Video, open_video

if TYPE_CHECKING:
    import pytest

START = child_process.START


def start_script(function: str = "open_by_name") -> str:
    """Return the code that starts a worker which opens videos with a function of this module."""
    patch = "import misbehaving_decoders\nfrom actionvit.features.decoding.pool import task\n"
    patch += f"task.open_video = misbehaving_decoders.{function}\n"
    return START.replace("main({})", patch + "main({})")


def install(monkeypatch: pytest.MonkeyPatch, function: str = "open_by_name") -> None:
    """Let workers that start from now on open videos with a function of this module."""
    monkeypatch.setattr(child_process, "START", start_script(function))


@contextmanager
def open_by_name(path: Path, *arguments: Any, **keywords: Any) -> Iterator[Video]:
    misbehave(path)
    with open_video(path, *arguments, **keywords) as video:
        yield video


def misbehave(path: Path) -> None:
    match path.stem:
        case "sleeps":
            time.sleep(10_000)
        case "hangs":  # in native code, holding the interpreter lock
            ctypes.PyDLL(None).sleep(10_000)
        case "segfaults":
            ctypes.string_at(0)
        case "aborts":
            os.write(2, b"double free or corruption\n")
            os.abort()
        case "kills-itself":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed-once":
            with path.with_suffix(".log").open("a") as log:
                log.write("attempt\n")
            if len(path.with_suffix(".log").read_text().splitlines()) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            os._exit(7)
        case "eats-memory":
            eaten = []
            while True:
                eaten.append(bytearray(1 << 26))
        case "raises":
            raise LookupError("unexpected\nerror")
        case "slow":
            for _ in range(30):  # so that a suspension does not help
                time.sleep(0.05)
        case "imports":
            raise LookupError(" ".join(sorted(name for name in sys.modules if "." not in name)))
        case "shouts":
            os.write(1, b"stdout of a native library\n")
            os.write(2, b"stderr of a native library\n" * 10_000)
