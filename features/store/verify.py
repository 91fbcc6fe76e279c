"""Reading every byte of a store, saying what is not as it was written, and dropping exactly that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.durable import file_digest, publish, remove
from actionvit.features.store.index import Index
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.ledger import FAILURES, NOWHERE, SEEN, Failure, Line, Seen, parse, render
from actionvit.features.store.locks import locked
from actionvit.features.store.parts import (
    BLOCK_BYTES,
    TEXTS,
    DamagedPart,
    Table,
    decode_text,
    list_parts,
    open_part,
    part_digits,
    read_table,
    row_digest,
    sequence_of,
)
from actionvit.features.store.rewrite import publish_part, remove_rows
from actionvit.features.store.store import KEY, FeatureStore, parse_description

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One file of a store that does not hold what was written."""

    file: str
    detail: str
    rows: int = 0
    """Rows (or lines) that are lost; 0 where the damage touches none of them, -1 where it cannot be told."""
    ids: tuple[str, ...] = ()
    """Their ids, as far as they can still be read."""


@dataclass(slots=True)
class _Part:
    """A part after reading all of it."""

    path: Path
    table: Table | None
    good: NDArray[np.bool_]
    detail: str

    @property
    def lost(self) -> tuple[str, ...]:
        if self.table is None:
            return ()
        return tuple(_text(value) for value in self.table["id"][~self.good])

    def problem(self) -> Problem:
        """Say what is wrong with it."""
        rows = -1 if self.table is None else int((~self.good).sum())
        return Problem(file=self.path.name, detail=self.detail, rows=rows, ids=self.lost)


def verify(folder: Path, *, repair: bool = False) -> list[Problem]:
    """Read a whole store and return what is damaged; with `repair`, drop exactly that.

    Each part's bytes must be those its name vouches for, each row those its digest vouches for; `key.json` and the
    CSV tables carry digests of their own. A repair keeps every row whose digest is right, so that the next
    extraction embeds the others only.

    Raises
    ------
    ActionVitError
        If the folder is no store, or another process writes it while `repair` wants to, or nothing in it tells the
        key any more.
    """
    if not (folder / KEY).exists() and not list_parts(folder):
        raise ActionVitError(f"{folder}: no feature store here; `actionvit cache ls` lists stores")
    with locked(folder) if repair else contextlib.nullcontext():
        store, problems = _described(folder)
        parts = [part for part in _examine_all(store) if part.detail]
        problems += [part.problem() for part in parts]
        problems += _check_table(Failure, folder / FAILURES, repair) + _check_table(Seen, folder / SEEN, repair)
        if repair:
            if problems and problems[0].file == KEY:
                store.save_description()
            for part in parts:
                _mend(part, store)
            _forget_older(store, parts)
    return problems


def _described(folder: Path) -> tuple[FeatureStore, list[Problem]]:
    """Open a store by its `key.json` or, where that is damaged, by what an undamaged part says."""
    path = folder / KEY
    data = path.read_bytes() if path.exists() else b""
    if parse_description(data) is not None:
        return FeatureStore.open(folder), []
    for part in list_parts(folder):
        if part_digits(part) == file_digest(part)[:16]:
            with open_part(part) as file:
                key, dataset, variant = (file.attrs[name] for name in ("key", "dataset", "variant"))
            store = FeatureStore(folder, FeatureKey.parse(key), dataset, variant, {})
            return store, [Problem(file=KEY, detail="not as it was written; its parts still tell the key")]
    raise ActionVitError(f"{path}: damaged, and no part is left that tells the key; delete the store's folder")


def _examine_all(store: FeatureStore) -> Iterator[_Part]:
    """Read all parts; those that a writer replaces meanwhile are passed over, their rows are in the next."""
    seen: set[Path] = set()
    while fresh := [path for path in list_parts(store.folder) if path not in seen]:
        for path in fresh:
            seen.add(path)
            with contextlib.suppress(FileNotFoundError):
                yield _examine(path, store.key.digest)


def _examine(path: Path, key: str) -> _Part:
    whole = part_digits(path) == file_digest(path)[:16]
    try:
        table, quantities = read_table(path, key)
    except DamagedPart as error:
        return _Part(path, None, np.zeros(0, bool), error.detail)
    with open_part(path) as part:
        good = np.array([digest == said for digest, said in _digests(part, table, sorted(quantities))], bool)
    detail = "" if whole and good.all() else "rows differ from their digests" if whole else "bytes differ from its name"
    return _Part(path, table, good, detail)


def _digests(part: h5py.File, table: Table, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the digest that each row has and the one that it should have."""
    row_bytes = sum(part[name].dtype.itemsize * int(np.prod(part[name].shape[1:])) for name in names)
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, len(table), step):
        records = table[start : start + step]
        arrays = _read(part, names, start, start + len(records))
        for at, record in enumerate(records):
            mine = {name: array[at] for name, array in arrays.items()} if arrays else None
            if mine is None and len(records) > 1:  # some chunk of the block is bad: which rows does it cost?
                mine = {name: array[0] for name, array in _read(part, names, start + at, start + at + 1).items()}
            said = _text(record["row"])
            yield (row_digest(_record(record), mine) if mine else ""), said


def _read(part: h5py.File, names: list[str], start: int, stop: int) -> dict[str, NDArray[Any]]:
    """Read some rows of all quantities; nothing if any of it cannot be read."""
    try:
        return {name: part[name][start:stop] for name in names}
    except (OSError, RuntimeError, ValueError) as error:
        logger.debug("%s rows %d to %d: %s", part.filename, start, stop, error)
        return {}


def _record(record: np.void) -> dict[str, Any]:
    return {name: _text(record[name]) for name in TEXTS} | {"count": int(record["count"])}


def _text(value: bytes) -> str:
    return decode_text(bytes(value))


def _mend(part: _Part, store: FeatureStore) -> None:
    """Put the good rows into a new part in the same place; the table's fingerprints are vouched for by nothing now."""
    if part.table is not None and part.good.any():
        rows = np.flatnonzero(part.good)
        table = part.table[rows]
        table["size"], table["mtime_ns"] = NOWHERE
        with open_part(part.path) as file:
            arrays = {name: [data[row] for row in rows] for name, data in file.items() if name != "rows"}
        publish_part(store.folder, sequence_of(part.path), table, arrays, store.description)
    remove([part.path])


def _forget_older(store: FeatureStore, parts: list[_Part]) -> None:
    """Where the lost row was the last word on its video, an older version must not become it."""
    if not any(part.lost for part in parts):
        return
    index = Index.load(store.folder, store.key.digest)
    for part in parts:
        rows = {id: index.find(id) for id in part.lost}
        older = [
            id
            for id, row in rows.items()
            if row is not None and sequence_of(index.parts[index.part[row]]) < sequence_of(part.path)
        ]
        if remove_rows(index, older, store.description):
            index = Index.load(store.folder, store.key.digest)


def _check_table(kind: type[Line], path: Path, repair: bool) -> list[Problem]:
    """Check `failures.csv` or `seen.csv`; a repair keeps the lines that are as written."""
    if not path.exists():
        return []
    data = path.read_bytes()
    good, bad = parse(kind, data)
    fresh = render(kind, good.values())
    if fresh == data:
        return []
    if repair:
        publish(path, fresh)
    return [Problem(file=path.name, detail=bad[0] if bad else "not as it was written", rows=len(bad))]
