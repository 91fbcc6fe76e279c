"""`actionvit finetune`: stage 2 by training the encoder, from its head to all of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from actionvit.commands.command import Command, long_name, write_line
from actionvit.commands.dataset_options import dataset_options, open_dataset
from actionvit.commands.finetune_options import training_options
from actionvit.commands.options import (
    cache_option,
    echo_json,
    json_option,
    overwrite_option,
    root_argument,
    run_name_option,
    runs_option,
    variant_option,
    weights_option,
)
from actionvit.commands.progress import stages

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset
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
    """Train on a dataset's videos, select the epoch on part of each training set, and score each test set once.

    Unless all is trained, the videos go through the frozen blocks once, a few augmented views each, and every epoch
    reads the resulting tokens from the cache. Several processes: `torchrun --nproc-per-node N -m -- actionvit finetune
    ...`.
    """
    from actionvit.features.device import resolve_device
    from actionvit.pipeline.finetuning.distributed import init_distributed

    if options["resume"] and options["restart"]:
        raise click.UsageError("--resume and --restart exclude each other; give one of them")
    device, precision = resolve_device(options["device"], options["precision"])
    dataset = open_dataset(options["root"], options)
    spec = _spec(options, precision == "bf16")
    with init_distributed(device, timeout=options["rank_timeout"]) as group:
        run = _run(options, dataset, spec, group)
    if run is None:
        return
    if options["as_json"]:
        echo_json({"run": str(run.folder), "summary": run.metrics["summary"], "search": run.info["search"]})
    else:
        _print_run(run)
    if run.info["coverage"]["failed"] and group.world == 1:  # torchrun would take any code but 0 for a crash
        click.get_current_context().exit(3)


def _run(options: dict[str, Any], dataset: Dataset, spec: FinetuneSpec, group: ProcessGroup) -> Run | None:
    from actionvit.pipeline.finetuning.run import finetune_run, training_folder
    from actionvit.pipeline.finetuning.run_writer import run_name
    from actionvit.pipeline.finetuning.split import TrainingContext

    if group.is_main:
        _warn_of_unused_options(options, spec)
    folder = options["runs"] / (options["run"] or run_name(spec))
    context = TrainingContext(
        cache=options["cache"],
        folder=training_folder(folder),
        ranks=group,
        workers=options["workers"],
        timeout=options["timeout"],
        memory=int(options["memory"] * 2**30),
        resume=options["resume"],
        flush_seconds=options["flush_seconds"],
    )
    with _progress(context, spec.training.epochs, quiet=options["as_json"] or not group.is_main):
        return finetune_run(
            dataset,
            options["weights"],
            spec,
            context,
            folder=folder,
            overwrite=options["overwrite"],
            restart=options["restart"],
            command=["actionvit", *sys.argv[1:]],
        )


def _spec(options: dict[str, Any], bf16: bool) -> FinetuneSpec:
    """Return the spec of those options that are settings of it, which have the same names."""
    from actionvit.pipeline.finetuning.settings import make_finetune_spec, setting_names

    if options["balanced"] and options["class_weight"] not in ("none", "balanced"):
        raise click.UsageError("--balanced is --class-weight balanced; give one of them")
    settings = {}
    for option in click.get_current_context().command.params:
        name = long_name(option).lstrip("-").replace("-", "_")
        if name in setting_names():
            settings[name] = options[option.name or ""]
    settings["crops"] = int(settings["crops"])
    if options["balanced"]:
        settings["class_weight"] = "balanced"
    return make_finetune_spec(options["variant"], train=options["train"], bf16=bf16, **settings)


def _warn_of_unused_options(options: dict[str, Any], spec: FinetuneSpec) -> None:
    """Warn of options given on the command line that have no effect beside the others."""
    from actionvit.pipeline.finetuning.spec import AugmentSpec

    unused: dict[str, str] = {}
    if spec.train in ("head", "last:1"):
        reason = f"with --train {spec.train}: it applies to trained blocks below the last"
        unused |= {"checkpointing": reason, "drop_path": reason}
    if spec.augment is None:
        unused |= dict.fromkeys((*AugmentSpec.__dataclass_fields__, "views"), "with --no-augment")
    if spec.tokens is None:
        unused["token_precision"] = "without tokens"
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        if name in unused and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            click.echo(f"warning: {long_name(option)} does nothing {unused[name]}", err=True)


@contextmanager
def _progress(context: TrainingContext, epochs: int, *, quiet: bool) -> Iterator[None]:
    """Show the progress, and print a line per epoch."""
    if quiet:
        yield
        return

    def echo(line: str) -> None:
        write_line(line, err=False)

    def on_tokens(count: int, size: int) -> None:
        echo(f"{count} videos go through the frozen blocks once: {size / 1e9:.1f} GB in {context.cache}")

    def on_video(done: int, total: int) -> None:
        advance("frozen blocks", done, total)

    def on_split(name: str, rows: TrainValRows) -> None:
        val = f", {len(rows.val)} to select the epoch" if len(rows.val) else ""
        echo(f"{name}: {len(rows.train)} clips to train on{val}")
        for rank, counts in enumerate(rows.histograms if len(rows.histograms) > 1 else ()):
            echo(f"  rank {rank}: {' '.join(map(str, counts))} clips per class")

    def on_step(name: str, now: Progress) -> None:
        done = (now.epoch - 1) * now.steps + now.step
        figures = f"loss {now.loss:.2f}, {100 * now.accuracy:.0f} %, {now.clips_per_second:.0f} clips/s"
        advance(name, done, now.steps * epochs, f"epoch {now.epoch}/{epochs}, {figures}")

    def on_epoch(name: str, row: dict[str, float]) -> None:
        values = [f"loss {row['loss']:.3f}" if "loss" in row else "before training"]
        if "validation_accuracy" in row:
            values.append(f"validation accuracy {100 * row['validation_accuracy']:.1f} %")
            values.append(f"log loss {row['validation_log_loss']:.3f}")
        echo(f"{name} epoch {int(row['epoch']):3}: {', '.join(values)}")

    context.on_tokens, context.on_split = on_tokens, on_split
    context.on_video, context.on_step, context.on_epoch = on_video, on_step, on_epoch
    with stages("step", delay=0) as advance:
        yield


def _print_run(run: Run) -> None:
    """Print the metrics of a run."""
    click.echo(f"\n{run.folder}")
    for metric in ("top1", "top5", "mean_class_accuracy", "macro_f1"):
        value = run.metrics["summary"][metric]
        low, high = value["ci95"]
        spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
        click.echo(
            f"  {metric.replace('_', ' '):20} {100 * value['mean']:5.1f} %{spread:7}   95 % interval"
            f" {100 * low:.1f} to {100 * high:.1f}"
        )
    epochs = ", ".join(f"{row['chosen']} of {row['values'][-1]} ({row['split']})" for row in run.info["search"])
    click.echo(f"  best epoch on the validation set: {epochs}")
    if final := run.info["final"]:
        click.echo(f"  final model: trained on all {final['videos']} videos for {final['epochs']} epochs")
    if failed := run.info["coverage"]["failed"]:
        click.echo(f"  warning: {failed} videos did not decode and were left out", err=True)
    if leaks := run.info["leaks"]:
        click.echo(
            f"  warning: up to {max(leaks.values())} sources have clips of one class in both training and test set:"
            " these numbers are too high; --protocol grouped keeps sources apart",
            err=True,
        )
