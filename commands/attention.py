"""`actionvit attention`: pictures of an encoder's attention over videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Command
from actionvit.commands.options import (
    device_option,
    echo_json,
    json_option,
    output_option,
    variant_option,
    weights_option,
)
from actionvit.commands.spec_options import spec_object
from actionvit.features.view_settings import ViewSettings

if TYPE_CHECKING:
    from actionvit.pipeline.reporting.attention import Animation


@click.command(cls=Command, examples="actionvit attention video.mp4 --variant base -o attention/")
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="VIDEO...")
@variant_option
@weights_option
@spec_object("views", ViewSettings, "num_frames", "size", "sampling", "stride")
@device_option()
@output_option("attention")
@click.option(
    "--animate",
    type=click.Choice(["gif", "webp", "none"]),
    default="gif",
    show_default=True,
    help="Format of the animation: gif plays everywhere, webp is smaller with more colors.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    videos: tuple[Path, ...],
    variant: str,
    weights: str | None,
    views: ViewSettings,
    device: str,
    out: Path | None,
    animate: Animation,
    as_json: bool,
) -> None:
    """Draw the encoder's attention over the frames of each VIDEO (a file, or a folder of frames).

    NAME.png shows the sampled frames, and below them the attention, from purple (low) to yellow (high); NAME.gif plays
    both. The method is attention rollout (Abnar and Zuidema, ACL 2020) over temporal and spatial attention: it shows
    where information can flow, not why a class was chosen.

    Exit code 3: some videos did not decode.
    """
    from actionvit import escape
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.rollout import AttentionRollout
    from actionvit.features.timesformer.variants import clip_spec
    from actionvit.pipeline.reporting.attention import draw_attention

    spec = clip_spec(variant, views)
    encoder = AttentionRollout(find_weights(variant, weights), spec, device=device)
    done: list[dict[str, Any]] = []
    failed = 0
    for video, result in draw_attention(videos, out or Path("attention"), encoder, animate=animate):
        name = escape.terminal(str(video))
        if not isinstance(result, list):
            failed += 1
            click.echo(escape.terminal(f"{name}: {result.reason}: {result.detail}"), err=True)
            continue
        done.append({"video": str(video), "files": [str(file) for file in result]})
        if not as_json:
            click.echo(f"{name}: {escape.terminal(', '.join(map(str, result)))}")
    if as_json:
        echo_json(done)
    if failed:
        ctx.exit(3)
