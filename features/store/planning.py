"""What is left to embed: size and time vouch for a file, and where they do not, its content decides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actionvit.features.files import Fingerprint, content_digest, fingerprint
from actionvit.features.store.index import Index
from actionvit.features.store.ledger import NOWHERE, Failure

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every video asked about is in exactly one of `known`, `missing`, `changed`, `failed`, `renamed`."""

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
    renamed: Mapping[str, str]
    """New id -> published id of the same content: copied by `Writer.adopt`, not embedded again."""
    fingerprints: Mapping[str, Fingerprint]
    """Of `renamed` videos, and of `known` ones whose size or time changed but whose content did not."""

    @property
    def todo(self) -> list[str]:
        """Ids to embed, sorted."""
        return sorted(self.missing + self.changed)

    @property
    def adoptable(self) -> bool:
        """Whether `Writer.adopt` has anything to do."""
        return bool(self.fingerprints)


def make_plan(
    index: Index,
    failures: Mapping[str, Failure],
    videos: Sequence[tuple[str, Path]],
    *,
    verify: bool,
    retry_failed: bool,
    decoder: str,
) -> Plan:
    """Sort the videos by what has to be done for them; reads file contents only where it must."""
    planner = _Planner(index, {} if retry_failed else failures, decoder)
    for id, path in videos:
        planner.place(id, path, verify)
    if planner.unreachable:
        logger.warning("%d videos have rows but no file now; their rows are kept", planner.unreachable)
    return Plan(
        known=tuple(planner.known),
        missing=tuple(planner.missing),
        changed=tuple(planner.changed),
        failed=tuple(planner.failed),
        absent=tuple(sorted(set(index.ids).difference(id for id, _ in videos))),
        renamed=planner.renamed,
        fingerprints=planner.fingerprints,
    )


class _Planner:
    def __init__(self, index: Index, failures: Mapping[str, Failure], decoder: str) -> None:
        self.index, self.failures, self.decoder = index, failures, decoder
        self.known: list[str] = []
        self.missing: list[str] = []
        self.changed: list[str] = []
        self.failed: list[str] = []
        self.renamed: dict[str, str] = {}
        self.fingerprints: dict[str, Fingerprint] = {}
        self.unreachable = 0
        self._recorded = list(zip(index.columns["size"].tolist(), index.columns["mtime_ns"].tolist(), strict=True))
        self._sizes = {size for size, _ in self._recorded}
        self._by_digest: dict[bytes, int] | None = None

    def place(self, id: str, path: Path, verify: bool) -> None:
        """Put one video where it belongs."""
        row = self.index.positions.get(id)
        try:
            now = fingerprint(path)
        except OSError:
            now = NOWHERE
        if row is None:
            self._place_unknown(id, path, now)
        elif now == NOWHERE:
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
            (self.failed if self._failed_before(id, now) else self.changed).append(id)

    def _place_unknown(self, id: str, path: Path, now: Fingerprint) -> None:
        if self._failed_before(id, now):
            self.failed.append(id)
        elif now.size in self._sizes and (twin := self._twin(_digest(path))) is not None:
            self.renamed[id] = twin
            self.fingerprints[id] = now
        else:
            self.missing.append(id)

    def _failed_before(self, id: str, now: Fingerprint) -> bool:
        failure = self.failures.get(id)
        return failure is not None and failure.fingerprint == now and failure.decoder == self.decoder

    def _twin(self, digest: bytes | None) -> str | None:
        """Return the published id with this content."""
        if self._by_digest is None:
            digests = self.index.columns["digest"].tolist()
            self._by_digest = dict(zip(digests, range(len(digests)), strict=True))
        row = None if digest is None else self._by_digest.get(digest)
        return None if row is None else self.index.ids[row]


def _digest(path: Path) -> bytes | None:
    try:
        return content_digest(path).encode()
    except OSError:
        return None
