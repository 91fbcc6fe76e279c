"""`actionvit report`: stage 3."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actionvit.commands.command import Command, refuse_options, warn
from actionvit.commands.options import (
    PATH,
    device_option,
    echo_json,
    json_option,
    output_option,
    weights_option,
)
from actionvit.commands.progress import stages
from actionvit.commands.run_name import RUN, open_run

if TYPE_CHECKING:
    from actionvit.pipeline.reporting.analysis import Projection


@click.command(
    cls=Command,
    examples="""
    actionvit report base-linear
    actionvit report base-linear hr-linear -o report/ --attention
    """,
)
@click.argument("runs", nargs=-1, required=True, type=RUN, metavar="RUN...")
@output_option("report/ in the first run")
@click.option("--root", type=PATH, help="Folder of the dataset.  [default: as recorded]")
@click.option("--thumbnails/--no-thumbnails", "clips", default=True, help="Show frames of the hardest clips.")
@click.option(
    "--embeddings/--no-embeddings", "analysed", default=True, help="Analyze the embeddings: leaks, neighbors, 2-D plot."
)
@click.option(
    "--projection",
    type=click.Choice(["pca", "tsne", "umap"]),
    default="pca",
    show_default=True,
    help="Method of the 2-D embedding plot.",
)
@click.option("--attention", is_flag=True, help="Show the encoder's attention over the hardest clips.")
@weights_option
@device_option()
@json_option
def command(
    runs: tuple[str, ...],
    out: Path | None,
    root: Path | None,
    clips: bool,
    analysed: bool,
    projection: Projection,
    attention: bool,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Stage 3: write a per-class report of one RUN, or a pairwise comparison of several.

    RUN is a run's folder or its name below runs/. report.html is one file that needs no network; beside it are JSON,
    Markdown, LaTeX, CSV tables and every figure as SVG, PDF and PNG.
    """
    from actionvit import escape
    from actionvit.pipeline.reporting import dataset_folder, encoder_attention, read_embeddings, report

    if not attention:
        refuse_options("only --attention runs an encoder", "weights", "device")
    if not clips:
        refuse_options("--no-thumbnails reads no clips", "root")
    if not analysed:
        refuse_options("--no-embeddings projects nothing", "projection")
    opened = [open_run(name) for name in runs]
    first = opened[0]
    folder = dataset_folder(first, root) if clips else None
    if attention and folder is None:
        why = "they are not where the run recorded them; give --root" if clips else "leave out --no-thumbnails"
        raise click.UsageError(f"--attention draws on the clips: {why}")
    embeddings = read_embeddings(first) if analysed else None
    if analysed and embeddings is None:
        store = (first.info.get("store") or {}).get("path", "their recorded place")
        warn(f"{first.name}: embeddings are not at {store}, or have changed: they are not analyzed")
    with stages() as progress:
        files = report(
            opened,
            output=out or first.folder / "report",
            root=folder,
            embeddings=embeddings,
            projection=projection,
            encoder=encoder_attention(first, weights=weights, device=device) if attention else None,
            command=["actionvit", *sys.argv[1:]] if sys.argv[1:2] == ["report"] else (),
            progress=progress,
        )
    if as_json:
        echo_json({"html": str(files.html), "others": [str(path) for path in files.others]})
        return
    html = escape.terminal(str(files.html))
    click.echo(f"{html} (and {len(files.others)} files beside it: JSON, Markdown, LaTeX, tables, figures)")
