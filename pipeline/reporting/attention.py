"""Attention of an encoder over the frames of videos, as pictures and animations."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np

from actionvit.features.atomic import atomic_write, remove_leftovers
from actionvit.features.decoding import Decoded, DecodeRequest, Frames, decode_stream
from actionvit.features.failures import Failure
from actionvit.pipeline.reporting.pictures import GAP, AttentionEncoder, animation, evenly, overlay, side_by_side

COLUMNS = 16
"""Frames of a picture; an animation has all."""

Animation = Literal["gif", "webp", "none"]


def draw_attention(
    videos: Sequence[Path], output: Path, encoder: AttentionEncoder, *, animate: Animation = "gif"
) -> Iterator[tuple[Path, list[Path] | Failure]]:
    """Write the pictures of each video; yield its files, or the reason why it was not decoded.

    `NAME.png` has the encoder's input frames, and below them the same frames with attention over them; the animation
    has both side by side. Videos are decoded in a supervised process.

    Parameters
    ----------
    videos : sequence of Path
        Files, or folders of frames.
    output : Path
        The folder to write to; made if it does not exist.
    encoder : callable
        Encoder for the attention, such as `rollout.AttentionRollout`.
    animate : {"gif", "webp", "none"}
        Format of the animation.
    """
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    requests = [DecodeRequest(str(video), video, (encoder.spec,)) for video in videos]
    with closing(decode_stream(requests, workers=1)) as results:
        for video, name, result in zip(videos, file_names(videos), results, strict=True):
            if isinstance(result, Decoded):
                yield video, _write(result.frames, output / name, encoder, animate)
            else:
                yield video, result


def file_names(videos: Sequence[Path]) -> list[str]:
    """Return each video's name without suffix; with its folder's name where two are the same, then numbered."""
    paths = [Path(os.path.abspath(video)) for video in videos]  # noqa: PTH100 - `.` has no name; a link keeps its own
    short = [path.stem if path.suffix else path.name for path in paths]
    names = [
        f"{path.resolve().parent.name}-{name}" if short.count(name) > 1 else name
        for path, name in zip(paths, short, strict=True)
    ]
    return [f"{name}-{i}" if names.count(name) > 1 else name for i, name in enumerate(names, start=1)]


def _write(frames: Frames, stem: Path, encoder: AttentionEncoder, animate: Animation) -> list[Path]:
    """Write the pictures of one video; return the files."""
    from PIL import Image

    inputs, shares = (view[0] for view in encoder(frames))
    colored = overlay(inputs, shares)
    chosen = evenly(len(inputs), COLUMNS)
    above, below = (side_by_side(part[chosen], height=encoder.spec.size) for part in (inputs, colored))
    gap = np.full((encoder.spec.size // GAP, *above.shape[1:]), 255, dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(np.concatenate([above, gap, below])).save(png, "PNG", optimize=True)
    files = {stem.with_name(f"{stem.name}.png"): png.getvalue()}
    if animate != "none":
        files[stem.with_name(f"{stem.name}.{animate}")] = animation(np.concatenate([inputs, colored], axis=2), animate)
    for path, data in files.items():
        atomic_write(path, data)
    return list(files)
