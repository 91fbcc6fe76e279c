"""Run `actionvit` commands as processes that need no import: forks of a process that has imported torch once.

For tests that need real processes and several of them, but not the start of one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MODULES = (
    *("torch", "torch.distributed", "torch._dynamo", "sklearn.linear_model", "h5py", "av"),
    *("actionvit.cli", "actionvit.commands.finetune", "actionvit.pipeline.finetuning.finetune"),
)
TIMEOUT_SECONDS = 120


class ForkedCommands:
    """Starts commands in forks of one process.

    Parameters
    ----------
    folder : Path
        For the output of the commands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments: Sequence[object], environment: Mapping[str, str] = os.environ, before: str = "") -> int:
        """Start a command; return its process.

        Parameters
        ----------
        arguments : sequence
            Without `actionvit`.
        environment : mapping of str to str
            All variables of the process.
        before : str
            Python code that the process runs first.
        """
        words = [str(argument) for argument in arguments]
        request = {"arguments": words, "environment": dict(environment), "before": before, "folder": str(self.folder)}
        return self._request(request)

    def wait(self, process: int) -> subprocess.CompletedProcess[str]:
        """Wait for the end of a process; return exit code (negative: the signal) and output."""
        code = os.waitstatus_to_exitcode(self._request({"wait": process}))
        stdout, stderr = ((self.folder / f"{process}.{name}").read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([], code, stdout, stderr)

    def run(
        self, arguments: Sequence[object], environment: Mapping[str, str] = os.environ, before: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Start a command and wait for its end."""
        return self.wait(self.start(arguments, environment, before))

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate()

    def _request(self, request: Mapping[str, object]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve() -> None:
    """Fork commands and wait for them, as the lines of standard input request."""
    for module in MODULES:
        importlib.import_module(module)
    assert "huggingface_hub" not in sys.modules, "it reads its settings when it is imported"
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            result = os.waitpid(request["wait"], 0)[1]
        elif not (result := os.fork()):
            run_here(**request)
        print(result, flush=True)


def run_here(*, arguments: list[str], environment: dict[str, str], before: str, folder: str) -> None:
    """Run a command in this process, and end it."""
    signal.alarm(TIMEOUT_SECONDS)
    os.environ.clear()
    os.environ.update(environment)
    files = [os.devnull, *(f"{folder}/{os.getpid()}.{name}" for name in ("stdout", "stderr"))]
    for number, (file, flags) in enumerate(zip(files, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        os.dup2(os.open(file, flags, 0o666), number)
    from actionvit.cli import main

    code = exit_code(lambda: (exec(before), main(arguments)))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def exit_code(command: Callable[[], object]) -> int:
    """Return the exit code of a command that runs in this process; 99, with a traceback, where an error leaves it."""
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 99
    return 0


if __name__ == "__main__":
    serve()
