"""Datasets: reading, splitting, checking, fetching and drawing them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
__all__ = ["Dataset", "Split", "Video", "leaking_sources", "load_dataset", "make_splits"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
