"""The feature store: embeddings cached in HDF5, one folder per dataset and key; see docs/reference/cache-format.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

if TYPE_CHECKING:
    from actionvit.features.store.catalog import find_store as find_store
    from actionvit.features.store.catalog import find_stores as find_stores
    from actionvit.features.store.catalog import open_single as open_single
    from actionvit.features.store.export import export_store as export_store
    from actionvit.features.store.keys import FeatureKey as FeatureKey
    from actionvit.features.store.merge import merge_stores as merge_stores
    from actionvit.features.store.parts import Row as Row
    from actionvit.features.store.plan import Plan as Plan
    from actionvit.features.store.plan import make_plan as make_plan
    from actionvit.features.store.store import FeatureStore as FeatureStore
    from actionvit.features.store.verify import Problem as Problem
    from actionvit.features.store.verify import verify_store as verify_store
    from actionvit.features.store.writer import Writer as Writer

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

__getattr__ = lazy_names(__name__, _MODULES)
