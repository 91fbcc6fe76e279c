"""Replacement of part files by one with the same rows or fewer: it is published before the old ones are removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import one_line
from actionvit.features.atomic import atomic_write, remove
from actionvit.features.store.manifest import Manifest, changing_parts, write_manifest
from actionvit.features.store.parts import (
    DamagedPart,
    Table,
    encode_part,
    join_columns,
    open_part,
    part_name,
    sequence_of,
)
from actionvit.features.store.store import FeatureStore


def publish_part(
    store: FeatureStore, sequence: int, table: Table, arrays: Mapping[str, Any], replaced: Sequence[Path] = ()
) -> Path:
    """Publish rows as one part, then remove the parts that it replaces; return its path.

    Parameters
    ----------
    store : FeatureStore
    sequence : int
        Position in the order of parts.
    table, arrays
        As for `parts.encode_part`.
    replaced : sequence of Path
        Parts to remove.
    """
    image = encode_part(table, arrays, {"sequence": sequence, **store.part_attributes})
    path = store.folder / part_name(sequence, image)
    removed = [old for old in replaced if old != path]
    with changing_parts(store.folder, {path.name: len(table)}, [old.name for old in removed]):
        atomic_write(path, image)
        remove(removed)
    return path


def replace_parts(store: FeatureStore, paths: Sequence[Path], rows: NDArray[np.int64] | None = None) -> Path | None:
    """Replace neighboring parts by one that holds some of their rows; by default the last row per id.

    The new part takes the place of the last one, so that the order relative to all other parts stays. After a kill
    between publishing and removing, the store holds some rows twice, which changes nothing. Returns None when no row
    is left.
    """
    contents = [_read_all(path) for path in paths] if rows is None or len(rows) else []
    table = join_columns([table for table, _ in contents])
    if rows is None:
        _, last = np.unique(table["id"][::-1], return_index=True)
        rows = np.sort(len(table) - 1 - last)
    if not len(rows):
        with changing_parts(store.folder, {}, [path.name for path in paths]):
            remove(paths)
        return None
    arrays = {name: np.concatenate([arrays[name] for _, arrays in contents])[rows] for name in contents[0][1]}
    return publish_part(store, sequence_of(paths[-1]), table[rows], arrays, replaced=paths)


def _read_all(path: Path) -> tuple[Table, dict[str, NDArray[Any]]]:
    with open_part(path) as part:
        try:
            arrays = {name: part[name][:] for name in part}
        except (OSError, KeyError, RuntimeError) as error:
            raise DamagedPart(path, one_line(error)) from error
    return arrays.pop("rows"), arrays


def remove_rows(store: FeatureStore, ids: Collection[str] = ()) -> None:
    """Remove all versions of some videos' rows, and all but the last version of the others.

    Only the holder of the lock may call this. A killed writer leaves older versions between publishing a part and
    removing those that it replaces; if they stayed, damage to the last version could bring one back.
    """
    store.refresh()
    index = store.index
    keep = np.ones(len(index), bool)
    keep[[row for id in ids if (row := index.find(id)) is not None]] = False
    remaining = np.bincount(index.part[keep], minlength=len(index.parts))
    affected = np.flatnonzero(remaining < index.sizes)
    for number in affected.tolist():  # ascending: an older version goes before the one that hides it
        replace_parts(store, [index.parts[number]], np.sort(index.offset[keep & (index.part == number)]))
    if len(affected):
        store.refresh()


def adopt_parts(store: FeatureStore) -> None:
    """Make the manifest list exactly the parts in the folder. Only the holder of the lock may call this.

    Differences were logged when the store was read; rows of missing parts are embedded again.
    """
    store.refresh()
    index = store.index
    parts = {path.name: int(size) for path, size in zip(index.parts, index.sizes, strict=True)}
    write_manifest(store.folder, Manifest(parts))
