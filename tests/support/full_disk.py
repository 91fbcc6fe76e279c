"""Extractions onto a disk that is full or read-only; run by test_store_crash.py in a mount namespace of its own.

`unshare --map-root-user --mount python full_disk.py full|read-only FOLDER`; exits with 77 where nothing may be mounted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from small_extraction import draw, extract, rows_of, store_in

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.store.verify import verify_store


def mount(place: Path, options: str) -> None:
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr.decode())
        sys.exit(77)


def outcome(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["outcomes"][0]
    return found


def failed_with(result: Result, said: str) -> None:
    assert isinstance(result.exception, ActionVitError), result.exception
    assert said in str(result.exception) and "\n" not in str(result.exception), result.exception


def full(folder: Path) -> None:
    """The disk is full after a few rows; with more space, the same command completes the store."""
    root, cache = draw(folder / "clips", 14), folder / "cache"
    mount(cache, "size=100k")
    failed_with(extract(root, cache), "No space left on device")
    store = store_in(cache)
    held = rows_of(store)
    assert 1 <= len(held) < 14 and verify_store(store.folder) == [], "published rows stay readable"
    assert not list(cache.rglob(".tmp-*")), "failed writes take no space"
    for form in ("h5", "npz", "parquet"):
        arguments = ["cache", "export", cache, "--output", cache / f"all.{form}", "--format", form]
        failed_with(CliRunner().invoke(cli, list(map(str, arguments))), "No space left on device")
    assert len(list(cache.iterdir())) == 1, "an incomplete export takes no space"
    subprocess.run(["mount", "-o", "remount,size=8m", str(cache)], check=True)
    assert outcome(extract(root, cache, "--json"))["embedded"] == 14 - len(held)
    extract(root, folder / "whole")
    assert held.items() <= rows_of(store_in(cache)).items()
    assert rows_of(store_in(cache)) == rows_of(store_in(folder / "whole"))


def read_only(folder: Path) -> None:
    """On a read-only disk, everything that does not write works."""
    root, cache = draw(folder / "clips", 3), folder / "cache"
    mount(cache, "size=8m")
    assert outcome(extract(root, cache, "--json"))["embedded"] == 3
    subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
    assert outcome(extract(root, cache, "--json"))["cached"] == 3
    root.rename(folder / "moved" if (folder / "moved").mkdir() else folder / "moved" / "clips")
    root = folder / "moved" / "clips"
    assert outcome(extract(root, cache, "--json"))["cached"] == 3
    draw(root, 4)
    failed_with(extract(root, cache), "Read-only file system")
    assert verify_store(store_in(cache).folder) == []
    extract(root, folder / "whole")
    whole = rows_of(store_in(folder / "whole"))
    assert rows_of(store_in(cache)).items() < whole.items()
    subprocess.run(["mount", "-o", "remount,rw", str(cache)], check=True)
    assert outcome(extract(root, cache, "--json"))["embedded"] == 1
    assert rows_of(store_in(cache)) == whole


if __name__ == "__main__":
    {"full": full, "read-only": read_only}[sys.argv[1]](Path(sys.argv[2]))
