"""`actionvit cache`: maintenance of the cached embeddings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Group, note, refuse_options, warn
from actionvit.commands.options import (
    PATH,
    cache_option,
    echo_json,
    json_option,
    output_option,
    overwrite_option,
    several,
    wait_option,
)
from actionvit.errors import ActionVitError
from actionvit.text import file_size

if TYPE_CHECKING:
    from actionvit.features.store.catalog import StoreSummary

path_type = click.Path(path_type=Path)
store_argument = click.argument("store", type=path_type)


@click.group(cls=Group)
def command() -> None:
    """Maintain cached embeddings. STORE is the folder of a store, or a folder that contains exactly one store."""


@command.command(examples="actionvit cache ls features-cache")
@cache_option
@json_option
def ls(cache: Path, as_json: bool) -> None:
    """List the stores: dataset, variant, rows, failures, share of the dataset, size, age, folder."""
    from dataclasses import asdict

    from actionvit.features.store.catalog import summarize_all

    summaries = summarize_all(cache)
    for summary in summaries:
        if summary.damage:
            warn(summary.damage)
    if as_json:
        echo_json([{**asdict(summary), "coverage": summary.coverage} for summary in summaries])
    elif summaries:
        head = ("dataset", "variant", "rows", "failed", "coverage", "size", "written", "store")
        _echo_table(head, map(_cells, summaries))
        for summary in summaries:
            if summary.differs:
                click.echo(f"{summary.store}: {summary.differs}")
    else:
        click.echo(f"{cache}: no stores; `actionvit extract` makes one")


@command.command(examples="actionvit cache show features-cache/hmdb51")
@store_argument
@json_option
def show(store: Path, as_json: bool) -> None:
    """Show a store's contents, layout and key (everything that its numbers depend on)."""
    from dataclasses import asdict

    from actionvit.features.store.catalog import open_single, summarize
    from actionvit.features.store.keys import flatten
    from actionvit.features.store.parts import list_parts

    opened = open_single(store)
    summary = summarize(opened)
    value: dict[str, Any] = {
        **asdict(summary),
        "coverage": summary.coverage,
        "parts": len(list_parts(opened.folder)),
        "digest": opened.digest(),
        "quantities": {name: [list(shape), str(dtype)] for name, (shape, dtype) in opened.quantities.items()},
        "info": opened.info,
        "key": opened.key.to_dict(),
        "key_digest": opened.key.digest,
    }
    if as_json:
        echo_json(value)
        return
    readable = {
        "bytes": file_size(summary.bytes),
        "written": _age(summary.written),
        "coverage": "unknown" if summary.coverage is None else f"{summary.coverage:.1%}",
    }
    leaves = flatten(value | readable)
    if not summary.damage:
        del leaves["damage"]
    width = max(map(len, leaves))
    for name, leaf in leaves.items():
        click.echo(f"{name:{width}}  {leaf}")


@command.command(examples="actionvit cache verify features-cache/hmdb51 --repair")
@store_argument
@click.option("--repair", is_flag=True, help="Remove damaged rows; `extract` embeds them again.")
@json_option
@click.pass_context
def verify(ctx: click.Context, /, store: Path, repair: bool, as_json: bool) -> None:
    """Read every byte of a store; list damaged rows and files, and print a digest to compare stores by.

    Exit code 1 if anything is damaged and --repair is not given. After a repair, `actionvit extract` embeds the lost
    rows again.
    """
    from dataclasses import asdict

    from actionvit.features.store.catalog import single_store_folder
    from actionvit.features.store.store import FeatureStore
    from actionvit.features.store.verify import verify_store

    folder = single_store_folder(store)
    problems = verify_store(folder, repair=repair)
    sound = FeatureStore.open(folder) if repair or not problems else None
    digest, rows = (sound.digest(), len(sound)) if sound else (None, None)
    if as_json:
        report = {"store": str(folder), "problems": list(map(asdict, problems)), "repaired": repair}
        echo_json({**report, "rows": rows, "digest": digest})
    else:
        for problem in problems:
            lost = {0: "no row is lost", -1: "unknown rows lost"}.get(problem.rows, f"{problem.rows:,} lost")
            click.echo(f"{folder / problem.file}: {problem.detail}; {lost}{'' if not problem.ids else ':'}")
            for id in problem.ids:
                click.echo(f"  {id}")
        if problems:
            click.echo("repaired; run `actionvit extract` again" if repair else "run this again with --repair")
        else:
            click.echo(f"{folder}: every byte is as it was written")
        if sound:
            click.echo(f"{rows:,} rows, digest {digest}")
    if problems and not repair:
        ctx.exit(1)


@command.command(examples="actionvit cache merge features-cache/hmdb51/*.shard-*")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True, type=path_type)
@output_option("the shards' folder without `.shard-i-of-n`")
@wait_option
@json_option
def merge(stores: tuple[Path, ...], out: Path | None, wait: bool, as_json: bool) -> None:
    """Join stores of one key, such as the shards of one extraction, into one. Other keys are refused."""
    from actionvit.features.store.catalog import joined_folder, shard_of
    from actionvit.features.store.merge import merge_stores
    from actionvit.features.store.store import FeatureStore

    opened = [FeatureStore.open(path) for path in stores]
    folder = out or joined_folder(opened)
    merged = merge_stores(opened, folder, wait=wait)
    shards = [shard for store in opened if (shard := shard_of(store)) is not None]
    missing = sorted({i + 1 for _, n in shards for i in range(n)} - {i for i, _ in shards}) if shards else []
    report = {"store": str(folder), "rows": len(merged), "failed": len(merged.failures()), "lacking": missing}
    if as_json:
        echo_json({**report, "digest": merged.digest()})
        return
    click.echo(f"{folder}: {report['rows']:,} rows, {report['failed']:,} failed, digest {merged.digest()}")
    if missing:
        note(f"note: shards {', '.join(map(str, missing))} of {shards[0][1]} are missing")


@command.command(examples="actionvit cache export features-cache/hmdb51 --format npz -o all.npz")
@store_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["npz", "h5", "parquet", "safetensors", "npy-folder"]),
    help="Format of the files.  [default: by the file name, else npz]",
)
@output_option(required=True)
@click.option("--root", type=PATH, help="Folder of the dataset.  [default: as recorded]")
@several("--include", "also", metavar="NAME", help="Further quantity, such as layer9.  [repeatable]")
@overwrite_option
@json_option
def export(
    store: Path, form: Any, out: Path, root: Path | None, also: tuple[str, ...], overwrite: bool, as_json: bool
) -> None:
    """Write a store for other tools: id, label, source, splits, clip (N, K, D), frame (N, K, T, D), index (N, K, T).

    clip and frame are the embeddings per view and per frame, index the numbers of the sampled frames, for N videos
    with K views of T frames and embeddings of width D. Rows are in id order. Labels, sources and splits are those of
    the dataset as it is now; without it they are left out. npy-folder writes one .npy file per video.
    An earlier export of the same store is replaced without --overwrite, a file of other origin never.
    """
    from actionvit.features.store.catalog import open_single
    from actionvit.features.store.export import export_store
    from actionvit.pipeline.extraction.labels import dataset_columns

    form = form or (out.suffix[1:] if out.suffix in (".npz", ".parquet", ".h5", ".safetensors") else "npz")
    if form == "npy-folder":
        refuse_options("--format npy-folder writes frame embeddings alone", "also")
    opened = open_single(store)
    columns: dict[str, dict[str, str]] = {"label": {}}
    try:
        columns = dataset_columns(opened, root)
    except ActionVitError as error:
        if root:
            raise
        warn(f"labels stay empty, the dataset is not where it was ({error}); give --root")
    ids, labels = export_store(opened, out, form, columns=columns, also=also, overwrite=overwrite), columns["label"]
    unlabelled = sum(id not in labels for id in ids)
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    size = sum(path.stat().st_size for path in files)
    if as_json:
        echo_json({"file": str(out), "rows": len(ids), "unlabelled": unlabelled, "bytes": size})
        return
    click.echo(f"{out}: {len(ids):,} rows, {file_size(size)}")
    names = [name for name in ("clip", "frame", "index", *also) if name in opened.quantities]
    for name in ["frame"] if form == "npy-folder" else dict.fromkeys(names):
        shape, dtype = opened.quantities[name]
        click.echo(f"  {name}: ({', '.join(map(str, (len(ids), *shape)))}) {dtype}")
    click.echo(f"  one text per row: id, {', '.join(columns)}")
    if labels and not any(name.startswith("split-") for name in columns):
        click.echo("  no splits: the dataset has no official ones")
    if labels and unlabelled:
        note(f"note: {unlabelled:,} rows are not in the dataset; their label is empty")


@command.command(examples="actionvit cache prune features-cache")
@click.argument("stores", metavar="[STORE...]", nargs=-1, type=path_type)
@cache_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def prune(stores: tuple[Path, ...], cache: Path, yes: bool, as_json: bool) -> None:
    """Delete the STOREs named; by default stores that another one replaces.

    A store is replaced by one of the same settings if its weights no longer exist under their name, by the joined
    store if it is a shard, and by any store of its variant if it has no rows. Other settings are never a reason. Each
    store is shown with the reason, and confirmed by itself. With --json and without --yes nothing is deleted.
    """
    from dataclasses import asdict

    from actionvit.features.store.catalog import find_stores, summarize
    from actionvit.features.store.prune import delete, superseded_stores
    from actionvit.features.store.store import FeatureStore
    from actionvit.pipeline.extraction.job import current_weights

    if stores:
        chosen = [(FeatureStore.open(path), "named") for path in stores]
    else:
        superseded = superseded_stores(find_stores(cache), current_weights)
        chosen = [(entry.store, entry.reason) for entry in superseded]
    report = []
    for store, reason in chosen:
        summary = summarize(store)
        if not as_json:
            click.echo(f"{store.folder}: {reason}\n  " + ", ".join(_facts(summary)))
        if yes or (not as_json and click.confirm("  delete it?")):
            delete(store)
            report.append({**asdict(summary), "reason": reason, "deleted": True})
        else:
            report.append({**asdict(summary), "reason": reason, "deleted": False})
    if as_json:
        echo_json(report)
    else:
        deleted = [row for row in report if row["deleted"]]
        freed = file_size(sum(row["bytes"] for row in deleted))
        click.echo(f"{len(deleted)} deleted, {freed} freed" if report else f"{cache}: nothing to delete")


def _facts(summary: StoreSummary) -> list[str]:
    dataset, variant, rows, failed, coverage, size, age, _ = _cells(summary)
    counts = ["damaged"] if summary.damage else [f"{rows} rows", f"{failed} failed", f"coverage {coverage}"]
    return [f"{dataset} {variant}", *counts, size, f"written {age}"]


def _cells(summary: StoreSummary) -> tuple[str, ...]:
    coverage = "–" if summary.coverage is None else f"{summary.coverage:.1%}"
    counts = ("damaged", "–", "–") if summary.damage else (f"{summary.rows:,}", f"{summary.failed:,}", coverage)
    return (summary.dataset, summary.variant, *counts, file_size(summary.bytes), _age(summary.written), summary.store)


def _echo_table(head: Sequence[str], rows: Any) -> None:
    """Print aligned columns: words to the left, numbers to the right."""
    body = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    right = [
        all(cell[0].isdigit() or cell in ("–", "damaged") for cell in column) for column in zip(*body, strict=True)
    ]
    for line in (head, *body):
        cells = zip(line, widths, right, strict=True)
        click.echo("  ".join(cell.rjust(width) if r else cell.ljust(width) for cell, width, r in cells).rstrip())


def _age(written: float) -> str:
    """Return the age of a time in seconds since 1970, such as `3 h ago`."""
    seconds = max(0.0, time.time() - written)
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
