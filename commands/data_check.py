"""`actionvit data check`: what is in a dataset, and what to know before using it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Command
from actionvit.commands.dataset_options import dataset_options, open_dataset
from actionvit.commands.options import (
    decoding_options,
    echo_json,
    json_option,
    root_argument,
)

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.checking import Bin, Findings, Pair

SHOWN = 10
"""Lines of a list before the rest is only counted; `--json` has all of it."""


@click.command(cls=Command, examples="actionvit data check videos/ --decode")
@root_argument
@dataset_options
@click.option("--decode", is_flag=True, help="Also decode every video: finds broken, damaged and duplicate videos.")
@decoding_options
@json_option
@click.pass_context
def check(ctx: click.Context, /, **options: Any) -> None:
    """Check a dataset: layout, classes, splits, leaking sources, duplicates, undecodable videos.

    Without official lists, the splits are those that `probe` would make.

    Exit code 3: some videos do not decode.
    """
    from tqdm import tqdm

    from actionvit.pipeline.datasets.checking import check

    dataset = open_dataset(options["root"], options)
    with tqdm(total=len(dataset.videos), unit="video", disable=None if options["decode"] else True, leave=False) as bar:
        found = check(
            dataset,
            decode=options["decode"],
            workers=options["workers"],
            timeout=options["timeout"],
            on_video=lambda done: bar.update(done - bar.n),
        )
    if options["as_json"]:
        echo_json(asdict(found))
    else:
        _say(found)
    if found.undecodable:
        ctx.exit(3)


def _say(found: Findings) -> None:
    sources = f"{found.sources} sources" if found.sources is not None else "sources unknown"
    click.echo(f"{found.name}: {found.format}, {found.videos} videos of {len(found.classes)} classes, {sources}")
    _bars(list(found.classes.items()))
    for split in found.splits:
        leaks = f", {_some(split.leaking_sources)} on both sides" if split.leaking_sources else ""
        missing = f", no training video of {_some(split.classes_untrained)}" if split.classes_untrained else ""
        click.echo(f"{split.name}: {split.train} train, {split.test} test{leaks}{missing}")
    small = bool(found.megabytes) and found.megabytes[-1].high < 1
    _histogram("Megabytes a video", found.megabytes, ".3f" if small else ".2f")
    if found.decoded is not None:
        _say_decoded(found)
    _say_duplicates(found.duplicates)
    if found.decoded is None:
        click.echo("Not decoded: with --decode also what is broken, damaged, short, or looks like another.")


def _say_decoded(found: Findings) -> None:
    _histogram("Seconds a video", found.seconds, ".2f")
    _histogram("Frames a video", found.frames, ".0f")
    for least, count in found.shorter.items():
        if count:
            click.echo(f"  {count} have fewer than {least}: their last frame is repeated in clips of {least}")
    sizes = [f"{size} ({count})" for size, count in found.pictures.items()]
    click.echo(f"Pictures: {_some(sizes)}")
    click.echo(f"{found.decoded} decode, {len(found.undecodable)} do not, {len(found.flagged)} are damaged but usable")
    _lines([f"{one.id}: {one.reason}: {one.detail}" for one in found.undecodable])
    _lines([f"{id}: {', '.join(flags)}, sampled frames intact" for id, flags in found.flagged.items()])


def _say_duplicates(pairs: Sequence[Pair]) -> None:
    from actionvit.pipeline.text import pluralize

    for identical, name in ((True, "byte for byte the same"), (False, "of look-alikes")):
        alike = [pair for pair in pairs if pair.identical == identical]
        across = [pair for pair in alike if pair.splits]
        if alike:
            click.echo(f"{pluralize(len(alike), 'pair')} {name}, {len(across)} on both sides of a split")
            _lines([f"{pair.first} = {pair.second} ({', '.join(pair.splits)})" for pair in across])


def _histogram(title: str, bins: Sequence[Bin], form: str) -> None:
    if bins:
        click.echo(title)
        last = len(bins) - 1
        ends = [
            f"{one.low:{form}}" + (f" – {one.high:{form}}" + " " * (at < last) if one.high > one.low else "")
            for at, one in enumerate(bins)
        ]
        _bars([(end, one.count) for end, one in zip(ends, bins, strict=True)])


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
