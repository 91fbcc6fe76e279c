"""A decoder that does what a file's name says: what hangs, dies or eats memory, for tests of its supervision."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.video import DecodePolicy, decode
from actionvit.features.sampling import ClipSpec


def decode_by_name(path: Path, specs: Sequence[ClipSpec], policy: DecodePolicy, allocate: Any) -> Frames:
    match path.stem:
        case "sleeps":
            time.sleep(10_000)
        case "hangs":  # in native code, without letting go of the interpreter's lock
            ctypes.PyDLL(None).sleep(10_000)
        case "segfaults":
            ctypes.string_at(0)
        case "aborts":
            os.write(2, b"double free or corruption\n")
            os.abort()
        case "kills-itself":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            os._exit(7)
        case "eats-memory":
            eaten = []
            while True:
                eaten.append(bytearray(1 << 26))
        case "raises":
            raise LookupError("nobody foresaw\nthis")
        case "slow":
            for _ in range(30):  # so that being stopped does not help
                time.sleep(0.05)
        case "imports":
            raise LookupError(" ".join(sorted(name for name in sys.modules if "." not in name)))
        case "shouts":
            os.write(1, b"stdout of a native library\n")
            os.write(2, b"stderr of a native library\n" * 10_000)
    return decode(path, specs, policy, allocate)


def hang_in_all(path: Path, specs: Sequence[ClipSpec], policy: DecodePolicy, allocate: Any) -> Frames:
    ctypes.PyDLL(None).sleep(10_000)
    raise AssertionError("unreachable")
