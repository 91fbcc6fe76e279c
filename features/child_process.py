"""A child process: a fresh interpreter with a socket, which ends with this process however that ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from multiprocessing import Pipe

START = """
import sys
sys.path[:] = {!r}  # the parent's, without the current folder
from actionvit.features.lifeline import exit_with_parent
exit_with_parent({})
from {} import main
main({})
"""
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")}


class ChildProcess:
    """Runs `main(socket)` of a module, with one thread for numerical libraries. Killing it leaves nothing behind.

    Parameters
    ----------
    module : str
        Its `main` takes the number of a file descriptor, `Connection(socket)` at the other end of `socket` here.

    Raises
    ------
    OSError
        If the process cannot be started.
    """

    def __init__(self, module: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self.socket, theirs = Pipe()
        # The child ends when the other end of this pipe closes.
        watched, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", START.format(sys.path, watched, module, theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(), watched),
                env={**os.environ, **ONE_THREAD},
            )
        finally:
            theirs.close()
            os.close(watched)

    def stderr_tail(self) -> str:
        """Return the last line of its stderr after a colon, or nothing."""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 4000))
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    def end(self) -> None:
        """Kill the process and wait for it."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # blocked in the kernel by a dead network disk
            self.process.wait(5)
        self.socket.close()
        os.close(self._lifeline)
        self._stderr.close()
