"""Clips as small pictures: strips of frames, the same with attention laid over them, single frames, animations."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding import Decoded, DecodeRequest, Frames, available_cores, decode_stream
from actionvit.features.sampling import ClipSpec, clip_indices

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

FRAMES = 6
"""Frames of a strip on a page."""
HEIGHT = 112
"""Height of such a strip in pixels; twice its height on a page, for sharp screens."""
GAP = 56
"""Height of a strip as a multiple of the gap between its frames."""
QUALITY = 72
"""JPEG quality."""
LIMIT = 4 << 20
"""Bytes of all strips of a report together: below 6 MB as base64."""
TIMEOUT = 20.0
"""Seconds for decoding one clip; a report goes on without a picture that takes longer."""


class AttentionEncoder(Protocol):
    """An encoder with the attention behind its embedding of a video, such as `rollout.Attention`."""

    @property
    def spec(self) -> ClipSpec:
        """Frames that it takes."""

    def __call__(self, frames: Frames) -> tuple[Pixels, NDArray[np.float32]]:
        """Return its input (K, T, S, S, 3), and each patch's attention (K, T, side, side)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One clip as JPEG files."""

    frames: bytes
    attention: bytes = b""
    """The same frames with attention over them; empty without an encoder."""


def side_by_side(frames: Pixels, *, height: int = HEIGHT) -> Pixels:
    """Return frames (F, H, W, 3) side by side in their own aspect, (height, ..., 3), a thin white gap between them."""
    from PIL import Image

    width, gap = max(1, round(frames.shape[2] * height / frames.shape[1])), height // GAP
    shown = np.full((height, len(frames) * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(frames):
        left = number * (width + gap)
        shown[:, left : left + width] = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
    return shown


def jpeg(pixels: Pixels, *, quality: int = QUALITY) -> bytes:
    """Return pixels (H, W, 3) as a JPEG file; the same pixels give the same bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def animation(pictures: Pixels, kind: Literal["gif", "webp"], *, seconds: float = 0.25) -> bytes:
    """Return pictures (F, H, W, 3) as an animation that repeats."""
    from PIL import Image

    first, *rest = [Image.fromarray(picture) for picture in pictures]
    file = io.BytesIO()
    options = {"quality": 80, "method": 4} if kind == "webp" else {"optimize": True}
    first.save(file, kind.upper(), save_all=True, append_images=rest, duration=round(1000 * seconds), loop=0, **options)
    return file.getvalue()


def overlay(frames: Pixels, shares: NDArray[np.floating]) -> Pixels:
    """Return frames (T, H, W, 3) in gray with the attention of their patches (T, h, w) over them, purple to yellow.

    All frames of a clip share one scale: attention up to its median is not colored, from its 99.5th percentile on the
    color is full.
    """
    from matplotlib import colormaps
    from PIL import Image

    low, high = np.quantile(shares, [0.5, 0.995])
    size = (frames.shape[2], frames.shape[1])
    smooth = [Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.BILINEAR) for share in shares]
    level = np.clip((np.stack([np.asarray(image) for image in smooth]) - low) / max(high - low, 1e-12), 0, 1)
    weight = 0.8 * level[..., None] ** 0.7
    gray = frames @ np.array([0.299, 0.587, 0.114])
    color = 255 * colormaps["inferno"](level)[..., :3]
    mixed = 0.85 * gray[..., None] * (1 - weight) + color * weight
    return np.asarray(np.clip(mixed, 0, 255).round(), dtype=np.uint8)


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """Return at most `most` of the numbers 0 to count - 1, evenly spaced, the middles of equal parts."""
    n = min(count, most)
    return np.asarray((2 * np.arange(n) + 1) * count // (2 * n), dtype=np.intp)


def strips(
    paths: Mapping[str, Path],
    *,
    encoder: AttentionEncoder | None = None,
    limit: int = LIMIT,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Strip]:
    """Return a strip for each video that decodes, by id, until `limit` bytes are used.

    Missing pictures are logged: they do not stop a report.

    Parameters
    ----------
    paths : mapping
        Videos by id.
    encoder : callable, optional
        Encoder for attention over the frames, which are then its input frames, cropped as it crops them.
    limit : int
        Number of bytes.
    on_clip : callable
        Called with (clips done, clips) after each clip.
    """
    spec = encoder.spec if encoder else _spec(FRAMES)
    result: dict[str, Strip] = {}
    used = 0
    for number, (id_, frames) in enumerate(_decoded(paths, spec), start=1):
        if frames is not None:
            strip = _strip(frames, encoder)
            used += len(strip.frames) + len(strip.attention)
            if used > limit:
                log.warning("pictures are limited to %d bytes: %s and later clips have none", limit, id_)
                break
            result[id_] = strip
        on_clip(number, len(paths))
    return result


def faces(paths: Mapping[str, Path], *, height: int = 44) -> dict[str, Pixels]:
    """Return the middle frame (height, w, 3) of each video that decodes, by id."""
    spec = _spec(1)
    decoded = ((id_, frames) for id_, frames in _decoded(paths, spec) if frames is not None)
    return {id_: side_by_side(_sampled(frames, spec), height=height) for id_, frames in decoded}


def _decoded(paths: Mapping[str, Path], spec: ClipSpec) -> Iterator[tuple[str, Frames | None]]:
    """Yield each video's frames, decoded in supervised processes; None where it cannot be decoded, which is logged."""
    requests = []
    for id_, path in paths.items():
        if path.is_file() or path.is_dir():  # a named pipe or a device would block its reader
            requests.append(DecodeRequest(id_, path, (spec,)))
        else:
            log.warning("no picture of %s: not a video file or frame folder", id_)
            yield id_, None
    workers = min(available_cores(), len(requests), 4)
    if not workers:
        return
    with closing(decode_stream(requests, workers=workers, timeout=TIMEOUT)) as results:
        for result in results:
            if isinstance(result, Decoded):
                yield result.id, result.frames
            else:
                log.warning("no picture of %s: %s: %s", result.id, result.reason, result.detail)
                yield result.id, None


def _strip(frames: Frames, encoder: AttentionEncoder | None) -> Strip:
    if encoder is None:
        return Strip(frames=jpeg(side_by_side(_sampled(frames, _spec(FRAMES)))))
    inputs, shares = (view[0] for view in encoder(frames))
    chosen = evenly(len(inputs), FRAMES)
    colored = overlay(inputs, shares)[chosen]
    return Strip(frames=jpeg(side_by_side(inputs[chosen])), attention=jpeg(side_by_side(colored)))


def _spec(frames: int) -> ClipSpec:
    """Return frames spread evenly over a video."""
    return ClipSpec(num_frames=frames, size=HEIGHT)


def _sampled(frames: Frames, spec: ClipSpec) -> Pixels:
    """Return the frames (F, H, W, 3) of a spec; F is smaller where the video is shorter."""
    return frames.data[frames.positions(np.unique(clip_indices(frames.count, spec)))]
