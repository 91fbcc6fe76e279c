"""Merging of several stores of one key into one: shards made by several processes or machines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.store.keys import describe
from actionvit.features.store.speed import add_speed, read_speed
from actionvit.features.store.store import KEY, FeatureStore
from actionvit.features.store.writer import Writer

logger = logging.getLogger(__name__)


def merge_stores(stores: Sequence[FeatureStore], out: Path, *, wait: bool = False) -> FeatureStore:
    """Copy the rows of several stores of one key into the store at `out`; existing rows stay.

    A failure recorded in one store does not remove a row from another, since it is unknown which of the two is newer.
    The next extraction checks the file.

    Parameters
    ----------
    stores : sequence of FeatureStore
        Of several rows of one video, that of the first store wins.
    out : Path
        A store's folder, made if need be.
    wait : bool
        Wait for another writer of `out` instead of failing.

    Raises
    ------
    ActionVitError
        If keys, datasets or variants differ (the error names the fields, with both values), or two stores hold
        different videos under one id; nothing is written then.
    """
    first = FeatureStore.open(out) if (out / KEY).exists() else stores[0]
    for store in stores:
        _check_same(first, store)
    _check_contents([first, *stores] if first not in stores else stores)
    merged = FeatureStore.create(
        out, key=first.key, dataset=first.dataset, variant=first.variant, info={**first.info, **stores[0].info}
    )
    with Writer(merged, wait=wait) as writer:
        ids, speeds = set(merged.ids), read_speed(merged.folder)
        for store in stores:
            new = [id for id in store.ids if id not in ids]
            ids.update(new)
            logger.info("%s: %d of %d rows are new", store.folder, len(new), len(store))
            for row in store.iter_rows(new):
                writer.append(row)
        for store in stores:
            for failure in store.failures():
                if failure.id not in ids:
                    ids.add(failure.id)
                    writer.add_failure(failure)
            for speed in read_speed(store.folder):
                if store.folder != merged.folder and speed not in speeds:  # else these stores were merged before
                    add_speed(merged.folder, speed)
    return merged


def _check_same(first: FeatureStore, other: FeatureStore) -> None:
    differences = first.key.differences(other.key)
    for name in ("dataset", "variant"):
        ours, theirs = getattr(first, name), getattr(other, name)
        differences += [(name, ours, theirs)] if ours != theirs else []
    if differences:
        text = describe(differences, f"in {first.folder.name}", f"in {other.folder.name}")
        raise ActionVitError(
            f"{other.folder}: cannot be merged with {first.folder}: {text}; merge only shards of one extraction"
        )


def _check_contents(stores: Sequence[FeatureStore]) -> None:
    """Refuse two different videos under one id."""
    digests: dict[str, tuple[bytes, Path]] = {}
    for store in stores:
        for id, digest in zip(store.index.ids, store.index.columns["digest"].tolist(), strict=True):
            other, folder = digests.setdefault(id, (digest, store.folder))
            if other != digest:
                raise ActionVitError(
                    f"{store.folder}: {id!r} is another video than in {folder}; extract again where the file is out of "
                    f"date, then merge"
                )
