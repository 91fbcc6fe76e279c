"""The options that choose encoders and their weights, of `extract` and `sweep`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from actionvit.commands.options import VARIANT_HELP, packed, several

if TYPE_CHECKING:
    from actionvit.pipeline.extraction.job import EncoderChoice


def _parse(variants: Sequence[str], weights: Sequence[str], encoders: Sequence[str]) -> EncoderChoice:
    variants = variants or (() if encoders else ("base",))
    return {
        "variants": variants,
        "weights": _by_variant(weights, variants),
        "encoders": [_named(text) for text in encoders],
    }


encoder_options = packed(
    "encoders",
    _parse,
    ("variants", "weights", "encoders"),
    several("--variant", "variants", help=f"{VARIANT_HELP}  [default: base; repeatable]"),
    click.option(
        "--weights",
        multiple=True,
        metavar="[VARIANT=]SRC",
        help="Encoder weights: local folder, hub id, .pyth file or `untrained`.  [default: the variant's; repeatable]",
    ),
    click.option(
        "--encoder",
        "encoders",
        multiple=True,
        metavar="[NAME=]SRC",
        help="Frozen transformers encoder: local folder or hub id (VideoMAE, ViViT, V-JEPA 2, ViT, CLIP, SigLIP, DINO;"
        " repeatable).",
    ),
)
"""Encoders and their weights, passed to the command as `encoders`, an `EncoderChoice`."""


def _by_variant(texts: Sequence[str], variants: Sequence[str]) -> dict[str, str]:
    """Return variant -> weights, from `SRC` (for a single variant) or `VARIANT=SRC`."""
    sources: dict[str, str] = {}
    for text in texts:
        variant, equals, source = text.partition("=")
        if not (equals and variant in variants) and len(variants) == 1:
            variant, source = variants[0], text
        if variant in sources:
            raise click.UsageError(f"--weights {text}: {variant} has the weights {sources[variant]} already; give one")
        if variant in variants:
            sources[variant] = source
        elif not variants:
            raise click.UsageError(f"--weights {text}: only variants take weights; add --variant, or leave it out")
        else:
            names = " or ".join(f"--weights {name}={text}" for name in variants)
            raise click.UsageError(f"--weights {text}: several variants are given; use {names}")
    return sources


def _named(text: str) -> tuple[str | None, str]:
    """Return the name, if there is one, and the source of `[NAME=]SRC`."""
    name, equals, source = text.partition("=")
    return (name, source) if equals and re.fullmatch(r"[\w.-]+", name) else (None, text)
