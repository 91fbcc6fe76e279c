"""Planning: which videos still need embedding, judged by fingerprint and, where that differs, by content."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from actionvit.errors import ActionVitError
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import NO_FILE, Fingerprint, content_digest, fingerprint, segment_digest
from actionvit.features.media import frame_files
from actionvit.features.sampling import Segment
from actionvit.features.store.store import FeatureStore

logger = logging.getLogger(__name__)

Status = Literal["cached", "missing", "changed", "failed", "reusable"]


class RowSource(NamedTuple):
    """A published row with the same content as a video."""

    store: FeatureStore
    """The store planned for, or another one of the same key."""
    id: str
    """The row's id there."""


class _Video(NamedTuple):
    """The decision about one video."""

    id: str
    status: Status
    fingerprint: Fingerprint | None = None
    """The file's present fingerprint, where it has to be recorded."""
    source: RowSource | None = None
    reachable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The work left for some videos: each is in exactly one of `cached`, `missing`, `changed`, `failed`, `reusable`."""

    cached: tuple[str, ...]
    """Published, and the file is unchanged (or unreachable)."""
    missing: tuple[str, ...]
    """Never embedded."""
    changed: tuple[str, ...]
    """Embedded from other bytes than the file has now."""
    failed: tuple[str, ...]
    """Failed before, with the same file and the same decoder version."""
    reusable: Mapping[str, RowSource]
    """Renamed and moved videos whose content has a row already: `Writer.apply` copies it."""
    unlisted: tuple[str, ...]
    """Published, but not among the videos given."""
    obsolete_failures: tuple[str, ...]
    """In the failure log, but not among the videos given."""
    fingerprints: Mapping[str, Fingerprint]
    """Of `reusable` videos, and of `cached` ones whose fingerprint changed but whose content did not."""

    @property
    def pending(self) -> list[str]:
        """Ids to embed, sorted."""
        return sorted(self.missing + self.changed)

    @property
    def needs_apply(self) -> bool:
        """Whether `Writer.apply` has anything to do."""
        return bool(self.fingerprints or self.changed or self.obsolete_failures)

    def reusable_by_store(self) -> Iterator[tuple[FeatureStore, dict[str, str]]]:
        """Yield each store that rows are copied from, with new id -> id there, sorted."""
        for store in dict.fromkeys(source.store for source in self.reusable.values()):
            yield store, {id: source.id for id, source in sorted(self.reusable.items()) if source.store is store}


def make_plan(
    store: FeatureStore,
    videos: Sequence[tuple[str, Path]],
    *,
    segments: Mapping[str, Segment] | None = None,
    verify: bool = False,
    retry_failed: bool = False,
    decoder_version: str = "",
    other_stores: Sequence[FeatureStore] = (),
) -> Plan:
    """Plan the work needed so that a store holds each of these videos; write nothing.

    Parameters
    ----------
    store : FeatureStore
        The store to fill.
    videos : sequence of (id, path)
        The dataset; each id once.
    segments : mapping of str to Segment, optional
        The segments of those videos that are parts of their file.
    verify : bool
        Read every published video's file again instead of trusting size and modification time.
    retry_failed : bool
        Try again videos that failed with the same file and decoder version.
    decoder_version : str
        Failures of another version are tried again.
    other_stores : sequence of FeatureStore
        Stores of the same key whose rows may be copied; opened only where something is missing.
    """
    assert all(other.key == store.key for other in other_stores)
    failures = {failure.id: failure for failure in store.failures()}
    classifier = _Classifier(
        store, other_stores, {} if retry_failed else failures, decoder_version, verify, segments or {}
    )
    decisions = [classifier.classify(id, path) for id, path in videos]
    if unreachable := sum(not video.reachable for video in decisions):
        logger.warning("%d videos have rows but no file now; their rows are kept", unreachable)
    groups: dict[Status, list[str]] = {}
    for video in decisions:
        groups.setdefault(video.status, []).append(video.id)
    listed = {id for id, _ in videos}
    return Plan(
        cached=tuple(groups.get("cached", ())),
        missing=tuple(groups.get("missing", ())),
        changed=tuple(groups.get("changed", ())),
        failed=tuple(groups.get("failed", ())),
        reusable={video.id: video.source for video in decisions if video.source},
        unlisted=tuple(sorted(set(store.index.ids) - listed)),
        obsolete_failures=tuple(sorted(failures.keys() - listed)),
        fingerprints={video.id: video.fingerprint for video in decisions if video.fingerprint},
    )


class _Classifier:
    def __init__(
        self,
        store: FeatureStore,
        other_stores: Sequence[FeatureStore],
        failures: Mapping[str, Failure],
        decoder_version: str,
        verify: bool,
        segments: Mapping[str, Segment],
    ) -> None:
        self.digests = _Digests(segments)
        self.index = store.index
        self.failures, self.decoder_version, self.verify = failures, decoder_version, verify
        self.rows = _RowsByContent(store, other_stores, self.digests)
        columns = self.index.columns  # as lists: element access in numpy is slow
        self.recorded = list(zip(columns["size"].tolist(), columns["mtime_ns"].tolist(), strict=True))

    def classify(self, id: str, path: Path) -> _Video:
        """Decide which work one video needs."""
        row = self.index.positions.get(id)
        try:
            now = fingerprint(path)
        except OSError:
            now = NO_FILE
        if row is None:
            return self._classify_new(id, path, now)
        if now == self.recorded[row] and not self.verify:
            return _Video(id, "cached")
        digest = None if now == NO_FILE else self.digests.of(id, path)
        if digest is None:
            return _Video(id, "cached", reachable=False)
        if digest != self.index.columns["digest"][row]:
            return _Video(id, "changed")
        return _Video(id, "cached", None if now == self.recorded[row] else now)

    def _classify_new(self, id: str, path: Path, now: Fingerprint) -> _Video:
        if self._failed_before(id, path, now):
            return _Video(id, "failed")
        if source := self.rows.find(id, path, now.size):
            return _Video(id, "reusable", now, source)
        return _Video(id, "missing")

    def _failed_before(self, id: str, path: Path, now: Fingerprint) -> bool:
        failure = self.failures.get(id)
        if failure is None or failure.fingerprint != now or failure.decoder_version != self.decoder_version:
            return False
        return failure.reason != "missing" or not _readable(path)  # permissions are not part of a fingerprint


class _RowsByContent:
    """Published rows by the digest of their video, in a store and in others of the same key."""

    def __init__(self, store: FeatureStore, other_stores: Sequence[FeatureStore], digests: _Digests) -> None:
        self._store, self._other_stores, self._digests = store, other_stores, digests

    @cached_property
    def _stores(self) -> list[FeatureStore]:
        return [self._store, *filter(_is_readable_store, self._other_stores)]

    @cached_property
    def _sizes(self) -> set[int]:
        return {size for store in self._stores for size in store.index.columns["size"].tolist()}

    @cached_property
    def _rows(self) -> list[dict[bytes, int]]:
        digests = [store.index.columns["digest"].tolist() for store in self._stores]
        return [dict(zip(column, range(len(column)), strict=True)) for column in digests]

    def find(self, id: str, path: Path, size: int) -> RowSource | None:
        """Return a row with a video's content; a file whose size no row has is not read."""
        if size not in self._sizes or (digest := self._digests.of(id, path)) is None:
            return None
        for store, rows in zip(self._stores, self._rows, strict=True):
            if digest in rows:
                return RowSource(store, store.index.ids[rows[digest]])
        return None


def _readable(path: Path) -> bool:
    """Return whether a video's file, or every frame of its folder, is readable."""
    return all(os.access(file, os.R_OK) for file in ([path, *frame_files(path)] if path.is_dir() else [path]))


def _is_readable_store(store: FeatureStore) -> bool:
    """Return whether a store's tables can be read; a damaged one must not prevent embedding."""
    try:
        return len(store) > 0
    except ActionVitError as error:
        logger.warning("no row is copied from there: %s", error)
        return False


class _Digests:
    """Digests of videos; a file with several segments is read once if they follow each other."""

    def __init__(self, segments: Mapping[str, Segment]) -> None:
        self._segments = segments
        self._last: tuple[Path, str] | None = None

    def of(self, id: str, path: Path) -> bytes | None:
        """Return the digest of a video's content, or None if it cannot be read."""
        segment = self._segments.get(id)
        try:
            if segment is None:
                return content_digest(path).encode()
            if self._last is None or self._last[0] != path:
                self._last = (path, content_digest(path))
            return segment_digest(self._last[1], segment).encode()
        except OSError:
            return None
