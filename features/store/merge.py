"""Several stores of one key into one: what `--shard` made in N processes or on N machines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.store.keys import describe
from actionvit.features.store.speed import note_speed, read_speed
from actionvit.features.store.store import KEY, FeatureStore

logger = logging.getLogger(__name__)


def merge(stores: Sequence[FeatureStore], out: Path, *, wait: bool = False) -> FeatureStore:
    """Copy the rows of several stores of one key into the store at `out`; rows that are there already stay.

    Whether a video that failed in a store broke after its row was made, or was mended since, no store can tell: the
    next `extract` looks at the file.

    Parameters
    ----------
    stores : sequence of FeatureStore
        Earlier ones win where two embedded the same video.
    out : Path
        A store's folder, made if need be.
    wait : bool
        Wait for another writer of `out` instead of failing.

    Raises
    ------
    ActionVitError
        If keys, datasets or variants differ (it names what, with both values), or two stores hold different videos
        under one id; nothing is written then.
    """
    first = FeatureStore.open(out) if (out / KEY).exists() else stores[0]
    for store in stores:
        _check_same(first, store)
    every = [first, *stores] if first not in stores else list(stores)
    _check_contents(every)
    merged = FeatureStore.create(
        out, key=first.key, dataset=first.dataset, variant=first.variant, info={**first.info, **stores[0].info}
    )
    with merged.writer(wait=wait) as writer:
        held, before = set(merged.ids), read_speed(merged.folder)
        for store in stores:
            new = [id for id in store.ids if id not in held]
            held.update(new)
            logger.info("%s: %d of %d rows are new", store.folder, len(new), len(store))
            for row in store.iterate(new):
                writer.append(row)
        for store in stores:
            for failure in store.failures():
                if failure.id not in held:
                    held.add(failure.id)
                    writer.add_failure(failure)
            for speed in read_speed(store.folder):
                if store.folder != merged.folder and speed not in before:  # else these stores were merged before
                    note_speed(merged.folder, speed)
    return merged


def _check_same(first: FeatureStore, other: FeatureStore) -> None:
    differences = first.key.differences(other.key)
    for name in ("dataset", "variant"):
        ours, theirs = getattr(first, name), getattr(other, name)
        differences += [(name, ours, theirs)] if ours != theirs else []
    if differences:
        raise ActionVitError(
            f"{other.folder}: cannot be merged with {first.folder}: {describe(differences)} (here: the latter, there: "
            f"the former); merge only shards of one extraction"
        )


def _check_contents(stores: Sequence[FeatureStore]) -> None:
    """Refuse two different videos under one id."""
    digests: dict[str, tuple[bytes, Path]] = {}
    for store in stores:
        for id, digest in zip(store.index.ids, store.index.columns["digest"].tolist(), strict=True):
            other, folder = digests.setdefault(id, (digest, store.folder))
            if other != digest:
                raise ActionVitError(
                    f"{store.folder}: {id!r} is another video here than in {folder}; extract again where the file "
                    f"is out of date, then merge"
                )
