"""`actionvit report`: stage 3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from actionvit.commands.options import echo_json, json_option, setting

if TYPE_CHECKING:
    from actionvit.pipeline.reporting.analysis import Embeddings
    from actionvit.pipeline.runs import Run


@click.command(short_help="Stage 3: per-class reports; several runs are compared, paired.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write.  [default: report/ in the first run]")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True),
    help="The dataset's folder, for frames of the hard clips.  [default: where the first run found it]",
)
@click.option("--clips/--no-clips", default=True, help="Show frames of the hard clips, if they are at hand.")
@click.option(
    "--embeddings/--no-embeddings",
    "analysed",
    default=True,
    help="Look at the embeddings, if the first run's store is at hand: leaks across a split, neighbours, a picture.",
)
@click.option(
    "--projection", type=click.Choice(["pca", "tsne", "umap"]), default="pca", show_default=True, help="Of the picture."
)
@json_option
def command(
    runs: tuple[str, ...],
    out: Path | None,
    root: Path | None,
    clips: bool,
    analysed: bool,
    projection: str,
    as_json: bool,
) -> None:
    """Write the report of each RUN (a folder, or a name below runs/), compared with the first, clip by clip.

    report.html needs no network; beside it lie JSON, CSV, Markdown, LaTeX, and the figures as SVG and PNG.
    """
    from actionvit.pipeline.reporting.report import report
    from actionvit.pipeline.runs import read_run

    found = [read_run(_folder(name)) for name in runs]
    files = report(
        found,
        out=out or found[0].folder / "report",
        root=_root(found[0], root) if clips else None,
        embeddings=_embeddings(found[0], as_json) if analysed else None,
        projection=projection,  # type: ignore[arg-type]  # click.Choice allows no other
    )
    if as_json:
        echo_json({"html": str(files.html), "others": [str(path) for path in files.others]})
        return
    click.echo(f"{files.html} (and {len(files.others)} files beside it: JSON, CSV, Markdown, LaTeX, figures)")


def _folder(name: str) -> Path:
    """Return the run's folder: as given, or below `runs`."""
    path = Path(name)
    return path if path.exists() else setting("runs") / name


def _root(run: Run, given: Path | None) -> Path | None:
    """Return the dataset's folder if it is there."""
    known = (run.info.get("dataset") or {}).get("root")
    folder = given or (Path(known) if known else None)
    return folder if folder and folder.is_dir() else None


def _embeddings(run: Run, quiet: bool) -> Embeddings | None:
    """Return the first run's embeddings, or say that they are not at hand."""
    from actionvit.pipeline.reporting.analysis import read_embeddings

    found = read_embeddings(run)
    if found is None and not quiet:
        click.echo(f"{run.name}: its embeddings are not at hand: no look at neighbours and near-duplicates", err=True)
    return found
