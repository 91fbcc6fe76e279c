"""Training rows for a head: a dataset's ids, labels and sources joined with its cached embeddings."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.fingerprint import NO_FILE
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.variants import VARIANTS, clip_spec

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore
    from actionvit.pipeline.datasets.dataset import Dataset, Video

logger = logging.getLogger(__name__)

Quantity = Literal["clip", "frame", "layers"]


class StoreChoice(TypedDict, total=False):
    """The choice among several stores of a variant."""

    num_frames: int | None
    size: int | None
    stores: Sequence[str]
    """Names, as `find_store` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """Cached embeddings of one variant with the labels and sources of their videos; N rows sorted by id."""

    variant: str
    id: NDArray[np.str_]
    """(N,)"""
    X: NDArray[np.float32]
    """(N, K, D), or (N, K, T, D) for frame-level embeddings."""
    y: NDArray[np.intp]
    """(N,), class numbers."""
    source: NDArray[np.str_]
    """(N,), empty if the dataset has no sources."""
    class_names: tuple[str, ...]
    store: FeatureStore

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        lengths = {len(column) for column in (self.id, self.X, self.y, self.source)}
        if len(lengths) != 1:
            raise ValueError(f"feature table: got columns of {sorted(lengths)} rows, expected one length")

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the rows of those ids that are cached, in the order given."""
        row_of_id = {id: row for row, id in enumerate(self.id.tolist())}
        return np.array([row_of_id[id] for id in ids if id in row_of_id], dtype=np.intp)


def read_tables(
    dataset: Dataset,
    variants: Sequence[str],
    *,
    cache: Path,
    quantity: Quantity = "clip",
    **chosen: Unpack[StoreChoice],
) -> list[FeatureTable]:
    """Return one table per variant, all over the same videos: those that every variant's store has.

    Parameters
    ----------
    dataset : Dataset
        Labels and sources; its name finds the stores.
    variants : sequence of str
        The variants whose stores are read.
    cache : Path
        The cache's root.
    quantity : {"clip", "frame", "layers"}
        `layers` joins the embeddings after each saved block and the final one along the width.
    **chosen
        The fields of `StoreChoice`, to choose among several stores of a variant.

    Raises
    ------
    ActionVitError
        If a store is missing or ambiguous, holds no such quantity, or no video is in all of them.
    """
    if quantity not in get_args(Quantity):
        raise ValueError(f"features: got {quantity!r}, expected one of {', '.join(get_args(Quantity))}")
    return tables_of(dataset, stores_of(dataset, variants, cache=cache, **chosen), quantity)


def stores_of(
    dataset: Dataset, variants: Sequence[str], *, cache: Path, **chosen: Unpack[StoreChoice]
) -> list[FeatureStore]:
    """Return the store of each variant, as `read_tables` finds them."""
    from actionvit.features.store.catalog import find_store, is_named

    leaves = {"clip__num_frames": chosen.get("num_frames"), "clip__size": chosen.get("size")}
    settings = {name: value for name, value in leaves.items() if value is not None}
    names = chosen.get("stores", ())
    root = dataset.origin or dataset.root
    stores = [
        find_store(cache, dataset.name, variant, names=names, root=root, known=list(VARIANTS), **settings)
        for variant in variants
    ]
    if unused := [name for name in names if not any(is_named(store, name) for store in stores)]:
        raise SettingError(
            f"store: got {unused[0]}, which is not read for {dataset.name} {' '.join(variants)}; leave it out"
        )
    return stores


def tables_of(dataset: Dataset, stores: Sequence[FeatureStore], quantity: Quantity = "clip") -> list[FeatureTable]:
    """Return one table per store, all over the same videos: those that every store has.

    Parameters
    ----------
    dataset : Dataset
        Labels and sources.
    stores : sequence of FeatureStore
    quantity : {"clip", "frame", "layers"}
        As for `read_tables`.

    Raises
    ------
    ActionVitError
        If a store holds no such quantity, or no video is in all of them.
    """
    videos = shared_videos(dataset, stores)
    return [table_of(dataset, store, videos, quantity) for store in stores]


def shared_videos(dataset: Dataset, stores: Sequence[FeatureStore]) -> list[Video]:
    """Return the dataset's videos that every store has; warn if files have changed since they were embedded.

    Raises
    ------
    ActionVitError
        If no video is in all of them.
    """
    shared = set.intersection(*(set(store.ids) for store in stores))
    videos = [video for video in dataset.videos if video.id in shared]
    if not videos:
        folders = ", ".join(str(store.folder) for store in stores)
        raise ActionVitError(f"{folders}: no embedding of any video of {dataset.root}; run `actionvit extract` on it")
    sizes = {video.id: size for video in videos if (size := _size_of(video.path)) is not None}
    for store in stores:
        rows, _ = store.index.locate(list(sizes))
        recorded = store.index.columns["size"][rows]
        if other := int(((recorded != list(sizes.values())) & (recorded != NO_FILE.size)).sum()):
            logger.warning(
                "%s: embeddings of %d videos are of other files than those in %s; run `actionvit extract` on it",
                *(store.folder, other, dataset.root),
            )
    return videos


def _size_of(path: Path) -> int | None:
    """Return the size of a video's file; None if it is missing, or a folder of frames (one `stat` per frame is slow).

    Only the size identifies a changed file, since a copied dataset has new modification times.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


def table_of(dataset: Dataset, store: FeatureStore, videos: Sequence[Video], quantity: Quantity) -> FeatureTable:
    """Return a store's embeddings of these videos. Raises ActionVitError if it holds no such quantity."""
    ids = [video.id for video in videos]
    return FeatureTable(
        variant=store.variant,
        id=np.array(ids),
        X=_read(store, ids, quantity),
        y=dataset.labels_of(videos),
        source=np.array([video.source if dataset.sources_known else "" for video in videos]),
        class_names=dataset.class_names,
        store=store,
    )


def extract_command(dataset: Dataset, store: FeatureStore) -> str:
    """Return the command, in backquotes, that embeds a dataset's missing videos as those of a store."""
    words = ["actionvit", "extract", str(dataset.origin or dataset.root)]
    variant, source = VARIANTS.get(store.variant), store.info.get("weights")
    if "family" in store.key.model:  # not a TimeSformer
        words += ["--encoder", f"{store.variant}={source or 'SRC'}"]
    else:
        words += ["--variant", store.variant]
        words += ["--weights", str(source)] if source and variant and source != variant.weights else []
    clip, options = store.key.clip, {"clips": "num-clips", "num_frames": "num-frames"}
    usual = asdict(clip_spec(store.variant)) if variant else {"sampling": "uniform", "clips": 1, "crops": 1}
    for name in (field.name for field in fields(ClipSpec)):
        value = clip.get(name)
        if value and value != usual.get(name) and (name != "stride" or clip["sampling"] == "dense"):
            words += [f"--{options.get(name, name)}"] + ([] if value is True else [str(value)])
    return f"`{shlex.join(words)}`"


def coverage(dataset: Dataset, table: FeatureTable) -> dict[str, Any]:
    """Return the counts of used and unused videos, for `run.json`."""
    cached = set(table.store.ids)
    ids = [video.id for video in dataset.videos]
    dataset_ids = set(ids)
    failures = [failure for failure in table.store.failures() if failure.id in dataset_ids]
    return {
        "videos": len(ids),
        "cached": sum(id in cached for id in ids),
        "missing": sum(id not in cached for id in ids),
        "used": len(table.id),
        "failed": len(failures),
        "flagged": table.store.count_flagged(table.id.tolist()),
        "failures": [{"id": failure.id, "reason": failure.reason} for failure in failures],
    }


def _read(store: FeatureStore, ids: Sequence[str], quantity: Quantity) -> NDArray[np.float32]:
    if quantity != "layers":
        return store.read(ids, quantity).astype(np.float32, copy=False)
    layers = sorted((name for name in store.quantities if name.startswith("layer")), key=lambda name: int(name[5:]))
    if not layers:
        raise ActionVitError(
            f"{store.folder}: has no embeddings after single blocks; run `actionvit extract --save-layers 9,12`"
        )
    return np.concatenate([store.read(ids, name) for name in (*layers, "clip")], axis=-1).astype(np.float32, copy=False)
