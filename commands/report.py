"""`actionvit report`: stage 3."""

from __future__ import annotations

from pathlib import Path

import click

from actionvit.commands.options import echo_json, json_option, setting


@click.command(short_help="Stage 3: per-class reports; several runs are compared, paired.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write.  [default: report/ in the first run]")
@json_option
def command(runs: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Write the report of each RUN (a folder, or a name below runs/), compared with the first, clip by clip.

    report.html needs no network; beside it lie JSON, CSV, Markdown, and the figures as SVG and PNG.
    """
    from actionvit.pipeline.report import report
    from actionvit.pipeline.runs import read_run

    found = [read_run(_folder(name)) for name in runs]
    files = report(found, out=out or found[0].folder / "report")
    if as_json:
        echo_json({"html": str(files.html), "others": [str(path) for path in files.others]})
        return
    click.echo(f"{files.html} (and {len(files.others)} files beside it: JSON, CSV, Markdown, figures)")


def _folder(name: str) -> Path:
    """Return the run's folder: as given, or below `runs`."""
    path = Path(name)
    return path if path.exists() else setting("runs") / name
