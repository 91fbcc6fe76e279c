"""The options for reading ROOT."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from actionvit.commands.command import note, with_options
from actionvit.commands.options import PATH, packed, root_argument

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset, Format

FORMATS = (
    *("hmdb51", "frames", "folder", "csv", "ucf101", "sets", "list", "frame-list"),
    *("kinetics", "ssv2", "diving48", "jester", "videofolder"),
)
"""As `Format` of the datasets, which is not imported for a help text."""


NOTES_SHOWN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """ROOT and the options for reading it."""

    root: Path
    splits_dir: Path | None
    name: str | None
    format: Format | None
    lists: tuple[str, ...]
    test_split: Literal["test", "val"]
    skip_missing: bool

    def open(self, *, notes: int = NOTES_SHOWN) -> Dataset:
        """Read the dataset; print its summary and notes on stderr.

        Of the notes, the first few are printed, each cut before the names of the videos, and the others are counted;
        with `notes` 0 nothing is printed, the summary included.
        """
        from actionvit.pipeline.datasets import load_dataset

        dataset = load_dataset(
            self.root,
            format=self.format,
            lists=dict(_list_pair(text) for text in self.lists),
            splits_dir=self.splits_dir,
            name=self.name,
            test_split=self.test_split,
            skip_missing=self.skip_missing,
        )
        if notes:
            note(f"{dataset.name}: {dataset.summary}")
        for text in dataset.notes[:notes]:
            note(f"note: {with_options(text.partition(': `')[0])}")
        if notes and (more := len(dataset.notes[notes:])):
            note(f"note: {more} more; `actionvit data check` lists all")
        return dataset


dataset_options = packed(
    "data",
    DatasetOptions,
    [field.name for field in fields(DatasetOptions)],
    root_argument,
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
"""ROOT and the options for reading it, passed to the command as `data`."""


def _list_pair(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not equals or not file:
        raise click.BadParameter(f"got {text!r}, expected SPLIT=FILE, e.g. train=train.txt", param_hint="--list")
    return name, Path(file)
