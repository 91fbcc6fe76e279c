"""`actionvit data check`: how a dataset was read, undecodable videos, leaks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from actionvit.commands.command import Command, refuse_options, with_options
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.options import decoding_options, echo_json, json_option
from actionvit.commands.progress import progress
from actionvit.text import pluralize, printable

if TYPE_CHECKING:
    from actionvit.features.decoding.policy import DecodingOptions
    from actionvit.pipeline.datasets.checking import Alike, Bin, Findings, SplitCheck

SHOWN = 10
"""Lines of a list that are printed; the others are only counted. `--json` prints all."""


@click.command(cls=Command, examples="actionvit data check videos/ --decode")
@dataset_options
@click.option("--decode", is_flag=True, help="Also decode every video: finds broken, damaged and duplicate videos.")
@decoding_options
@json_option
@click.pass_context
def check(ctx: click.Context, /, data: DatasetOptions, decode: bool, decoding: DecodingOptions, as_json: bool) -> None:
    """Check a dataset: how it was read, classes, splits, leaking sources, duplicates, undecodable videos.

    Without official lists, the splits are those that `probe` would make.

    Exit code 3: some videos do not decode.
    """
    from actionvit.pipeline.datasets.checking import check

    if not decode:
        refuse_options("only --decode decodes videos", "workers", "timeout")
    dataset = data.open(notes=0)
    count = len(dataset.videos)
    with progress("check", "video", delay=0.5, total=count) as advance:
        findings = check(dataset, decode=decode, on_video=lambda done: advance(done, count), **decoding)
    if as_json:
        echo_json(asdict(findings))
    else:
        _print(findings)
    if findings.undecodable:
        ctx.exit(3)


def _print(findings: Findings) -> None:
    sources = f"{findings.sources} sources" if findings.sources is not None else "sources unknown"
    classes = pluralize(len(findings.classes), "class", "classes")
    click.echo(f"{findings.name}: {findings.format}, {findings.videos} videos of {classes}, {sources}")
    click.echo(findings.read_as)
    _lines([f"from {file}" for file in findings.files])
    if findings.classes:
        _bars(list(findings.classes.items()))
    _print_plan(findings.splits)
    for split in findings.splits:
        _print_split(split)
    if findings.merged_sources:
        click.echo("Sources merged, as parts or spellings of one film")
        _lines([f"{film}: {', '.join(names)}" for film, names in findings.merged_sources.items()])
    if findings.notes:
        click.echo("Notes")
        for note in findings.notes:
            click.echo(f"  {with_options(note)}")
    small = bool(findings.megabytes) and findings.megabytes[-1].high < 1
    _histogram("Megabytes per video", findings.megabytes, ".3f" if small else ".2f")
    if findings.decoded is not None:
        _print_decoded(findings)
    _print_alike("group", "of equal files", findings.identical)
    _print_alike("pair", "of look-alikes", findings.look_alikes)
    if findings.decoded is None:
        click.echo("Not decoded; --decode also finds broken, damaged and short videos, and look-alikes.")


def _print_plan(splits: Sequence[SplitCheck]) -> None:
    """Print how many splits `probe` makes, where it repeats those below with other seeds."""
    from actionvit.pipeline.probing.spec import SEEDS

    protocol = splits[0].name.rpartition("-")[0] if splits else "official"
    if protocol != "official":
        parts = pluralize(len(splits), "fold" if protocol == "grouped" else "repeat")
        click.echo(f"{protocol}: {parts} × {SEEDS} seeds = {len(splits) * SEEDS} splits; the first {len(splits)}:")


def _print_split(split: SplitCheck) -> None:
    val = f", {split.val} val" if split.val else ""
    leaks = f", {_some(split.leaking_sources)} in both" if split.leaking_sources else ""
    missing = f", no training video of {_some(split.classes_untrained)}" if split.classes_untrained else ""
    click.echo(f"{split.name}: {split.train} train{val}, {split.test} test{leaks}{missing}")
    if split.shared_videos:
        click.echo(
            f"  {split.leaking_videos} of {split.test} test videos have their source in training under the same class,"
            f" {split.shared_videos} under any class"
        )
    if not logging.getLogger("actionvit").isEnabledFor(logging.INFO):  # the first rows only with -v
        return
    for name, rows in split.first.items():
        for row in rows:
            source = f", source {row['source']}" if row["source"] != row["id"] else ""
            click.echo(f"  {name}: {printable(row['id'])}, class {row['label']}{source}")


def _print_decoded(findings: Findings) -> None:
    _histogram("Seconds per video", findings.seconds, ".2f")
    _histogram("Frames per video", findings.frames, ".0f")
    for least, count in findings.shorter.items():
        if count:
            click.echo(f"  {count} have fewer than {least}: their last frame is repeated in clips of {least}")
    sizes = [f"{size} ({count})" for size, count in findings.pictures.items()]
    click.echo(f"Pictures: {_some(sizes)}")
    click.echo(
        f"{findings.decoded} decode, {len(findings.undecodable)} do not, {len(findings.flagged)} are damaged but usable"
    )
    _lines([f"{failed.id}: {failed.reason}: {failed.detail}" for failed in findings.undecodable])
    _lines([f"{id}: {', '.join(flags)}, sampled frames intact" for id, flags in findings.flagged.items()])


def _print_alike(noun: str, of: str, groups: Sequence[Alike]) -> None:
    across = [alike for alike in groups if alike.splits]
    if groups:
        click.echo(f"{pluralize(len(groups), noun)} {of}, {len(across)} in both training and test set of a split")
        _lines([f"{' = '.join(alike.ids[:SHOWN])} ({', '.join(alike.splits)})" for alike in across])


def _histogram(title: str, bins: Sequence[Bin], form: str) -> None:
    if bins:
        click.echo(title)
        last = len(bins) - 1
        ends = [
            f"{bin.low:{form}}" + (f" – {bin.high:{form}}" + " " * (place < last) if bin.high > bin.low else "")
            for place, bin in enumerate(bins)
        ]
        _bars([(end, bin.count) for end, bin in zip(ends, bins, strict=True)])


def _bars(rows: Sequence[tuple[str, int]]) -> None:
    width, most = max(len(name) for name, _ in rows), max(count for _, count in rows)
    for name, count in rows:
        click.echo(f"  {name:{width}} {count:5} {'█' * (max(1, round(30 * count / most)) if count else 0)}".rstrip())


def _lines(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        click.echo(f"  {line}")
    if len(lines) > SHOWN:
        click.echo(f"  and {len(lines) - SHOWN} more (--json names all)")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
