"""`actionvit weights`: what an encoder's weights are, and inflating an image ViT."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from actionvit.commands.options import echo_json, json_option


@click.group(short_help="Look at and inflate encoder weights.")
def command() -> None:
    """Look at encoder weights, or make some out of an image model."""


@command.command()
@click.argument("source")
@json_option
def show(source: str, as_json: bool) -> None:
    """Say what SOURCE is: a variant's name, a Hugging Face folder or hub id, or an original .pyth file."""
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


@command.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def inflate(source: Path, out: Path) -> None:
    """Write a TimeSformer folder OUT out of an image model's folder SOURCE (a ViT, or a CLIP vision tower).

    On a clip of one repeated frame it gives what the image model gives for the picture; `extract --weights OUT`.
    """
    from actionvit.features.timesformer.inflate import inflate

    shape = inflate(source, out)
    click.echo(f"{out}: {shape.depth} blocks × {shape.width}, patch {shape.patch}, {shape.image_size} pixels")
    click.echo(f"use it with: actionvit extract --variant base --weights {out}")
