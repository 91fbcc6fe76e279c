"""The stores below a cache root: their folders, and the choice of one by dataset, variant and settings."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.store.keys import FeatureKey, describe, flatten
from actionvit.features.store.parts import list_parts
from actionvit.features.store.store import KEY, FeatureStore

logger = logging.getLogger(__name__)

Leaf = str | int | float | bool | None
Shard = tuple[int, int]
"""Shard i of n, i from 1."""


def store_folder(cache: Path, dataset: str, variant: str, key: FeatureKey, shard: Shard | None = None) -> Path:
    """Return the folder of the store of a dataset and key; shards lie beside it.

    Parameters
    ----------
    cache : Path
        The cache root.
    dataset, variant : str
        Names of the dataset and of the encoder.
    key : FeatureKey
    shard : (i, n), optional
        The store of shard i of n instead of the whole dataset.
    """
    name = f"{variant}-{key.digest[:10]}"
    return cache / dataset / (name if shard is None else f"{name}.shard-{shard[0]}-of-{shard[1]}")


def shard_number(id: str, shards: int) -> int:
    """Return the shard of a video, from 0; it depends on the id alone."""
    return int(hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:12], 16) % shards


def in_shard(id: str, shard: Shard) -> bool:
    """Return whether a video belongs to a shard."""
    return shard_number(id, shard[1]) == shard[0] - 1


def find_stores(cache: Path) -> list[FeatureStore]:
    """Return the stores below a cache root, by folder, each once; empty if the folder does not exist."""
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


def find_store(
    cache: Path,
    dataset: str,
    variant: str,
    *,
    names: Sequence[str] = (),
    root: Path = Path("ROOT"),
    known: Sequence[str] = (),
    **settings: Leaf,
) -> FeatureStore:
    """Return the one store of a dataset and variant that has some settings.

    Parameters
    ----------
    cache : Path
        The cache root.
    dataset, variant : str
        Names, as extraction recorded them.
    names : sequence of str
        Stores to choose from: a folder or its name, the beginning of a key digest or of the weights' sha256, or the
        weights' recorded name. Names of other variants' stores are ignored.
    root : Path, optional
        Folder or list of the dataset, for the command that the error advises.
    known : sequence of str, optional
        The variants that `actionvit extract` takes, for the same.
    **settings
        Leaves of the key, dots as double underscores: `clip__num_frames=8, precision="fp32"`.

    Raises
    ------
    ActionVitError
        If there is none, or several; the error lists the stores, how they differ, and the remedy. A SettingError if the
        variant has stores, and none with the settings.
    """
    stores = find_stores(cache)
    of_dataset = [store for store in stores if store.dataset == dataset and store.variant == variant]
    if unknown := [name for name in names if not any(is_named(store, name) for store in stores)]:
        raise SettingError(f"{cache}: no store {unknown[0]!r}; `actionvit cache ls` lists stores")
    named = [store for store in of_dataset if any(is_named(store, name) for name in names)] or of_dataset
    matching = [store for store in named if all(_leaf(store.key, name) == value for name, value in settings.items())]
    complete = [store for store in matching if shard_of(store) is None]
    if len(complete) > 1:  # a run that was stopped at once leaves a store without rows
        complete = [store for store in complete if list_parts(store.folder)] or complete
        # A copy that a person made lies in another folder, and no extraction keeps it up to date.
        complete = [store for store in complete if store.folder.parent.name == dataset] or complete
    if len(complete) == 1:
        return complete[0]
    if complete:
        listing = "; ".join(f"{name}: {text}" for name, text in distinctions(complete).items())
        raise ActionVitError(
            f"{cache}: {len(complete)} stores of {dataset} {variant} match ({listing}); choose one with "
            f"store={complete[0].folder.name}"
        )
    if matching:
        raise ActionVitError(
            f"{cache}: only shards of {dataset} {variant}: join them with `actionvit cache merge "
            f"{joined_folder(matching[:1])}.shard-*`"
        )
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in _short(settings).items())
    place = shlex.quote(str(root))
    of_variant = f"`actionvit extract {place} --variant {variant}{options}`"
    advice = f"run {of_variant if variant in known else f'`actionvit extract {place} --encoder SRC{options}`'}"
    if named:
        existing = sorted({_in_words({name: _leaf(store.key, name) for name in settings}) for store in named})
        raise SettingError(
            f"{cache}: no embeddings of {dataset} {variant} with {_in_words(settings)}, only with"
            f" {' or '.join(existing)}; choose from these, or {advice}"
        )
    cached = sorted({store.variant for store in stores if store.dataset == dataset})
    raise _no_store(cache, dataset, variant, advice, cached, known)


def _no_store(
    cache: Path, dataset: str, variant: str, advice: str, cached: Sequence[str], known: Sequence[str]
) -> ActionVitError:
    """Return the error for a variant without a store, given the dataset's variants that have one."""
    if not cached:
        return ActionVitError(f"no embeddings of {dataset} in {cache}; {advice}")
    others = f"cached for {dataset}: {', '.join(cached)}"
    if variant in known:
        return ActionVitError(f"{cache}: no embeddings of {dataset} {variant}, {others}; {advice}")
    near = difflib.get_close_matches(variant, [*cached, *known], n=1)
    hint = f"did you mean {near[0]}?" if near else "choose one of these"
    return SettingError(f"variant: no embeddings of {dataset} for {variant!r} in {cache}; {others}; {hint}")


def _short(settings: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Return settings by the last part of their names: `num_frames` instead of `clip__num_frames`."""
    return {name.rpartition("__")[2]: value for name, value in settings.items()}


def _in_words(settings: Mapping[str, Leaf]) -> str:
    """Return `num_frames=8 size=224`."""
    return " ".join(f"{name}={value}" for name, value in _short(settings).items())


def distinctions(stores: Sequence[FeatureStore]) -> dict[str, str]:
    """Return the settings in which stores differ, by folder name: `clip.num_frames 8, weights ...`."""
    leaves = [flatten(store.key.to_dict()) for store in stores]
    names = {name for other in leaves for name in other if any(each.get(name) != other[name] for each in leaves)}
    texts = {}
    for store, values in zip(stores, leaves, strict=True):
        parts = [f"{name} {values[name]}" for name in sorted(names - {"weights"}) if name in values]
        if "weights" in names:
            parts.append(f"weights {store.info.get('weights', '?')} ({store.key.weights[:10]})")
        texts[store.folder.name] = ", ".join(parts)
    return texts


def is_named(store: FeatureStore, name: str) -> bool:
    """Return whether a name is one of a store's, as `find_store` takes them."""
    digests = (store.key.digest, store.key.weights)
    return (
        name in (store.folder.name, store.info.get("weights"))
        or (len(name) >= 6 and any(digest.startswith(name) for digest in digests))
        or Path(name).resolve() == store.folder.resolve()
    )


def _leaf(key: FeatureKey, name: str) -> Leaf:
    """Return the value of a setting such as `clip__num_frames`; None if the key has none of that name."""
    leaf: Leaf = flatten(key.to_dict()).get(name.replace("__", "."))
    return leaf


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
    if not folders:
        raise ActionVitError(f"{path}: contains no store; `actionvit extract` makes one")
    if len(folders) > 1:
        raise ActionVitError(f"{path}: contains {len(folders)} stores; name one: {', '.join(map(str, folders))}")
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
    differs: str = ""
    """Settings in which it differs from the other stores of its dataset and variant."""

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


def summarize_all(cache: Path) -> list[StoreSummary]:
    """Return the summary of each store below a cache root, with the settings in which its stores differ."""
    stores = find_stores(cache)
    groups: dict[tuple[str, str], list[FeatureStore]] = {}
    for store in stores:
        groups.setdefault((store.dataset, store.variant), []).append(store)
    differs = {key: distinctions(group) for key, group in groups.items()}
    return [
        replace(summarize(store), differs=differs[store.dataset, store.variant][store.folder.name]) for store in stores
    ]


def _file_sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a writer has replaced it
            yield path.lstat().st_size


def last_written(store: FeatureStore) -> float:
    """Return when a store last got rows (or was made), in seconds since 1970."""
    times = [(store.folder / KEY).stat().st_mtime]
    for path in list_parts(store.folder):
        with contextlib.suppress(FileNotFoundError):  # a writer has replaced it
            times.append(path.stat().st_mtime)
    return max(times)


def shard_of(store: FeatureStore) -> Shard | None:
    """Return (i, n) for the store of shard i of n, None for a complete one."""
    match = re.fullmatch(r".*\.shard-(\d+)-of-(\d+)", store.folder.resolve().name)
    return (int(match[1]), int(match[2])) if match else None


def joined_folder(stores: Sequence[FeatureStore]) -> Path:
    """Return the folder for the merged rows of shards that lie together. Raises ActionVitError if they do not."""
    places = [store.folder.resolve() for store in stores]
    folders = {place.with_name(re.sub(r"\.shard-\d+-of-\d+$", "", place.name)) for place in places}
    if len(folders) != 1 or any(shard_of(store) is None for store in stores):
        raise ActionVitError(f"{stores[0].folder} and the others are not shards that lie together; give output=FOLDER")
    return folders.pop()
