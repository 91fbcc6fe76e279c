"""`actionvit finetune`: stage 2 by training the encoder, from its head to all of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from actionvit.commands.command import Command, given_options, warn, write_line
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.options import (
    FiniteRange,
    balanced_option,
    cache_option,
    decoding_options,
    device_option,
    echo_json,
    json_option,
    overwrite_option,
    precision_option,
    run_name_option,
    runs_option,
    variant_option,
    weights_option,
)
from actionvit.commands.progress import stages
from actionvit.commands.spec_options import spec_object
from actionvit.pipeline.finetuning.settings import FinetuneSettings, make_finetune_spec
from actionvit.pipeline.finetuning.spec import AugmentSpec
from actionvit.text import metric_line, pluralize

if TYPE_CHECKING:
    from actionvit.features.decoding.policy import DecodingOptions
    from actionvit.features.device import Precision
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
@dataset_options
@variant_option
@weights_option
@cache_option
@runs_option
@run_name_option
@overwrite_option
@click.option("--resume", is_flag=True, help="Continue the interrupted training of this run name.")
@click.option("--restart", is_flag=True, help="Discard the interrupted training of this run name.")
@spec_object("settings", FinetuneSettings)
@balanced_option
@click.option(
    "--frame-cache-gib",
    "memory",
    type=FiniteRange(0),
    default=2.0,
    show_default=True,
    callback=lambda _ctx, _param, gib: int(gib * 2**30),
    help="Memory for decoded frames or tokens, in GiB.",
)
@click.option(
    "--rank-timeout",
    type=FiniteRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds to wait for a rank that does not answer.",
)
@precision_option("auto", "fp32", "bf16")
@device_option()
@decoding_options
@click.option(
    "--checkpoint-every",
    "flush_seconds",
    type=FiniteRange(0),
    default=0.0,
    show_default=True,
    help="Minimum seconds between checkpoints; 0: after every epoch.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    data: DatasetOptions,
    variant: str,
    weights: str | None,
    cache: Path,
    runs: Path,
    run_name: str | None,
    overwrite: bool,
    resume: bool,
    restart: bool,
    settings: FinetuneSettings,
    balanced: bool,
    memory: int,
    rank_timeout: float,
    precision: Precision | Literal["auto"],
    device: str,
    decoding: DecodingOptions,
    flush_seconds: float,
    as_json: bool,
) -> None:
    """Train on a dataset's videos, select the epoch on part of each training set, and score each test set once.

    `--select-on val` selects it on the validation set that came with the data.

    Unless all is trained, the videos go through the frozen blocks once, a few augmented views each, and every epoch
    reads the resulting tokens from the cache. Several processes: `torchrun --nproc-per-node N -m -- actionvit finetune
    ...`.
    """
    from actionvit.features.device import resolve_device
    from actionvit.pipeline.finetuning.distributed import init_distributed
    from actionvit.pipeline.finetuning.run import finetune_run
    from actionvit.pipeline.finetuning.run_writer import run_name as default_name
    from actionvit.pipeline.finetuning.split import TrainingContext
    from actionvit.pipeline.run_folder import check_run_name, training_folder

    if resume and restart:
        raise click.UsageError("--resume and --restart exclude each other; give one of them")
    check_run_name(run_name)
    loss = settings.training.loss
    if balanced and loss.class_weight not in ("none", "balanced"):
        raise click.UsageError("--balanced is --class-weight balanced; give one of them")
    if balanced:
        training = replace(settings.training, loss=replace(loss, class_weight="balanced"))
        settings = replace(settings, training=training)
    device, resolved = resolve_device(device, precision)
    dataset = data.open()
    spec = make_finetune_spec(variant, settings, bf16=resolved == "bf16")
    folder = runs / (run_name or default_name(spec))
    with init_distributed(device, timeout=rank_timeout) as group:
        if group.is_main:
            _warn_of_unused_options(spec)
        context = TrainingContext(
            cache=cache,
            folder=training_folder(folder),
            ranks=group,
            memory=memory,
            resume=resume,
            flush_seconds=flush_seconds,
            **decoding,
        )
        with _progress(context, spec.training.epochs, quiet=as_json or not group.is_main):
            run = finetune_run(
                dataset,
                weights,
                spec,
                context,
                folder=folder,
                overwrite=overwrite,
                restart=restart,
                command=["actionvit", *sys.argv[1:]],
            )
    if run is None:
        return
    if not as_json:
        _print_run(run)
    _warn_of_run(run)
    if as_json:
        echo_json({"run": str(run.folder), "summary": run.metrics["summary"], "search": run.info["search"]})
    if run.info["coverage"]["failed"] and group.world == 1:  # torchrun would take any code but 0 for a crash
        ctx.exit(3)


def _warn_of_unused_options(spec: FinetuneSpec) -> None:
    """Warn of options given on the command line that have no effect beside the others."""
    unused: dict[str, str] = {}
    if spec.train in ("head", "last:1"):
        reason = f"with --train {spec.train}: it applies to trained blocks below the last"
        unused |= dict.fromkeys(("activation_checkpointing", "drop_path", "layer_decay"), reason)
    if spec.augment is None:
        unused |= dict.fromkeys((*AugmentSpec.__dataclass_fields__, "cached_views"), "with --no-augment")
    else:
        unused |= {} if spec.augment.flip else {"keep_sides": "with --no-augment-flip"}
        unused |= {} if spec.augment.colours else {"strength": "with --color-ops 0"}
    if spec.tokens is None:
        unused["token_precision"] = "without tokens"
    if spec.select_on == "val":
        unused["val_fraction"] = "with --select-on val"
    for name, option in given_options(unused).items():
        warn(f"{option} does nothing {unused[name]}")


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
        advance("frozen blocks", done, total, unit="video")

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
        click.echo(metric_line(metric, run.metrics["summary"][metric]))
    epochs = ", ".join(f"{row['chosen']} of {row['values'][-1]} ({row['split']})" for row in run.info["search"])
    click.echo(f"  best epoch on the validation set: {epochs}")
    if final := run.info["final"]:
        click.echo(f"  final model: trained on all {final['videos']} videos for {final['epochs']} epochs")


def _warn_of_run(run: Run) -> None:
    """Warn of a run's undecodable videos, and of sources in both training and test set."""
    if failed := run.info["coverage"]["failed"]:
        warn(f"{pluralize(failed, 'video')} did not decode and {'was' if failed == 1 else 'were'} left out")
    if leaks := run.info["leaks"]:
        warn(
            f"up to {max(leaks.values())} sources have clips of one class in both training and test set: these numbers"
            " are too high; --protocol grouped keeps sources apart"
        )
