"""The first thing that a decoding worker runs, before imports that take time: it must not outlive its parent."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading


def tie(life: int) -> None:
    """Have this process end when the other end of the pipe `life` closes, however the parent came to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which ends its workers
    if sys.platform == "linux":
        import fcntl

        # The kernel sends SIGIO: not even native code that hangs and holds the interpreter's lock can miss it.
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([life], [], [], 0)[0]:  # closed already
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(life,), daemon=True).start()


def _watch(life: int) -> None:
    os.read(life, 1)
    os._exit(1)
