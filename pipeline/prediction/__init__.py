"""Use of a run's model: predictions for new videos, and export to transformers and the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

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
__getattr__ = lazy_names(__name__, _MODULES)
