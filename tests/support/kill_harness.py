"""Extractions that are killed at critical moments; run as a script by test_store_crash.py.

`python kill_harness.py FOLDER` runs an extraction once undisturbed, then repeatedly from the same start, each time in
a forked process that dies of SIGKILL: with `--every N` at each N-th boundary of its disk operations (before each
write, in the middle of each, before each fsync, rename and unlink), with `--random N` at N random moments. After each
kill it checks the published rows, resumes, and compares with the undisturbed store.
The extraction is a writer with a made-up encoder, or with `--command` the real `actionvit extract`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fake_store import check_rows, embed, failed, make

from actionvit.features.fingerprint import fingerprint
from actionvit.features.store import writer
from actionvit.features.store.plan import make_plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer

Extraction = Callable[[Path, Path], None]
WRITE, FSYNC, MKDIR, REPLACE, UNLINK = os.write, os.fsync, Path.mkdir, Path.replace, Path.unlink


class Tripwire:
    """Counts the boundaries of this process's disk operations, and kills it at one of them."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def reached(self) -> bool:
        self.count += 1
        return self.count - 1 == self.at

    def install(self) -> None:
        def write(handle: int, data: Any) -> int:
            if self.reached():
                os.kill(os.getpid(), signal.SIGKILL)
            if self.reached():
                WRITE(handle, bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return WRITE(handle, data)

        def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                if self.reached():
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return wrapped

        os.write, os.fsync = write, wrap(FSYNC)
        Path.mkdir, Path.replace, Path.unlink = wrap(MKDIR), wrap(REPLACE), wrap(UNLINK)


def made_up(cache: Path, data: Path) -> None:
    """Embed missing videos, publishing each row; files with the content `broken` fail."""
    store = make(cache)
    plan = make_plan(store, [(path.name, path) for path in sorted(data.iterdir())], decoder_version="1")
    with Writer(store, flush_seconds=0) as out:
        out.apply(plan)
        for id in plan.pending:
            time.sleep(0.002)
            if (data / id).read_bytes().startswith(b"broken"):
                out.add_failure(failed(id, "corrupt", "bad header", "pyav", 3, fingerprint(data / id), "1"))
            else:
                out.append(embed(id, data / id))


def prepare_made_up(folder: Path) -> None:
    """A store of five videos, of which one then changes, one breaks, one is touched, one is renamed; ten are new."""
    data = folder / "data"
    data.mkdir(parents=True)
    for number in range(5):
        (data / f"a{number}").write_bytes(os.urandom(100))
    made_up(folder / "start", data)
    (data / "a0").write_bytes(b"changed")
    (data / "a1").write_bytes(b"broken now")
    os.utime(data / "a2", ns=(1, 1))
    (data / "a3").rename(data / "z3")
    (data / "b0").write_bytes(b"broken from the first")
    for number in range(1, 10):
        (data / f"b{number}").write_bytes(os.urandom(100))


def command(cache: Path, data: Path) -> None:
    """`actionvit extract` itself."""
    from actionvit.cli import cli

    small = ["--variant", "tiny", "--num-frames", "2", "--size", "32", "--workers", "0", "--flush-seconds", "0"]
    arguments = ["extract", data, "--cache", cache, *small]
    try:
        cli.main([str(argument) for argument in arguments], standalone_mode=False)
    except SystemExit as end:
        assert end.code in (0, 3), end


def prepare_command(folder: Path) -> None:
    """Seven drawn clips and a broken one; an extraction before forking does all imports."""
    import torch

    from actionvit.pipeline.datasets.synthetic.dataset import write_avi

    torch.set_num_threads(1)  # a forked process has none of the others

    numbers = np.random.RandomState(0)
    for number in range(7):
        (folder / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        frames = numbers.randint(0, 256, (9 + number, 48, 64, 3)).astype(np.uint8)
        write_avi(folder / "data" / "ab"[number % 2] / f"{number}.avi", frames)
    (folder / "data" / "a" / "broken.avi").write_bytes(b"no video")
    (folder / "start").mkdir()
    command(folder / "warm", folder / "data")


def the_store(cache: Path) -> Path | None:
    """The store below a cache root, or the folder itself; None before it exists."""
    if (cache / "key.json").exists():
        return cache
    found = list(cache.glob("*/*/key.json"))
    return found[0].parent if found else None


def state(cache: Path) -> dict[str, Any]:
    """The content of a store that an interruption must not change."""
    folder = the_store(cache)
    assert folder is not None
    store = FeatureStore.open(folder)
    files = {
        name: (folder / name).read_bytes().decode()
        for name in ("failures.csv", "seen.csv", "key.json")
        if (folder / name).exists()
    }
    rows = {row.id: {name: array.tobytes() for name, array in row.arrays.items()} for row in store.iter_rows(store.ids)}
    return {"digest": store.digest(), "rows": rows, "files": files}


def check(cache: Path, start: list[str], whole: dict[str, Any]) -> None:
    """Check that the published rows are complete and right, and that none was lost."""
    if (folder := the_store(cache)) is None:
        return
    problems = verify_store(folder)
    assert not problems, f"damaged: {problems}"
    store = FeatureStore.open(folder)
    if folder == cache:
        check_rows(store)
    for row in store.iter_rows([id for id in store.ids if id in whole["rows"] and id not in start]):
        for name, array in row.arrays.items():
            assert array.tobytes() == whole["rows"][row.id][name], f"row {row.id}: {name} is not the undisturbed run's"
    lost = set(start) - set(store.ids) - {"a0", "a1"}  # whose videos changed: the extraction removes these rows first
    assert not lost, f"published rows lost: {sorted(lost)}"


def in_child(work: Callable[[], None], kill_after: float | None = None) -> bool:
    """Run something in a forked process; return whether it was killed."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        work()
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the extraction itself failed"
    return os.WIFSIGNALED(status)


def kills(options: argparse.Namespace, extraction: Extraction, data: Path, duration: float) -> Iterator[Callable]:
    """Yield functions that start an extraction into a cache, kill it, and return whether it died in time."""

    def at_boundary(at: int) -> Callable[[Path], bool]:
        def work(cache: Path) -> None:
            Tripwire(at).install()
            extraction(cache, data)

        return lambda cache: in_child(lambda: work(cache))

    def at_random(cache: Path) -> bool:
        for _ in range(10):  # on a busy machine the measured duration is long, and the moment may lie behind the end
            if in_child(lambda: extraction(cache, data), kill_after=random.uniform(0, duration)):
                return True
            shutil.rmtree(cache)
            shutil.copytree(options.folder / "start", cache)
        return False

    for _ in range(options.random):
        yield at_random
    at = 0
    while options.every:
        yield at_boundary(at)
        at += options.every


def main() -> None:
    """Kill, check, resume, compare; print how many kills there were."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--command", action="store_true")
    options = parser.parse_args()
    writer.MANY_PARTS = 4  # so that parts are merged in these small stores, too
    folder, data = options.folder, options.folder / "data"
    extraction = command if options.command else made_up
    (prepare_command if options.command else prepare_made_up)(folder)
    shutil.copytree(folder / "start", folder / "whole")
    began = time.monotonic()
    in_child(lambda: extraction(folder / "whole", data))
    duration = time.monotonic() - began
    whole = state(folder / "whole")
    start = [] if options.command else FeatureStore.open(folder / "start").ids
    count = 0
    for number, kill in enumerate(kills(options, extraction, data, duration)):
        cut = folder / f"cut{number}"
        shutil.copytree(folder / "start", cut)
        killed = kill(cut)
        if not killed and number >= options.random:
            break  # past the last boundary
        count += killed
        check(cut, start, whole)
        in_child(lambda cut=cut: extraction(cut, data))
        check(cut, start, whole)
        assert state(cut) == whole, f"kill {number}: the resumed store differs from the undisturbed one"
        assert not list(cut.rglob(".tmp-*")), f"kill {number}: temporary files stay"
        shutil.rmtree(cut)
    print(json.dumps({"kills": count}))


if __name__ == "__main__":
    main()
