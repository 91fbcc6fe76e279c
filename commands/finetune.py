"""`actionvit finetune`: stage 2 by training the encoder, from its head to all of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from actionvit.commands.command import Command
from actionvit.commands.dataset_options import dataset_options, open_dataset
from actionvit.commands.finetune_options import training_options
from actionvit.commands.options import (
    cache_option,
    echo_json,
    json_option,
    option_error,
    overwrite_option,
    root_argument,
    run_name_option,
    runs_option,
    variant_option,
    weights_option,
)

if TYPE_CHECKING:
    from actionvit.features.timesformer.checkpoint import Weights
    from actionvit.pipeline.datasets.dataset import Split
    from actionvit.pipeline.finetuning.distributed import ProcessGroup
    from actionvit.pipeline.finetuning.spec import FinetuneSpec, Progress
    from actionvit.pipeline.finetuning.split import TrainingContext, TrainValRows
    from actionvit.pipeline.runs import Run


@click.command(
    cls=Command,
    examples="""
    actionvit finetune videos/ --variant base --train last:1 --balanced
    actionvit finetune videos/ --train all --no-tokens --batch-size 8 --device cuda
    torchrun --nproc-per-node 2 -m -- actionvit finetune videos/ --resume
    """,
)
@root_argument
@variant_option
@weights_option
@click.option(
    "--train",
    default="last:1",
    show_default=True,
    metavar="head|last:K|all",
    help="Trained part: the classifier, the last K blocks and everything above, or all.",
)
@dataset_options
@cache_option
@runs_option
@run_name_option
@overwrite_option
@click.option("--resume", is_flag=True, help="Continue the interrupted training of this run name.")
@click.option("--restart", is_flag=True, help="Discard the interrupted training of this run name.")
@training_options
@json_option
def command(**options: Any) -> None:
    """Train on a dataset's videos, choose the epoch on a part of the training set, score each test side once.

    Unless all is trained, the videos go through the frozen blocks once, a few augmented views each, and training reads
    what came out from the cache in every epoch. Several processes: `torchrun --nproc-per-node N -m --
    actionvit finetune ...`.
    """
    from actionvit.features.device import resolve_device
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.pipeline.finetuning.distributed import init_distributed

    if options["resume"] and options["restart"]:
        raise click.UsageError("--resume goes on, --restart begins again; give one of them")
    device, precision = resolve_device(options["device"], options["precision"])
    weights = find_weights(options["variant"], options["weights"])
    with init_distributed(device) as group:
        run = _run(options, weights, _spec(options, precision == "bf16"), group)
    if run is None:
        return
    if options["as_json"]:
        echo_json({"run": str(run.folder), "summary": run.metrics["summary"], "search": run.info["search"]})
    else:
        _say(run)
    if run.info["coverage"]["failed"] and group.world == 1:  # torchrun would take any code but 0 for a crash
        click.get_current_context().exit(3)


def _run(options: dict[str, Any], weights: Weights, spec: FinetuneSpec, group: ProcessGroup) -> Run | None:
    """Train; the first of several processes writes the run."""
    import shutil

    from actionvit.pipeline.finetuning.finetune import finetune
    from actionvit.pipeline.finetuning.run_writer import run_name, write_finetuned
    from actionvit.pipeline.finetuning.split import TrainingContext
    from actionvit.pipeline.runs import check_place

    if group.is_main:
        _warn_of_the_idle(options, spec)
    dataset = open_dataset(options["root"], options)
    folder = options["runs"] / (options["run"] or run_name(spec))
    check_place(folder, overwrite=options["overwrite"])  # before the training, not only after it
    work = folder.with_name(f"{folder.name}.training")
    if options["restart"] and group.is_main:
        shutil.rmtree(work, ignore_errors=True)
    group.barrier()
    place = TrainingContext(
        cache=options["cache"],
        folder=work,
        ranks=group,
        workers=options["workers"],
        timeout=options["timeout"],
        memory=int(options["memory"] * 2**30),
        resume=options["resume"],
        flush_seconds=options["flush_seconds"],
    )
    with _progress(place, spec.training.epochs, quiet=options["as_json"] or not group.is_main):
        tuned = finetune(dataset, weights, spec, place)
    if not group.is_main:
        return None
    run = write_finetuned(
        folder,
        dataset,
        weights,
        spec,
        tuned,
        work=work,
        command=["actionvit", *sys.argv[1:]],
        overwrite=options["overwrite"],
    )
    shutil.rmtree(work)
    return run


def _spec(options: dict[str, Any], bf16: bool) -> FinetuneSpec:
    """Turn the options into a spec."""
    from actionvit.errors import ActionVitError
    from actionvit.features.timesformer.variants import clip_spec
    from actionvit.pipeline.finetuning.augment import AugmentSpec
    from actionvit.pipeline.finetuning.loss import LossSpec
    from actionvit.pipeline.finetuning.sampling import SamplingSpec
    from actionvit.pipeline.finetuning.schedule import OptimSpec
    from actionvit.pipeline.finetuning.spec import FinetuneSpec, TrainSpec

    def some(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names}

    if options["balanced"] and options["class_weight"] not in ("none", "balanced"):
        raise click.UsageError("--balanced says --class-weight balanced already; give one of them")
    weight: Any = "balanced" if options["balanced"] else options["class_weight"]
    counts_alike = weight != "none" or options["sampler"] == "balanced" or options["logit_adjust"] > 0
    criterion: Any = options["criterion"] or ("mean_class_accuracy" if counts_alike else "accuracy")
    blends = options["mixup"] or options["cutmix"]
    tokens = not blends and options["train"] != "all" if options["tokens"] is None else options["tokens"]
    views = (4 if tokens and options["augment"] else 0) if options["views"] is None else options["views"]
    augment = some("window", "area", "flip", "colours", "strength")
    try:
        return FinetuneSpec(
            **some("variant", "train", "start", "validation", "checkpointing", "protocol", "folds", "test_fraction"),
            clip=clip_spec(options["variant"], **some("frames", "size", "clips"), crops=int(options["crops"])),
            augment=AugmentSpec(**augment, keep_sides=tuple(sorted(options["keep_sides"])))
            if options["augment"]
            else None,
            views=views,
            tokens=options["token_precision"] if tokens else None,
            splits=options["splits"],
            training=TrainSpec(
                **some("epochs", "patience", "micro_batch", "drop_path"),
                criterion=criterion,
                autocast=bf16,
                sampling=SamplingSpec(**some("batch", "sampler", "deal", "mixup", "cutmix", "seed")),
                optim=OptimSpec(**some("lr", "layer_decay", "weight_decay", "warmup", "clip_norm", "ema")),
                loss=LossSpec(class_weight=weight, **some("logit_adjust", "focal", "label_smoothing")),
            ),
        )
    except ValueError as error:
        raise ActionVitError(option_error(error)) from error


def _warn_of_the_idle(options: dict[str, Any], spec: FinetuneSpec) -> None:
    """Say which of the options given do nothing beside the others."""
    from actionvit.pipeline.finetuning.augment import AugmentSpec

    idle: dict[str, str] = {}
    if spec.train in ("head", "last:1"):
        why = f"with --train {spec.train}: it is of trained blocks below the last"
        idle |= {"checkpointing": why, "drop_path": why}
    if spec.augment is None:
        idle |= dict.fromkeys((*AugmentSpec.__dataclass_fields__, "views"), "with --no-augment")
    if spec.tokens is None:
        idle["token_precision"] = "without tokens"
    context = click.get_current_context()
    for name in options:
        if name in idle and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            click.echo(f"warning: --{name.replace('_', '-')} does nothing {idle[name]}", err=True)


@contextmanager
def _progress(place: TrainingContext, epochs: int, *, quiet: bool) -> Iterator[None]:
    """Show bars, and a line an epoch."""
    from tqdm import tqdm

    off = True if quiet else None
    with (
        tqdm(desc="frozen blocks", unit="video", disable=off, leave=False, delay=2) as videos,
        tqdm(unit="step", disable=off, leave=False) as steps,
    ):

        def on_tokens(count: int, size: int) -> None:
            if not quiet:
                click.echo(f"{count} videos go through the frozen blocks once: {size / 1e9:.1f} GB in {place.cache}")

        def on_video(done: int, total: int) -> None:
            videos.total = total
            videos.update(done - videos.n)

        def on_split(split: Split, rows: TrainValRows) -> None:
            if quiet:
                return
            click.echo(f"{split.name}: {len(rows.train)} clips to train on, {len(rows.val)} to choose the epoch by")
            if len(rows.histograms) > 1:
                for rank, counts in enumerate(rows.histograms):
                    click.echo(f"  rank {rank}: {' '.join(map(str, counts))} clips per class")

        def on_step(split: Split, now: Progress) -> None:
            if (now.epoch, now.step) == (1, 1):
                steps.reset()
            steps.total = now.steps * epochs
            steps.set_description(f"{split.name} epoch {now.epoch}", refresh=False)
            steps.set_postfix_str(
                f"loss {now.loss:.3f}, accuracy {now.accuracy:.3f}, rate {now.lr:.1e},"
                f" {now.clips_per_second:.1f} clips/s",
                refresh=False,
            )
            steps.update((now.epoch - 1) * now.steps + now.step - steps.n)

        def on_epoch(split: Split, row: dict[str, float]) -> None:
            if quiet:
                return
            trained = f"loss {row['loss']:.3f}, " if "loss" in row else "before training, "
            with steps.external_write_mode():
                click.echo(
                    f"{split.name} epoch {int(row['epoch']):3}: {trained}validation accuracy"
                    f" {100 * row['validation_accuracy']:.1f} %, log-loss {row['validation_log_loss']:.3f}"
                )

        place.on_tokens, place.on_split = on_tokens, on_split
        place.on_video, place.on_step, place.on_epoch = on_video, on_step, on_epoch
        yield


def _say(run: Run) -> None:
    """Tell a person the numbers of a run."""
    click.echo(f"\n{run.folder}")
    for metric in ("top1", "mean_class_accuracy", "macro_f1"):
        value = run.metrics["summary"][metric]
        low, high = value["ci95"]
        click.echo(
            f"  {metric.replace('_', ' '):20} {100 * value['mean']:5.1f} %   95 % interval {100 * low:.1f} to"
            f" {100 * high:.1f}"
        )
    epochs = ", ".join(f"{row['chosen']} of {row['values'][-1]} ({row['split']})" for row in run.info["search"])
    click.echo(f"  best epoch by the validation part: {epochs}")
    if failed := run.info["coverage"]["failed"]:
        click.echo(f"  warning: {failed} videos did not decode and took no part", err=True)
    if leaks := run.info["leaks"]:
        click.echo(
            f"  warning: up to {max(leaks.values())} sources have clips of one class on both sides: these numbers are"
            " too high; --protocol grouped keeps sources apart",
            err=True,
        )
