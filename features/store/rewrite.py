"""Replacing part files by others with the same rows, or fewer: the new one is published before the old ones go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.durable import publish, remove
from actionvit.features.store.index import Index
from actionvit.features.store.parts import (
    DamagedPart,
    Table,
    encode_part,
    encode_text,
    join_columns,
    open_part,
    part_name,
    sequence_of,
)


def publish_part(
    folder: Path, sequence: int, table: Table, arrays: Mapping[str, Any], description: Mapping[str, str]
) -> Path:
    """Publish rows as the part of that place in the order; `description` is what a part says of its store."""
    image = encode_part(table, arrays, {"sequence": sequence, **description})
    path = folder / part_name(sequence, image)
    publish(path, image)
    return path


def replace_parts(paths: Sequence[Path], description: Mapping[str, str], drop: Collection[str] = ()) -> Path | None:
    """Replace neighbouring parts by one that holds the last row of each id, without those of `drop`.

    It takes the place of the last one, so that it stands to all other parts as they did. Killed between publishing
    and removing, the store holds some rows twice, which changes nothing. Returns None when no row is left.
    """
    read = [_read_all(path) for path in paths]
    table = join_columns([table for table, _ in read])
    dropped = np.array([encode_text(id) for id in drop] or [b""])
    _, last = np.unique(table["id"][::-1], return_index=True)
    rows = np.sort(len(table) - 1 - last)
    rows = rows[~np.isin(table["id"][rows], dropped)]
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


def remove_rows(index: Index, ids: Collection[str], description: Mapping[str, str]) -> bool:
    """Remove every version of some videos' rows; return whether there were any."""
    wanted = np.array([encode_text(id) for id in ids if index.find(id) is not None])
    if not len(wanted):
        return False
    for path in index.parts:
        with open_part(path) as part:
            found = bool(np.isin(part["rows"]["id"], wanted).any())
        if found:
            replace_parts([path], description, ids)
    return True


def drop_dead_parts(index: Index) -> None:
    """Remove parts that a killed writer had replaced already: none of their rows is the last word on its video."""
    live = set(np.unique(index.part).tolist())
    remove(path for number, path in enumerate(index.parts) if number not in live)
