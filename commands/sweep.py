"""`actionvit sweep`: cost and accuracy over resolutions, frame counts, variants and heads."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from actionvit.commands.command import Command, usage_errors
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.encoder_options import encoder_options
from actionvit.commands.missing import warn_of_missing
from actionvit.commands.options import (
    cache_option,
    decoding_options,
    device_option,
    echo_json,
    flush_option,
    jobs_option,
    json_option,
    output_option,
    precision_option,
)
from actionvit.commands.progress import progress, stages
from actionvit.commands.spec_options import spec_object, spec_values
from actionvit.features.view_settings import ViewSettings
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.text import duration, pluralize

if TYPE_CHECKING:
    from actionvit.features.decoding.policy import DecodingOptions
    from actionvit.features.device import Precision
    from actionvit.heads.saving import HeadName
    from actionvit.heads.weighting import ClassWeight
    from actionvit.pipeline.datasets.dataset import Dataset
    from actionvit.pipeline.experiments.sweep import Estimate, Planned
    from actionvit.pipeline.extraction.job import EncoderChoice


@click.command(
    cls=Command,
    examples="""
    actionvit sweep videos/ --num-frames 4,8,16 --size 160,224
    actionvit sweep videos/ --variant base,hr --head linear,knn --dry-run
    """,
)
@dataset_options
@encoder_options
@spec_values(ViewSettings, "num_frames", "num_frames")
@spec_values(ViewSettings, "size", "sizes")
@spec_object("views", ViewSettings, "num_clips", "crops")
@spec_values(ProbeSpec, "head", "heads", ("linear",))
@spec_values(ProbeSpec, "class_weight", "weightings", ("none",))
@cache_option
@precision_option()
@device_option()
@decoding_options
@flush_option
@spec_object("base", ProbeSpec, "select_on", "protocol", "folds", "test_fraction", "seeds")
@jobs_option
@output_option("experiments-output/DATASET-sweep")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    data: DatasetOptions,
    encoders: EncoderChoice,
    num_frames: tuple[int, ...],
    sizes: tuple[int, ...],
    views: ViewSettings,
    heads: tuple[HeadName, ...],
    weightings: tuple[ClassWeight, ...],
    cache: Path,
    precision: Precision | Literal["auto"],
    device: str,
    decoding: DecodingOptions,
    flush_seconds: float,
    base: ProbeSpec,
    jobs: int,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compare cost and accuracy over frames, sizes, variants and heads.

    Settings that are not cached are embedded first; the plan and an estimate are printed before that. The command can
    be stopped at any time and continues where it was. All settings are scored on the same videos.

    Exit code 3: some videos failed.
    """
    from actionvit.features.decoding import DecodePolicy
    from actionvit.features.device import resolve_device
    from actionvit.features.store.store import FeatureStore
    from actionvit.pipeline.experiments.sweep import embed, plan_sweep, probe_all, remaining_work, run_folder
    from actionvit.pipeline.experiments.sweep_table import write_sweep
    from actionvit.pipeline.extraction.job import make_jobs
    from actionvit.pipeline.probing.probe import build_head
    from actionvit.pipeline.probing.results import check_own
    from actionvit.pipeline.probing.tasks import plan

    dataset = data.open()
    base = replace(base, criterion="accuracy")  # one criterion for all, so that scores can be compared
    specs = [replace(base, head=head, class_weight=weighting) for head in heads for weighting in weightings]
    for spec in specs:  # refuse a head without the setting, and impossible splits, before hours of extraction
        build_head(spec)
        plan(dataset, spec)
    device, resolved = resolve_device(device, precision)
    shapes = [
        replace(views, num_frames=frames, size=size) for frames in num_frames or (None,) for size in sizes or (None,)
    ]
    with usage_errors():
        encoder_jobs = make_jobs(shapes, precision=resolved, **encoders)
    planned = plan_sweep(dataset, encoder_jobs, cache=cache, policy=DecodePolicy())
    estimate = remaining_work(planned, device)
    record = _plan_record(planned, estimate)
    if not as_json:
        _print_plan(dataset, planned, estimate, device)
    elif dry_run:
        echo_json(record)
    if dry_run:
        return
    folder = out or Path("experiments-output") / f"{dataset.name}-sweep"
    check_own(run_folder(folder / "runs", setting, spec) for setting in planned for spec in specs)
    with stages("video", delay=0) as show:
        embed(
            dataset,
            planned,
            cache=cache,
            device=device,
            on_video=show,
            flush_seconds=flush_seconds,
            **decoding,
        )
    failed = sum(warn_of_missing(dataset, FeatureStore.open(setting.store)) for setting in planned)
    typed = ["actionvit", *sys.argv[1:]]
    probed, count = [], len(planned) * len(specs)
    with progress("probe", "setting", total=count) as advance:
        for entry in probe_all(dataset, planned, specs, runs=folder / "runs", jobs=jobs, command=typed):
            probed.append(entry)
            advance(len(probed), count)
    table = write_sweep(folder, dataset, probed, command=typed)
    if not as_json:
        click.echo(f"\n{table.markdown}\n{folder}")
    if as_json:
        echo_json({**record, "folder": str(folder), "tables": [table.record]})
    if failed:
        ctx.exit(3)


def _plan_record(planned: Sequence[Planned], estimate: Estimate | None) -> dict[str, Any]:
    """Return the plan as plain values."""
    settings = [
        {
            "setting": setting.name,
            "store": str(setting.store),
            "gmac_per_video": setting.gmac,
            "cached": setting.rows,
            "to_embed": setting.todo,
        }
        for setting in planned
    ]
    total, _, seconds = estimate or (0.0, None, (0.0, 0.0))
    measured = None if math.isnan(seconds[0]) else seconds
    return {"settings": settings, "gmac_to_embed": total, "seconds_to_embed": measured}


def _print_plan(dataset: Dataset, planned: Sequence[Planned], estimate: Estimate | None, device: str) -> None:
    """Print cached and missing videos per setting, and an estimate of the time from a rate measured here."""
    click.echo(f"{dataset.name}: {pluralize(len(dataset.videos), 'video')}, {pluralize(len(planned), 'setting')}")
    for setting in planned:
        todo = (
            f"{setting.todo} to embed, {setting.todo * setting.gmac:,.0f} GMAC" if setting.todo else "nothing to embed"
        )
        click.echo(f"  {setting.name:16} {setting.gmac:8.2f} GMAC per video: {setting.rows} cached, {todo}")
    if estimate:
        total, most, (shortest, longest) = estimate
        if math.isnan(shortest):
            click.echo(f"to embed: {total:,.1f} GMAC")
        else:
            click.echo(
                f"to embed: {total:,.0f} GMAC, about {duration(shortest)} to {duration(longest)} of forward passes"
                f" ({most.name}, measured on {device}; decoding may take longer)"
            )
