"""A fine-tuning as a run: check the folder, lock the run name, train on all splits, write the run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.finetuning.finetune import finetune
from actionvit.pipeline.finetuning.run_writer import write_finetuned
from actionvit.pipeline.finetuning.spec import FinetuneSpec
from actionvit.pipeline.finetuning.split import TrainingContext
from actionvit.pipeline.run_folder import check_place, locked_run
from actionvit.pipeline.runs import Run


def finetune_run(
    dataset: Dataset,
    weights: str | None,
    spec: FinetuneSpec,
    context: TrainingContext,
    *,
    folder: Path,
    overwrite: bool = False,
    restart: bool = False,
    command: Sequence[str] = (),
) -> Run | None:
    """Fine-tune on the selected splits and write the run to `folder`; return it on rank 0, None on other ranks.

    Everything that can fail early is checked first: the run's folder and the lock of its name, then the weights.

    Parameters
    ----------
    dataset : Dataset
    weights : str or None
        Source of the encoder's weights; None for the variant's own.
    spec : FinetuneSpec
    context : TrainingContext
        Its folder is `training_folder(folder)`; removed at the end.
    folder : Path
        `RUNS/NAME`.
    overwrite : bool
        Replace an existing run.
    restart : bool
        Discard the checkpoints of an earlier training of this name.
    command : sequence of str
        The command line, for the run's provenance.

    Raises
    ------
    ActionVitError
        If the run exists and `overwrite` is off, the folder is not writable, another process trains under this name, or
        for the reasons of `find_weights` and `finetune`.
    """
    check_place(folder, overwrite=overwrite, dataset=dataset.name)
    ranks = context.ranks
    with locked_run(folder) if ranks.is_main else nullcontext():
        if restart and ranks.is_main:
            _discard(context.folder)
        ranks.barrier()
        checkpoint = find_weights(spec.variant, weights)
        finetuned = finetune(dataset, checkpoint, spec, context)
        if not ranks.is_main:
            return None
        run = write_finetuned(
            folder, dataset, checkpoint, spec, finetuned, work=context.folder, command=command, overwrite=overwrite
        )
        shutil.rmtree(context.folder)
        return run


def _discard(folder: Path) -> None:
    """Remove the checkpoints of an earlier training."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
