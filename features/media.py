"""File names of videos and of the images in a frame folder."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"),
    ".wtv",
)
"""Lower-case suffixes of video files in a folder; a list may name files with any suffix."""
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Lower-case suffixes of the images in a frame folder."""
FLOW = re.compile(r"(opt(ical)?_?)?flow|[xyuv](_|$)|(img|image|frame)_?(x|y|diff)(_|$)")
"""Beginning of the names of optical flow and difference images that common tools write beside the frames."""


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `img_2` before `img_10`: runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", name)  # digits at the odd positions
    return tuple((1, int(part), part) if i % 2 else (0, 0, part) for i, part in enumerate(parts))


def frame_files(folder: Path) -> list[Path]:
    """Return the frames of a frame folder in natural order; every image where there are several series."""
    return sorted((file for series in frame_series(folder).values() for file in series), key=_by_name)


def frame_series(folder: Path) -> dict[str, list[Path]]:
    """Return the series of images that may be the frames of a folder, each in natural order, by its pattern.

    A series is a set of names that differ in their numbers only, such as `img_*.jpg`. Beside a numbered series, images
    without a number (`thumb.jpg`) and optical flow (`flow_x_*.jpg`) are left out. One series is a video; with several
    it is unknown which of them is.

    Hidden files, and directory entries that are not regular files, are never frames.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "." and _is_image(entry)]
    by_pattern: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        by_pattern[_pattern(name)].append(name)
    series = _split_cameras(_join_suffixes(by_pattern))
    if numbered := {pattern: names for pattern, names in series.items() if "*" in pattern}:
        series = {pattern: names for pattern, names in numbered.items() if not FLOW.match(pattern.lower())} or numbered
    else:
        series = {"": names} if names else {}
    return {
        pattern: sorted((folder / name for name in names), key=_by_name) for pattern, names in sorted(series.items())
    }


def _by_name(file: Path) -> tuple[tuple[int, int, str], ...]:
    return natural_key(file.name)


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file()


def _pattern(name: str) -> str:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - much cheaper than pathlib
    return re.sub(r"[0-9]+", "*", stem) + suffix.lower()


def _join_suffixes(by_pattern: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return series whose names differ in the suffix alone as one, if no two frames then have the same number."""
    by_stem: defaultdict[str, list[str]] = defaultdict(list)
    for pattern in sorted(by_pattern):
        by_stem[os.path.splitext(pattern)[0]].append(pattern)  # noqa: PTH122
    joined = {}
    for patterns in by_stem.values():
        names = [name for pattern in patterns for name in by_pattern[pattern]]
        if len({os.path.splitext(name)[0] for name in names}) == len(names):  # noqa: PTH122
            joined[patterns[0]] = names
        else:
            joined.update({pattern: by_pattern[pattern] for pattern in patterns})
    return joined


def _split_cameras(series: dict[str, list[str]]) -> dict[str, list[str]]:
    """Split a series such as `cam1_1, cam1_2, cam2_1, cam2_2`: equal last numbers behind several other beginnings."""
    split: dict[str, list[str]] = {}
    for pattern, names in series.items():
        groups: defaultdict[str, list[str]] = defaultdict(list)
        numbers: defaultdict[str, set[int]] = defaultdict(set)
        suffix = os.path.splitext(pattern)[1]  # noqa: PTH122
        for name in names:
            if match := re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", os.path.splitext(name)[0]):  # noqa: PTH122
                head = f"{match[1]}*{match[3]}{suffix}"
                groups[head].append(name)
                numbers[head].add(int(match[2]))
        sets = [frozenset(group) for group in numbers.values()]
        if len(sets) > 1 and len(set(sets)) == 1 and len(sets[0]) > 1:
            split.update(groups)
        else:
            split[pattern] = names
    return split
