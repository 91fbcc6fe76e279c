"""Extraction, and cached embeddings as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, overload

import numpy as np
from numpy.typing import NDArray

from actionvit.api.places import CACHE, PathLike
from actionvit.errors import SettingError

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore
    from actionvit.pipeline.datasets.dataset import Dataset


class Features(NamedTuple):
    """Cached embeddings of a dataset's videos beside their labels; N rows in the order of their ids."""

    X: Any
    """(N, D) float32; (N, T, D) for frame embeddings; a dict of arrays by variant if several were requested."""
    y: NDArray[np.intp]
    """(N,), class numbers: positions in `Dataset.class_names`."""
    ids: NDArray[np.str_]
    """(N,), video ids."""
    sources: NDArray[np.str_]
    """(N,), the film or recording that each video was cut from; empty where unknown."""


@overload
def extract(dataset: Dataset, variant: str = ..., **settings: Any) -> FeatureStore: ...
@overload
def extract(dataset: Dataset, variant: Sequence[str], **settings: Any) -> dict[str, FeatureStore]: ...
def extract(  # type: ignore[misc]  # its keywords are listed here only
    dataset: Dataset,
    variant: str | Sequence[str] = "base",
    *,
    cache: PathLike = CACHE,
    weights: str | dict[str, str] | None = None,
    num_frames: int | None = None,
    size: int | None = None,
    sampling: Literal["uniform", "dense"] = "uniform",
    stride: int | None = None,
    num_clips: int = 1,
    crops: int = 1,
    flip: bool = False,
    frame_pool: Literal["cls", "mean"] = "cls",
    save_layers: Sequence[int] = (),
    device: str = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
    shard: tuple[int, int] | None = None,
    wait: bool = False,
    retry_failed: bool = False,
) -> FeatureStore | dict[str, FeatureStore]:
    """Decode every video of a dataset once and cache its embeddings; cached videos are skipped.

    Parameters
    ----------
    dataset : Dataset
        As from `load_dataset`.
    variant : str or sequence of str
        Encoder variants: base, hr, large, tiny or tiny-hr. Each video is decoded once for all of them.
    cache : path
        Folder of the cache.
    weights : str or dict, optional
        A local folder, hub id, .pyth file or `untrained`, by default the variant's own; by variant for several.
    num_frames, size : int, optional
        T frames per view and its side S in pixels, by default the variant's.
    sampling, stride
        `uniform` spreads the frames over the whole video, `dense` takes every `stride`-th.
    num_clips, crops, flip
        K = num_clips · crops · (1 + flip) views per video; crops is 1 or 3.
    frame_pool : {"cls", "mean"}
        Frame-level embedding: the frame's CLS token, or the mean of its patches.
    save_layers : sequence of int
        Blocks whose CLS token is stored as well.
    device, precision
        Where and how to compute; `auto` uses a GPU if there is one, and bf16 if it supports that.
    workers : int, optional
        Decoding processes; by default one per core, 0 for none.
    timeout : float
        Seconds allowed to decode one video.
    shard : (i, n), optional
        Embed only part i of n of the videos, into a store of its own; `actionvit cache merge` joins the parts.
    wait : bool
        Wait for another writer of the same store instead of failing.
    retry_failed : bool
        Retry videos that failed before.

    Returns
    -------
    FeatureStore or dict of FeatureStore
        One store, or one per variant if `variant` is a sequence. Videos that could not be decoded are not in it;
        `store.failures()` lists them with the reason.

    Raises
    ------
    ActionVitError
        If weights are missing or settings do not fit the model, before anything is decoded.
    """
    from actionvit.features.device import resolve_device
    from actionvit.features.store.store import FeatureStore
    from actionvit.features.view_settings import ViewSettings
    from actionvit.pipeline.extraction.extract import extract as run_stage
    from actionvit.pipeline.extraction.job import Outputs, make_jobs
    from actionvit.settings import make_spec

    if shard and not 1 <= shard[0] <= shard[1]:
        raise SettingError(f"shard: got {shard}, expected (i, n) with 1 <= i <= n, for example (2, 8)")
    names = [variant] if isinstance(variant, str) else list(dict.fromkeys(variant))
    sources = weights if isinstance(weights, dict) else dict.fromkeys(names, weights) if weights else {}
    device, resolved = resolve_device(device, precision)
    shape = {"num_frames": num_frames, "size": size, "sampling": sampling, "stride": stride}
    views = make_spec(ViewSettings, {**shape, "num_clips": num_clips, "crops": crops, "flip": flip})
    outputs: Outputs = {"frame_pool": frame_pool, "layers": tuple(save_layers)}
    jobs = make_jobs([views], variants=names, weights=sources, precision=resolved, **outputs)
    summary = run_stage(
        dataset,
        jobs,
        cache=Path(cache),
        device=device,
        workers=workers,
        timeout=timeout,
        shard=shard,
        wait=wait,
        retry_failed=retry_failed,
    )
    stores = {outcome.variant: FeatureStore.open(outcome.store) for outcome in summary.outcomes}
    return stores[names[0]] if isinstance(variant, str) else stores


def load_features(
    dataset: Dataset,
    variant: str | Sequence[str] = "base",
    *,
    cache: PathLike = CACHE,
    level: Literal["clip", "frame", "layers"] = "clip",
    views: Literal["mean", "each"] = "mean",
    num_frames: int | None = None,
    size: int | None = None,
) -> Features:
    """Return cached embeddings joined with labels, ids and sources.

    Parameters
    ----------
    dataset : Dataset
        Labels and sources are read from it, so relabeling needs no new extraction.
    variant : str or sequence of str
        One or several; the rows are the videos that all of them have.
    cache : path
        Folder of the cache.
    level : {"clip", "frame", "layers"}
        One embedding per clip, one per frame, or the saved blocks joined along the width.
    views : {"mean", "each"}
        Average a video's K views, or keep them as axis 1.
    num_frames, size : int, optional
        Choose among several stores of the variant in the cache.

    Returns
    -------
    Features
        `X, y, ids, sources = load_features(dataset)`.

    Raises
    ------
    ActionVitError
        If nothing is cached, or several stores fit.
    """
    from actionvit.pipeline.probing.features import Quantity, read_tables

    for name, value, choices in (("level", level, get_args(Quantity)), ("views", views, ("mean", "each"))):
        if value not in choices:
            raise SettingError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
    names = [variant] if isinstance(variant, str) else list(dict.fromkeys(variant))
    tables = read_tables(dataset, names, cache=Path(cache), quantity=level, num_frames=num_frames, size=size)
    arrays = {table.variant: table.X.mean(axis=1) if views == "mean" else table.X for table in tables}
    first = tables[0]
    return Features(arrays[names[0]] if isinstance(variant, str) else arrays, first.y, first.id, first.source)
