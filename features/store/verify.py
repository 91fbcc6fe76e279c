"""Verification of a store: read every byte, compare it with the digests, and report each difference."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.atomic import TEMPORARY_PREFIX
from actionvit.features.failures import Failure
from actionvit.features.store import repair as repairing
from actionvit.features.store.checked_json import parse_checked
from actionvit.features.store.failures import FAILURES, SEEN, Line, Seen, parse, render
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.locks import LOCK, is_as_written, locked
from actionvit.features.store.manifest import MANIFEST, compare, read_manifest
from actionvit.features.store.parts import (
    BLOCK_BYTES,
    FORMAT,
    PART,
    DamagedPart,
    Table,
    digest_digits,
    list_parts,
    matches_digest,
    name_digits,
    read_despite_checksum,
    read_file,
    read_part_table,
    text_of,
)
from actionvit.features.store.store import KEY, FeatureStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One file of a store whose content has changed since it was written."""

    file: str
    detail: str
    rows: int = 0
    """Rows (or lines) lost; 0 if the damage affects none of them, -1 if their number is unknown."""
    ids: tuple[str, ...] = ()
    """Their ids as far as they can be read, in printable form."""


@dataclass(slots=True)
class ExaminedPart:
    """The result of reading all of a part."""

    path: Path
    table: Table | None
    good: NDArray[np.bool_]
    """Per row of `table`: whether its digest is right."""
    detail: str
    """The damage; empty for a sound part."""

    @property
    def lost_ids(self) -> list[bytes]:
        """Ids of rows whose digest is wrong."""
        return [] if self.table is None else self.table["id"][~self.good].tolist()

    def problem(self) -> Problem:
        """Return the damage as a problem."""
        rows = -1 if self.table is None else int((~self.good).sum())
        ids = tuple(id.decode("utf-8", "backslashreplace") for id in self.lost_ids)
        return Problem(file=self.path.name, detail=self.detail, rows=rows, ids=ids)


def verify_store(folder: Path, *, repair: bool = False) -> list[Problem]:
    """Read a whole store and return the damage found; with `repair`, remove exactly the damaged rows and lines.

    Each part's bytes must have the digest in its name, each row its own digest; `key.json`, the CSV tables and the lock
    carry digests, too. A repair keeps every row whose digest is right, also out of chunks whose checksum is wrong, so
    that the next extraction embeds only the others; it moves damaged parts to `quarantine/`.

    Raises
    ------
    ActionVitError
        If the folder is not a store, another process writes it during a `repair`, the disk fails to read a file (which
        is not damage: nothing is changed), the key cannot be recovered from `key.json` or any part, or a part belongs
        to another key, so that a person has to decide where it goes.
    """
    if not (folder / KEY).exists() and not list_parts(folder):
        raise ActionVitError(f"{folder}: no feature store here; `actionvit cache ls` lists stores")
    problems = (
        [] if is_as_written(folder / LOCK) else [Problem(file=LOCK, detail="changed since its last holder wrote it")]
    )
    with locked(folder) if repair else contextlib.nullcontext():
        store, key_problems = _open_damaged(folder)
        problems += key_problems
        misnamed = _misnamed_parts(store)
        problems += [Problem(file=path.name, detail="a part by its content, not by its name") for path in misnamed]
        real_names = {repairing.name_by_content(path) for path in misnamed}
        if repair:
            repairing.rename_by_content(misnamed)
        parts = [part for part in _examine_all(store) if part.detail]
        problems += [part.problem() for part in parts]
        problems += [problem for problem in _check_manifest(folder) if problem.file not in real_names]
        problems += _check_table(Failure, folder / FAILURES) + _check_table(Seen, folder / SEEN)
        if repair and problems:
            repairing.repair(store, parts)
    return problems


def _check_manifest(folder: Path) -> list[Problem]:
    """Compare the parts in the folder with the manifest."""
    if (folder / MANIFEST).exists() and read_manifest(folder) is None:
        return [Problem(file=MANIFEST, detail="not as it was written")]
    differences = compare(folder)
    if differences is None:
        return []
    problems = [
        Problem(file=name, detail="missing, though the manifest lists it", rows=rows)
        for name, rows in differences.missing.items()
    ]
    problems += [Problem(file=name, detail="a duplicate of another part") for name in differences.duplicates]
    problems += [Problem(file=name, detail=f"renamed from {old}") for name, old in differences.renamed.items()]
    return problems + [
        Problem(file=name, detail="not in the manifest: no writer added it") for name in differences.unlisted
    ]


def _open_damaged(folder: Path) -> tuple[FeatureStore, list[Problem]]:
    """Open a store by its `key.json` or, where that is damaged, by the attributes of an undamaged part."""
    path = folder / KEY
    if path.exists() and parse_checked(read_file(path)) is not None:
        return FeatureStore.open(folder), []
    for part in list_parts(folder):
        image = read_file(part)
        if digest_digits(image) == name_digits(part):
            with h5py.File(io.BytesIO(image), "r") as file:
                key, dataset, variant = (text_of(file, name) for name in ("key", "dataset", "variant"))
            store = FeatureStore(folder, FeatureKey.parse(key), dataset, variant, {})
            return store, [Problem(file=KEY, detail="not as it was written; the key is recovered from a part")]
    raise ActionVitError(f"{path}: damaged, and no undamaged part has the key; delete the store's folder")


def _misnamed_parts(store: FeatureStore) -> list[Path]:
    """Return files that are parts of this store by their content, but whose names no reader recognizes."""
    return [path for path in sorted(store.folder.iterdir()) if _is_misnamed_part(path, store.key)]


def _is_misnamed_part(path: Path, key: FeatureKey) -> bool:
    if PART.fullmatch(path.name) or path.name.startswith(TEMPORARY_PREFIX) or not path.is_file():
        return False
    with contextlib.suppress(KeyError, OSError), h5py.File(path, "r", locking=False) as part:
        return text_of(part, "format") == FORMAT and text_of(part, "key") == key.canonical()
    return False


def _examine_all(store: FeatureStore) -> Iterator[ExaminedPart]:
    """Read all parts; a part that a writer replaces meanwhile is skipped, its rows are in a later one."""
    done: set[Path] = set()
    while new := [path for path in list_parts(store.folder) if path not in done]:
        for path in new:
            done.add(path)
            with contextlib.suppress(FileNotFoundError):
                yield _examine(path, store.key)


def _examine(path: Path, key: FeatureKey) -> ExaminedPart:
    nothing = np.zeros(0, bool)
    try:
        image = read_file(path)
    except FileNotFoundError:
        if not path.is_symlink():  # a writer has replaced it
            raise
        return ExaminedPart(path, None, nothing, "dangling symbolic link")
    # From here on the part is read from memory: a failing disk cannot look like a damaged part.
    intact = name_digits(path) == digest_digits(image)
    try:
        with _open_image(path, image) as part:
            table, quantities = read_part_table(part, path, key, read_despite_checksum)
            good = np.array(list(_rows_are_good(part, table, sorted(quantities))), bool)
    except DamagedPart as error:
        return ExaminedPart(path, None, nothing, error.detail)
    except ActionVitError:
        if intact:  # a part of another store, or of a newer actionvit
            raise
        return ExaminedPart(path, None, nothing, "attributes changed since they were written")
    detail = "" if good.all() else "rows differ from their digests"
    return ExaminedPart(path, table, good, detail if intact else "bytes differ from its name")


def _open_image(path: Path, image: bytes) -> h5py.File:
    try:
        return h5py.File(io.BytesIO(image), "r")
    except OSError as error:
        raise DamagedPart(path, "not HDF5") from error


def _rows_are_good(part: h5py.File, table: Table, names: list[str]) -> Iterator[bool]:
    """Yield whether each row has the right digest."""
    row_bytes = sum(part[name].dtype.itemsize * math.prod(part[name].shape[1:]) for name in names)
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, len(table), step):
        entries = table[start : start + step]
        try:
            arrays = {name: read_despite_checksum(part[name], start, start + len(entries)) for name in names}
        except (OSError, RuntimeError, ValueError) as error:  # the locations of the chunks are damaged
            logger.debug("rows %d to %d: %s", start, start + len(entries), error)
            arrays = {}
        for position, entry in enumerate(entries):
            row = {name: array[position] for name, array in arrays.items()}
            yield bool(row) and matches_digest(entry, row)


def _check_table(kind: type[Line], path: Path) -> list[Problem]:
    """Check `failures.csv` or `seen.csv` line by line."""
    if not path.exists():
        return []
    data = read_file(path)
    good, bad = parse(kind, data)
    if render(kind, good.values()) == data:
        return []
    return [Problem(file=path.name, detail=bad[0] if bad else "not as it was written", rows=len(bad))]
