"""Fine-tuning: train the head, the last blocks or the whole encoder on every split, and write the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

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
__getattr__ = lazy_names(__name__, _MODULES)
