"""Reading every byte of a store, saying what is not as it was written, and dropping exactly that."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.atomic import TEMPORARY_PREFIX, atomic_write, remove, remove_stale_temporaries
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import NO_FILE, file_digest
from actionvit.features.store.compaction import publish_part, remove_rows
from actionvit.features.store.failures import FAILURES, SEEN, Line, Seen, parse, render
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.locks import LOCK, is_as_written, locked
from actionvit.features.store.parts import (
    BLOCK_BYTES,
    FORMAT,
    PART,
    DamagedPart,
    Table,
    decode_text,
    list_parts,
    matches_digest,
    open_part,
    part_digits,
    part_name,
    read_table,
    read_unchecked,
    sequence_of,
    text_of,
)
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
    """Their ids as far as they can be read, in printable form."""


@dataclass(slots=True)
class _Part:
    """A part after reading all of it."""

    path: Path
    table: Table | None
    good: NDArray[np.bool_]
    detail: str

    @property
    def lost(self) -> list[bytes]:
        return [] if self.table is None else self.table["id"][~self.good].tolist()

    def problem(self) -> Problem:
        """Say what is wrong with it."""
        rows = -1 if self.table is None else int((~self.good).sum())
        ids = tuple(id.decode("utf-8", "backslashreplace") for id in self.lost)
        return Problem(file=self.path.name, detail=self.detail, rows=rows, ids=ids)


def verify(folder: Path, *, repair: bool = False) -> list[Problem]:
    """Read a whole store and return what is damaged; with `repair`, drop exactly that.

    Each part's bytes must be those its name vouches for, each row those its digest vouches for; `key.json`, the CSV
    tables and the lock carry digests of their own. A repair keeps every row whose digest is right, also out of
    chunks whose checksum is wrong, so that the next extraction embeds the others only.

    Raises
    ------
    ActionVitError
        If the folder is no store, or another process writes it while `repair` wants to, or nothing in it tells the
        key any more, or a part of it belongs to another key, which is for a person to decide about.
    """
    if not (folder / KEY).exists() and not list_parts(folder):
        raise ActionVitError(f"{folder}: no feature store here; `actionvit cache ls` lists stores")
    problems = [] if is_as_written(folder / LOCK) else [Problem(file=LOCK, detail="not as its last holder wrote it")]
    with locked(folder) if repair else contextlib.nullcontext():
        store, said = _described(folder)
        problems += said + _check_names(store, repair)
        parts = [part for part in _examine_all(store) if part.detail]
        problems += [part.problem() for part in parts]
        problems += _check_table(Failure, folder / FAILURES, repair) + _check_table(Seen, folder / SEEN, repair)
        if repair and problems:
            remove_stale_temporaries(folder)
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
                key, dataset, variant = (text_of(file, name) for name in ("key", "dataset", "variant"))
            store = FeatureStore(folder, FeatureKey.parse(key), dataset, variant, {})
            return store, [Problem(file=KEY, detail="not as it was written; its parts still tell the key")]
    raise ActionVitError(f"{path}: damaged, and no part is left that tells the key; delete the store's folder")


def _check_names(store: FeatureStore, repair: bool) -> list[Problem]:
    """Find parts that no reader sees, as their names are not what they were; a repair names them by their content."""
    problems = []
    for path in sorted(store.folder.iterdir()):
        passed_over = PART.fullmatch(path.name) or path.name.startswith(TEMPORARY_PREFIX)
        if passed_over or not path.is_file() or not h5py.is_hdf5(path):
            continue
        with contextlib.suppress(DamagedPart, KeyError, OSError), open_part(path) as part:
            if text_of(part, "format") == FORMAT and text_of(part, "key") == store.key.canonical():
                problems.append(Problem(file=path.name, detail="a part by its content, not by its name"))
                if repair:
                    path.rename(store.folder / part_name(int(part.attrs["sequence"]), path.read_bytes()))
    return problems


def _examine_all(store: FeatureStore) -> Iterator[_Part]:
    """Read all parts; those that a writer replaces meanwhile are passed over, their rows are in the next."""
    seen: set[Path] = set()
    while fresh := [path for path in list_parts(store.folder) if path not in seen]:
        for path in fresh:
            seen.add(path)
            with contextlib.suppress(FileNotFoundError):
                yield _examine(path, store.key)


def _examine(path: Path, key: FeatureKey) -> _Part:
    try:
        whole = part_digits(path) == file_digest(path)[:16]
        table, quantities = read_table(path, key, _read)
        with open_part(path) as part:
            good = np.array(list(_are_good(part, table, sorted(quantities))), bool)
    except FileNotFoundError:
        if not path.is_symlink():  # a writer has replaced it
            raise
        return _Part(path, None, np.zeros(0, bool), "a link to nothing")
    except DamagedPart as error:
        return _Part(path, None, np.zeros(0, bool), error.detail)
    except ActionVitError:
        if whole:  # it is another store's, or a newer actionvit's
            raise
        return _Part(path, None, np.zeros(0, bool), "what it says of itself is not as it was written")
    detail = "" if whole and good.all() else "rows differ from their digests" if whole else "bytes differ from its name"
    return _Part(path, table, good, detail)


def _read(data: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Read some rows, those of a damaged chunk as they are: the rows' digests will tell which of them it costs."""
    try:
        rows: NDArray[Any] = data[start:stop]
    except OSError as error:
        logger.debug("%s %s: %s", data.file.filename, data.name, error)
        rows = read_unchecked(data)[start:stop]
    return rows


def _are_good(part: h5py.File, table: Table, names: list[str]) -> Iterator[bool]:
    """Yield whether each row has the digest that it should have."""
    row_bytes = sum(part[name].dtype.itemsize * math.prod(part[name].shape[1:]) for name in names)
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, len(table), step):
        records = table[start : start + step]
        try:
            arrays = {name: _read(part[name], start, start + len(records)) for name in names}
        except (OSError, RuntimeError, ValueError) as error:  # where the chunks lie cannot be told
            logger.debug("%s rows %d to %d: %s", part.filename, start, start + len(records), error)
            arrays = {}
        for at, record in enumerate(records):
            mine = {name: array[at] for name, array in arrays.items()}
            yield bool(mine) and matches_digest(record, mine)


def _mend(part: _Part, store: FeatureStore) -> None:
    """Put the good rows into a new part in the same place; the table's fingerprints are vouched for by nothing now."""
    if part.table is not None and part.good.any():
        table = part.table[part.good]
        table["size"], table["mtime_ns"] = NO_FILE
        with open_part(part.path) as file:
            arrays = {name: _read(file[name])[part.good] for name in file if name != "rows"}
        publish_part(store.folder, sequence_of(part.path), table, arrays, store.description)
    remove([part.path])


def _forget_older(store: FeatureStore, parts: list[_Part]) -> None:
    """Where a lost row was the last word on its video, an older version must not become it."""
    store.refresh()
    index, older = store.index, []
    for part in parts:
        for id in map(decode_text, part.lost):
            row = index.find(id)
            if row is not None and sequence_of(index.parts[index.part[row]]) < sequence_of(part.path):
                older.append(id)
    remove_rows(store, older)


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
        atomic_write(path, fresh)
    return [Problem(file=path.name, detail=bad[0] if bad else "not as it was written", rows=len(bad))]
