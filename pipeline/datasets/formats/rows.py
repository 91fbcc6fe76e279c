"""The rows that all list readers return, and the checks that turn rows into videos and splits."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from actionvit.errors import ActionVitError
from actionvit.features.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from actionvit.features.sampling import Segment
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.datasets.names import parse_source, stem
from actionvit.pipeline.datasets.reading import Reading, split_of
from actionvit.text import abbreviate, pluralize, printable

_LABEL_IN_PATH = re.compile(rf"({'|'.join(map(re.escape, VIDEO_SUFFIXES))})[ \t]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Row(NamedTuple):
    """One line of a list."""

    line: int
    path: str
    """As written; relative paths start at the listing's base."""
    label: str = ""
    """Empty without a label."""
    sets: tuple[tuple[int, str], ...] = ()
    """Number of an official split and the set in it: train, val or test."""
    source: str = ""
    segment: Segment | None = None


@dataclass(slots=True, kw_only=True)
class Listing:
    """The rows of the list files of one dataset."""

    format: str
    description: str
    """The format in words, for one line of output: `a list of paths`."""
    base: Path
    files: list[tuple[Path, list[Row]]]
    complete: bool = True
    """Whether every listed video must be on disk; some videos of the large public datasets are no longer available."""
    sets_by: str = "the list files name"
    """The part of the data that assigns videos to sets, for an error."""
    notes: list[str] = field(default_factory=list)


def refuse_url(place: str, path: str) -> None:
    """Raise ActionVitError if a path is an address."""
    if _URL.match(path):
        raise ActionVitError(f"{place}: `{printable(path)}` is a URL; download the video and list its file")


def segment_id(id: str, segment: Segment) -> str:
    """Return the id of a segment: `path@start-end` in seconds, `path@start-endf` in frames."""
    return f"{id}@{segment}{'f' if segment.unit == 'frames' else ''}"


def resolve(listing: Listing, *, skip_missing: bool = False) -> Reading:
    """Return the videos and splits of a listing, checked against the disk.

    Raises
    ------
    ActionVitError
        If no video is listed or none exists; a path is empty, a URL, missing, neither a file nor a folder, or listed
        twice; or a label is empty where others are not.
    """
    resolver = _Resolver(listing)
    for file, rows in listing.files:
        for row in rows:
            resolver.add(file, row)
    return resolver.finish(skip_missing=skip_missing or not listing.complete)


class _Resolver:
    """Collects videos and their defects, so that one message can name all defects of a kind."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.base = os.path.normpath(listing.base.absolute())
        # Paths are strings here: lists have 100,000 rows.
        self.prefix = os.path.join(self.base, "")  # noqa: PTH118
        self.shown_prefix = os.path.join(listing.base, "")  # noqa: PTH118
        self.videos: dict[str, Video] = {}
        self.place: dict[str, tuple[Path, int]] = {}
        self.sets: dict[int, dict[str, str]] = {}
        self.missing: dict[str, tuple[Path, int]] = {}
        self.special: list[str] = []
        self.outside: list[str] = []
        self.unlabeled: list[str] = []
        self.own_sources: set[str] = set()
        self.files: set[tuple[int, int]] = set()
        self.linked: list[str] = []
        self.folders = 0

    def add(self, file: Path, row: Row) -> None:
        """Check one row; videos that several official splits list are one video."""
        file_id, path = self._locate(file, row)
        id = file_id if row.segment is None else segment_id(file_id, row.segment)
        if id in self.videos:
            self._merge(file, row, id)
            return
        if id in self.missing:
            return
        try:
            status = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError):
            self.missing[id] = (file, row.line)
            return
        mode = status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            self.special.append(id)
            return
        self._check_kind(file, row, path, folder=stat.S_ISDIR(mode))
        self.folders += stat.S_ISDIR(mode)
        if row.segment is None:
            self.linked += [id] if (file_key := (status.st_dev, status.st_ino)) in self.files else []
            self.files.add(file_key)
        if not row.label:
            self.unlabeled.append(id)
        if row.source:
            self.own_sources.add(id)
        source = row.source or parse_source(stem(id), row.label) or file_id  # segments of a file share their source
        shown = self.shown_prefix + file_id if path.startswith(self.prefix) else path
        self.videos[id] = Video(id=id, path=Path(shown), label=row.label, source=source, segment=row.segment)
        self.place[id] = (file, row.line)
        self._assign(id, row)

    def _locate(self, file: Path, row: Row) -> tuple[str, str]:
        """Return the id of a row, its path relative to the base, and its absolute path."""
        written = row.path
        if not written or "\0" in written:
            raise ActionVitError(f"`{file}` line {row.line}: empty path; fill it in or remove the line")
        refuse_url(f"`{file}` line {row.line}", written)
        # Not resolved: a link into another folder keeps the name that the list gives it.
        if written[0] == "/" and not os.path.lexists(written) and os.path.lexists(self.base + written):
            written = written.lstrip("/")  # Kaggle's UCF101 begins every path in its folder with `/`
        path = os.path.normpath(written if written[0] == "/" else self.prefix + written)
        if path.startswith(self.prefix):
            return path[len(self.prefix) :], path
        id = path if os.path.isabs(written) else os.path.relpath(path, self.base)  # noqa: PTH117
        self.outside.append(id)
        return id, path

    def _check_kind(self, file: Path, row: Row, path: str, *, folder: bool) -> None:
        """Raise for a folder without images, an image, or a file where the list names folders of frames."""
        if folder and not holds_images(path):
            defect = "is a folder without images; list a video file or a folder of frames"
        elif not folder and path.lower().endswith(IMAGE_SUFFIXES):
            defect = "is an image; list the folder of its video's frames, one line per video"
        elif not folder and self.listing.format == "frame-list":
            defect = (
                "is a file, and a line `folder frames label` names a folder; if the numbers are two labels, give the"
                " video one"
            )
        else:
            return
        raise ActionVitError(f"`{file}` line {row.line}: `{printable(row.path)}` {defect}")

    def _assign(self, id: str, row: Row) -> None:
        for number, name in row.sets:
            self.sets.setdefault(number, {})[id] = name

    def _merge(self, file: Path, row: Row, id: str) -> None:
        """Add an official split's set to a known video; raise if the row repeats or contradicts another."""
        numbers = {number for number, sets in self.sets.items() if id in sets}
        first, line = self.place[id]
        where = f"line {line}" if first == file else f"`{first.name}` line {line}"
        place = f"`{file}` line {row.line}: `{printable(id)}`"
        if not row.sets or not numbers or numbers & {number for number, _ in row.sets}:
            new, old = {name for _, name in row.sets}, {sets[id] for sets in self.sets.values() if id in sets}
            copied = (
                "; of two equal lists keep `val` and choose test_split=val" if {*new, *old} == {"val", "test"} else ""
            )
            if self.listing.format == "kinetics":
                copied = "; cut the segments of one video into files called `ID_START_END`, six digits each"
            raise ActionVitError(f"{place} is already in {where}; keep one of the two{copied}")
        if row.label and self.videos[id].label and row.label != self.videos[id].label:
            labels = f"`{printable(row.label)}`, and `{printable(self.videos[id].label)}`"
            raise ActionVitError(f"{place} is {labels} in {where}; give a video one label")
        self._assign(id, row)

    def finish(self, *, skip_missing: bool) -> Reading:
        """Raise or note the defects, and return the reading."""
        listing, files = self.listing, self.listing.files
        names = ", ".join(f"`{file}`" for file, _ in files[:3])
        if not self.videos and not self.missing and not self.special:
            raise ActionVitError(f"{names} lists no video; expected lines `path,label` below the header")
        if self.special:
            raise ActionVitError(
                f"{names}: {abbreviate(self.special)}: neither a file nor a folder (a device, FIFO or socket);"
                " remove the line"
            )
        notes = list(listing.notes)
        if self.missing:
            if not skip_missing or not self.videos:
                raise ActionVitError(self._missing_error(skip_missing))
            notes.append(f"{pluralize(len(self.missing), 'listed video')} not on disk: {abbreviate(self.missing)}")
        if self.linked:
            count = pluralize(len(self.linked), "path")
            notes.append(f"{count} by a link to a video that is listed already: {abbreviate(self.linked)}")
        if self.outside:
            count = pluralize(len(self.outside), "video")
            notes.append(f"{count} outside `{listing.base}`, named by the path as listed: {abbreviate(self.outside)}")
        notes += self._drop_unlabeled(names)
        reading = Reading(
            videos=sorted(self.videos.values(), key=lambda video: video.id),
            frames=self.folders == len(self.videos),
            notes=notes,
            own_sources=self.own_sources,
        )
        unused = self._add_splits(reading, names)
        reading.notes += unused
        return reading

    def _missing_error(self, skip_missing: bool) -> str:
        id, (file, line) = next(iter(self.missing.items()))
        written = (
            f"file `{printable(id)}`" if Path(id).is_absolute() else f"video `{printable(id)}` in `{self.listing.base}`"
        )
        total = pluralize(len(self.missing), "path")
        hint = _hint(line, id, os.path.join(self.base, id))  # noqa: PTH118
        if skip_missing:
            return f"`{file}`: none of its videos is on disk ({total}); line {line}: no {written}{hint}"
        count = f"{total} missing" if self.videos or len(self.missing) == 1 else f"all {total} are missing"
        others = f", next {abbreviate(list(self.missing)[1:3])}" if len(self.missing) > 1 else ""
        skip = "" if not self.videos else ", or skip missing videos with skip_missing=True"
        return f"`{file}` line {line}: no {written} ({count}){others}; correct the path or remove the line{skip}{hint}"

    def _drop_unlabeled(self, names: str) -> list[str]:
        """Leave out videos without a label if others have one; a list without any labels can be extracted."""
        if not self.unlabeled:
            return []
        if len(self.unlabeled) == len(self.videos):
            return ["no labels: the videos can be extracted, but not probed or fine-tuned"]
        sets = {name for ids in self.sets.values() for id in self.unlabeled if (name := ids.get(id))}
        if sets != {"test"}:
            file, line = self.place[self.unlabeled[0]]
            raise ActionVitError(f"`{file}` line {line}: empty label, or -1; fill it in or remove the line")
        for id in self.unlabeled:
            del self.videos[id]
            for ids in self.sets.values():
                ids.pop(id, None)
        count = pluralize(len(self.unlabeled), "test video")
        return [f"{count} without a label left out: {abbreviate(self.unlabeled)}"]

    def _add_splits(self, reading: Reading, names: str) -> list[str]:
        """Add the official splits, by number; return notes on the videos in no set."""
        notes: list[str] = []
        numbers = [number for number in sorted(self.sets) if any(self.sets[number].values())]
        for number in numbers:
            sets = self.sets[number]
            split = split_of(number, sets)
            lonely = not split.train or not (split.test or split.val)
            if lonely and self.missing:
                count = pluralize(sum(map(bool, sets.values())), "video")
                notes.append(
                    f"no official split: all {count} on disk are in one set; protocol=grouped or stratified divides"
                    " them"
                )
                continue
            if lonely and not (split.train and self.unlabeled):
                missing_set = "test" if split.train else "train"
                which = f" for split {number}" if len(numbers) > 1 else ""
                raise ActionVitError(
                    f"{names}: {self.listing.sets_by} no {missing_set} video{which}; name some of each"
                )
            reading.splits.append(split)
        if len(numbers) == 1 and reading.splits:
            [split] = reading.splits
            if split.val and split.test:
                count = pluralize(len(split.val), "validation video")
                notes.append(f"{count}: neither trained on nor scored, unless select_on=val chooses by them")
            used = {*split.train, *split.test, *split.val}
            if unused := [video.id for video in reading.videos if video.id not in used]:
                notes.append(f"{pluralize(len(unused), 'video')} in no set: {abbreviate(unused)}")
        return notes


def _hint(line: int, id: str, path: str) -> str:
    """Return the likely cause of a path that does not exist, and the way out."""
    if "\\" in id:
        return "; write paths with / instead of \\"
    if _LABEL_IN_PATH.search(id.lower()):
        return "; a label that holds blanks needs a comma or tab before it, in every line of the list"
    if other := _other_spelling(path):
        return f"; `{printable(other)}` is there"
    if line == 1 and not re.search(r"[/.]", id):
        return "; if this line is a header, call its columns path,label"
    if os.path.isabs(id):  # noqa: PTH117
        return "; if the videos have moved, list paths relative to a folder and give it as root=, the list as lists="
    return "; if the paths start at another folder, give it as root= and the list as lists="


def _other_spelling(path: str) -> str:
    """Return the name of the file beside a path that differs in suffix, case or Unicode form alone, or ''."""
    folder, name = os.path.split(path)

    def key(name: str) -> str:
        return unicodedata.normalize("NFC", stem(name)).casefold()

    try:
        return next((other for other in sorted(os.listdir(folder)) if key(other) == key(name)), "")  # noqa: PTH208
    except (OSError, ValueError):
        return ""


def holds_images(folder: str) -> bool:
    """Return whether a folder holds an image directly; stops at the first."""
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.name[0] != "." for entry in entries)
