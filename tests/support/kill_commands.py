"""Commands killed at random moments: `python kill_commands.py FOLDER COUNT [SEED]`.

Each of COUNT kills is a SIGKILL of a forked process that runs one of the commands. The command is then run again and
must publish the same files as the undisturbed run, without leftovers. Prints the number of kills by command and the
violations as JSON.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from command_world import World, print_result


class Killer:
    """Runs commands and kills them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.longest = dict.fromkeys(world.commands(), 0.0)
        """Seconds of the clock that an undisturbed command takes."""

    def measure(self, name: str) -> None:
        self.world.restore(name)
        start = time.monotonic()
        code, text = self.world.run(self.world.commands()[name])
        assert code == 0, text
        self.longest[name] = time.monotonic() - start

    def kill(self, name: str) -> tuple[int, str]:
        """Kill a command at a random moment; return exit code and standard error; it may end first."""
        self.world.restore(name)
        child = self.world.start(self.world.commands()[name], lambda: None, lambda: None)
        time.sleep(self.random.uniform(0, self.longest[name]))
        os.kill(child, signal.SIGKILL)
        return self.world.wait(child)


def main() -> None:
    """Kill, run again, compare; print what happened."""
    count, seed = int(sys.argv[2]), int((*sys.argv, "0", "0")[3])
    world = World(Path(sys.argv[1]))
    kills: Counter[str] = Counter()
    violations = []
    try:
        world.prepare()
        killer = Killer(world, seed)
        names = list(world.commands())
        while kills.total() < count:
            name = names[kills.total() % len(names)]
            if kills.total() % 100 < len(names):
                killer.measure(name)
                print(f"{kills.total()} kills", file=sys.stderr, flush=True)
            code, text = killer.kill(name)
            if code == -signal.SIGKILL:
                kills[name] += 1
            if problem := world.problem(name, code, text):
                violations.append({"command": name, "kill": kills.total(), "problem": problem})
                print(violations[-1], file=sys.stderr, flush=True)
    finally:
        world.close()
    print_result(kills=kills.total(), by_command=dict(kills), violations=violations)


if __name__ == "__main__":
    main()
