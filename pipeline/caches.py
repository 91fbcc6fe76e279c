"""A cache root: where its stores lie, which one is meant, and what is done with whole stores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError
from actionvit.features.keys import FeatureKey, describe
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
