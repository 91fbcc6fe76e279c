"""A folder or a list of videos -> a sorted `Dataset`, and its splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["hmdb51", "frames", "folder", "csv"]
Protocol = Literal["official", "stratified", "random", "grouped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video file or frame folder."""

    id: str
    """Path relative to the root, with `/`, suffix included: `clap/a.avi`. Unique; never holds the label's meaning."""
    path: Path
    label: str
    source: str
    """The film or upload it was cut from; clips of one source must not stand on both sides of a split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which videos train and which test; ids in neither are unused."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Videos sorted by id, classes sorted by name."""

    name: str
    root: Path
    layout: Layout
    videos: tuple[Video, ...]
    class_names: tuple[str, ...]
    official: tuple[Split, ...] = ()
    """Splits that came with the data, restricted to the videos that are there."""
    notes: tuple[str, ...] = ()
    """What a user must know, a line each: listed but absent, present but unlisted, empty classes."""
