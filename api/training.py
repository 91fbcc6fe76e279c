"""Probes and fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from actionvit.api.places import CACHE, RUNS, PathLike
from actionvit.errors import ActionVitError, SettingError

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset
    from actionvit.pipeline.runs import Run


@overload
def probe(dataset: Dataset, variant: str = ..., **settings: Any) -> Run: ...
@overload
def probe(dataset: Dataset, variant: Sequence[str], **settings: Any) -> list[Run]: ...
def probe(
    dataset: Dataset,
    variant: str | Sequence[str] = "base",
    *,
    cache: PathLike = CACHE,
    runs: PathLike = RUNS,
    run_name: str | None = None,
    overwrite: bool = False,
    balanced: bool = False,
    num_frames: int | None = None,
    size: int | None = None,
    fuse: Literal["mean", "stacked"] | None = None,
    jobs: int = 2,
    **settings: Any,
) -> Run | list[Run]:
    """Train a classifier head on cached embeddings for every split and score each test set once.

    Parameters
    ----------
    dataset : Dataset
        As from `load_dataset`.
    variant : str or sequence of str
        The encoder of the embeddings; several give one run each, over the videos that all of them have.
    cache, runs : path
        Folders of the cache and of the runs.
    run_name : str, optional
        By default built from the non-default settings, e.g. base-linear-balanced.
    overwrite : bool
        Replace another run of that name.
    balanced : bool
        Weight classes equally; the same as `class_weight="balanced"`.
    num_frames, size : int, optional
        Choose among several stores of the variant in the cache.
    fuse : {"mean", "stacked"}, optional
        Also fuse the variants' heads; the fused run is the last of the list.
    jobs : int
        Splits that are processed in parallel.
    **settings
        `head`, `features`, `view_aggregation`, `class_weight`, `sampler`, `logit_adjustment`, `focal_gamma`, `grid`,
        `selection_metric`, `calibrate`, `protocol`, `folds`, `test_fraction`, `seeds`, `long_tail`, `shots`, `device`:
        the options of `actionvit probe`.

    Returns
    -------
    Run or list of Run
        Written below `runs`. One run, or a list if `variant` is a sequence.

    Raises
    ------
    ActionVitError
        If nothing is cached, a setting does not apply to the head, or another run of that name exists.
    """
    from actionvit.pipeline.probing.features import read_tables
    from actionvit.pipeline.probing.probe import probe as run_stage
    from actionvit.pipeline.probing.results import planned_runs, reserved_runs
    from actionvit.pipeline.probing.spec import ProbeSpec
    from actionvit.pipeline.run_folder import check_run_name
    from actionvit.settings import make_spec

    check_run_name(run_name)
    names = [variant] if isinstance(variant, str) else list(dict.fromkeys(variant))
    if balanced:
        settings["class_weight"] = _balanced(settings)
    spec = make_spec(ProbeSpec, settings)
    tables = read_tables(dataset, names, cache=Path(cache), quantity=spec.features, num_frames=num_frames, size=size)
    if run_name is not None and (len(tables) > 1 or fuse):
        raise SettingError(f"run_name: got {run_name!r} for several runs, expected one variant and no fusion")
    fusion = [fuse] if fuse else []
    planned = planned_runs(dataset, tables, [spec], fusion)
    with reserved_runs(Path(runs), dataset, planned, name=run_name, overwrite=overwrite):
        results = run_stage(dataset, tables, spec, fusion=fusion, jobs=jobs)
        written = [result.write(Path(runs), name=run_name, overwrite=overwrite) for result in results]
    return written[0] if isinstance(variant, str) else written


def finetune(
    dataset: Dataset,
    variant: str = "base",
    *,
    train: str = "last:1",
    weights: str | None = None,
    cache: PathLike = CACHE,
    runs: PathLike = RUNS,
    run_name: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    restart: bool = False,
    balanced: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
    **settings: Any,
) -> Run:
    """Train the head, the last blocks or the whole encoder for every split and score each test set once.

    Parameters
    ----------
    dataset : Dataset
        As from `load_dataset`.
    variant : str
        Encoder variant to start from.
    train : str
        `head`, `last:K` blocks with everything above, or `all`.
    weights : str, optional
        A local folder, hub id, .pyth file or `untrained`, by default the variant's own.
    cache, runs : path
        Folders of the cache and of the runs.
    run_name : str, optional
        By default built from the non-default settings.
    overwrite, resume, restart : bool
        Replace an existing run of that name; continue, or discard, its interrupted training.
    balanced : bool
        Weight classes equally; the same as `class_weight="balanced"`.
    device, precision, workers, timeout
        As for `extract`.
    **settings
        The options of `actionvit finetune`: `epochs`, `lr`, `batch_size`, `val_fraction`, `mixup` and so on.

    Returns
    -------
    Run
        Written below `runs`.

    Raises
    ------
    ActionVitError
        If settings contradict each other, weights are missing, or a run of that name exists.
    """
    from actionvit.features.device import resolve_device
    from actionvit.pipeline.finetuning.distributed import init_distributed
    from actionvit.pipeline.finetuning.run import finetune_run
    from actionvit.pipeline.finetuning.run_writer import run_name as default_name
    from actionvit.pipeline.finetuning.settings import FinetuneSettings, make_finetune_spec
    from actionvit.pipeline.finetuning.split import TrainingContext
    from actionvit.pipeline.run_folder import check_run_name, training_folder
    from actionvit.settings import make_spec

    check_run_name(run_name)
    if balanced:
        settings["class_weight"] = _balanced(settings)
    device, resolved = resolve_device(device, precision)
    chosen = make_spec(FinetuneSettings, {**settings, "train": train})
    spec = make_finetune_spec(variant, chosen, bf16=resolved == "bf16")
    folder = Path(runs) / (run_name or default_name(spec))
    with init_distributed(device) as group:
        context = TrainingContext(
            cache=Path(cache),
            folder=training_folder(folder),
            ranks=group,
            workers=workers,
            timeout=timeout,
            resume=resume,
        )
        run = finetune_run(dataset, weights, spec, context, folder=folder, overwrite=overwrite, restart=restart)
    if run is None:
        raise ActionVitError("finetune: only rank 0 of a distributed training returns a run; use the command line")
    return run


def _balanced(settings: dict[str, Any]) -> str:
    if settings.get("class_weight", "balanced") not in ("none", "balanced"):
        raise SettingError(f"class_weight: got {settings['class_weight']!r} beside balanced=True; give one of them")
    return "balanced"
