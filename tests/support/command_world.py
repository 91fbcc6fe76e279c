"""Small inputs of every command that writes, and their execution in forked processes that need no import.

One process loads all modules and runs each command once; each further run is a fork of it, so that a run takes its own
computation and no start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from forked_commands import TIMEOUT_SECONDS, exit_code

CONTENT = (".npz", ".safetensors", ".html", ".py", ".avi")
"""Suffixes of published files that are compared; run.json holds times."""
CLASSES = ("clap", "run")


class World:
    """A folder `work` that commands change, each from the state that the commands before it have made.

    Parameters
    ----------
    folder : Path
        An empty folder for inputs, snapshots and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self.data = folder, folder / "work", folder / "data"
        self.expected: dict[str, dict[str, str]] = {}
        """State after each undisturbed command."""
        self.seconds: dict[str, float] = {}
        """Processor time of each undisturbed command in a forked process."""
        self.last_seconds = 0.0
        self.server: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Write the inputs, run every command once in this process, and record its published files."""
        import torch
        from tiny_model import write_weights

        torch.set_num_threads(1)
        random = np.random.RandomState(0)
        for number in range(8):
            (self.data / CLASSES[number % 2]).mkdir(parents=True, exist_ok=True)
            self._write_clip(self.data / CLASSES[number % 2] / f"{number}.avi", random)
        write_weights(self.folder / "weights")
        self._serve()
        self._draw_figures_once()
        self.work.mkdir()
        for name, arguments in self.commands().items():
            for output in ("fetched", "model"):  # no other command reads these
                shutil.rmtree(self.work / output, ignore_errors=True)
            (self.work / "all.npz").unlink(missing_ok=True)
            shutil.copytree(self.work, self.snapshot(name))
            self._run_here(arguments)
            self.restore(name)
            code, text = self.run(arguments)
            self.seconds[name] = self.last_seconds
            assert code == 0, text
            self.expected[name] = self.state()

    def close(self) -> None:
        """End the server and remove the files."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()
        shutil.rmtree(self.work, ignore_errors=True)

    @staticmethod
    def _write_clip(path: Path, random: np.random.RandomState) -> None:
        from actionvit.pipeline.datasets.synthetic.dataset import write_avi

        write_avi(path, random.randint(0, 256, (8, 36, 48, 3)).astype(np.uint8))

    def _serve(self) -> None:
        """Serve an archive of the clips on a loopback address."""
        site = self.folder / "site"
        site.mkdir()
        with zipfile.ZipFile(site / "clips.zip", "w") as archive:
            for path in sorted(self.data.rglob("*.avi")):
                archive.write(path, path.relative_to(self.data))
        command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(site)]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.server.stdout is not None
        self.url = self.server.stdout.readline().decode().split("(")[1].split(")")[0] + "clips.zip"
        with urllib.request.urlopen(self.url) as answer:
            assert answer.status == 200

    @staticmethod
    def _draw_figures_once() -> None:
        """Keep the bytes of figures by name: drawing takes most of a report's time and touches no file."""
        from actionvit.pipeline.reporting import drawing, writer

        real_figures, real_files = writer.figures, drawing.files
        render = functools.cache(lambda name: real_files(draws[name](), name))
        draws: dict[str, Callable[[], Any]] = {}

        def figures(*arguments: Any) -> dict[str, Callable[[], Any]]:
            draws.update(real_figures(*arguments))
            return {name: lambda: None for name in draws}

        writer.figures = figures  # type: ignore[assignment]
        drawing.files = lambda figure, name: render(name)

    def commands(self) -> dict[str, list[str]]:
        """Return the commands in order; each starts with what those before have made."""
        tiny = [str(self.data), "--variant", "tiny", "--cache", str(self.work / "cache")]
        splits = ["--protocol", "stratified", "--folds", "2"]
        runs = ["--runs", str(self.work / "runs"), "--overwrite"]
        size = ["--num-frames", "2", "--size", "32", "--workers", "0"]
        probe = ["--seeds", "1", "--grid", "C=1", "--jobs", "1", "--run-name", "r"]
        train = ["--weights", str(self.folder / "weights"), "--epochs", "1", "--batch-size", "4", "--run-name", "f"]
        once = ["--split", "stratified-1", "--no-augment", "--device", "cpu"]
        report = ["--no-thumbnails", "--no-embeddings", "--output", str(self.work / "report")]
        return {
            "fetch": ["data", "fetch", "hmdb51", "--from", self.url, "--output", str(self.work / "fetched")],
            "extract": ["extract", *tiny, *size, "--flush-seconds", "0"],
            "cache export": ["cache", "export", str(self.work / "cache"), "-o", str(self.work / "all.npz")],
            "probe": ["probe", *tiny, *splits, *runs, *probe],
            "finetune": ["finetune", *tiny, *splits, *runs, *size, *train, *once],
            "export": ["export", str(self.work / "runs" / "r"), "--output", str(self.work / "model")],
            "report": ["report", str(self.work / "runs" / "r"), *report],
        }

    def snapshot(self, name: str) -> Path:
        """Return the folder with the state before a command."""
        return self.folder / "start" / name

    def restore(self, name: str) -> None:
        """Bring the work folder to the state before a command."""
        shutil.rmtree(self.work)
        shutil.copytree(self.snapshot(name), self.work)

    def state(self) -> dict[str, str]:
        """Digests of everything published, but for times, locks and part boundaries."""
        from actionvit.features.store.store import FeatureStore

        digests = {}
        for path in sorted(self.work.rglob("*")):
            name = str(path.relative_to(self.work))
            if path.is_file() and path.suffix in CONTENT:
                digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.name == "key.json":
                digests[name] = FeatureStore.open(path.parent).digest()
            if path.name.startswith((".tmp-", ".old-")) or path.name.endswith((".training", ".fetch")):
                digests[name] = "left over"
        return digests

    def differences(self, name: str) -> list[str]:
        """Return the published files that differ from those of the undisturbed command."""
        now, expected = self.state(), self.expected[name]
        return [key for key in {**now, **expected} if now.get(key) != expected.get(key)]

    def _run_here(self, arguments: list[str]) -> None:
        from actionvit.cli import main

        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                main(arguments)
            except SystemExit as end:
                assert not end.code, output.getvalue()

    def start(self, arguments: list[str], before: Callable[[], None], after: Callable[[], None]) -> int:
        """Start a command in a forked process, between two functions; return the process."""
        child = os.fork()
        if child:
            return child
        from actionvit.cli import main

        signal.alarm(TIMEOUT_SECONDS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(self.folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
        before()
        code = exit_code(lambda: main(arguments))
        after()
        sys.stderr.flush()
        os._exit(code)

    def wait(self, child: int) -> tuple[int, str]:
        """Return exit code (negative: the signal) and standard error of a forked process."""
        _, status, usage = os.wait4(child, 0)
        self.last_seconds = usage.ru_utime + usage.ru_stime
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return code, (self.folder / "stderr").read_text(errors="replace")

    def run(
        self, arguments: list[str], before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None
    ) -> tuple[int, str]:
        """Run a command in a forked process; return exit code and standard error."""
        return self.wait(self.start(arguments, before, after))

    def problem(self, name: str, code: int, text: str) -> str:
        """Return the violation after a disturbed command, usually ""; a failed command is run again first.

        A command that succeeds must publish everything. One that fails must print one line of error, and publish the
        same files as the undisturbed one when it is run again.
        """
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        killed = code == -signal.SIGKILL
        if "Traceback" in text or not (killed or code in (0, 3) or (code == 1 and len(errors) == 1)):
            return f"exit code {code}: {text[-1500:]}"
        if code and self.differences(name):  # a command that was killed at its end has published everything
            resume = ["--resume"] if name == "finetune" else []
            code, text = self.run([*self.commands()[name], *resume])
            if code:
                return f"run again: exit code {code}: {text[-500:]}"
        changed = self.differences(name)
        return f"other content: {changed}" if changed else ""


def print_result(**result: Any) -> None:
    """Print a result as one line of JSON."""
    print(json.dumps(result))
