"""Stores that another one replaces, and their removal."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actionvit.errors import ActionVitError
from actionvit.features.store.catalog import shard_of
from actionvit.features.store.locks import locked
from actionvit.features.store.parts import list_parts
from actionvit.features.store.store import KEY, FeatureStore

CurrentDigest = Callable[[FeatureStore], str | None]
"""Return the sha256 of the weights that now have the name a store recorded: empty if gone, None if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """A store whose rows no extraction would make or use again."""

    store: FeatureStore
    reason: str


def superseded_stores(stores: Sequence[FeatureStore], current_digest: CurrentDigest) -> list[Superseded]:
    """Return the stores that another one replaces, each with the reason.

    These are stores of the same dataset, variant and settings as another one, but of weights that no longer exist under
    their name; shards whose rows are all in the joined store; and stores without rows beside one with rows. Another
    setting is never a reason: stores of 8 and of 16 frames may both be wanted. No clock is consulted. Symbolic links
    are left out, since their targets lie outside the cache.
    """
    superseded = []
    for store in stores:
        if store.folder.is_symlink():
            continue
        others = [
            other
            for other in stores
            if other is not store and (other.dataset, other.variant) == (store.dataset, store.variant)
        ]
        if reason := _reason(store, others, current_digest):
            superseded.append(Superseded(store=store, reason=reason))
    return superseded


def _reason(store: FeatureStore, others: Sequence[FeatureStore], current_digest: CurrentDigest) -> str | None:
    complete = [other for other in others if shard_of(other) is None]
    if shard_of(store) is not None:
        joined = next((other for other in complete if other.key == store.key), None)
        with contextlib.suppress(ActionVitError):  # a damaged store may hold rows that are nowhere else
            if joined is not None and _contents(store) <= _contents(joined):
                return f"all its rows are in {joined.folder.name}"
        return None
    if not list_parts(store.folder):
        with_rows = next((other for other in complete if list_parts(other.folder)), None)
        return f"no rows; {with_rows.folder.name} has rows" if with_rows else None
    newer = next((other for other in complete if _differ_in_weights_only(store, other)), None)
    digest = current_digest(store) if newer else None
    if newer is None or digest is None or digest == store.key.weights:
        return None
    return (
        f"weights {store.info.get('weights')} are now {digest[:10] or 'gone'}, were {store.key.weights[:10]}; "
        f"{newer.folder.name} has the same settings"
    )


def _differ_in_weights_only(store: FeatureStore, other: FeatureStore) -> bool:
    differences = store.key.differences(other.key)
    return [name for name, _, _ in differences] == ["weights"] and bool(list_parts(other.folder))


def _contents(store: FeatureStore) -> set[tuple[str, bytes]]:
    """Return (id, digest of the video's content) of each row."""
    return set(zip(store.index.ids, store.index.columns["digest"].tolist(), strict=True))


def delete(store: FeatureStore) -> None:
    """Delete a store. Raises ActionVitError if it is a link, another process writes it, or permissions forbid it."""
    if store.folder.is_symlink():
        raise ActionVitError(f"{store.folder}: is a link to {store.folder.resolve()}; prune that, and remove the link")
    try:
        with locked(store.folder):
            (store.folder / KEY).unlink()  # first, so that a half-deleted folder is not read as a store
            shutil.rmtree(store.folder)
    except OSError as error:
        raise ActionVitError(f"{store.folder}: cannot be deleted: {error.strerror}; check its permissions") from error
