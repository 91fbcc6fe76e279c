"""Counts and lists of names in messages."""

from __future__ import annotations

from collections.abc import Iterable


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """Return `1 video` or `1,234 videos`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def abbreviate(names: Iterable[str], shown: int = 3) -> str:
    """Return the first names in backticks, in order, and the number of the others."""
    names = sorted(names)
    quoted = ", ".join(f"`{printable(name)}`" for name in names[:shown])
    return f"{quoted} and {len(names) - shown} more" if len(names) > shown else quoted


def printable(name: str) -> str:
    """Return a file name on one line: undecodable bytes and control characters are escaped."""
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)
