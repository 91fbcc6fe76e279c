"""`actionvit cache`: care of the cached embeddings."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from actionvit.commands.options import cache_option, echo_json, json_option
from actionvit.errors import ActionVitError

store_argument = click.argument("store", type=click.Path(path_type=Path))


@click.group(short_help="Look at, verify, merge, export and prune cached embeddings.")
def command() -> None:
    """Look after cached embeddings. STORE is a store's folder, or the cache root when it holds just one."""


@command.command()
@cache_option
@json_option
def ls(cache: Path, as_json: bool) -> None:
    """List the stores: dataset, variant, rows, bytes."""
    from actionvit.pipeline.caches import find_stores

    found = [
        {
            "dataset": store.dataset,
            "variant": store.variant,
            "rows": len(store),
            "failed": len(store.failures()),
            "bytes": sum(path.stat().st_size for path in store.folder.iterdir()),
            "store": str(store.folder),
        }
        for store in find_stores(cache)
    ]
    if as_json:
        echo_json(found)
        return
    for row in found:
        click.echo(
            f"{row['dataset']:16} {row['variant']:8} {row['rows']:>8} rows {row['failed']:>5} failed"
            f" {row['bytes']:>14,} bytes  {row['store']}"
        )
    if not found:
        click.echo(f"{cache}: no stores; `actionvit extract` makes one")


@command.command()
@store_argument
@json_option
def show(store: Path, as_json: bool) -> None:
    """Say what a store holds and everything its numbers depend on."""
    from actionvit.pipeline.caches import one_store

    found = one_store(store)
    value = {
        "store": str(found.folder),
        "dataset": found.dataset,
        "variant": found.variant,
        "rows": len(found),
        "digest": found.digest(),
        "quantities": {name: [list(shape), str(dtype)] for name, (shape, dtype) in found.quantities.items()},
        "info": found.info,
        "key": found.key.to_dict(),
    }
    if as_json:
        echo_json(value)
        return
    for name, text in value.items():
        click.echo(f"{name:10} {text}")


@command.command()
@store_argument
@click.option("--repair", "mend", is_flag=True, help="Remove damaged parts; the next extract embeds their rows again.")
@json_option
@click.pass_context
def verify(ctx: click.Context, /, store: Path, mend: bool, as_json: bool) -> None:
    """Read every byte of a store and name damaged parts. Exit code 1 if there are any and --repair is not given."""
    from actionvit.pipeline.caches import damaged_parts, one_store, repair

    found = one_store(store)
    damaged = damaged_parts(found)
    if mend and damaged:
        repair(found, damaged)
    if as_json:
        echo_json({"store": str(found.folder), "damaged": [path.name for path in damaged], "repaired": mend})
    else:
        for path in damaged:
            click.echo(f"{path}: damaged{', removed; run `actionvit extract` again' if mend else ''}")
        if not damaged:
            click.echo(f"{found.folder}: {len(found)} rows, every byte as written")
    if damaged and not mend:
        ctx.exit(1)


@command.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the merged store.")
def merge(stores: tuple[Path, ...], out: Path) -> None:
    """Join STORES, shards of one extraction, into one store."""
    from actionvit.features.store import FeatureStore
    from actionvit.pipeline.caches import merge

    merged = merge([FeatureStore.open(path) for path in stores], out)
    click.echo(f"{out}: {len(merged)} rows")


@command.command()
@store_argument
@click.option("--to", "form", type=click.Choice(["npz", "h5"]), default="npz", show_default=True, help="File format.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option("--root", type=click.Path(path_type=Path), help="The dataset, for labels.  [default: as extracted]")
def export(store: Path, form: str, out: Path, root: Path | None) -> None:
    """Write a store as one file: id, label, clip, frame, index; rows in id order."""
    from actionvit.pipeline.caches import export, one_store
    from actionvit.pipeline.datasets import load_dataset

    found = one_store(store)
    try:
        dataset = load_dataset(root or Path(found.info["root"]))
        labels = {video.id: video.label for video in dataset.videos}
    except ActionVitError as error:
        if root:
            raise
        labels = {}
        click.echo(f"warning: labels are left empty, the dataset is not where it was ({error}); give --root", err=True)
    click.echo(f"{out}: {export(found, labels, out, form)} rows")


@command.command()
@store_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(store: Path, yes: bool) -> None:
    """Delete a store."""
    from actionvit.features.store import FeatureStore

    found = FeatureStore.open(store)
    if not yes:
        click.confirm(f"Delete {store}, {len(found)} rows of {found.dataset} {found.variant}?", abort=True)
    shutil.rmtree(store)
    click.echo(f"{store}: deleted")
