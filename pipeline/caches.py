"""A cache root: where its stores lie, which one is meant, and what is done with whole stores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.errors import ActionVitError
from actionvit.features.keys import FeatureKey, describe
from actionvit.features.locks import locked
from actionvit.features.parts import list_parts, part_name, sequence_of
from actionvit.features.rewrite import remove
from actionvit.features.store import KEY, FeatureStore

Leaf = str | int | float | bool | None


def store_folder(
    cache: Path, dataset: str, variant: str, key: FeatureKey, shard: tuple[int, int] | None = None
) -> Path:
    """Return where the store of a dataset and key lies; shards (i of n, from 1) lie beside it."""
    name = f"{variant}-{key.digest[:10]}"
    return cache / dataset / (name if shard is None else f"{name}.shard-{shard[0]}-of-{shard[1]}")


def in_shard(id: str, shard: tuple[int, int]) -> bool:
    """Return whether a video belongs to shard i of n (from 1); decided by its id alone, wherever it is asked."""
    return int(hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:12], 16) % shard[1] == shard[0] - 1


def find_stores(cache: Path) -> list[FeatureStore]:
    """Return the stores below a cache root, by folder; none where there is no such folder."""
    return [FeatureStore.open(path.parent) for path in sorted(cache.glob(f"*/*/{KEY}"))]


def find_store(cache: Path, dataset: str, variant: str, **wanted: Leaf) -> FeatureStore:
    """Return the one store of a dataset and variant.

    `wanted` are leaves of the key that must hold, dots as double underscores: `clip__num_frames=8, precision="fp32"`.

    Raises
    ------
    ActionVitError
        If there is none, or several; it says what there is, how they differ, and the remedy.
    """
    stores = find_stores(cache)
    found = [store for store in stores if store.dataset == dataset and store.variant == variant]
    fits = [store for store in found if _fits(store.key, wanted)]
    whole = [store for store in fits if ".shard-" not in store.folder.name]
    if len(whole) == 1:
        return whole[0]
    if whole:
        others = "; ".join(
            f"{store.folder.name}: {describe(whole[0].key.differences(store.key))}" for store in whole[1:]
        )
        raise ActionVitError(
            f"{cache}: {len(whole)} stores of {dataset} {variant}, and nothing says which: {whole[0].folder.name} "
            f"(here) against {others} (there); name one, or `actionvit cache prune` the others"
        )
    if fits:
        raise ActionVitError(
            f"{cache}: only shards of {dataset} {variant}: join them with `actionvit cache merge {cache / dataset}/*`"
        )
    there = ", ".join(sorted({f"{store.dataset} {store.variant}" for store in stores})) or "nothing"
    asked = "".join(f" {name.replace('__', '.')}={value}" for name, value in wanted.items()) if found else ""
    raise ActionVitError(
        f"{cache}: no embeddings of {dataset} {variant}{asked}, only {there}; "
        f"run `actionvit extract --variant {variant}`"
    )


def _fits(key: FeatureKey, wanted: Mapping[str, Leaf]) -> bool:
    for name, value in wanted.items():
        found: Any = key.to_dict()
        for step in name.split("__"):
            found = found.get(step) if isinstance(found, dict) else None
        if found != value:
            return False
    return True


def one_store(path: Path) -> FeatureStore:
    """Open the store in a folder, or the only one below a cache root. Raises ActionVitError if that is not one."""
    if (path / KEY).exists():
        return FeatureStore.open(path)
    stores = find_stores(path)
    if len(stores) != 1:
        names = ", ".join(str(store.folder) for store in stores) or "none"
        raise ActionVitError(f"{path}: is no store, and holds {len(stores)} ({names}); name one")
    return stores[0]


def damaged_parts(store: FeatureStore) -> list[Path]:
    """Return the part files whose bytes are not those that their names vouch for; reads every byte."""
    return [path for path in list_parts(store.folder) if path.name != part_name(sequence_of(path), path.read_bytes())]


def repair(store: FeatureStore, damaged: list[Path]) -> None:
    """Remove damaged parts; the next `actionvit extract` embeds their rows again."""
    with locked(store.folder):
        remove(damaged)
    store.forget()


def merge(stores: list[FeatureStore], out: Path) -> FeatureStore:
    """Copy the rows of several stores of one key into the store at `out`; rows that are there already stay.

    Raises
    ------
    ActionVitError
        If keys differ (it names the fields with both values), or `out` holds another key.
    """
    first = stores[0]
    for store in stores[1:]:
        if differences := first.key.differences(store.key):
            raise ActionVitError(
                f"{store.folder}: another key than {first.folder}: {describe(differences)} "
                f"(here: the latter, there: the former); merge only shards of one extraction"
            )
    merged = FeatureStore.create(
        out, key=first.key, dataset=first.dataset, variant=first.variant, info={**first.info, "merged": len(stores)}
    )
    with merged.writer() as writer:
        held = set(merged.ids)
        for store in stores:
            for id in store.ids:
                if id not in held:
                    writer.append(store.row(id))
                    held.add(id)
    return merged


def export(store: FeatureStore, labels: Mapping[str, str], out: Path, form: str) -> int:
    """Write a store's rows, in id order, as one file that other tools read; return how many.

    Parameters
    ----------
    store : FeatureStore
        What is written: `id (N,)`, `label (N,)`, `clip (N, K, D)`, `frame (N, K, T, D)`, `index (N, K, T)`, and
        what else it holds.
    labels : mapping
        From id to class name; empty where it is silent.
    out : Path
        The file, replaced if it is there.
    form : {"npz", "h5"}
    """
    import h5py

    ids = store.ids
    names = [labels.get(id, "") for id in ids]
    arrays: dict[str, Any] = {name: store.read(ids, name) for name in store.quantities}
    fresh = out.with_name(f".{out.name}.new")
    if form == "npz":
        with fresh.open("wb") as file:
            np.savez(file, id=np.array(ids, dtype=np.str_), label=np.array(names, dtype=np.str_), **arrays)
    else:
        with h5py.File(fresh, "w") as file:
            for name, texts in (("id", ids), ("label", names)):
                file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
    fresh.replace(out)
    return len(ids)
