"""`actionvit weights`: show an encoder's weights, and inflate an image ViT."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from actionvit.commands.command import Group
from actionvit.commands.options import PATH, echo_json, json_option, output_option


@click.group(cls=Group)
def command() -> None:
    """Inspect encoder weights, and inflate an image model to a TimeSformer."""


@command.command(examples="actionvit weights show base")
@click.argument("source")
@json_option
def show(source: str, as_json: bool) -> None:
    """Show the configuration of SOURCE: a variant, a local folder, a hub id or a .pyth file."""
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.variants import VARIANTS

    weights = find_weights(source) if source in VARIANTS else find_weights("base", source)
    value = {
        "source": weights.source,
        "sha256": weights.digest,
        "mean": weights.mean,
        "std": weights.std,
        "labels": len(weights.labels),
        "licence": weights.licence or "unknown",
        "notes": weights.notes,
        "shape": asdict(weights.config),
    }
    if as_json:
        echo_json(value)
        return
    for name, text in value.items():
        click.echo(f"{name:8} {text}")


@command.command(examples="actionvit weights inflate clip-vit-b16/ -o timesformer-clip/")
@click.argument("source", type=PATH)
@output_option(required=True)
def inflate(source: Path, out: Path) -> None:
    """Inflate the image model in folder SOURCE (a ViT, or a CLIP vision tower) to a TimeSformer.

    For a clip of one repeated frame it gives the image model's output. Use it with `extract --weights FOLDER`.
    """
    from actionvit.features.timesformer.inflate import inflate

    shape = inflate(source, out)
    click.echo(f"{out}: {shape.depth} blocks × {shape.width}, patch {shape.patch}, {shape.image_size} pixels")
    click.echo(f"use it with: actionvit extract --variant base --weights {out}")
