"""`actionvit extract`: stage 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Command
from actionvit.commands.dataset_options import dataset_options, open_dataset
from actionvit.commands.options import (
    FiniteRange,
    cache_option,
    crops_option,
    decoding_options,
    device_option,
    echo_json,
    encoders_option,
    flush_option,
    json_option,
    num_clips_option,
    num_frames_option,
    precision_option,
    root_argument,
    sampling_options,
    several_numbers,
    size_option,
    variants_option,
    wait_option,
    weights_options,
    without_default_variant,
)
from actionvit.commands.progress import progress

if TYPE_CHECKING:
    from actionvit.features.device import Precision
    from actionvit.features.encoder import EncoderJob
    from actionvit.features.transformers_encoder import TransformersJob
    from actionvit.pipeline.extraction.summary import Summary


def _shard(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse `i/n`, or take it from a scheduler's variables."""
    if value is None:
        return None
    if value == "auto":
        from actionvit.pipeline.extraction.shards import shard_from_environment

        shard, scheduler = shard_from_environment()
        click.echo(f"shard {shard[0]} of {shard[1]}, from {scheduler}", err=True)
        return shard
    part, _, parts = value.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise click.BadParameter(f"got {value!r}, expected auto, or i/n with 1 <= i <= n, for example 2/8")
    return int(part), int(parts)


@click.command(
    cls=Command,
    examples="""
    actionvit extract videos/ --variant base
    actionvit extract videos/ --variant base,hr --device cuda
    actionvit extract videos/ --shard 2/8
    """,
)
@root_argument
@variants_option
@weights_options
@encoders_option
@dataset_options
@cache_option
@num_frames_option
@size_option
@sampling_options
@num_clips_option
@crops_option()
@click.option("--flip", is_flag=True, help="Also embed the mirrored view.")
@click.option(
    "--frame-pool",
    type=click.Choice(["cls", "mean"]),
    default="cls",
    show_default=True,
    help="Frame-level embedding: the frame's CLS token, or the mean of its patches.",
)
@several_numbers("--save-layers", "layers", metavar="9,12", help="Also save the CLS token after these blocks.")
@click.option(
    "--save-tokens-after", "tokens_after", type=click.IntRange(0), help="Also save all tokens after this block."
)
@precision_option()
@click.option("--compile", is_flag=True, help="Use torch.compile: slow start, slightly other numbers, own store.")
@device_option()
@decoding_options
@click.option(
    "--backend", type=click.Choice(["pyav", "decord"]), default="pyav", show_default=True, help="Video decoder."
)
@click.option(
    "--on-corrupt",
    type=click.Choice(["keep", "skip"]),
    default="keep",
    show_default=True,
    help="Damaged videos whose sampled frames decode: keep and flag them, or skip them.",
)
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
@wait_option
@flush_option
@click.option(
    "--flush-mib",
    type=FiniteRange(0, min_open=True),
    default=64.0,
    show_default=True,
    help="Publish embeddings when this many MiB are waiting.",
)
@click.option("--verify", is_flag=True, help="Hash every video again, even if its size and time are unchanged.")
@click.option("--retry-failed", is_flag=True, help="Retry videos listed in failures.csv.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Stage 1: decode every video in ROOT once and cache its embeddings in HDF5.

    ROOT is a folder of class folders (videos, or folders of frames) or a list file. Run the command again at any time:
    cached videos are skipped, new and changed ones are embedded. Other weights or settings make a new store, and the
    differences are printed.

    Exit code 3: some videos failed; they are listed in failures.csv in the store's folder.
    """
    from actionvit.features.decoding import DecodePolicy
    from actionvit.pipeline.extraction.extract import extract

    dataset = open_dataset(options["root"], options)
    without_default_variant(options)
    jobs = _jobs(options)
    with progress("extract", "video", total=len(dataset.videos)) as advance:
        work: Callable[..., Summary] = _on_engine(options) if options["engine"] else extract
        summary = work(
            dataset,
            jobs,
            cache=options["cache"],
            policy=DecodePolicy(backend=options["backend"], on_corrupt=options["on_corrupt"]),
            device=options["device"],
            **({"on_plan": _announce} if options["tokens_after"] is not None else {}),
            flush_bytes=int(options["flush_mib"] * (1 << 20)),
            on_video=advance,
            **{name: options[name] for name in PASSED_ON if not (options["engine"] and name in NOT_ON_ENGINES)},
        )
    if options["as_json"]:
        echo_json(_as_json(summary))
    else:
        _print(summary, dataset.name, options["dry_run"])
    if summary.failed:
        ctx.exit(3)


def _on_engine(options: dict[str, Any]) -> Callable[..., Summary]:
    """Return `extract` on the engine that was chosen."""
    from functools import partial

    from actionvit.features.decoding import available_cores
    from actionvit.features.device import resolve_device
    from actionvit.pipeline.extraction.driver import extract_on
    from actionvit.pipeline.extraction.engines import LocalEngine, RayEngine

    if options["shard"] or options["dry_run"]:
        raise click.UsageError("--engine makes its own shards: leave out --shard and --dry-run")
    workers = available_cores() if options["workers"] is None else options["workers"]
    if options["engine"] == "ray":
        if options["workers"] is None:
            options["workers"] = workers = min(workers, RAY_WORKERS)
        engine = RayEngine(options["address"], cpus=max(workers, 1), gpus=int(options["device"].startswith("cuda")))
        local_device, _ = resolve_device("auto", "fp32")
        return partial(extract_on, engine, shards=options["shards"] or 32, local_device=local_device)
    devices = [options["device"]]
    if devices == ["cuda"]:
        import torch

        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    options["workers"] = max(1, workers // len(devices)) if workers else 0
    return partial(extract_on, LocalEngine(devices), shards=options["shards"] or 4 * len(devices))


RAY_WORKERS = 4
"""Maximum default of `--workers` per Ray task: nodes may have fewer cores than the driver's machine."""
PASSED_ON = ("workers", "timeout", "shard", "wait", "flush_seconds", "verify", "retry_failed", "dry_run")
NOT_ON_ENGINES = ("shard", "dry_run")


def _jobs(options: dict[str, Any]) -> list[EncoderJob]:
    """Return one job per variant and per encoder."""
    from actionvit.features.device import resolve_device
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.variants import clip_spec
    from actionvit.pipeline.extraction.job import Job

    variants = list(dict.fromkeys(options["variants"]))
    sources = weights_by_variant(options["sources"], variants)
    device, precision = options["device"], options["precision"]
    if options["engine"] != "ray" or device != "cuda" or precision == "auto":  # the driver of Ray tasks needs no GPU
        device, precision = resolve_device(device, precision)
    options["device"] = device
    views = {name: options[name] for name in ("frames", "size", "sampling", "stride", "clips", "flip")}
    encoders = _encoder_jobs(options, precision, views)
    return [
        *encoders,
        *(
            Job(
                variant=variant,
                spec=clip_spec(variant, **views, crops=int(options["crops"])),
                weights=find_weights(variant, sources.get(variant)),
                precision=precision,
                frame_pool=options["frame_pool"],
                layers=tuple(sorted(options["layers"])),
                tokens_after=options["tokens_after"],
                compile=options["compile"],
            )
            for variant in variants
        ),
    ]


def _encoder_jobs(options: dict[str, Any], precision: Precision, views: dict[str, Any]) -> list[EncoderJob]:
    """Return one job per `--encoder [NAME=]SRC`."""
    only_timesformer = {"--save-layers": "layers", "--save-tokens-after": "tokens_after", "--compile": "compile"}
    used = [option for option, name in only_timesformer.items() if options[name] not in ((), None, False)]
    if options["encoders"] and (used or options["frame_pool"] != "cls"):
        raise click.UsageError(f"{used[0] if used else '--frame-pool'} is for TimeSformer variants, not for --encoder")
    crops = int(options["crops"])
    return [*find_encoders(options["encoders"], precision=precision, crops=crops, **views)]


def find_encoders(sources: Sequence[str], **settings: Any) -> list[TransformersJob]:
    """Return one job per `[NAME=]SRC`; `settings` are those of `find_encoder`."""
    from actionvit.features.timesformer.variants import VARIANTS
    from actionvit.features.transformers_encoder import find_encoder

    jobs: list[TransformersJob] = []
    for text in sources:
        name, equals, source = text.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]+", name):
            name, source = "", text
        job = find_encoder(source, name=name or None, **settings)
        if job.variant in VARIANTS or job.variant in [other.variant for other in jobs]:
            raise click.UsageError(f"--encoder {text}: the name {job.variant} is taken; give --encoder NAME={source}")
        jobs.append(job)
    return jobs


def _announce(rows: int, size: int) -> None:
    """Print the size to be written, since tokens take a hundred times the space of embeddings."""
    if rows:
        each, whole = size / rows / 1e6, size / 1e9
        click.echo(f"{rows} rows to write, {each:.1f} MB each with all tokens: {whole:.2f} GB", err=True)


def weights_by_variant(given: tuple[str, ...], variants: list[str]) -> dict[str, str]:
    """Return variant -> weights, from `SRC` (for a single variant) or `VARIANT=SRC`."""
    sources = {}
    for text in given:
        variant, equals, source = text.partition("=")
        if equals and variant in variants:
            sources[variant] = source
        elif len(variants) == 1:
            sources[variants[0]] = text
        else:
            names = " or ".join(f"--weights {name}={text}" for name in variants)
            raise click.UsageError(f"--weights {text}: several variants are given; use {names}")
    return sources


def _as_json(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain values."""
    from dataclasses import asdict

    bound, share = summary.limit
    outcomes = [{**asdict(outcome), "store": str(outcome.store)} for outcome in summary.outcomes]
    more = {"bound_by": bound, "share_of_limit": share, "gmac_per_second": summary.gmac_per_second}
    return {**asdict(summary), **more, "outcomes": outcomes}


def _print(summary: Summary, dataset: str, dry_run: bool) -> None:
    """Print what was done, one line per variant, and the time per stage."""
    for outcome in summary.outcomes:
        counts = {
            "to embed": outcome.pending,
            "embedded": outcome.embedded,
            "already cached": outcome.cached,
            "copied from rows of the same content": outcome.reused,
            "flagged": outcome.flagged,
            "failed": outcome.failed,
        }
        done = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to do"
        click.echo(f"{dataset} {outcome.variant}: {outcome.rows} of {summary.videos} videos cached ({done})")
        click.echo(f"  {outcome.store}")
        for difference in outcome.other_keys[:3]:
            click.echo(f"  new store; its key differs from {difference}")
        if outcome.failed:
            click.echo(f"  failed videos are listed in {outcome.store / 'failures.csv'}; --retry-failed retries them")
    for lost in summary.lost:
        click.echo(f"  lost and repeated: {lost}")
    if summary.decoded and not dry_run:
        _print_times(summary)


def _print_times(summary: Summary) -> None:
    from actionvit.text import pluralize

    (bottleneck, fraction), busy = summary.limit, summary.stage_seconds
    rate = summary.decoded / summary.loop
    workers = f"on {pluralize(summary.workers, 'worker')}" if summary.workers else "in this process"
    click.echo(
        f"{pluralize(summary.decoded, 'video')} in {summary.loop:.1f} s ({rate:.2f} per second)"
        f" after {summary.start:.1f} s of start-up\n"
        f"  time per stage (stages overlap): decode {busy.decode:.1f} s {workers}, copy {busy.copy:.1f} s,"
        f" resize {busy.prepare:.1f} s,\n"
        f"  forward {busy.forward:.1f} s at {summary.gmac_per_second:.0f} GMAC/s, write {busy.write:.1f} s\n"
        f"  bottleneck: {bottleneck}, busy {fraction:.0%} of the run"
    )
