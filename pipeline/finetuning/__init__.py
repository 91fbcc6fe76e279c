"""Fine-tuning: train the head, the last blocks or the whole encoder on every split, and write the run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionvit.pipeline.finetuning.distributed import ProcessGroup as ProcessGroup
    from actionvit.pipeline.finetuning.distributed import init_distributed as init_distributed
    from actionvit.pipeline.finetuning.finetune import Finetuned as Finetuned
    from actionvit.pipeline.finetuning.run import finetune_run as finetune_run
    from actionvit.pipeline.finetuning.spec import FinetuneSpec as FinetuneSpec
    from actionvit.pipeline.finetuning.spec import TrainSpec as TrainSpec
    from actionvit.pipeline.finetuning.split import FinetuneResult as FinetuneResult
    from actionvit.pipeline.finetuning.split import TrainingContext as TrainingContext

_MODULES = {
    "FinetuneResult": "split",
    "FinetuneSpec": "spec",
    "Finetuned": "finetune",
    "ProcessGroup": "distributed",
    "TrainSpec": "spec",
    "TrainingContext": "split",
    "finetune_run": "run",
    "init_distributed": "distributed",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name on first access: most of them load torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
