"""Export of a store for other tools: ids, labels and arrays in id order, as one file or one file per video."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.atomic import atomic_folder, atomic_path, restore_folder
from actionvit.features.store import export_formats as formats
from actionvit.features.store.store import FeatureStore

Format = Literal["npz", "h5", "parquet", "safetensors", "npy-folder"]
FIXED = ("clip", "frame", "index")
IDENTITY = ("dataset", "variant", "key")
"""Recorded names that a replaced export must share with the new one."""
WRITERS: dict[Format, Callable[[Path, formats.Texts, formats.Arrays, str], None]] = {
    "npz": formats.write_npz,
    "h5": formats.write_h5,
    "parquet": formats.write_parquet,
    "safetensors": formats.write_safetensors,
    "npy-folder": formats.write_npy_folder,
}


def export_store(
    store: FeatureStore,
    out: Path,
    format: Format,
    *,
    columns: Mapping[str, Mapping[str, str]],
    also: Sequence[str] = (),
    overwrite: bool = False,
) -> list[str]:
    """Write a store's rows, in id order; return their ids.

    Parameters
    ----------
    store : FeatureStore
        Its `id (N,)`, `clip (N, K, D)`, `frame (N, K, T, D)` and `index (N, K, T)` are written.
    out : Path
        The file, or the folder for `npy-folder`; it appears complete, and replaces an earlier export of the store.
    format : {"npz", "h5", "parquet", "safetensors", "npy-folder"}
        `parquet` has one row per video, arrays as nested lists of fixed size, and needs pyarrow; `safetensors` has the
        texts as JSON in its metadata; `npy-folder` has `frame` only, one file per video.
    columns : mapping of name to mapping of id to text
        Further texts per video, such as `label` and `source`; empty where an id is absent.
    also : sequence of str
        Further quantities of the store, such as `layer9`.
    overwrite : bool
        Replace the export of another store; never a file, or a folder with files, of other origin.

    Raises
    ------
    ActionVitError
        If a quantity does not exist, the file cannot be written or exists with other content, `out` is, contains or
        lies in the store or is a link or device, or pyarrow is needed and not installed.
    """
    if unknown := [name for name in also if name not in store.quantities]:
        existing = ", ".join(sorted(store.quantities))
        raise SettingError(f"{store.folder}: no quantity {unknown[0]!r}, only {existing}; leave it out")
    if not len(store):
        raise ActionVitError(f"{store.folder}: no rows to export; run `actionvit extract` first")
    ids, names = store.ids, [name for name in (*FIXED, *also) if name in store.quantities]
    texts = {"id": ids, **{name: [column.get(id, "") for id in ids] for name, column in columns.items()}}
    about = {"dataset": store.dataset, "variant": store.variant, "digest": store.digest(), "key": store.key.to_dict()}
    arrays = {name: formats.Blocks(store, ids, name) for name in dict.fromkeys(names)}
    _check_place(out, store, is_folder=format == "npy-folder")
    restore_folder(out)  # remove the leftovers of a killed export
    _check_replaceable(out, store, about, overwrite=overwrite)
    with (atomic_folder if format == "npy-folder" else atomic_path)(out) as temporary:
        WRITERS[format](temporary, texts, arrays, json.dumps(about))
        if store.digest_of(ids) != about["digest"]:
            raise ActionVitError(f"{store.folder}: rows changed while they were exported; run this again")
    return ids


def _check_place(out: Path, store: FeatureStore, *, is_folder: bool) -> None:
    """Raise ActionVitError if `out` overlaps the store or is something else than a regular file or folder."""
    place, folder = out.resolve(), store.folder.resolve()
    if place.is_relative_to(folder) or folder.is_relative_to(place):
        raise ActionVitError(f"{out}: is, contains or lies in the store {store.folder}; choose another output=")
    kind = "folder" if is_folder else "regular file"
    if out.is_symlink() or (out.exists() and not (out.is_dir() if is_folder else out.is_file())):
        raise ActionVitError(f"{out}: exists and is not a {kind}; choose another output=")


def _check_replaceable(out: Path, store: FeatureStore, about: Mapping[str, object], *, overwrite: bool) -> None:
    """Raise ActionVitError if `out` exists and is neither an earlier export of the store nor an empty folder.

    With `overwrite`, the export of another store may be replaced, and no other file.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if (foreign := _foreign_file(out)) is not None:
        raise ActionVitError(f"{foreign}: was not written by an export; move it, or choose another output=")
    new, old = json.loads(json.dumps(about)), formats.read_about(out)
    if not overwrite and any(old.get(name) != new[name] for name in IDENTITY):
        raise ActionVitError(
            f"{out} exists and is no earlier export of {store.folder}; choose another output=, or overwrite=True to"
            " replace it"
        )


def _foreign_file(out: Path) -> Path | None:
    """Return the first file at or below `out` that no export wrote; None if there is none."""
    if out.is_file():
        return None if set(IDENTITY) <= formats.read_about(out).keys() else out
    written = formats.npy_folder_files(out)
    for path in sorted(out.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.relative_to(out).as_posix() in written):
            return path
    return None
