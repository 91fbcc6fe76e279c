"""`actionvit attention`: where in a video an encoder looks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from actionvit.commands.command import Command
from actionvit.commands.options import (
    PATH,
    device_option,
    echo_json,
    json_option,
    num_frames_option,
    output_option,
    sampling_options,
    size_option,
    variant_option,
    weights_option,
)

if TYPE_CHECKING:
    from actionvit.features.decoding import Frames
    from actionvit.pipeline.reporting.pictures import Look

COLUMNS = 16
"""Frames of a strip; an animation shows all."""


@click.command(cls=Command, examples="actionvit attention video.mp4 --variant base -o attention/")
@click.argument("videos", nargs=-1, required=True, type=PATH, metavar="VIDEO...")
@variant_option
@weights_option
@num_frames_option
@size_option
@sampling_options
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
def command(ctx: click.Context, /, **options: Any) -> None:
    """Draw the encoder's attention over the frames of each VIDEO (a file, or a folder of frames).

    NAME.png shows the sampled frames, and below them the attention, from purple (low) to yellow (high); NAME.gif plays
    both. The method is attention rollout (Abnar and Zuidema, ACL 2020) over temporal and spatial attention: it shows
    where information can flow, not why a class was chosen.

    Exit code 3: some videos did not decode.
    """
    options["out"] = options["out"] or Path("attention")
    from actionvit.features.decoding import Decoded, DecodeRequest, decode_stream
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.rollout import AttentionRollout
    from actionvit.features.timesformer.variants import clip_spec

    views = {name: options[name] for name in ("frames", "size", "sampling", "stride")}
    spec = clip_spec(options["variant"], **views)
    look = AttentionRollout(find_weights(options["variant"], options["weights"]), spec, device=options["device"])
    options["out"].mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = []
    failed = 0
    requests = [DecodeRequest(str(video), video, (spec,)) for video in options["videos"]]
    with closing(decode_stream(requests, workers=1)) as results:
        for result, name in zip(results, _names(options["videos"]), strict=True):
            if not isinstance(result, Decoded):
                failed += 1
                click.echo(f"{result.id}: {result}", err=True)
                continue
            files = _draw(result.frames, options["out"] / name, look, options["animate"])
            done.append({"video": result.id, "files": [str(file) for file in files]})
            if not options["as_json"]:
                click.echo(f"{result.id}: {', '.join(str(file) for file in files)}")
    if options["as_json"]:
        echo_json(done)
    if failed:
        ctx.exit(3)


def _draw(frames: Frames, stem: Path, look: Look, animate: Literal["gif", "webp", "none"]) -> list[Path]:
    """Write the pictures of one video; return the files."""
    import io

    import numpy as np
    from PIL import Image

    from actionvit.features.atomic import atomic_write
    from actionvit.pipeline.reporting.pictures import GAP, animation, evenly, overlay, side_by_side

    seen, shares = (view[0] for view in look(frames))
    shown = overlay(seen, shares)
    at = evenly(len(seen), COLUMNS)
    png = io.BytesIO()
    above, below = (side_by_side(part[at], height=look.spec.size) for part in (seen, shown))
    gap = np.full((look.spec.size // GAP, *above.shape[1:]), 255, dtype=np.uint8)
    Image.fromarray(np.concatenate([above, gap, below])).save(png, "PNG", optimize=True)
    files = {stem.with_name(f"{stem.name}.png"): png.getvalue()}
    if animate != "none":
        files[stem.with_name(f"{stem.name}.{animate}")] = animation(np.concatenate([seen, shown], axis=2), animate)
    for path, data in files.items():
        atomic_write(path, data)
    return list(files)


def _names(videos: Sequence[Path]) -> list[str]:
    """Return each video's name without its suffix; with its folder's before it where two share it, then numbered."""
    whole = [Path(os.path.abspath(video)) for video in videos]  # noqa: PTH100 - `.` has no name; a link keeps its own
    short = [video.stem if video.suffix else video.name for video in whole]
    names = [
        f"{video.resolve().parent.name}-{name}" if short.count(name) > 1 else name
        for video, name in zip(videos, short, strict=True)
    ]
    return [f"{name}-{i}" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
