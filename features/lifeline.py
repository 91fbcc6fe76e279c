"""Ends a child process with its parent; runs before any import that takes time."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading


def exit_with_parent(pipe: int) -> None:
    """End this process when the other end of `pipe` closes, however the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor handles Ctrl-C and ends its workers
    if sys.platform == "linux":
        import fcntl

        # The kernel sends SIGIO, which ends even native code that hangs and holds the interpreter lock.
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([pipe], [], [], 0)[0]:  # closed already
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(pipe,), daemon=True).start()


def _watch(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)
