"""`actionvit data check`: what is in a dataset, and what to know before using it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from actionvit.commands.options import dataset_options, echo_json, json_option, open_dataset, root_argument


@click.command()
@root_argument
@dataset_options
@click.option("--decode", is_flag=True, help="Also decode every video as `extract` would (8 frames), and name the bad.")
@json_option
@click.pass_context
def check(ctx: click.Context, /, **options: Any) -> None:
    """Say what is in ROOT: layout, classes, splits, sources on both sides of a split, and videos that do not decode.

    Exit code 3: some videos do not decode.
    """
    from actionvit.pipeline.datasets.dataset import Dataset
    from actionvit.pipeline.datasets.splits import leaking_sources

    dataset: Dataset = open_dataset(options["root"], options)
    counts = Counter(video.label for video in dataset.videos)
    failures, flagged = _undecodable(dataset) if options["decode"] else ([], [])
    found = {
        "name": dataset.name,
        "layout": dataset.layout,
        "videos": len(dataset.videos),
        "sources": len({video.source for video in dataset.videos}) if dataset.sources_known else None,
        "classes": {name: counts[name] for name in dataset.class_names},
        "splits": {
            split.name: {
                "train": len(split.train),
                "test": len(split.test),
                "leaking_sources": len(leaking_sources(dataset, split)),
            }
            for split in dataset.official
        },
        "notes": list(dataset.notes),
        "undecodable": failures,
        "flagged": flagged,
    }
    if options["as_json"]:
        echo_json(found)
    else:
        _say(found, options["decode"])
    if failures:
        ctx.exit(3)


def _undecodable(dataset: Any) -> tuple[list[dict[str, str]], list[str]]:
    """Decode every video; return the failures, and the ids of those that are damaged but usable."""
    from tqdm import tqdm

    from actionvit.features.clips import ClipSpec
    from actionvit.features.decoding.workers import DecodeRequest, Failure, decode_stream

    spec = ClipSpec(num_frames=8, size=224)
    requests = (DecodeRequest(video.id, video.path, (spec,)) for video in dataset.videos)
    failures, flagged = [], []
    for item in tqdm(decode_stream(requests), total=len(dataset.videos), unit="video", disable=None, leave=False):
        if isinstance(item, Failure):
            failures.append({"id": item.id, "reason": item.reason, "detail": item.detail})
        elif item.frames.flags:
            flagged.append(item.id)
    return failures, flagged


def _say(found: dict[str, Any], decoded: bool) -> None:
    sources = f"{found['sources']} sources" if found["sources"] is not None else "sources unknown"
    click.echo(f"{found['name']}: {found['layout']}, {found['videos']} videos, {sources}")
    width, most = max(map(len, found["classes"])), max(found["classes"].values())
    for name, count in found["classes"].items():
        click.echo(f"  {name:{width}} {count:5} {'█' * max(1, round(30 * count / most))}")
    for name, split in found["splits"].items():
        click.echo(
            f"{name}: {split['train']} train, {split['test']} test, {split['leaking_sources']} sources on both sides"
        )
    if decoded:
        click.echo(f"{len(found['undecodable'])} do not decode, {len(found['flagged'])} are damaged but usable")
        for failure in found["undecodable"]:
            click.echo(f"  {failure['id']}: {failure['reason']}: {failure['detail']}")
