"""`actionvit sweep`: which resolution, how many frames, which head."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Command
from actionvit.commands.dataset_options import dataset_options, open_dataset
from actionvit.commands.extract import find_encoders, weights_by_variant
from actionvit.commands.options import (
    CLASS_WEIGHT_HELP,
    CLASS_WEIGHTS,
    HEADS,
    cache_option,
    crops_option,
    decoding_options,
    device_option,
    encoders_option,
    flush_option,
    jobs_option,
    num_clips_option,
    output_option,
    precision_option,
    root_argument,
    seeds_option,
    several,
    several_numbers,
    split_options,
    variants_option,
    weights_options,
    without_default_variant,
)
from actionvit.commands.progress import progress, stages
from actionvit.errors import ActionVitError
from actionvit.text import duration

if TYPE_CHECKING:
    from actionvit.features.encoder import EncoderJob
    from actionvit.features.transformers_encoder import TransformersJob
    from actionvit.pipeline.datasets.dataset import Dataset
    from actionvit.pipeline.experiments.grids import Row
    from actionvit.pipeline.experiments.sweep import Planned
    from actionvit.pipeline.extraction.summary import Summary
    from actionvit.pipeline.probing.tasks import ProbeSpec

FEW = 20
"""Videos of the dearest setting, below whose cost no rate is measured."""

VARIANTS = ("base", "hr", "large", "tiny", "tiny-hr")


@click.command(
    cls=Command,
    examples="""
    actionvit sweep videos/ --num-frames 4,8,16 --size 160,224
    actionvit sweep videos/ --variant base,hr --head linear,knn --dry-run
    """,
)
@root_argument
@variants_option
@several_numbers("--num-frames", "frames", help="Frames per view (T).  [default: the variant's; repeatable]")
@several_numbers("--size", "sizes", help="Side of a view in pixels (S).  [default: the variant's; repeatable]")
@several("--head", "heads", choices=HEADS, default=("linear",), help="Classifier head.  [default: linear; repeatable]")
@several(
    "--class-weight",
    "weightings",
    choices=CLASS_WEIGHTS,
    default=("none",),
    help=f"{CLASS_WEIGHT_HELP}  [default: none]",
)
@weights_options
@encoders_option
@dataset_options
@cache_option
@num_clips_option
@crops_option()
@precision_option()
@device_option()
@decoding_options
@flush_option
@split_options()
@seeds_option(note="as for probe")
@jobs_option
@output_option("experiments-output/DATASET-sweep")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Compare cost and accuracy over frames, sizes, variants and heads.

    Settings that are not cached are embedded first; the plan and an estimate are printed before that. The command can
    be stopped at any time and continues where it was. All settings are scored on the same videos.

    Exit code 3: some videos failed.
    """
    from actionvit.features.decoding import DecodePolicy
    from actionvit.pipeline.experiments.sweep import embed, plan_sweep

    dataset = open_dataset(options["root"], options)
    specs = [_spec(options, head, weighting) for head in options["heads"] for weighting in options["weightings"]]
    _check(specs)
    without_default_variant(options)
    planned = plan_sweep(dataset, _jobs(options), cache=options["cache"], policy=DecodePolicy())
    _say_plan(dataset, planned, options)
    if options["dry_run"]:
        return
    with stages("video", delay=0) as advance:
        summaries = embed(
            dataset,
            planned,
            on_video=lambda group, done, total: advance(", ".join(one.name for one in group), done, total),
            cache=options["cache"],
            device=options["device"],
            workers=options["workers"],
            timeout=options["timeout"],
            flush_seconds=options["flush_seconds"],
        )
    _write(dataset, planned, specs, options)
    if _say_failures(summaries):
        ctx.exit(3)


def _spec(options: dict[str, Any], head: str, weighting: str) -> ProbeSpec:
    """One criterion for all, or their scores could not be compared."""
    from actionvit.pipeline.probing.tasks import ProbeSpec

    same = {name: options[name] for name in ("protocol", "folds", "test_fraction", "seeds")}
    return ProbeSpec(head=head, class_weight=weighting, criterion="accuracy", **same)  # type: ignore[arg-type]


def _check(specs: Sequence[ProbeSpec]) -> None:
    """Refuse a head without the setting before hours are spent."""
    from actionvit.pipeline.probing.probe import build_head

    for spec in specs:
        build_head(spec)


def _jobs(options: dict[str, Any]) -> list[EncoderJob]:
    """Return one job a setting of the encoder."""
    from actionvit.features.device import resolve_device
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.variants import clip_spec
    from actionvit.pipeline.extraction.job import Job

    sources = weights_by_variant(options["sources"], list(options["variants"]))
    weights = {variant: find_weights(variant, sources.get(variant)) for variant in options["variants"]}
    options["device"], precision = resolve_device(options["device"], options["precision"])
    views = {"clips": options["clips"], "crops": int(options["crops"])}
    encoders = find_encoders(options["encoders"], precision=precision, **views)
    shapes = [(frames, size) for frames in options["frames"] or (None,) for size in options["sizes"] or (None,)]
    specs = [
        (variant, clip_spec(variant, frames=frames, size=size, **views))
        for variant in weights
        for frames, size in shapes
    ]
    return [
        *(Job(variant=variant, spec=spec, weights=weights[variant], precision=precision) for variant, spec in specs),
        *(job for encoder in encoders for job in _supported(encoder, shapes)),
    ]


def _supported(encoder: TransformersJob, shapes: Sequence[tuple[int | None, int | None]]) -> Sequence[TransformersJob]:
    """Return one job per shape that an encoder supports; print the shapes that are left out.

    Raises
    ------
    ActionVitError
        If it supports none of them.
    """
    jobs, refusals = [], []
    for frames, size in shapes:
        spec = replace(encoder.spec, num_frames=frames or encoder.spec.num_frames, size=size or encoder.spec.size)
        job = replace(encoder, spec=spec)
        try:
            job.output_spec()
        except ActionVitError as error:
            refusals.append(error)
        else:
            jobs.append(job)
    if not jobs:
        raise refusals[0]
    for refusal in refusals:
        click.echo(f"note: left out: {refusal}", err=True)
    return jobs


def _say_plan(dataset: Dataset, planned: Sequence[Planned], options: dict[str, Any]) -> None:
    """Say what is cached, what is not, and what that costs by a rate measured here."""
    from actionvit.pipeline.experiments.sweep import measured_rate

    click.echo(f"{dataset.name}: {len(dataset.videos)} videos, {len(planned)} settings")
    for one in planned:
        said = f"{one.todo} to embed, {one.todo * one.gmac:,.0f} GMAC" if one.todo else "nothing to embed"
        click.echo(f"  {one.name:16} {one.gmac:8.2f} GMAC a video: {one.rows} cached, {said}")
    lacking = [one for one in planned if one.todo]
    if not lacking:
        return
    total = sum(one.todo * one.gmac for one in lacking)
    most = max(lacking, key=lambda one: one.todo * one.gmac)
    if total < FEW * most.gmac:  # measuring would take as long as doing it
        click.echo(f"to embed: {total:,.1f} GMAC")
        return
    slow, fast = measured_rate(most, options["device"])
    click.echo(
        f"to embed: {total:,.0f} GMAC, about {duration(total / fast)} to {duration(total / slow)} of forwards"
        f" ({most.name}, measured on {options['device']}; decoding may take longer)"
    )


def _write(dataset: Dataset, planned: Sequence[Planned], specs: Sequence[ProbeSpec], options: dict[str, Any]) -> None:
    """Probe what is not probed yet, write the table and the plot, and say which setting the search prefers."""
    from actionvit.pipeline.experiments.grids import protocol_of
    from actionvit.pipeline.experiments.sweep import choose_per_split, nested_line, probe_all, row_of
    from actionvit.pipeline.experiments.tables import accuracy_by_cost, write_table

    folder: Path = options["out"] or Path("experiments-output") / f"{dataset.name}-sweep"
    typed = ["actionvit", *sys.argv[1:]]
    found = probe_all(dataset, planned, specs, runs=folder / "runs", jobs=options["jobs"], command=typed)
    probed, count = [], len(planned) * len(specs)
    with progress("probe", "setting", total=count) as advance:
        for one in found:
            probed.append(one)
            advance(len(probed), count)
    rows = [row_of(one) for one in probed]
    caption = (
        f"{dataset.name}, protocol {protocol_of(dataset, specs[0])}. GMAC: 10⁹ multiply-adds a video, all its views."
        " `inside`: accuracy of the cross-validation inside the training sets."
        " Percent: mean ± deviation between splits [95 % interval by source]."
    )
    choice = choose_per_split([one.run for one in probed], [one.planned.gmac for one in probed])
    chosen = nested_line(choice, rows)
    nested = None if choice is None else {"summary": choice.summary, "chosen": dict(choice.chosen)}
    about = {"dataset": dataset.name, "command": typed, "nested": nested}
    files = write_table(folder, "sweep", rows, caption=caption, about=about, findings=[chosen])
    drawn = [{**row, "series": _series(row), "setting": f"{row['frames']}×{row['size']}"} for row in rows]
    accuracy_by_cost(drawn, folder / "accuracy.png", x="GMAC", y="top1")
    click.echo("\n" + files[-1].read_text(encoding="utf-8"))
    click.echo(str(folder))


def _series(row: Row) -> str:
    """Return `hr attentive balanced`; no weighting needs no word."""
    return " ".join(str(row[name]) for name in ("variant", "head", "weighting") if row[name] != "none")


def _say_failures(summaries: Sequence[Summary]) -> int:
    """Say which ledgers name videos that failed; return how many lines there are."""
    failed = [outcome for summary in summaries for outcome in summary.outcomes if outcome.failed]
    for outcome in failed:
        click.echo(f"{outcome.failed} videos failed: {outcome.store / 'failures.csv'} names them", err=True)
    return len(failed)
