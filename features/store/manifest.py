"""The manifest of a store: `manifest.json` lists its parts, so that a missing, foreign or duplicate part shows.

It is written before parts change, and lists the parts about to be published or removed as `changing`: a process killed
in between leaves a manifest that allows both states. One write per publication is enough: each replaces the last one.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write
from actionvit.features.store.checked_json import parse_checked, render_checked
from actionvit.features.store.parts import list_parts, name_digits, read_file

MANIFEST = "manifest.json"
SCHEMA = 1
ATTEMPTS = 20
"""Attempts to read manifest and folder in one consistent state before giving up on a busy writer."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts that a store should have."""

    parts: Mapping[str, int]
    """Number of rows by file name."""
    changing: frozenset[str] = frozenset()
    """Names in `parts` that may be absent: they were being published or removed when this was written."""

    def settled(self, folder: Path) -> Manifest:
        """Return the manifest after the changes that took place. Only the holder of the lock may rely on it."""
        removed = {name for name in self.changing if not (folder / name).exists()}
        return Manifest({name: rows for name, rows in self.parts.items() if name not in removed})


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Parts in which folder and manifest differ."""

    missing: Mapping[str, int]
    """Number of rows of each part that is not in the folder."""
    renamed: Mapping[str, str]
    """Name in the manifest of each part that has another name in the folder: parts are read in the order of names."""
    unlisted: tuple[str, ...]
    """Parts in the folder that no writer of this store recorded."""
    duplicates: tuple[str, ...]
    """Parts with the content of an earlier part."""


def read_manifest(folder: Path) -> Manifest | None:
    """Return a store's manifest; None if there is none (stores of earlier versions) or it is damaged."""
    try:
        data = read_file(folder / MANIFEST)
    except FileNotFoundError:
        return None
    value = parse_checked(data)
    if value is None or value.get("schema") != SCHEMA:
        return None
    return Manifest(value["parts"], frozenset(value["changing"]))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Publish a manifest if it differs from the one there. Only the holder of the lock may call this."""
    if manifest != read_manifest(folder):
        value = {"schema": SCHEMA, "parts": dict(manifest.parts), "changing": sorted(manifest.changing)}
        atomic_write(folder / MANIFEST, render_checked(value))


@contextlib.contextmanager
def changing_parts(folder: Path, added: Mapping[str, int], removed: Collection[str] = ()) -> Iterator[None]:
    """Record that parts are about to appear and go; the holder of the lock changes them inside this context."""
    if manifest := read_manifest(folder):  # else this is a repair of a store without one
        parts = {**manifest.settled(folder).parts, **added}
        write_manifest(folder, Manifest(parts, frozenset([*added, *removed]) & parts.keys()))
    yield


def settle(folder: Path) -> None:
    """Write the manifest without changes in progress. Only the holder of the lock may call this."""
    with contextlib.suppress(ActionVitError):  # a full disk, for example: the manifest stays valid, only less strict
        if manifest := read_manifest(folder):
            write_manifest(folder, manifest.settled(folder))


def compare(folder: Path) -> Differences | None:
    """Compare a store's folder with its manifest; None without a manifest, or while a writer is too busy."""
    for _ in range(ATTEMPTS):
        manifest = read_manifest(folder)
        names = [path.name for path in list_parts(folder)]
        if manifest is None:
            return None
        if read_manifest(folder) == manifest:
            return _differences(manifest, names)
    return None


def _differences(manifest: Manifest, names: list[str]) -> Differences:
    missing = manifest.parts.keys() - manifest.changing - set(names)
    unlisted = [name for name in names if name not in manifest.parts]
    listed_name = {_digits(name): name for name in missing}
    renamed = {name: listed_name[_digits(name)] for name in unlisted if _digits(name) in listed_name}
    same = defaultdict(list)
    for name in sorted(names, key=lambda name: (name in unlisted, name)):
        same[_digits(name)].append(name)
    duplicates = {name for group in same.values() for name in group[1:]}
    return Differences(
        missing={name: manifest.parts[name] for name in sorted(missing - set(renamed.values()))},
        renamed=renamed,
        unlisted=tuple(name for name in unlisted if name not in renamed and name not in duplicates),
        duplicates=tuple(sorted(duplicates)),
    )


def _digits(name: str) -> str:
    return name_digits(Path(name))
