"""Commands whose N-th write, fsync, rename, open or read fails; run by test_faults.py with the injector preloaded.

`LD_PRELOAD=injector.so python fault_harness.py FOLDER INJECTOR COUNT` counts the calls of each command on files of the
cache, the runs and the other outputs. It then injects COUNT faults (0: one in every call with every error), spread
evenly over each command's calls, each in a forked process. The command must end with at most one line of error and no
traceback; run again without a fault it must publish the same files as the undisturbed run.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from command_world import World, print_result

KINDS = ("write", "fsync", "rename", "open", "read")
ERRORS = {
    "write": (errno.ENOSPC, errno.EIO, errno.EINTR),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.ENOSPC),
    "open": (errno.EMFILE, errno.EIO),
    "read": (errno.EIO, errno.EINTR),
}
SHARES = {"fetch": 60, "extract": 35, "cache export": 65, "probe": 45, "finetune": 12, "export": 48, "report": 35}
"""Injections of 300 by command: fewer into the slower ones."""
Fault = tuple[str, int, int]
"""Kind, number of the call, error."""


class Injector:
    """The preloaded library, and commands that run with a fault of it."""

    def __init__(self, world: World, library: str) -> None:
        self.world, self.counts = world, world.folder / "counts"
        self.library = ctypes.CDLL(library)
        self.library.count.restype = ctypes.c_long
        self.library.arm.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)

    def run(self, name: str, kind: str = "", call: int = -1, error: int = 0) -> tuple[int, str]:
        """Run a command with one failing call; return exit code and standard error."""
        number = KINDS.index(kind) if kind else -1

        def arm() -> None:
            self.library.arm(str(self.world.work).encode(), number, call, error)

        def disarm() -> None:
            totals = [self.library.count(number) for number in range(len(KINDS))]
            self.library.arm(b"", -1, -1, 0)
            self.counts.write_text(json.dumps(totals))

        return self.world.run(self.world.commands()[name], arm, disarm)

    def faults(self, name: str, share: int) -> list[Fault]:
        """Return `share` faults in a command's calls, evenly spread; every one if it is 0."""
        self.world.restore(name)
        code, text = self.run(name)
        assert code == 0, text
        faults = [
            (kind, call, error)
            for kind, total in zip(KINDS, json.loads(self.counts.read_text()), strict=True)
            for call in range(total)
            for error in ERRORS[kind]
        ]
        if not share or share >= len(faults):
            return faults
        return [faults[number * len(faults) // share] for number in range(share)]

    def violations(self, count: int) -> Iterator[tuple[int, dict[str, object] | None]]:
        """Yield for each injection the command's exit code, and what went wrong or None."""
        for name in self.world.commands():
            for kind, call, error in self.faults(name, -(-count * SHARES[name] // sum(SHARES.values()))):
                self.world.restore(name)
                code, text = self.run(name, kind, call, error)
                problem = self.world.problem(name, code, text)
                where = {"command": name, "kind": kind, "call": call, "error": errno.errorcode[error]}
                yield code, {**where, "problem": problem} if problem else None


def main() -> None:
    """Inject the faults and print what happened."""
    world = World(Path(sys.argv[1]))
    try:
        world.prepare()
        gc.collect()
        gc.freeze()  # a forked process's collections copy no page of this one
        results = list(Injector(world, sys.argv[2]).violations(int(sys.argv[3])))
    finally:
        world.close()
    print_result(
        injections=len(results),
        ended=sum(code == 1 for code, _ in results),
        violations=[violation for _, violation in results if violation],
        seconds=sum(os.times()[:4]),
    )


if __name__ == "__main__":
    main()
