"""The stores below a cache root: their folders, and the choice of one by dataset, variant and settings."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError
from actionvit.features.store.keys import FeatureKey, describe
from actionvit.features.store.locks import locked
from actionvit.features.store.parts import list_parts
from actionvit.features.store.store import KEY, FeatureStore

logger = logging.getLogger(__name__)

Leaf = str | int | float | bool | None
Shard = tuple[int, int]
"""Shard i of n, i from 1."""


def store_folder(cache: Path, dataset: str, variant: str, key: FeatureKey, shard: Shard | None = None) -> Path:
    """Return the folder of the store of a dataset and key; shards lie beside it."""
    name = f"{variant}-{key.digest[:10]}"
    return cache / dataset / (name if shard is None else f"{name}.shard-{shard[0]}-of-{shard[1]}")


def shard_number(id: str, shards: int) -> int:
    """Return the shard of a video, from 0; it depends on the id alone."""
    return int(hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:12], 16) % shards


def in_shard(id: str, shard: Shard) -> bool:
    """Return whether a video belongs to a shard."""
    return shard_number(id, shard[1]) == shard[0] - 1


def find_stores(cache: Path) -> list[FeatureStore]:
    """Return the stores below a cache root, by folder, each once; none if there is no such folder."""
    stores = _open_all(cache.glob(f"*/*/{KEY}"))
    # If symbolic links give one folder several names, keep its own name: it sorts last here.
    by_folder = {store.folder.resolve(): store for store in sorted(stores, key=_is_no_link)}
    return [store for store in stores if by_folder[store.folder.resolve()] is store]


def _is_no_link(store: FeatureStore) -> bool:
    return not (store.folder.is_symlink() or store.folder.parent.is_symlink())


def sibling_stores(cache: Path, store: FeatureStore) -> list[FeatureStore]:
    """Return the other stores of a store's key: shards, and stores of overlapping or renamed datasets."""
    others = _open_all(cache.glob(f"*/*-{store.key.digest[:10]}*/{KEY}"))
    return [other for other in others if other.key == store.key and other.folder.resolve() != store.folder.resolve()]


def other_keys(store: FeatureStore) -> list[str]:
    """Describe how the key of each store of the same dataset and variant differs from this one's, newest first."""
    others = [
        other
        for other in _open_all(store.folder.parent.glob(f"*/{KEY}"))
        if other.variant == store.variant and list_parts(other.folder)
    ]
    others.sort(key=last_written, reverse=True)
    differences = {other.folder.name: store.key.differences(other.key) for other in others}
    return [f"{name}: {describe(leaves)}" for name, leaves in differences.items() if leaves]


def _open_all(key_files: Iterable[Path]) -> list[FeatureStore]:
    """Open the stores of some `key.json`, by folder; damaged ones are logged and left out."""
    stores = []
    for path in sorted(key_files):
        try:
            stores.append(FeatureStore.open(path.parent))
        except ActionVitError as error:
            logger.warning("%s", error)
    return stores


def find_store(cache: Path, dataset: str, variant: str, **settings: Leaf) -> FeatureStore:
    """Return the one store of a dataset and variant that has some settings.

    Parameters
    ----------
    cache : Path
        The cache root.
    dataset, variant : str
        Names, as extraction recorded them.
    **settings
        Leaves of the key, dots as double underscores: `clip__num_frames=8, precision="fp32"`.

    Raises
    ------
    ActionVitError
        If there is none, or several; the error lists the stores, how they differ, and the remedy.
    """
    stores = find_stores(cache)
    of_dataset = [store for store in stores if store.dataset == dataset and store.variant == variant]
    matching = [store for store in of_dataset if _has_settings(store.key, settings)]
    complete = [store for store in matching if shard_of(store) is None]
    if len(complete) > 1:  # a run that was stopped at once leaves a store without rows
        complete = [store for store in complete if list_parts(store.folder)] or complete
        # A copy that a person made lies in another folder, and no extraction keeps it up to date.
        complete = [store for store in complete if store.folder.parent.name == dataset] or complete
    if len(complete) == 1:
        return complete[0]
    if complete:
        first = complete[0]
        others = "; ".join(
            f"{store.folder.name}: {describe(first.key.differences(store.key))}" for store in complete[1:]
        )
        raise ActionVitError(
            f"{cache}: {len(complete)} stores of {dataset} {variant}, and nothing says which: {first.folder.name} "
            f"(here) against {others} (there); {_choice(complete)}"
        )
    if matching:
        raise ActionVitError(
            f"{cache}: only shards of {dataset} {variant}: join them with `actionvit cache merge "
            f"{joined_folder(matching[:1])}.shard-*`"
        )
    existing = ", ".join(sorted({f"{store.dataset} {store.variant}" for store in stores})) or "nothing"
    requested = "".join(f" {name.replace('__', '.')}={value}" for name, value in settings.items()) if of_dataset else ""
    raise ActionVitError(
        f"{cache}: no embeddings of {dataset} {variant}{requested}, only {existing}; "
        f"run `actionvit extract --variant {variant}`"
    )


def _choice(stores: Sequence[FeatureStore]) -> str:
    """Return the options that select one of several stores."""
    leaves = {name for store in stores[1:] for name, _, _ in stores[0].key.differences(store.key)}
    options = [
        option for option, leaf in (("--num-frames", "clip.num_frames"), ("--size", "clip.size")) if leaf in leaves
    ]
    return f"say which with {' or '.join(options)}" if options else "`actionvit cache prune` those that you do not want"


def _has_settings(key: FeatureKey, settings: Mapping[str, Leaf]) -> bool:
    for name, expected in settings.items():
        value: Any = key.to_dict()
        for step in name.split("__"):
            value = value.get(step) if isinstance(value, dict) else None
        if value != expected:
            return False
    return True


def single_store_folder(path: Path) -> Path:
    """Return `path` if it is a store, or the only store below it (a dataset's folder or a cache root).

    Raises
    ------
    ActionVitError
        If there is not exactly one.
    """
    if (path / KEY).exists() or list(path.glob("part-*.h5")):  # without its key it is a damaged store
        return path
    folders = sorted(key_file.parent for below in ("*", "*/*") for key_file in path.glob(f"{below}/{KEY}"))
    if len(folders) != 1:
        names = ", ".join(map(str, folders)) or "`actionvit extract` makes one"
        raise ActionVitError(f"{path}: is no store, and holds {len(folders)} of them, not one: {names}")
    return folders[0]


def open_single(path: Path) -> FeatureStore:
    """Open the store in a folder, or the only one below it. Raises ActionVitError if there is not exactly one."""
    return FeatureStore.open(single_store_folder(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSummary:
    """One line of `cache ls`."""

    dataset: str
    variant: str
    rows: int
    failed: int
    damage: str
    """Why the rows cannot be counted; empty if they can."""
    videos: int | None
    """Videos of the dataset at the last extraction; None if not recorded."""
    bytes: int
    written: float
    """When the last part was published, in seconds since 1970."""
    store: str

    @property
    def coverage(self) -> float | None:
        """Fraction of the dataset's videos that have a row; None if unknown or some rows are of removed videos."""
        return self.rows / self.videos if self.videos and self.rows <= self.videos else None


def summarize(store: FeatureStore) -> StoreSummary:
    """Return a store's numbers; without rows, and with the reason, if its tables are damaged."""
    try:
        rows, failed, damage = len(store), len(store.failures()), ""
    except ActionVitError as error:
        rows, failed, damage = 0, 0, str(error)
    return StoreSummary(
        dataset=store.dataset,
        variant=store.variant,
        rows=rows,
        failed=failed,
        damage=damage,
        videos=store.info.get("videos"),
        bytes=sum(_file_sizes(store.folder)),
        written=last_written(store),
        store=str(store.folder),
    )


def _file_sizes(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a writer has replaced it
            yield path.stat().st_size


def last_written(store: FeatureStore) -> float:
    """Return when a store last got rows (or was made), in seconds since 1970."""
    times = [(store.folder / KEY).stat().st_mtime]
    for path in list_parts(store.folder):
        with contextlib.suppress(FileNotFoundError):  # a writer has replaced it
            times.append(path.stat().st_mtime)
    return max(times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A store that another one replaces."""

    store: FeatureStore
    reason: str


def stale_stores(stores: Sequence[FeatureStore]) -> list[Stale]:
    """Return the stores of an older key than the last written one of their dataset and variant, and merged shards.

    Nothing says that an older key is wrong (8 and 16 frames may both be wanted): it is for a person to decide. Links
    are left out, for what they lead to lies outside the cache.
    """
    groups: dict[tuple[str, str], list[FeatureStore]] = {}
    for store in sorted(stores, key=lambda store: (bool(list_parts(store.folder)), last_written(store)), reverse=True):
        groups.setdefault((store.dataset, store.variant), []).append(store)
    found = []
    for group in groups.values():
        whole = [store for store in group if shard_of(store) is None]
        for store in whole[1:]:
            if store.key == whole[0].key:  # one is a copy of the other: no reason to delete either
                continue
            older = "older key" if list_parts(store.folder) else "no rows"
            differences = describe(store.key.differences(whole[0].key))
            found.append(Stale(store=store, reason=f"{older}: {differences} (here: this one, there: the newest)"))
        for store in group:
            twin = next((one for one in whole if one.key == store.key), None)
            with contextlib.suppress(ActionVitError):  # of what cannot be read nobody knows that it is elsewhere
                if shard_of(store) is not None and twin is not None and _contents(store) <= _contents(twin):
                    found.append(Stale(store=store, reason=f"all its rows are in {twin.folder.name}"))
    return [stale for stale in found if not stale.store.folder.is_symlink()]


def _contents(store: FeatureStore) -> set[tuple[str, bytes]]:
    """Return (id, digest of the video's content) of each row."""
    return set(zip(store.index.ids, store.index.columns["digest"].tolist(), strict=True))


def shard_of(store: FeatureStore) -> Shard | None:
    """Return (i, n) for the store of shard i of n, None for a complete one."""
    match = re.fullmatch(r".*\.shard-(\d+)-of-(\d+)", store.folder.resolve().name)
    return (int(match[1]), int(match[2])) if match else None


def joined_folder(stores: Sequence[FeatureStore]) -> Path:
    """Return the folder for the merged rows of shards that lie together. Raises ActionVitError if they do not."""
    places = [store.folder.resolve() for store in stores]
    folders = {place.with_name(re.sub(r"\.shard-\d+-of-\d+$", "", place.name)) for place in places}
    if len(folders) != 1 or any(shard_of(store) is None for store in stores):
        raise ActionVitError(
            f"{stores[0].folder} and the others are not shards that lie together; give --output FOLDER"
        )
    return folders.pop()


def delete(store: FeatureStore) -> None:
    """Delete a store. Raises ActionVitError if it is a link, another process writes it, or permissions forbid it."""
    if store.folder.is_symlink():
        raise ActionVitError(f"{store.folder}: is a link to {store.folder.resolve()}; prune that, and remove the link")
    try:
        with locked(store.folder):
            (store.folder / KEY).unlink()  # first: half deleted, it is no store any more
            shutil.rmtree(store.folder)
    except OSError as error:
        raise ActionVitError(f"{store.folder}: cannot be deleted: {error.strerror}; check its permissions") from error
