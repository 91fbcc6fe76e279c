"""`actionvit report`: stage 3."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Command
from actionvit.commands.options import (
    PATH,
    device_option,
    echo_json,
    json_option,
    output_option,
    setting,
    weights_option,
)

if TYPE_CHECKING:
    from actionvit.features.timesformer.rollout import AttentionRollout
    from actionvit.pipeline.reporting.analysis import Embeddings
    from actionvit.pipeline.runs import Run


@click.command(
    cls=Command,
    examples="""
    actionvit report base-linear
    actionvit report base-linear hr-linear -o report/ --attention
    """,
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
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
def command(**options: Any) -> None:
    """Stage 3: write a per-class report of one RUN, or a paired comparison of several.

    RUN is a run's folder or its name below runs/. report.html is one file that needs no network; beside it are JSON,
    Markdown, LaTeX, CSV tables and every figure as SVG, PDF and PNG.
    """
    from tqdm import tqdm

    from actionvit.pipeline.reporting.report import report
    from actionvit.pipeline.runs import read_run

    found = [read_run(_folder(name)) for name in options["runs"]]
    root = _root(found[0], options["root"]) if options["clips"] else None
    embeddings = _embeddings(found[0], options["as_json"]) if options["analysed"] else None
    if options["attention"] and root is None:
        why = "they are not where the run says; give --root" if options["clips"] else "leave out --no-thumbnails"
        raise click.UsageError(f"--attention draws on the clips: {why}")
    look = _look(found[0], options["weights"], options["device"]) if options["attention"] else None
    with tqdm(desc="hard clips", unit="clip", disable=None, leave=False, delay=2) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        files = report(
            found,
            out=options["out"] or found[0].folder / "report",
            root=root,
            embeddings=embeddings,
            projection=options["projection"],
            look=look,
            command=["actionvit", *sys.argv[1:]] if sys.argv[1:2] == ["report"] else (),
            on_clip=progress,
        )
    as_json = options["as_json"]
    if as_json:
        echo_json({"html": str(files.html), "others": [str(path) for path in files.others]})
        return
    click.echo(f"{files.html} (and {len(files.others)} files beside it: JSON, Markdown, LaTeX, tables, figures)")


def _folder(name: str) -> Path:
    """Return the run's folder: as given, or below `runs`."""
    path = Path(name)
    return path if path.exists() else setting("runs") / name


def _root(run: Run, given: Path | None) -> Path | None:
    """Return the dataset's folder if it is there; of a list of videos, the folder it lies in."""
    known = (run.info.get("dataset") or {}).get("root")
    place = given or (Path(known) if known else None)
    if place and place.is_file():
        place = place.parent
    return place if place and place.is_dir() else None


def _embeddings(run: Run, quiet: bool) -> Embeddings | None:
    """Return the first run's embeddings, or say that they are not at hand."""
    from actionvit.pipeline.reporting.analysis import read_embeddings

    found = read_embeddings(run)
    if found is None and not quiet:
        place = (run.info.get("store") or {}).get("path", "a place that it tells")
        click.echo(f"{run.name}: its embeddings are not at {place}, or are others now: no look at neighbours", err=True)
    return found


def _look(run: Run, given: str | None, device: str) -> AttentionRollout:
    """Return the encoder of the run's embeddings.

    Raises
    ------
    ActionVitError
        If the run does not tell its store's key, or the weights are not those that it names.
    """
    from actionvit.errors import ActionVitError
    from actionvit.features.sampling import ClipSpec
    from actionvit.features.store.store import FeatureStore
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.rollout import AttentionRollout

    known = run.info.get("store") or {}
    if "key" not in known:
        raise ActionVitError(f"--attention: {run.folder} does not tell what made its embeddings; leave it out")
    variant, source = run.info["variant"].partition("+")[0], given
    if source is None and Path(known.get("path", "")).is_dir():
        source = FeatureStore.open(Path(known["path"])).info.get("weights")
    weights = find_weights(variant, source)
    if weights.digest != known["key"]["weights"]:
        raise ActionVitError(
            f"--attention: {weights.source} is not what made the embeddings of {run.folder}: its sha256 begins with"
            f" {weights.digest[:12]}, not {known['key']['weights'][:12]}; give --weights SRC"
        )
    return AttentionRollout(weights, ClipSpec(**known["key"]["clip"]), device=device)
