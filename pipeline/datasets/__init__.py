"""Datasets: reading, splitting, checking, fetching and drawing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset as Dataset
    from actionvit.pipeline.datasets.dataset import Split as Split
    from actionvit.pipeline.datasets.dataset import Video as Video
    from actionvit.pipeline.datasets.loading import load_dataset as load_dataset
    from actionvit.pipeline.datasets.splits import leaking_sources as leaking_sources
    from actionvit.pipeline.datasets.splits import make_splits as make_splits

_MODULES = {
    "Dataset": "dataset",
    "Split": "dataset",
    "Video": "dataset",
    "leaking_sources": "splits",
    "load_dataset": "loading",
    "make_splits": "splits",
}

__getattr__ = lazy_names(__name__, _MODULES)
