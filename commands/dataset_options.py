"""The options on how ROOT is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import with_options
from actionvit.commands.options import PATH, together

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset

FORMATS = (
    *("hmdb51", "frames", "folder", "csv", "ucf101", "sets", "list", "frame-list"),
    *("kinetics", "ssv2", "diving48", "jester", "videofolder"),
)
"""As `Format` of the datasets, which is not imported for a help text."""


dataset_options = together(
    click.option("--splits-dir", type=PATH, help="Folder of the official split lists.  [default: in or beside ROOT]"),
    click.option("--dataset-name", "name", help="Name of the dataset in the cache and in reports.  [default: ROOT's]"),
    click.option("--format", type=click.Choice(FORMATS), help="Format of the files.  [default: detected]"),
    click.option(
        "--list",
        "lists",
        multiple=True,
        metavar="SPLIT=FILE",
        help="List file of a set, e.g. train=train.txt; paths start at ROOT. Repeat per set.",
    ),
    click.option(
        "--test-split",
        type=click.Choice(["test", "val"]),
        default="test",
        show_default=True,
        help="Set that official splits test on.",
    ),
    click.option("--skip-missing", is_flag=True, help="Leave out listed videos that are not on disk."),
)
"""How ROOT is read; `open_dataset` takes them."""

NOTES_SHOWN = 2


def open_dataset(root: Path, options: Mapping[str, Any], *, notes: int = NOTES_SHOWN) -> Dataset:
    """Read the dataset that ROOT and `dataset_options` name; print its summary and notes on stderr.

    Of the notes, the first few are printed, each cut before the names of the videos, and the others are counted; with
    `notes` 0 nothing is printed.
    """
    from actionvit.pipeline.datasets import load_dataset

    lists = dict(_list_pair(text) for text in options["lists"])
    dataset = load_dataset(
        root,
        format=options["format"],
        lists=lists,
        splits_dir=options["splits_dir"],
        name=options["name"],
        test_split=options["test_split"],
        skip_missing=options["skip_missing"],
    )
    click.echo(f"{dataset.name}: {dataset.summary}", err=True)
    for note in dataset.notes[:notes]:
        click.echo(f"note: {with_options(note.partition(': `')[0])}", err=True)
    if notes and (more := len(dataset.notes[notes:])):
        click.echo(f"note: {more} more; `actionvit data check` lists all", err=True)
    return dataset


def _list_pair(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not equals or not file:
        raise click.BadParameter(f"got {text!r}, expected SPLIT=FILE, e.g. train=train.txt", param_hint="--list")
    return name, Path(file)
