"""Index of a store's rows: the tables of all parts joined, the last row per video, sorted by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
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
    record_of,
)
from actionvit.features.video_record import VideoRecord


class Index:
    """A snapshot of a store: n live rows in id order, kept as columns so that a million rows stay cheap."""

    def __init__(self, parts: list[Path], tables: list[Table], quantities: Quantities) -> None:
        self.parts = parts
        """Part files in order."""
        self.quantities = quantities
        """(shape, dtype) of one row's array, by name."""
        sizes = [len(table) for table in tables]
        joined = join_columns(tables)
        part = np.repeat(np.arange(len(parts)), sizes)
        offset = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.empty(0, np.int64)
        # The last of equal ids wins: in reverse order `unique` returns the first.
        _, first = np.unique(joined["id"][::-1], return_index=True)
        live = len(offset) - 1 - first
        self.columns: Table = joined[live]
        """One entry per row: `id`, `digest`, `row`, `flags`, `backend`, `count`, `size`, `mtime_ns`."""
        self.part: NDArray[np.int64] = part[live]
        """Position of each row's part in `parts`."""
        self.offset: NDArray[np.int64] = offset[live]
        """Position of each row in its part."""
        self.sizes = np.array(sizes, np.int64)
        """Rows in each part, including those that a later part replaces."""
        self._ids: list[str] | None = None
        self._positions: dict[str, int] | None = None

    @classmethod
    def load(cls, folder: Path, key: FeatureKey) -> Index:
        """Read the tables of all parts; start again if a writer replaces a part meanwhile."""
        while True:
            parts = list_parts(folder)
            try:
                contents = [read_table(path, key) for path in parts]
            except FileNotFoundError as error:
                if list_parts(folder) == parts:  # no part was replaced: the name exists, its target does not
                    raise DamagedPart(Path(error.args[0]), "dangling symbolic link") from error
                continue
            quantities = contents[0][1] if contents else {}
            for path, (_, other) in zip(parts, contents, strict=True):
                if other != quantities:
                    raise DamagedPart(path, f"arrays {sorted(other)} differ from those of {parts[0].name}")
            index = cls(parts, [table for table, _ in contents], quantities)
            index._refresh_fingerprints(folder / SEEN)
            return index

    def _refresh_fingerprints(self, path: Path) -> None:
        """Apply newer fingerprints from `seen.csv`; a damaged line only causes one video to be read again."""
        try:
            lines, _ = parse(Seen, path.read_bytes())
        except FileNotFoundError:
            return
        for id, line in lines.items():
            row = self.find(id)
            if row is not None and self.columns["digest"][row] == line.digest.encode():
                self.columns["size"][row], self.columns["mtime_ns"][row] = line.fingerprint

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def ids(self) -> list[str]:
        """Ids in order."""
        if self._ids is None:
            self._ids = [decode_text(value) for value in self.columns["id"].tolist()]
        return self._ids

    @property
    def positions(self) -> dict[str, int]:
        """Row number by id."""
        if self._positions is None:
            self._positions = dict(zip(self.ids, range(len(self)), strict=True))
        return self._positions

    def find(self, id: str) -> int | None:
        """Return the row number of one id, or None; cheap for a few ids, as it builds no dictionary."""
        if self._positions is not None:
            return self._positions.get(id)
        value = encode_text(id)
        row = int(np.searchsorted(self.columns["id"], value))
        return row if row < len(self) and self.columns["id"][row] == value else None

    def record(self, row: int) -> VideoRecord:
        """Return the record of one row's video."""
        return record_of(self.columns[row])

    def locate(self, ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Return the row numbers of the ids that have a row, in the order given, and the ids that have none."""
        rows = [self.positions.get(id, -1) for id in ids]
        missing = [id for id, row in zip(ids, rows, strict=True) if row < 0]
        return np.array([row for row in rows if row >= 0], dtype=np.int64), missing

    def read(self, rows: NDArray[np.int64], name: str) -> NDArray[Any]:
        """Return one quantity of some rows, (len(rows), ...); FileNotFoundError if a part has been replaced."""
        if name not in self.quantities:
            raise ActionVitError(f"no quantity {name!r} in this store, only {', '.join(sorted(self.quantities))}")
        shape, dtype = self.quantities[name]
        out = np.empty((len(rows), *shape), dtype)
        order = np.lexsort((self.offset[rows], self.part[rows]))
        part = self.part[rows[order]]
        for number in np.unique(part):
            to = order[part == number]
            read_positions(self.parts[number], name, self.offset[rows[to]], out, to)
        return out

    def check(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise DamagedPart unless each row has its digest: HDF5's 32-bit checksums can miss a run of zeros."""
        for position, row in enumerate(rows.tolist()):
            if not matches_digest(self.columns[row], {name: array[position] for name, array in arrays.items()}):
                path, id = self.parts[self.part[row]], decode_text(bytes(self.columns["id"][row]))
                raise DamagedPart(path, f"{id!r} differs from its digest")
