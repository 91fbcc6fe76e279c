"""Which rows a store has, and where: the tables of all its parts, the last word a video, sorted by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.fingerprint import Fingerprint
from actionvit.features.store.failures import SEEN, Seen, parse
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import (
    DamagedPart,
    Quantities,
    Table,
    decode_text,
    encode_text,
    join_columns,
    list_parts,
    matches_digest,
    read_positions,
    read_table,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowInfo:
    """What is known of a published row, its arrays aside."""

    id: str
    digest: str
    count: int
    flags: tuple[str, ...]
    backend: str
    fingerprint: Fingerprint


class Index:
    """A snapshot of a store: n live rows in id order; columns as arrays, nothing a row in Python until asked."""

    def __init__(self, parts: list[Path], tables: list[Table], quantities: Quantities) -> None:
        self.parts = parts
        """Part files in order."""
        self.quantities = quantities
        """(shape, dtype) of one row, by name."""
        sizes = [len(table) for table in tables]
        whole = join_columns(tables)
        part = np.repeat(np.arange(len(parts)), sizes)
        at = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.empty(0, np.int64)
        # The last of equal ids wins: in reverse order `unique` returns the first.
        _, first = np.unique(whole["id"][::-1], return_index=True)
        live = len(at) - 1 - first
        self.columns: Table = whole[live]
        """One record a row: `id`, `digest`, `row`, `flags`, `backend`, `count`, `size`, `mtime_ns`."""
        self.part: NDArray[np.int64] = part[live]
        self.at: NDArray[np.int64] = at[live]
        self.sizes = np.array(sizes, np.int64)
        """Rows in each part, with those that a later part replaces."""
        self._ids: list[str] | None = None
        self._positions: dict[str, int] | None = None

    @classmethod
    def load(cls, folder: Path, key: FeatureKey) -> Index:
        """Read the tables of all parts; starts again when a writer replaces parts meanwhile."""
        while True:
            parts = list_parts(folder)
            try:
                loaded = [read_table(path, key) for path in parts]
            except FileNotFoundError as error:
                if list_parts(folder) == parts:  # none was replaced: it is there, and leads nowhere
                    raise DamagedPart(Path(error.args[0]), "a link to nothing") from error
                continue
            for path, (_, quantities) in zip(parts, loaded, strict=True):
                if quantities != loaded[0][1]:
                    raise DamagedPart(path, f"arrays {sorted(quantities)} are not those of {parts[0].name}")
            index = cls(parts, [table for table, _ in loaded], loaded[0][1] if loaded else {})
            index._refresh_fingerprints(folder / SEEN)
            return index

    def _refresh_fingerprints(self, path: Path) -> None:
        """Take newer sizes and times; lines that are damaged only cost that a video is read again."""
        try:
            seen, _ = parse(Seen, path.read_bytes())
        except FileNotFoundError:
            return
        for id, line in seen.items():
            row = self.find(id)
            if row is not None and self.columns["digest"][row] == line.digest.encode():
                self.columns["size"][row], self.columns["mtime_ns"][row] = line.fingerprint

    def __len__(self) -> int:
        return len(self.at)

    @property
    def ids(self) -> list[str]:
        """Ids in order."""
        if self._ids is None:
            self._ids = [decode_text(value) for value in self.columns["id"].tolist()]
        return self._ids

    @property
    def positions(self) -> dict[str, int]:
        """Where an id lies."""
        if self._positions is None:
            self._positions = dict(zip(self.ids, range(len(self)), strict=True))
        return self._positions

    def find(self, id: str) -> int | None:
        """Return where one id lies, cheaply for a few ids, or None."""
        if self._positions is not None:
            return self._positions.get(id)
        value = encode_text(id)
        at = int(np.searchsorted(self.columns["id"], value))
        return at if at < len(self) and self.columns["id"][at] == value else None

    def text(self, name: str, row: int) -> str:
        """Return a text column's value."""
        return decode_text(bytes(self.columns[name][row]))

    def info(self, row: int) -> RowInfo:
        """Return what is known of a row."""
        size, mtime_ns, count = (int(self.columns[name][row]) for name in ("size", "mtime_ns", "count"))
        return RowInfo(
            id=self.text("id", row),
            digest=self.text("digest", row),
            count=count,
            flags=tuple(flag for flag in self.text("flags", row).split(",") if flag),
            backend=self.text("backend", row),
            fingerprint=Fingerprint(size, mtime_ns),
        )

    def locate(self, ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Return the rows of the ids that are there, in the order asked, and the ids that are not."""
        found = [self.positions.get(id, -1) for id in ids]
        return np.array([row for row in found if row >= 0], dtype=np.int64), [
            id for id, row in zip(ids, found, strict=True) if row < 0
        ]

    def read(self, rows: NDArray[np.int64], name: str) -> NDArray[Any]:
        """Return a quantity of some rows, (len(rows), ...); FileNotFoundError if a part has been replaced."""
        if name not in self.quantities:
            raise ActionVitError(f"no quantity {name!r} in this store, only {', '.join(sorted(self.quantities))}")
        shape, dtype = self.quantities[name]
        out = np.empty((len(rows), *shape), dtype)
        order = np.lexsort((self.at[rows], self.part[rows]))
        part = self.part[rows[order]]
        for number in np.unique(part):
            to = order[part == number]
            read_positions(self.parts[number], name, self.at[rows[to]], out, to)
        return out

    def check(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise DamagedPart unless each row's arrays have its digest: a checksum of 32 bits misses a hole of zeros."""
        for at, row in enumerate(rows.tolist()):
            if not matches_digest(self.columns[row], {name: array[at] for name, array in arrays.items()}):
                raise DamagedPart(self.parts[self.part[row]], f"{self.text('id', row)!r} differs from its digest")
