"""Counts, lists, sizes, durations and errors in words, the same in every message and table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, `1 video` or `1,530 videos`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def abbreviate(names: Iterable[str], shown: int = 3, quote: str = "`") -> str:
    """Return the first names in order, each between `quote`, and the number of the others."""
    names = sorted(names)
    quoted = ", ".join(f"{quote}{printable(name)}{quote}" for name in names[:shown])
    return f"{quoted} and {len(names) - shown:,} more" if len(names) > shown else quoted


def printable(name: str) -> str:
    """Return text on one line, with undecodable bytes and control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def file_size(size: float) -> str:
    """Return a number of bytes as `512 B`, `1.5 KiB` or `3.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def metric_line(name: str, value: Mapping[str, Any]) -> str:
    """Return a metric of a run as `  top1   92.7 ± 3.1 %   95 % interval 76.1 to 99.1`."""
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
    low, high = (100 * end for end in value["ci95"])
    mean = 100 * value["mean"]
    return f"  {name.replace('_', ' '):20} {mean:5.1f}{spread} %   95 % interval {low:.1f} to {high:.1f}"


def duration(seconds: float | None) -> str:
    """Return a duration as `0.4 s`, `95 s`, `34 min` or `5.6 h`; an en dash for None."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of an exception's message, its type's name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
