"""The options that choose encoders and their weights, of `extract` and `sweep`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from actionvit.commands.command import with_options
from actionvit.commands.options import VARIANT_HELP, packed, several

if TYPE_CHECKING:
    from typing import Unpack

    from actionvit.features.device import Precision
    from actionvit.features.encoder import EncoderJob
    from actionvit.features.view_settings import ViewSettings
    from actionvit.pipeline.extraction.job import Outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """Encoders and weights as they were given."""

    variants: tuple[str, ...]
    weights: tuple[str, ...]
    encoders: tuple[str, ...]

    def jobs(
        self, views: Sequence[ViewSettings], *, precision: Precision, **outputs: Unpack[Outputs]
    ) -> list[EncoderJob]:
        """Return a job per encoder and view setting."""
        from actionvit.pipeline.extraction.job import make_jobs

        variants = self.variants or (() if self.encoders else ("base",))
        weights = _by_variant(self.weights, variants)
        encoders = [_named(text) for text in self.encoders]
        try:
            return make_jobs(
                variants, views, weights=weights, encoders=encoders, precision=precision, note=_print_note, **outputs
            )
        except ValueError as error:
            raise click.UsageError(with_options(str(error))) from error


encoder_options = packed(
    "encoders",
    EncoderOptions,
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


def _print_note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _by_variant(texts: Sequence[str], variants: Sequence[str]) -> dict[str, str]:
    """Return variant -> weights, from `SRC` (for a single variant) or `VARIANT=SRC`."""
    sources = {}
    for text in texts:
        variant, equals, source = text.partition("=")
        if equals and variant in variants:
            sources[variant] = source
        elif len(variants) == 1:
            sources[variants[0]] = text
        else:
            names = " or ".join(f"--weights {name}={text}" for name in variants)
            raise click.UsageError(f"--weights {text}: several variants are given; use {names}")
    return sources


def _named(text: str) -> tuple[str | None, str]:
    """Return the name, if there is one, and the source of `[NAME=]SRC`."""
    name, equals, source = text.partition("=")
    return (name, source) if equals and re.fullmatch(r"[\w.-]+", name) else (None, text)
