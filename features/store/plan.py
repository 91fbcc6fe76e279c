"""What is left to embed: size and time vouch for a file, and where they do not, its content decides."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from actionvit.errors import ActionVitError
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import NO_FILE, Fingerprint, content_digest, fingerprint
from actionvit.features.media import frame_files
from actionvit.features.store.index import Index

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore

logger = logging.getLogger(__name__)


class Twin(NamedTuple):
    """A published row of the same content."""

    store: FeatureStore
    """The store planned for, or another of the same key."""
    id: str
    """Under which it lies there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every video asked about is in exactly one of `known`, `missing`, `changed`, `failed`, `copies`."""

    known: tuple[str, ...]
    """Published, and the file is what it was (or is not there to be asked)."""
    missing: tuple[str, ...]
    """Never embedded."""
    changed: tuple[str, ...]
    """Embedded from other bytes than the file holds now."""
    failed: tuple[str, ...]
    """Tried before, with the same file and the same decoder."""
    absent: tuple[str, ...]
    """Published, but not among the videos asked about."""
    forgotten: tuple[str, ...]
    """Failed before, and not among the videos asked about."""
    copies: Mapping[str, Twin]
    """Renamed and moved videos, whose content has a row already: copied by `Writer.adopt`, not embedded again."""
    fingerprints: Mapping[str, Fingerprint]
    """Of `copies`, and of `known` videos whose size or time changed but whose content did not."""

    @property
    def todo(self) -> list[str]:
        """Ids to embed, sorted."""
        return sorted(self.missing + self.changed)

    @property
    def adoptable(self) -> bool:
        """Whether `Writer.adopt` has anything to do."""
        return bool(self.fingerprints or self.changed or self.forgotten)

    def copies_by_store(self) -> Iterator[tuple[FeatureStore, dict[str, str]]]:
        """Yield each store that `copies` come from, with new id -> id there, sorted."""
        for store in dict.fromkeys(twin.store for twin in self.copies.values()):
            yield store, {id: twin.id for id, twin in sorted(self.copies.items()) if twin.store is store}


def make_plan(
    stores: Sequence[FeatureStore],
    failures: Mapping[str, Failure],
    videos: Sequence[tuple[str, Path]],
    *,
    verify: bool,
    retry_failed: bool,
    decoder: str,
) -> Plan:
    """Sort the videos by what the first store needs; reads contents of files, and other stores, only where it must."""
    planner = _Planner(stores, {} if retry_failed else failures, decoder)
    for id, path in videos:
        planner.place(id, path, verify)
    asked = {id for id, _ in videos}
    if planner.unreachable:
        logger.warning("%d videos have rows but no file now; their rows are kept", planner.unreachable)
    return Plan(
        known=tuple(planner.known),
        missing=tuple(planner.missing),
        changed=tuple(planner.changed),
        failed=tuple(planner.failed),
        absent=tuple(sorted(set(planner.index.ids) - asked)),
        forgotten=tuple(sorted(failures.keys() - asked)),
        copies=planner.copies,
        fingerprints=planner.fingerprints,
    )


class _Planner:
    def __init__(self, stores: Sequence[FeatureStore], failures: Mapping[str, Failure], decoder: str) -> None:
        self.stores, self.failures, self.decoder = stores, failures, decoder
        self.index: Index = stores[0].index
        self.known: list[str] = []
        self.missing: list[str] = []
        self.changed: list[str] = []
        self.failed: list[str] = []
        self.copies: dict[str, Twin] = {}
        self.fingerprints: dict[str, Fingerprint] = {}
        self.unreachable = 0
        columns = self.index.columns
        self._recorded = list(zip(columns["size"].tolist(), columns["mtime_ns"].tolist(), strict=True))
        self._sizes: list[set[int]] | None = None
        self._by_digest: list[dict[bytes, int]] = []

    def place(self, id: str, path: Path, verify: bool) -> None:
        """Put one video where it belongs."""
        row = self.index.positions.get(id)
        try:
            now = fingerprint(path)
        except OSError:
            now = NO_FILE
        if row is None:
            self._place_unknown(id, path, now)
        elif now == NO_FILE:
            self.known.append(id)
            self.unreachable += 1
        elif now == self._recorded[row] and not verify:
            self.known.append(id)
        elif (digest := _digest(path)) is None:
            self.known.append(id)
            self.unreachable += 1
        elif digest == self.index.columns["digest"][row]:
            self.known.append(id)
            if now != self._recorded[row]:
                self.fingerprints[id] = now
        else:
            self.changed.append(id)

    def _place_unknown(self, id: str, path: Path, now: Fingerprint) -> None:
        if self._failed_before(id, path, now):
            self.failed.append(id)
        elif (twin := self._twin(path, now.size)) is not None:
            self.copies[id] = twin
            self.fingerprints[id] = now
        else:
            self.missing.append(id)

    def _failed_before(self, id: str, path: Path, now: Fingerprint) -> bool:
        failure = self.failures.get(id)
        if failure is None or failure.fingerprint != now or failure.decoder_version != self.decoder:
            return False
        return failure.reason != "missing" or not _readable(path)  # permissions are no part of a fingerprint

    def _twin(self, path: Path, size: int) -> Twin | None:
        """Return a row of the file's content, if any store has one; a file of a size that none knows is not read."""
        if self._sizes is None:
            self.stores = [store for store in self.stores if store is self.stores[0] or _can_lend(store)]
            self._sizes = [set(store.index.columns["size"].tolist()) for store in self.stores]
        if not any(size in sizes for sizes in self._sizes) or (digest := _digest(path)) is None:
            return None
        if not self._by_digest:
            digests = [store.index.columns["digest"].tolist() for store in self.stores]
            self._by_digest = [dict(zip(each, range(len(each)), strict=True)) for each in digests]
        for store, rows in zip(self.stores, self._by_digest, strict=True):
            if digest in rows:
                return Twin(store, store.index.ids[rows[digest]])
        return None


def _readable(path: Path) -> bool:
    """Return whether a video's file may be read, or every frame of its folder."""
    return all(os.access(file, os.R_OK) for file in ([path, *frame_files(path)] if path.is_dir() else [path]))


def _can_lend(store: FeatureStore) -> bool:
    """Return whether a store's tables can be read; one that is damaged keeps nobody from embedding."""
    try:
        return len(store) > 0
    except ActionVitError as error:
        logger.warning("no row is copied from there: %s", error)
        return False


def _digest(path: Path) -> bytes | None:
    try:
        return content_digest(path).encode()
    except OSError:
        return None
