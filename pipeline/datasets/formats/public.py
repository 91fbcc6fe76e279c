"""Read the annotation files of public sets that name videos by an id: Kinetics, Something-Something, Diving48, Jester.

Files are looked up by name below ROOT, in any folder. Some videos of these datasets are no longer available.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError
from actionvit.features.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from actionvit.pipeline.datasets.formats.rows import Listing, Row
from actionvit.pipeline.datasets.formats.tables import table_rows
from actionvit.pipeline.datasets.reading import is_hidden, set_name, set_of
from actionvit.pipeline.datasets.textfile import read_lines, read_text
from actionvit.text import abbreviate, printable

_RECORD_IDS = ("id", "vid_name")
_KINETICS = {"label": "label", "youtube_id": "id", "time_start": "start", "time_end": "end", "split": "split"}


class _Index:
    """The video files and frame folders below ROOT, hidden ones apart, by their name without a suffix."""

    def __init__(self, root: Path) -> None:
        self.paths = _paths_by_name(root)

    def find(self, place: str, *names: str) -> str:
        """Return the path below ROOT of the first of these names that exists, or ''; raise if there are several."""
        paths: list[str] = next((self.paths[name] for name in names if name in self.paths), [])
        if len(paths) > 1:
            raise ActionVitError(f"{place}: {abbreviate(paths)} have the name of one video; keep one of them")
        return paths[0] if paths else ""


def unlisted(root: Path, listing: Listing) -> list[str]:
    """Return the paths of the videos below ROOT that a listing does not name."""
    listed = {row.path for _, rows in listing.files for row in rows}
    return [path for paths in _paths_by_name(root).values() for path in paths if path not in listed]


def _paths_by_name(root: Path) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    visited = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a second link to a folder, or a loop of links
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        videos = [name for name in sorted(files) if name.lower().endswith(VIDEO_SUFFIXES) and name[0] != "."]
        for name in videos:
            places.setdefault(_without_suffixes(name), []).append(f"{prefix}{name}")
        if prefix and not videos and any(name.lower().endswith(IMAGE_SUFFIXES) for name in files):
            places.setdefault(os.path.basename(folder), []).append(below)  # noqa: PTH119
            folders.clear()
    return places


def _without_suffixes(name: str) -> str:
    """Return a file's name without the suffixes of videos: `ID_000001_000011.mp4.mkv` has two."""
    while name.lower().endswith(VIDEO_SUFFIXES):
        name = name[: name.rindex(".")]
    return name


def read_kinetics(root: Path, files: Sequence[Path]) -> Listing:
    """Read Kinetics' CSV files, `label,youtube_id,time_start,time_end,split`: videos `<id>_<start>_<end>.mp4`.

    The times in a name have six digits, or are written as in the list. A video called by its id alone is taken whole.
    """
    places = _Index(root)
    listed, by_id = [], []
    for file in files:
        rows = []
        for line, cells in table_rows(file, needed=("id",), renamed=_KINETICS).rows:
            id, times = cells["id"], [cells.get("start", ""), cells.get("end", "")]
            name, *others = dict.fromkeys("_".join([id, *map(write, times)]) for write in (_six, _whole, str))
            place = f"`{file}` line {line}"
            path = places.find(place, name, *others, id) or f"{name}.mp4"
            if path.rpartition("/")[2].startswith(f"{id}."):
                by_id.append(path)
            in_set = set_name(cells.get("split") or set_of(file.name)[0], place)
            rows.append(Row(line, path, cells.get("label", ""), ((1, in_set),) if in_set else (), id))
        listed.append((file, rows))
    notes = (
        [f"names without times, read whole and not from time_start to time_end: {abbreviate(by_id)}"] if by_id else []
    )
    return Listing(format="kinetics", description="Kinetics' CSV", base=root, files=listed, complete=False, notes=notes)


def _whole(seconds: str) -> str:
    """Return a time in whole seconds."""
    try:
        return str(int(float(seconds)))
    except (ValueError, OverflowError):
        return seconds


def _six(seconds: str) -> str:
    """Return a time as in Kinetics' file names: whole seconds, six digits."""
    whole = _whole(seconds)
    return whole.zfill(6) if whole.isdecimal() else whole


def read_ssv2(root: Path, files: Sequence[Path]) -> Listing:
    """Read Something-Something's JSON lists; the label is the template, its brackets removed, as in labels.json."""
    places = _Index(root)
    listed = []
    for file in files:
        rows = []
        for place, record in _records(file):
            label = re.sub(r"[\[\]]", "", str(record.get("template") or record.get("label") or ""))
            name = str(record["id"])
            in_set = set_of(file.name)[0]
            path = places.find(f"`{file}` record {place}", name) or f"{name}.webm"
            rows.append(Row(place, path, label, ((1, in_set),) if in_set else ()))
        listed.append((file, rows))
    return Listing(
        format="ssv2", description="Something-Something's JSON lists", base=root, files=listed, complete=False
    )


def read_diving48(root: Path, files: Sequence[Path], vocabulary: Path | None = None) -> Listing:
    """Read Diving48's JSON lists; a class is the dive in the vocabulary, the source the competition's recording."""
    places = _Index(root)
    dives = _array(vocabulary) if vocabulary else []
    names = [" ".join(map(str, dive)) if isinstance(dive, list) else str(dive) for dive in dives]
    listed = []
    for file in files:
        rows = []
        for place, record in _records(file):
            try:
                name, number = str(record["vid_name"]), int(record["label"])
            except (KeyError, TypeError, ValueError) as error:
                raise ActionVitError(f"{place}: expected `vid_name` and a number as `label`; fix the list") from error
            if names and not 0 <= number < len(names):
                raise ActionVitError(
                    f"`{file}` record {place}: label {number}, and `{vocabulary}` names 0 to {len(names) - 1}; get both"
                    " of one version"
                )
            label = names[number] if names else f"{number:02}"
            in_set = set_of(file.name)[0]
            path = places.find(f"`{file}` record {place}", name) or f"{name}.mp4"
            rows.append(Row(place, path, label, ((1, in_set),) if in_set else (), name.rpartition("_")[0]))
        listed.append((file, rows))
    notes = [] if names else ["labels are numbers without names: put Diving48_vocab.json beside the lists"]
    return Listing(
        format="diving48",
        description="Diving48's JSON lists",
        base=root,
        files=listed,
        complete=False,
        notes=notes,
    )


def read_jester(root: Path, files: Sequence[Path]) -> Listing:
    """Read Jester's CSV lists, `id;label` per line; a video is a folder of images called by its id."""
    places = _Index(root)
    listed = []
    for file in files:
        rows = []
        for line, text in read_lines(file):
            name, _, label = (part.strip() for part in text.partition(";"))
            in_set = set_of(file.name)[0]
            path = places.find(f"`{file}` line {line}", name) or name
            rows.append(Row(line, path, label, ((1, in_set),) if in_set else ()))
        listed.append((file, rows))
    return Listing(
        format="jester", description="CSV lists `id;label` as Jester's", base=root, files=listed, complete=False
    )


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number, from 1, and the content of each record in a JSON array."""
    for number, record in enumerate(_array(file), start=1):
        if not isinstance(record, dict) or not any(name in record for name in _RECORD_IDS):
            raise ActionVitError(f"`{file}` record {number}: `{printable(str(record)[:60])}`; expected a video's id")
        yield number, record


def _array(file: Path) -> list[Any]:
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise ActionVitError(f"`{file}` is not JSON ({str(error)[:80]}); get it again") from error
    if not isinstance(content, list):
        raise ActionVitError(f"`{file}`: expected a JSON array of records")
    return content
