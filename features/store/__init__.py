"""The feature store: embeddings cached in HDF5, one folder per dataset and key; see docs/formats.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionvit.features.store.catalog import find_store, find_stores, open_single
    from actionvit.features.store.export import export_store
    from actionvit.features.store.keys import FeatureKey
    from actionvit.features.store.merge import merge_stores
    from actionvit.features.store.parts import Row
    from actionvit.features.store.plan import Plan, make_plan
    from actionvit.features.store.store import FeatureStore
    from actionvit.features.store.verify import Problem, verify_store
    from actionvit.features.store.writer import Writer

_MODULES = {
    "FeatureKey": "keys",
    "FeatureStore": "store",
    "Plan": "plan",
    "Problem": "verify",
    "Row": "parts",
    "Writer": "writer",
    "export_store": "export",
    "find_store": "catalog",
    "find_stores": "catalog",
    "make_plan": "plan",
    "merge_stores": "merge",
    "open_single": "catalog",
    "verify_store": "verify",
}
__all__ = [
    "FeatureKey",
    "FeatureStore",
    "Plan",
    "Problem",
    "Row",
    "Writer",
    "export_store",
    "find_store",
    "find_stores",
    "make_plan",
    "merge_stores",
    "open_single",
    "verify_store",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first access: listing stores must not load h5py or the writer."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
