"""`actionvit data`: download, inspect, split and draw datasets."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from actionvit.commands.command import Group, note, refuse_options
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.options import PATH, echo_json, json_option, output_option, seed_option
from actionvit.commands.progress import Advance, progress
from actionvit.commands.spec_options import spec_object, spec_option
from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.dataset import Protocol
from actionvit.pipeline.datasets.splits import SplitSpec
from actionvit.text import pluralize

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset, Split
    from actionvit.pipeline.datasets.synthetic.dataset import DrawnClip


_LAZY = {"check": "data_check", "windows": "data_windows"}


class _Group(Group):
    """Imports the commands that decode only when they are called, since decoders load slowly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(f"actionvit.commands.{_LAZY[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Group)
def command() -> None:
    """Download, inspect, split and generate datasets."""


@command.command(examples="actionvit data fetch hmdb51")
@click.argument("name")
@output_option("data/NAME")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE|URL",
    help="Archive to use instead of the official address.  [repeatable]",
)
def fetch(name: str, out: Path | None, sources: tuple[str, ...]) -> None:
    """Download and unpack hmdb51 or ucf101; unpack hmdb_simp from a file that you downloaded.

    An interrupted download is resumed. Nothing in an archive can land outside the folder. Rar needs bsdtar.
    """
    from actionvit.pipeline.datasets.fetching import fetch as fetching

    source = fetching.find_source(name)
    click.echo(f"{source.title}. Licence: {source.licence}. Cite: {source.citation}")
    with _Steps() as steps:
        fetched = fetching.fetch(name, out or Path("data") / name, sources=sources, progress=steps.update)
    classes = pluralize(fetched.classes, "class", "classes")
    contents = f"{pluralize(fetched.videos, 'video')} of {classes} in `{fetched.root}`"
    click.echo(contents if fetched.new else f"there already: {contents}; nothing to do")
    if fetched.videos != source.videos:
        note(f"note: the complete set has {source.videos:,} videos")
    click.echo(f"next: actionvit extract {fetched.root}")


class _Steps(contextlib.ExitStack):
    """Progress of one step after the other."""

    step = ""
    advance: Advance

    def update(self, step: str, done: int, total: int | None) -> None:
        """Show the progress of a step, bytes in MiB."""
        download = step.startswith("download")
        if step != self.step:
            self.close()
            self.step, self.advance = step, self.enter_context(progress(step, "MiB" if download else "archive"))
        scale = 2**20 if download else 1
        self.advance(done // scale, (done if total is None else total) // scale)


@command.command(examples="actionvit data draw clips/ --count 200")
@click.argument("out", type=PATH)
@seed_option
@click.option(
    "--count",
    "clips",
    type=click.IntRange(60),
    default=130,
    show_default=True,
    help="Approximate number of clips; each class gets at least 5.",
)
def draw(out: Path, seed: int, clips: int) -> None:
    """Write a small synthetic dataset laid out like HMDB51, with split lists.

    The classes are motions of simple shapes; no single frame distinguishes them. Existing clips are kept.
    """
    from actionvit.pipeline.datasets.synthetic.dataset import draw_dataset, plan_clips

    def track(missing: Sequence[DrawnClip]) -> Iterator[DrawnClip]:
        with progress("draw", "clip") as advance:
            for done, clip in enumerate(missing, start=1):
                yield clip
                advance(done, len(missing))

    drawn = draw_dataset(out, seed=seed, clips=clips, track=track)
    existing = len(plan_clips(seed=seed, clips=clips)) - drawn
    kept = f", {existing} already there" if existing else ""
    click.echo(f"{pluralize(drawn, 'clip')} drawn{kept}, in `{out}`")


@command.command(examples="actionvit data splits videos/ --protocol grouped --folds 5")
@dataset_options
@spec_option(SplitSpec, "protocol", help="How videos are split.  [default: all that apply]")
@spec_object("settings", SplitSpec, "folds", "test_fraction")
@seed_option
@json_option
def splits(data: DatasetOptions, protocol: Protocol | None, settings: SplitSpec, seed: int, as_json: bool) -> None:
    """Show each split's sizes and train/test leakage.

    Sources with clips in both the training and the test set bias accuracy upwards.
    """
    from actionvit.pipeline.datasets.splits import make_splits, with_protocol

    if protocol == "official":
        refuse_options("--protocol official draws nothing", "seed")
    dataset = data.open()
    protocols: Sequence[Protocol] = [protocol] if protocol else get_args(Protocol)[not dataset.official :]
    drawn: list[Split] = []
    why: ActionVitError | None = None
    for name in protocols:
        try:
            used = settings if protocol else with_protocol(settings, name)
            drawn += make_splits(dataset, name, folds=used.folds, test_fraction=used.test_fraction, seed=seed)
        except ActionVitError as error:
            if protocol:
                raise
            why = error
            note(f"note: no {name} splits: {error}")
    if why and not drawn:
        raise why
    rows = [_row(dataset, split) for split in drawn]
    if as_json:
        echo_json({"dataset": dataset.name, "sources_known": dataset.sources_known, "splits": rows})
        return
    click.echo(f"{dataset.name}: {len(dataset.videos):,} videos, {len(dataset.class_names)} classes, {dataset.format}")
    click.echo(f"{'split':<14}{'train':>7}{'test':>7}{'unused':>8}{'leaking':>9}{'shared':>8}")
    for row in rows:
        click.echo("{split:<14}{train:>7}{test:>7}{unused:>8}{leaking:>9}{shared:>8}".format(**row))
    click.echo("leaking: sources with clips of one class in training and test set; shared: with clips of any class")


def _row(dataset: Dataset, split: Split) -> dict[str, Any]:
    from actionvit.pipeline.datasets.splits import leaking_sources

    return {
        "split": split.name,
        "train": len(split.train),
        "test": len(split.test),
        "unused": len(dataset.videos) - len(split.train) - len(split.test),
        "leaking": len(leaking_sources(dataset, split)),
        "shared": len(leaking_sources(dataset, split, within_class=False)),
    }
