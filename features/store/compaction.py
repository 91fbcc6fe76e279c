"""Replacing part files by others with the same rows, or fewer: the new one is published before the old ones go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.atomic import atomic_write, remove
from actionvit.features.store.parts import (
    DamagedPart,
    Table,
    encode_part,
    join_columns,
    open_part,
    part_name,
    sequence_of,
)

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore


def publish_part(
    folder: Path, sequence: int, table: Table, arrays: Mapping[str, Any], description: Mapping[str, str]
) -> Path:
    """Publish rows as the part of that place in the order; `description` is what a part says of its store."""
    image = encode_part(table, arrays, {"sequence": sequence, **description})
    path = folder / part_name(sequence, image)
    atomic_write(path, image)
    return path


def replace_parts(
    paths: Sequence[Path], description: Mapping[str, str], rows: NDArray[np.int64] | None = None
) -> Path | None:
    """Replace neighbouring parts by one that holds some of their rows; by default the last one of each id.

    It takes the place of the last part, so that it stands to all others as they did. Killed between publishing and
    removing, the store holds some rows twice, which changes nothing. Returns None when no row is left.
    """
    read = [_read_all(path) for path in paths] if rows is None or len(rows) else []
    table = join_columns([table for table, _ in read])
    if rows is None:
        _, last = np.unique(table["id"][::-1], return_index=True)
        rows = np.sort(len(table) - 1 - last)
    new = None
    if len(rows):
        arrays = {name: np.concatenate([arrays[name] for _, arrays in read])[rows] for name in read[0][1]}
        new = publish_part(paths[-1].parent, sequence_of(paths[-1]), table[rows], arrays, description)
    remove(path for path in paths if path != new)
    return new


def _read_all(path: Path) -> tuple[Table, dict[str, NDArray[Any]]]:
    with open_part(path) as part:
        try:
            arrays = {name: part[name][:] for name in part}
        except (OSError, KeyError, RuntimeError) as error:
            raise DamagedPart(path, str(error).splitlines()[0]) from error
    return arrays.pop("rows"), arrays


def remove_rows(store: FeatureStore, ids: Collection[str] = ()) -> None:
    """Remove every version of some videos' rows, and of all others but the last; only the lock's holder may.

    A killed writer leaves older versions between publishing a part and removing those that it replaces. Were they
    kept, damage to the last word could bring one back.
    """
    store.refresh()
    index = store.index
    keep = np.ones(len(index), bool)
    keep[[row for id in ids if (row := index.find(id)) is not None]] = False
    kept = np.bincount(index.part[keep], minlength=len(index.parts))
    found = np.flatnonzero(kept < index.sizes)
    for number in found.tolist():  # rising: an older version goes before the one that hides it
        replace_parts([index.parts[number]], store.description, np.sort(index.at[keep & (index.part == number)]))
    if len(found):
        store.refresh()
