"""`actionvit extract`: stage 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from actionvit.commands.command import Command, is_verbose, refuse_options, usage_errors, warn, with_options
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.encoder_options import encoder_options
from actionvit.commands.options import (
    FiniteRange,
    cache_option,
    decoding_options,
    device_option,
    echo_json,
    flush_option,
    json_option,
    packed,
    precision_option,
    several_numbers,
    wait_option,
)
from actionvit.commands.progress import progress
from actionvit.commands.spec_options import spec_object
from actionvit.errors import SettingError
from actionvit.features.decoding.policy import DecodePolicy
from actionvit.features.view_settings import ViewSettings
from actionvit.text import pluralize

if TYPE_CHECKING:
    from actionvit.features.device import Precision
    from actionvit.pipeline.extraction.engines import EngineKind
    from actionvit.pipeline.extraction.job import CommonOptions, EncoderChoice, Outputs
    from actionvit.pipeline.extraction.summary import Summary


def _shard(ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse `i/n`, or take it from a scheduler's variables."""
    if value is None:
        return None
    if value == "auto":
        from actionvit.pipeline.extraction.shards import shard_from_environment

        try:
            shard, scheduler = shard_from_environment()
        except SettingError as error:
            raise SettingError(with_options(str(error), ctx.command)) from error
        click.echo(f"shard {shard[0]} of {shard[1]}, from {scheduler}", err=True)
        return shard
    part, _, parts = value.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise click.BadParameter(f"got {value!r}, expected auto, or i/n with 1 <= i <= n, for example 2/8")
    return int(part), int(parts)


output_options = packed(
    "outputs",
    dict,
    ("frame_pool", "layers", "tokens_after", "compile"),
    click.option(
        "--frame-pool",
        type=click.Choice(["cls", "mean"]),
        default="cls",
        show_default=True,
        help="Frame-level embedding: the frame's CLS token, or the mean of its patches.",
    ),
    several_numbers("--save-layers", "layers", metavar="9,12", help="Also save the CLS token after these blocks."),
    click.option(
        "--save-tokens-after", "tokens_after", type=click.IntRange(0), help="Also save all tokens after this block."
    ),
    click.option("--compile", is_flag=True, help="Use torch.compile: slow start, slightly other numbers, own store."),
)
common_options = packed(
    "common",
    lambda decoding, **options: {**decoding, **options},
    ("cache", "decoding", "policy", "wait", "flush_seconds", "flush_bytes", "verify", "retry_failed"),
    cache_option,
    decoding_options,
    spec_object("policy", DecodePolicy, "backend", "on_corrupt"),
    wait_option,
    flush_option,
    click.option(
        "--flush-mib",
        "flush_bytes",
        type=FiniteRange(0, min_open=True),
        default=64.0,
        show_default=True,
        callback=lambda _ctx, _param, mib: int(mib * 2**20),
        help="Publish embeddings when this many MiB are waiting.",
    ),
    click.option("--verify", is_flag=True, help="Hash every video again, even if its size and time are unchanged."),
    click.option("--retry-failed", is_flag=True, help="Retry videos listed in failures.csv."),
)


@click.command(
    cls=Command,
    examples="""
    actionvit extract videos/ --variant base
    actionvit extract videos/ --variant base,hr --device cuda
    actionvit extract videos/ --shard 2/8
    """,
)
@dataset_options
@encoder_options
@spec_object("views", ViewSettings)
@output_options
@precision_option()
@device_option()
@common_options
@click.option(
    "--shard",
    callback=_shard,
    metavar="i/n|auto",
    help="Process the i-th of n parts; join with `cache merge`. auto: from the variables of Slurm, Kubernetes, ...",
)
@click.option(
    "--engine",
    type=click.Choice(["here", "ray"]),
    help="Extract in parallel: one process per GPU of this machine, or tasks on a Ray cluster.",
)
@click.option("--address", help="Ray cluster: auto, or ray://HOST:PORT.  [default: this machine alone]")
@click.option("--shards", type=click.IntRange(1), help="Number of shards.  [default: 4 per GPU; ray: 32]")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    data: DatasetOptions,
    encoders: EncoderChoice,
    views: ViewSettings,
    outputs: Outputs,
    precision: Precision | Literal["auto"],
    device: str,
    common: CommonOptions,
    shard: tuple[int, int] | None,
    engine: EngineKind | None,
    address: str | None,
    shards: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Stage 1: decode every video in ROOT once and cache its embeddings in HDF5.

    ROOT is a folder of class folders (videos, or folders of frames) or a list file. Run the command again at any time:
    cached videos are skipped, new and changed ones are embedded. Other weights or settings make a new store, and the
    differences are printed.

    Exit code 3: some videos failed; they are listed in failures.csv in the store's folder.
    """
    from actionvit.features.device import resolve_device
    from actionvit.pipeline.extraction.driver import extract_on
    from actionvit.pipeline.extraction.engines import make_engine
    from actionvit.pipeline.extraction.extract import extract
    from actionvit.pipeline.extraction.job import make_jobs

    if engine and (shard or dry_run):
        raise click.UsageError("--engine makes its own shards: leave out --shard and --dry-run")
    if engine != "ray":
        refuse_options("only --engine ray has a cluster", "address")
    if not engine:
        refuse_options("only --engine divides the work", "shards")
    dataset = data.open()
    resolved = precision
    if engine != "ray" or device != "cuda" or precision == "auto":  # the driver of Ray tasks needs no GPU
        device, resolved = resolve_device(device, precision)
    with usage_errors():
        jobs = make_jobs([views], precision=resolved, **encoders, **outputs)
    on_plan = _announce if outputs["tokens_after"] is not None else lambda rows, size: None
    with progress("extract", "video", total=len(dataset.videos)) as advance:
        if engine:
            workers = common["workers"]
            runner, count, common["workers"] = make_engine(engine, device, workers=workers, address=address)
            local = resolve_device("auto", "fp32")[0] if engine == "ray" else None
            summary = extract_on(
                runner,
                dataset,
                jobs,
                shards=shards or count,
                device=device,
                local_device=local,
                on_plan=on_plan,
                on_video=advance,
                **common,
            )
        else:
            summary = extract(
                dataset,
                jobs,
                device=device,
                shard=shard,
                dry_run=dry_run,
                on_plan=on_plan,
                on_video=advance,
                **common,
            )
    for outcome in summary.outcomes:
        if outcome.failed:
            warn(
                f"{outcome.variant}: {pluralize(outcome.failed, 'video')} failed, listed in"
                f" {outcome.store / 'failures.csv'}; --retry-failed retries them"
            )
    if as_json:
        echo_json(_as_json(summary))
    else:
        _print(summary, dataset.name, dry_run)
    if summary.failed:
        ctx.exit(3)


def _announce(rows: int, size: int) -> None:
    """Print the size to be written, since tokens take a hundred times the space of embeddings."""
    if rows:
        per_row, total = size / rows / 1e6, size / 1e9
        click.echo(f"{rows} rows to write, {per_row:.1f} MB each with all tokens: {total:.2f} GB", err=True)


def _as_json(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain values."""
    from dataclasses import asdict

    bound, share = summary.limit
    outcomes = [{**asdict(outcome), "store": str(outcome.store)} for outcome in summary.outcomes]
    more = {"bound_by": bound, "share_of_limit": share, "gmac_per_second": summary.gmac_per_second}
    return {**asdict(summary), **more, "outcomes": outcomes}


def _print(summary: Summary, dataset: str, dry_run: bool) -> None:
    """Print the result, one line per variant, and the speed."""
    for outcome in summary.outcomes:
        counts = {
            "to embed": outcome.pending,
            "embedded": outcome.embedded,
            "already cached": outcome.cached,
            "reused: identical files already embedded": outcome.reused,
            "flagged": outcome.flagged,
            "failed": outcome.failed,
        }
        done = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to do"
        click.echo(f"{dataset} {outcome.variant}: {outcome.rows} of {summary.videos} videos cached ({done})")
        click.echo(f"  {outcome.store}")
        for difference in outcome.other_keys[:3]:
            click.echo(f"  new store, because its settings differ from those of {difference}")
    for lost in summary.lost:
        click.echo(f"  lost and repeated: {lost}")
    if summary.decoded and not dry_run:
        _print_times(summary)


def _print_times(summary: Summary) -> None:
    """Print the speed and the bottleneck; with `-v` also the time per stage."""
    (bottleneck, fraction), busy = summary.limit, summary.stage_seconds
    rate = summary.decoded / summary.loop
    workers = f"on {pluralize(summary.workers, 'worker')}" if summary.workers else "in this process"
    click.echo(
        f"{pluralize(summary.decoded, 'video')} in {summary.loop:.1f} s ({rate:.2f} per second)"
        f" after {summary.start:.1f} s of start-up; bottleneck: {bottleneck}, busy {fraction:.0%} of the time"
    )
    if is_verbose():
        click.echo(
            f"  time per stage (stages run in parallel): decode {busy.decode:.1f} s {workers}, copy {busy.copy:.1f} s,"
            f" resize {busy.prepare:.1f} s,\n"
            f"  forward {busy.forward:.1f} s at {summary.gmac_per_second:.0f} GMAC/s (10^9 multiply-adds),"
            f" write {busy.write:.1f} s"
        )
