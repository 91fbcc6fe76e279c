"""Commands whose N-th write, fsync, rename, open or read fails; run by test_faults.py with the injector preloaded.

`LD_PRELOAD=injector.so python fault_harness.py FOLDER INJECTOR COUNT` runs each command once undisturbed and counts its
calls on files of the cache and the runs. It then injects COUNT faults (0: one in every call with every error), spread
evenly, each in a forked process. The command must end with at most one line of error and no traceback; run again
without a fault it must give the result of the undisturbed run. Prints the number of injections and the violations as
JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("write", "fsync", "rename", "open", "read")
ERRORS = {
    "write": (errno.ENOSPC, errno.EIO, errno.EINTR),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.ENOSPC),
    "open": (errno.EMFILE, errno.EIO),
    "read": (errno.EIO, errno.EINTR),
}
TIMEOUT_SECONDS = 120


class Harness:
    def __init__(self, folder: Path, injector: str) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.library = ctypes.CDLL(injector)
        self.library.count.restype = ctypes.c_long
        self.library.arm.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)
        self.data = folder / "data"

        self.ended = 0
        """Injections that ended their command with an error; the others were absorbed."""

    def prepare(self) -> None:
        """Draw clips; import every module that the commands need once, before forking."""
        import torch

        from actionvit import cli
        from actionvit.commands import cache, extract, probe, report
        from actionvit.pipeline import runs
        from actionvit.pipeline.datasets.synthetic.dataset import write_avi

        assert cli and cache and extract and probe and report and runs
        torch.set_num_threads(1)
        random = np.random.RandomState(0)
        for number in range(8):
            (self.data / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            frames = random.randint(0, 256, (8, 36, 48, 3)).astype(np.uint8)
            write_avi(self.data / "ab"[number % 2] / f"{number}.avi", frames)
        self.work.mkdir()

    def commands(self) -> dict[str, list[str]]:
        """The commands in order; each starts with the files of the ones before."""
        tiny = [str(self.data), "--variant", "tiny", "--cache", str(self.work / "cache")]
        splits = ["--protocol", "stratified", "--folds", "2", "--seeds", "1", "--grid", "C=1"]
        runs = ["--runs", str(self.work / "runs")]
        report = ["--no-thumbnails", "--no-embeddings", "--output", str(self.work / "report")]
        size = ["--num-frames", "2", "--size", "32", "--workers", "0", "--flush-seconds", "0"]
        return {
            "extract": ["extract", *tiny, *size],
            "probe": ["probe", *tiny, *splits, *runs, "--run-name", "r", "--overwrite"],
            "export": ["cache", "export", str(self.work / "cache"), "-o", str(self.work / "all.npz")],
            "report": ["report", str(self.work / "runs" / "r"), *report],
        }

    def run(self, arguments: list[str], kind: str = "", call: int = -1, error: int = 0) -> tuple[int, str, list[int]]:
        """Run a command in a forked process; return exit code, standard error, and its number of calls by kind."""
        log, counts = self.folder / "stderr", self.folder / "counts"
        child = os.fork()
        if child == 0:
            self._run_in_child(arguments, log, counts, kind, call, error)
        _, status = os.waitpid(child, 0)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return code, log.read_text(errors="replace"), json.loads(counts.read_text() or "[]")

    def _run_in_child(self, arguments: list[str], log: Path, counts: Path, kind: str, call: int, error: int) -> None:
        import signal
        import traceback

        from actionvit.cli import main

        signal.alarm(TIMEOUT_SECONDS)
        counts.write_text("")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
        self.library.arm(str(self.work).encode(), KINDS.index(kind) if kind else -1, call, error)
        code = 0
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 99
        totals = [self.library.count(number) for number in range(len(KINDS))]
        self.library.arm(b"", -1, -1, 0)
        counts.write_text(json.dumps(totals))
        sys.stderr.flush()
        os._exit(code)

    def faults(self, counts: list[int], share: int) -> list[tuple[str, int, int]]:
        """Return (kind, call, error) for some of a command's calls, evenly spread; for all if `share` is 0."""
        faults = [
            (kind, call, error)
            for kind, total in zip(KINDS, counts, strict=True)
            for call in range(total)
            for error in ERRORS[kind]
        ]
        return faults[:: max(1, len(faults) // share)] if share else faults

    def restore(self, name: str) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "start" / name, self.work)

    def state(self) -> dict[str, str]:
        """Digests of everything published, except times, locks and part boundaries."""
        from actionvit.features.store.store import FeatureStore

        found = {}
        for path in sorted(self.work.rglob("*")):
            name = str(path.relative_to(self.work))
            if path.is_file() and path.suffix in (".npz", ".safetensors", ".html"):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.name == "key.json":
                found[name] = FeatureStore.open(path.parent).digest()
            if path.name.startswith((".tmp-", ".old-")):
                found[name] = "left over"
        return found

    def violations(self, count: int) -> Iterator[tuple[bool, dict[str, Any]]]:
        """Yield (False, {}) for each harmless injection and (True, violations) for each other."""
        commands = self.commands()
        for name, arguments in commands.items():
            shutil.copytree(self.work, self.folder / "start" / name)
            code, text, counts = self.run(arguments)
            assert code in (0, 3), text
            expected = self.state()
            shutil.copytree(self.work, self.folder / "after" / name)
            for kind, call, error in self.faults(counts, count // len(commands)):
                self.restore(name)
                code, text, _ = self.run(arguments, kind, call, error)
                self.ended += code == 1
                problem = self.problem(code, text)
                if not problem:
                    code, text, _ = self.run(arguments)
                    if code not in (0, 3):
                        problem = f"run again: {text[-300:]}"
                    elif self.state() != expected:
                        now = self.state()
                        changed = [key for key in {**now, **expected} if now.get(key) != expected.get(key)]
                        problem = f"run again, other content: {changed}"
                yield (
                    bool(problem),
                    {"command": name, "kind": kind, "call": call, "error": errno.errorcode[error], "problem": problem},
                )
            shutil.rmtree(self.work)
            shutil.copytree(self.folder / "after" / name, self.work)

    @staticmethod
    def problem(code: int, text: str) -> str:
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        if code not in (0, 1, 3) or "Traceback" in text or (code == 1 and len(errors) != 1):
            return f"exit code {code}: {text[-1500:]}"
        return ""


def main() -> None:
    """Inject the faults and print the result."""
    harness = Harness(Path(sys.argv[1]), sys.argv[2])
    harness.prepare()
    results = list(harness.violations(int(sys.argv[3])))
    with contextlib.suppress(OSError):
        shutil.rmtree(harness.work)
    print(
        json.dumps(
            {"injections": len(results), "ended": harness.ended, "violations": [fault for bad, fault in results if bad]}
        )
    )


if __name__ == "__main__":
    main()
