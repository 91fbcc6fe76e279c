"""Resize, crop and normalization of a transformers processor, read from its settings and followed exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from actionvit.features.hf_folder import image_mean_std

if TYPE_CHECKING:
    from torch import Tensor

    from actionvit.features.transforms import Resize

FILTERS: dict[Any, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
_STEPS = {"do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb", "do_sample_frames"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings:
    """Resize, crop and normalization of a processor."""

    resize: int
    """Pixels of the short side, or of both sides with `stretch`, at the processor's own crop."""
    crop: int
    """Side of the square center crop in pixels."""
    stretch: bool
    """Whether the resize ignores the aspect ratio."""
    filter: Literal["bilinear", "bicubic"]
    """Antialiased, in Pillow's 8-bit arithmetic."""
    in_float: bool
    """Whether pixels are resized as floats instead, by torch, as DINOv3's processor does."""
    mean: tuple[float, ...]
    """Mean of pixel values in [0, 1], per channel."""
    std: tuple[float, ...]

    def resizer(self, size: int) -> Resize:
        """Return the resize for views of `size` pixels, which keeps the ratio of resize to crop."""
        side = round(self.resize * size / self.crop)

        def resize(frames: Tensor) -> Tensor:
            import torch.nn.functional as F

            from actionvit.features.resizing import resize_pillow

            height, width = frames.shape[1:3]
            short = side if self.stretch else min(height, width)
            shape = (side, side) if self.stretch else (height * side // short, width * side // short)
            if self.in_float:
                planes = frames.permute(0, 3, 1, 2).float()
                return F.interpolate(planes, size=shape, mode=self.filter, antialias=True, align_corners=False)
            return resize_pillow(frames, *shape, self.filter).permute(0, 3, 1, 2)

        return resize


def pixel_settings(processor: Mapping[str, Any]) -> PixelSettings:
    """Return the settings of a processor.

    Parameters
    ----------
    processor : mapping
        Its JSON with the defaults of its class.

    Raises
    ------
    ValueError, KeyError, TypeError
        If a setting cannot be followed: another filter, no square result, padding, no resize or rescale.
    """
    if unknown := sorted(key for key, on in processor.items() if key.startswith("do_") and on and key not in _STEPS):
        raise ValueError(f"{unknown[0]} is true, which is not supported")
    if processor.get("do_resize") is False or processor.get("do_rescale") is False:
        raise ValueError("do_resize or do_rescale is false, so frames of different sizes or scales would mix")
    if processor["resample"] not in FILTERS:
        raise ValueError(f"resample: got {processor['resample']!r}, expected 2 (bilinear) or 3 (bicubic)")
    cropped = bool(processor.get("do_center_crop"))
    size = processor.get("size", 224)
    if isinstance(size, int):  # of older files
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    resize, crop = _side(size, "size"), _side(processor["crop_size"], "crop_size") if cropped else _side(size, "size")
    stretch = "shortest_edge" not in size
    if not cropped and not stretch:
        raise ValueError("size: got shortest_edge without do_center_crop, expected a square result")
    if processor.get("resize_of_crop"):
        resize = int(crop * processor["resize_of_crop"])
    if crop > resize:
        raise ValueError(f"crop_size: got {crop}, expected at most the resized side, {resize} pixels")
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if processor.get("do_normalize") is not False:
        mean, std = image_mean_std(processor, mean, std)
    factor, offset = 255 * float(processor.get("rescale_factor", 1 / 255)), float(bool(processor.get("offset")))
    return PixelSettings(
        resize=resize,
        crop=crop,
        stretch=stretch,
        filter=FILTERS[processor["resample"]],
        in_float=bool(processor.get("in_float")),
        mean=tuple((m + offset) / factor for m in mean),
        std=tuple(s / factor for s in std),
    )


def _side(size: Any, name: str) -> int:
    """Return the side of a square size: a number, `shortest_edge`, or equal `height` and `width`."""
    if isinstance(size, Mapping):
        sides = {size[key] for key in size if size[key] is not None}
        if set(size) not in ({"shortest_edge"}, {"height", "width"}) or len(sides) != 1:
            raise ValueError(f"{name}: got {dict(size)}, expected shortest_edge, or equal height and width")
        size = sides.pop()
    if type(size) is not int or size < 1:
        raise ValueError(f"{name}: got {size!r}, expected a whole number of pixels")
    return size
