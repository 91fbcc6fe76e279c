"""Classifier heads on embeddings, and the choice of their parameters inside a training set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

if TYPE_CHECKING:
    from actionvit.heads.attentive import AttentiveProbe
    from actionvit.heads.base import Head
    from actionvit.heads.criteria import Criterion
    from actionvit.heads.fusion import LateFusion
    from actionvit.heads.linear import LinearProbe
    from actionvit.heads.mlp import MLPProbe
    from actionvit.heads.nearest import CentroidProbe, KNNProbe
    from actionvit.heads.saving import dump_head, head_class, load_head
    from actionvit.heads.selection import SearchResult, grid_search

__all__ = [
    "AttentiveProbe",
    "CentroidProbe",
    "Criterion",
    "Head",
    "KNNProbe",
    "LateFusion",
    "LinearProbe",
    "MLPProbe",
    "SearchResult",
    "dump_head",
    "grid_search",
    "head_class",
    "load_head",
]

_MODULES = {
    "AttentiveProbe": "attentive",
    "CentroidProbe": "nearest",
    "Criterion": "criteria",
    "Head": "base",
    "KNNProbe": "nearest",
    "LateFusion": "fusion",
    "LinearProbe": "linear",
    "MLPProbe": "mlp",
    "SearchResult": "selection",
    "dump_head": "saving",
    "grid_search": "selection",
    "head_class": "saving",
    "load_head": "saving",
}
__getattr__ = lazy_names(__name__, _MODULES)
