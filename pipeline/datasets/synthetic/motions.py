"""Synthetic clips of moving shapes, whose class is the motion and cannot be seen in a single frame.

Half of the classes are the other half played backwards, so that only the order of the frames distinguishes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MOTIONS = (
    "move_right",
    "grow",
    "turn_clockwise",
    "zigzag",
    "fall",
    "move_left",
    "blink",
    "rise",
    "shrink",
    "turn_anticlockwise",
    "appear",
    "vanish",
)
"""The classes; their order has no meaning."""

BACKWARDS = {
    "move_left": "move_right",
    "fall": "rise",
    "shrink": "grow",
    "turn_anticlockwise": "turn_clockwise",
    "vanish": "appear",
}
"""Pairs of motions that are each other played backwards; the two others look the same both ways."""

_SHAPES = ("disc", "box", "triangle", "ring", "cross", "drop")
_NOISE = 15  # the widest noise; pictures keep this far from 0 and 255, so that adding it never wraps around


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The common part of all clips of a source: the background and the moving shape."""

    backdrop: Array
    """(G, G, 3), colours of a coarse grid, 0 to 255; spread smoothly over the picture."""
    grain: Array
    """(2, 3): frequency and phase along y and x, and the strength, of the backdrop's stripes."""
    shape: str
    """One of six outlines."""
    colours: Array
    """(2, 3), between which the shape is striped and shaded."""
    stripes: float
    """Stripes across the shape; its shading distinguishes up from down even if this is small."""
    clutter: Array
    """(n, 4): y, x and radius (as shares of the short side) and grey of discs that never move."""


@dataclass(frozen=True, slots=True)
class Track:
    """Where the shape is and how it looks, frame by frame; lengths as shares of the short side."""

    y: Array
    x: Array
    radius: Array
    angle: Array
    opacity: Array


@dataclass(frozen=True, slots=True)
class Drawn:
    """A clip and its ground truth."""

    pixels: NDArray[np.uint8]
    """(T, H, W, 3)"""
    track: Track
    """Motion of the shape in the scene: y and x are relative to the corner of a still camera's picture."""
    camera: Array
    """(T, 2): how far the camera has moved down and right, in pixels."""


def draw_scene(rng: np.random.RandomState) -> Scene:
    """Return a random place with a random shape in it."""
    grid = rng.randint(3, 7)
    base, tint = rng.uniform(60, 190, 3), rng.uniform(15, 60)
    backdrop = base + rng.uniform(-tint, tint, (grid, grid, 3))
    colours = rng.uniform(20, 235, (2, 3))
    # The shape must stand out from the backdrop, and its stripes from each other.
    colours[0] = np.where(base > 125, colours[0] * 0.4, 255 - (255 - colours[0]) * 0.4)
    colours[1] = 0.45 * colours[1] + 0.55 * (255 - colours[0])
    clutter = np.column_stack([rng.uniform(-0.2, 1.4, (3, 2)), rng.uniform(0.04, 0.12, 3), rng.uniform(50, 200, 3)])
    return Scene(
        backdrop=backdrop.astype(np.float32),
        grain=rng.uniform([[3, 0, 2]], [[40, 6, 12]], (2, 3)).astype(np.float32),
        shape=_SHAPES[rng.randint(len(_SHAPES))],
        colours=colours.astype(np.float32),
        stripes=float(rng.uniform(0, 2.5)),
        clutter=clutter[: rng.randint(4)].astype(np.float32),
    )


def draw_clip(
    motion: str,
    rng: np.random.RandomState,
    *,
    frames: int,
    size: int | tuple[int, int],
    camera_motion: float = 0.0,
    noise: int = 4,
    scene: Scene | None = None,
) -> NDArray[np.uint8]:
    """Draw one clip.

    Parameters
    ----------
    motion : str
        One of `MOTIONS`.
    rng : numpy.random.RandomState
        Source of all randomness; its stream is frozen (NEP 19), so the same state gives the same pixels.
    frames : int
        T.
    size : int or (int, int)
        Height and width in pixels; one number for a square.
    camera_motion : float
        Amplitude of camera pan and shake, as a fraction of the short side; 0 for a tripod, 0.1 is large.
    noise : int
        Sensor noise, the largest deviation in grey levels, 0 to 15.
    scene : Scene, optional
        Place and shape; by default new ones.

    Returns
    -------
    ndarray of shape (T, H, W, 3), uint8

    Raises
    ------
    ValueError
        For an unknown motion or noise out of range.
    """
    return draw_tracked(
        motion, rng, frames=frames, size=size, camera_motion=camera_motion, noise=noise, scene=scene
    ).pixels


def draw_tracked(
    motion: str,
    rng: np.random.RandomState,
    *,
    frames: int,
    size: int | tuple[int, int],
    camera_motion: float = 0.0,
    noise: int = 4,
    scene: Scene | None = None,
) -> Drawn:
    """Draw one clip like `draw_clip`; also return the paths of shape and camera."""
    if motion not in MOTIONS:
        raise ValueError(f"motion: got {motion!r}, expected one of {', '.join(MOTIONS)}")
    if not 0 <= noise <= _NOISE:
        raise ValueError(f"noise: got {noise}, expected 0 to {_NOISE}")
    height, width = (size, size) if isinstance(size, int) else size
    scene = scene or draw_scene(rng)
    short = min(height, width)
    track = _track(motion, rng, frames, np.array([height, width]) / short)
    camera = _camera(rng, frames, camera_motion * short)
    margin = int(np.ceil(np.abs(camera).max()))
    canvas = _backdrop(scene, rng, height + 2 * margin, width + 2 * margin, short)
    corner = np.rint(camera).astype(np.int64) + margin
    clip = np.stack([canvas[y : y + height, x : x + width] for y, x in corner])
    _paint(clip, scene, track, -np.rint(camera), short)
    if noise:
        _add_noise(clip, rng, noise)
    return Drawn(clip, track, camera)


def _track(motion: str, rng: np.random.RandomState, frames: int, room: NDArray[np.float64]) -> Track:
    """Return the path of the shape: the motion itself, plus a random slow drift and turn independent of the class."""
    forwards = BACKWARDS.get(motion, motion)
    time = np.linspace(0, 1, frames) if frames > 1 else np.full(1, 0.5)
    if forwards != motion:
        time = 1 - time
    # Faster first or faster last, symmetric in time reversal.
    bend = rng.uniform(-0.4, 0.4)
    time = time + bend * time * (1 - time)
    middle, drift = rng.uniform(0.4, 0.6, 2) * room, rng.uniform(-0.04, 0.04, (2, 1)) * (time - 0.5)
    y, x = middle[:, None] + drift
    radius = np.full(frames, rng.uniform(0.14, 0.24))
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.3, 0.3) * (time - 0.5)
    opacity = np.ones(frames)
    way = rng.uniform(0.45, 0.7)
    if forwards == "move_right":
        x = x + way * room[1] * (time - 0.5)
    elif forwards == "rise":
        y = y - way * room[0] * (time - 0.5)
    elif forwards == "grow":
        radius = rng.uniform(0.15, 0.2) * rng.uniform(1.8, 2.6) ** (2 * time - 1)
    elif forwards == "turn_clockwise":
        angle = angle + rng.uniform(0.7, 1.5) * np.pi * time
    elif forwards == "appear":
        opacity = np.clip((time - 0.5) * rng.uniform(1.2, 2.5) + 0.5, 0, 1)
    elif forwards == "zigzag":
        wave = np.abs((time * rng.uniform(1.5, 3) + rng.uniform()) % 1 * 2 - 1) - 0.5
        y, x = y + way * wave, x + way * room[1] * (time - 0.5) * rng.choice([-1, 1])
    elif forwards == "blink":
        opacity = ((time * rng.uniform(2, 4) + rng.uniform()) % 1 < 0.5).astype(np.float64)
    return Track(*(np.asarray(part, dtype=np.float32) for part in (y, x, radius, angle, opacity)))


def _camera(rng: np.random.RandomState, frames: int, reach: float) -> Array:
    """Return (T, 2), the camera's way in pixels: a straight pan and a slow shake, centred."""
    time = np.linspace(-0.5, 0.5, frames)[:, None]
    pan, pace, phase = rng.uniform(-1, 1, 2), rng.uniform(6, 25, 2), rng.uniform(0, 6.3, 2)
    return (reach * (pan * time + 0.3 * np.sin(pace * time + phase))).astype(np.float32)


def _backdrop(scene: Scene, rng: np.random.RandomState, height: int, width: int, short: int) -> NDArray[np.uint8]:
    """Return (H, W, 3): the grid's colours spread smoothly, stripes, discs; shifted a little from clip to clip."""
    weights = [_spread(length, len(scene.backdrop), rng.uniform(-0.1, 0.1)) for length in (height, width)]
    canvas = np.einsum("yg,ghc,xh->yxc", weights[0], scene.backdrop, weights[1], optimize=True)
    y, x = (np.arange(length, dtype=np.float32) / short for length in (height, width))
    (fy, py, sy), (fx, px, sx) = scene.grain
    canvas += (sy * np.sin(fy * y + py))[:, None, None] + (sx * np.sin(fx * x + px))[None, :, None]
    for cy, cx, radius, grey in scene.clutter:
        distance = np.hypot((y - cy)[:, None], (x - cx)[None, :])
        cover = np.clip((radius - distance) * short + 0.5, 0, 1)[..., None] * np.float32(0.8)
        canvas += cover * (grey - canvas)
    picture: NDArray[np.uint8] = np.clip(canvas, _NOISE, 255 - _NOISE).astype(np.uint8)
    return picture


def _spread(length: int, points: int, shift: float) -> Array:
    """Return (length, points), weights of linear interpolation from a grid to pixels."""
    position = np.clip(np.linspace(0, 1, length) + shift, 0, 1) * (points - 1)
    weights: Array = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(points))).astype(np.float32)
    return weights


def _paint(clip: NDArray[np.uint8], scene: Scene, track: Track, shift: Array, short: int) -> None:
    """Draw the shape into every frame, its edge softened over one pixel."""
    reach = int(np.ceil(track.radius.max() * short * 1.3)) + 1  # outlines end within 1.3 radii
    centre = np.stack([track.y, track.x], axis=1) * short + shift
    corner = np.floor(centre).astype(np.int64) - reach
    local = np.arange(2 * reach + 1, dtype=np.float32)
    y, x = ((corner[:, axis, None] - centre[:, axis, None] + local).astype(np.float32) for axis in (0, 1))
    scale = track.radius[:, None, None] * np.float32(short)
    cos, sin = np.cos(track.angle)[:, None, None] / scale, np.sin(track.angle)[:, None, None] / scale
    # y points down: a growing angle turns clockwise, as the viewer sees it.
    u, v = x[:, None, :] * cos + y[:, :, None] * sin, y[:, :, None] * cos - x[:, None, :] * sin
    cover = np.clip(0.5 - _outline(scene.shape, u, v) * scale, 0, 1) * track.opacity[:, None, None]
    shade = np.clip(0.5 + 0.35 * v + 0.25 * np.sin(np.float32(np.pi * scene.stripes) * u), 0, 1)
    first, second = np.clip(scene.colours, _NOISE, 255 - _NOISE)
    side = 2 * reach + 1
    for frame, (top, left) in enumerate(corner):
        region = clip[frame, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
        rows = slice(max(-top, 0), max(-top, 0) + region.shape[0])
        columns = slice(max(-left, 0), max(-left, 0) + region.shape[1])
        colour = first + shade[frame, rows, columns, None] * (second - first)
        region[...] = (region + cover[frame, rows, columns, None] * (colour - region)).astype(np.uint8)


def _outline(shape: str, u: Array, v: Array) -> Array:
    """Return the approximate distance of (u, v) from the shape's edge, in radii; negative inside."""
    if shape == "disc":
        distance = np.hypot(u, v) - 1
    elif shape == "box":
        distance = np.maximum(np.abs(u) - 0.6, np.abs(v) - 1)
    elif shape == "triangle":
        distance = np.maximum(np.abs(u) * 0.866 + v * 0.5, -v) - 0.5
    elif shape == "ring":
        distance = np.abs(np.hypot(u, v) - 0.75) - 0.25
    elif shape == "cross":
        wide, high = np.abs(u), np.abs(v)
        distance = np.minimum(np.maximum(wide - 1, high - 0.3), np.maximum(wide - 0.3, high - 1))
    else:
        distance = np.hypot(u, v - np.float32(0.3) * (1 - u * u)) - np.float32(0.8)
    return distance


def _add_noise(clip: NDArray[np.uint8], rng: np.random.RandomState, noise: int) -> None:
    """Add one noise picture, shifted randomly per frame: equivalent to fresh noise, in a tenth of the time."""
    frames, height, width, _ = clip.shape
    play = 16
    tile = rng.randint(-noise, noise + 1, (height + play, width + play, 3), dtype=np.int8).view(np.uint8)
    for frame, (y, x) in enumerate(rng.randint(0, play, (frames, 2))):
        clip[frame] += tile[y : y + height, x : x + width]  # two's complement: -1 is 255, and nothing wraps
