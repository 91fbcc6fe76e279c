"""actionvit: cached video-transformer embeddings of action videos, and classifier heads on them.

The names below are the public Python interface; `docs/reference/python.md` describes them. Everything else is internal
and may change in any release.
"""

from __future__ import annotations

from actionvit.errors import ActionVitError as ActionVitError
from actionvit.lazy import lazy_names

TYPE_CHECKING = False  # `typing` takes a third of the time in which Ctrl-C ends a command with a traceback
if TYPE_CHECKING:
    from actionvit.api.features import Features as Features
    from actionvit.api.features import extract as extract
    from actionvit.api.features import load_features as load_features
    from actionvit.api.results import load_run as load_run
    from actionvit.api.results import predict as predict
    from actionvit.api.results import report as report
    from actionvit.api.training import finetune as finetune
    from actionvit.api.training import probe as probe
    from actionvit.features.store.store import FeatureStore as FeatureStore
    from actionvit.pipeline.datasets.dataset import Dataset as Dataset
    from actionvit.pipeline.datasets.loading import load_dataset as load_dataset
    from actionvit.pipeline.datasets.splits import make_splits as make_splits
    from actionvit.pipeline.runs import Run as Run

__version__ = "0.1.0"

_MODULES = {
    "Dataset": "pipeline.datasets.dataset",
    "FeatureStore": "features.store.store",
    "Features": "api.features",
    "Run": "pipeline.runs",
    "extract": "api.features",
    "finetune": "api.training",
    "load_dataset": "pipeline.datasets.loading",
    "load_features": "api.features",
    "load_run": "api.results",
    "make_splits": "pipeline.datasets.splits",
    "predict": "api.results",
    "probe": "api.training",
    "report": "api.results",
}
__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    """Return the public names, for completion in a shell or notebook."""
    return sorted([*_MODULES, "ActionVitError", "__version__"])
