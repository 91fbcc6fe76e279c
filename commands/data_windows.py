"""`actionvit data windows`: sliding windows of videos as a list of segments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from actionvit.commands.command import Command, note
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.options import FiniteRange, decoding_options, output_option
from actionvit.commands.progress import progress
from actionvit.text import abbreviate, pluralize

if TYPE_CHECKING:
    from actionvit.features.decoding.policy import DecodingOptions


@click.command(cls=Command, examples="actionvit data windows videos/ --length 2.56 --window-stride 0.64 -o windows.csv")
@dataset_options
@click.option("--length", type=FiniteRange(0, min_open=True), required=True, help="Seconds per window.")
@click.option(
    "--window-stride",
    "--stride",
    "stride",
    type=FiniteRange(0, min_open=True),
    help="Seconds from one start to the next.  [default: the length]",
)
@decoding_options
@output_option(required=True)
@click.pass_context
def windows(
    ctx: click.Context,
    /,
    data: DatasetOptions,
    length: float,
    stride: float | None,
    decoding: DecodingOptions,
    out: Path,
) -> None:
    """Write sliding windows of each video as a CSV list, one segment per row.

    Windows lie inside the video; a video shorter than one window gives one, of all its frames. The list is a ROOT:
    `actionvit extract windows.csv`.

    Exit code 3: some videos have no duration.
    """
    from actionvit.pipeline.datasets.windows import write_windows

    dataset = data.open()
    with progress("windows", "video") as advance:
        count, failed = write_windows(
            dataset,
            out,
            length=length,
            stride=stride or length,
            on_video=advance,
            **decoding,
        )
    videos = pluralize(len(dataset.videos) - len(failed), "video")
    click.echo(f"{pluralize(count, 'window')} of {videos} in `{out}`; next: actionvit extract {out}")
    if failed:
        note(f"note: {pluralize(len(failed), 'video')} without windows: {abbreviate(failed)}")
        ctx.exit(3)
