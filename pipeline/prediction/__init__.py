"""Use of a run's model: predictions for new videos, and export to transformers and the Hub."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionvit.pipeline.prediction.export import export_hf as export_hf
    from actionvit.pipeline.prediction.predictor import Prediction as Prediction
    from actionvit.pipeline.prediction.predictor import Predictor as Predictor
    from actionvit.pipeline.prediction.predictor import load_predictor as load_predictor
    from actionvit.pipeline.prediction.predictor import predict as predict

_MODULES = {
    "Prediction": "predictor",
    "Predictor": "predictor",
    "export_hf": "export",
    "load_predictor": "predictor",
    "predict": "predictor",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name on first access: all of them load torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
