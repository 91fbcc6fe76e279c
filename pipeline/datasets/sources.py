"""Merge the names of one film: numbered parts, and names that differ in case or punctuation only."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.datasets.names import parse_metadata, stem

MIN_CLASSES = 3
"""Classes that a series with bare numbers must span to be one film: `smoking_1`, `smoking_2` are two uploads."""
LAST_FIRST = 3
"""A series begins at this number at the latest: Oceans11, 12 and 13 are three films."""

_NUMBERED = re.compile(r"(?P<stem>.*?\S)(?: (?P<part>part|teil|pt|cd|disc))? ?(?<![0-9])(?P<number>[0-9]{1,2})")


def merge_sources(videos: Sequence[Video], own: Collection[str] = ()) -> tuple[list[Video], dict[str, tuple[str, ...]]]:
    """Give the parts of one film one source; return the videos and `{merged source: names}`.

    The rule, on sources that were read from HMDB51's file names:

    1. Names that are equal but for case and punctuation are one source: `boom-snap-clap` and `Boom_Snap_Clap`.
    2. Names that are equal but for `part N` at the end are one: `Hitch_Part_1` and `Hitch_Part_2`.
    3. Names that are equal but for a number of up to two digits at the end are one if the numbers begin at 3 or
       below and the clips are of at least three classes, as the parts of a film are. The name without a number then
       belongs to them. `smoking_1` and `handstand_2`, of one class, stay apart, and so do numbers that are padded
       with zeros, as programs number recordings.

    Parameters
    ----------
    videos : sequence of Video
    own : collection of str
        Ids whose source was given in a column; they are never merged.
    """
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.id not in own and video.source != video.id and parse_metadata(stem(video.id)) is not None:
            labels[video.source].add(video.label)
    names: defaultdict[str, list[str]] = defaultdict(list)
    for source in sorted(labels):
        names[_key(source)].append(source)
    of_film = {key: key for key in names}
    for film, keys in _series(names, labels).items():
        of_film.update(dict.fromkeys(keys, film))
    members: defaultdict[str, list[str]] = defaultdict(list)
    for key, film in of_film.items():
        members[film] += names[key]
    merged = {_film_name(film, group): tuple(group) for film, group in members.items() if len(group) > 1}
    source_of = {name: film for film, group in merged.items() for name in group}
    return [
        replace(video, source=source_of[video.source])
        if video.source in source_of and video.id not in own and video.source in labels
        else video
        for video in videos
    ], dict(sorted(merged.items()))


def _key(source: str) -> str:
    """Return a name's words and numbers in lower case."""
    plain = unicodedata.normalize("NFKC", source).lower()
    return " ".join(re.findall(r"[^\W_]+", plain)) or source


def _series(keys: Iterable[str], labels: dict[str, set[str]]) -> dict[str, list[str]]:
    """Return `{film: keys}` of names that differ in the number of a part."""
    of_key: defaultdict[str, set[str]] = defaultdict(set)
    for source, classes in labels.items():
        of_key[_key(source)] |= classes
    parts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    with_part: set[str] = set()
    for key in keys:
        if match := _NUMBERED.fullmatch(key):
            parts[match["stem"]][key] = int(match["number"])
            if match["part"]:
                with_part.add(match["stem"])
    series = {}
    for film, numbers in parts.items():
        members = [*sorted(numbers), *([film] if film in of_key else [])]
        classes = set().union(*(of_key[key] for key in members))
        padded = any(re.search(r"(?<![0-9])0[0-9]\Z", key) for key in numbers)
        spans = len(classes) >= MIN_CLASSES and min(numbers.values()) <= LAST_FIRST and not padded
        if len(numbers) > 1 and (film in with_part or spans):
            series[film] = members
    return series


def _film_name(film: str, names: Sequence[str]) -> str:
    """Return the film's name as one of the names has it, without the number of a part."""
    first = min(names, key=lambda name: (len(name), name))
    if _key(first) == film or len(names) < 2:
        return first
    cut = re.sub(r"[\W_]*(?:(?:part|teil|pt|cd|disc)[\W_]*)?[0-9]{1,2}[\W_]*\Z", "", first, flags=re.IGNORECASE)
    return cut or first
