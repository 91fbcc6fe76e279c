"""Repair of a store: keep everything with a right digest, move the rest to `quarantine/`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write, make_folder, remove_stale_temporaries, sync
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import NO_FILE
from actionvit.features.store.compaction import adopt_parts, publish_part, remove_rows
from actionvit.features.store.failures import FAILURES, SEEN, Line, Seen, parse, render
from actionvit.features.store.manifest import compare, settle
from actionvit.features.store.parts import decode_text, part_name, read_despite_checksum, read_file, sequence_of
from actionvit.features.store.store import FeatureStore

if TYPE_CHECKING:
    from actionvit.features.store.verify import ExaminedPart

QUARANTINE = "quarantine"


def repair(store: FeatureStore, damaged: Sequence[ExaminedPart]) -> None:
    """Replace each damaged part by one with its good rows; drop damaged lines of the CSV tables.

    Renamed parts get their names back, parts that no writer added are moved aside, and the manifest is written anew.
    """
    remove_stale_temporaries(store.folder)
    store.write_key_file()
    if differences := compare(store.folder):
        for name, listed_name in differences.renamed.items():
            (store.folder / name).rename(store.folder / listed_name)
        for name in (*differences.unlisted, *differences.duplicates):
            quarantine(store.folder / name)
        damaged = [part for part in damaged if part.path.exists() or part.path.is_symlink()]
    _drop_damaged_lines(Failure, store.folder / FAILURES)
    _drop_damaged_lines(Seen, store.folder / SEEN)
    for part in damaged:
        _publish_good_rows(store, part)
        quarantine(part.path)
    adopt_parts(store)
    _remove_older_versions(store, damaged)
    settle(store.folder)


def name_by_content(path: Path) -> str:
    """Return the file name that a part's content implies."""
    image = read_file(path)
    with h5py.File(io.BytesIO(image), "r") as part:
        return part_name(int(part.attrs["sequence"]), image)


def rename_by_content(misnamed: Sequence[Path]) -> None:
    """Give parts the names that their content implies."""
    for path in misnamed:
        path.rename(path.with_name(name_by_content(path)))


def quarantine(path: Path) -> None:
    """Move a file of a store to `quarantine/`, under a free name. Raises ActionVitError."""
    folder = path.parent / QUARANTINE
    make_folder(folder)
    target, number = folder / path.name, 1
    while target.exists() or target.is_symlink():
        target, number = folder / f"{path.name}.{number}", number + 1
    try:
        path.rename(target)
        sync(folder)
        sync(path.parent)
    except OSError as error:
        raise ActionVitError(f"{path}: cannot be moved to {folder}: {error.strerror}; check permissions") from error


def _publish_good_rows(store: FeatureStore, part: ExaminedPart) -> None:
    """Publish the good rows of a damaged part in the same place; their fingerprints are not covered by a digest."""
    if part.table is None or not part.good.any():
        return
    table = part.table[part.good]
    table["size"], table["mtime_ns"] = NO_FILE
    with h5py.File(io.BytesIO(read_file(part.path)), "r") as file:
        arrays = {name: read_despite_checksum(file[name])[part.good] for name in file if name != "rows"}
    publish_part(store, sequence_of(part.path), table, arrays)


def _remove_older_versions(store: FeatureStore, damaged: Sequence[ExaminedPart]) -> None:
    """Remove older versions of lost rows: they must not become the last version."""
    store.refresh()
    index, older = store.index, []
    for part in damaged:
        for id in map(decode_text, part.lost_ids):
            row = index.find(id)
            if row is not None and sequence_of(index.parts[index.part[row]]) < sequence_of(part.path):
                older.append(id)
    remove_rows(store, older)


def _drop_damaged_lines(kind: type[Line], path: Path) -> None:
    if path.exists():
        data = read_file(path)
        sound = render(kind, parse(kind, data)[0].values())
        if sound != data:
            atomic_write(path, sound)
