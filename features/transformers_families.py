"""The families of frozen encoders of `transformers`: model class, pooling of the tokens, processor defaults.

To add one: an entry in `FAMILIES` that pools tokens as its authors do, and a small model in the tests.
Image encoders see every frame by itself. `clip` is (K, D), `frame` is (K, T', D) with T' tubelets or frames.

Shape letters: B views, T frames, S pixels, P patches per frame, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FRAMES = 8
"""Frames per view of an image encoder, as in TimeSformer base."""
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
CROP = {"do_center_crop": True, "crop_size": 224, "size": {"shortest_edge": 224}}
BILINEAR, BICUBIC = {"resample": 2}, {"resample": 3}
VIT = {"hidden_size": 768, "patch_size": 16, "image_size": 224}
CLS = "CLS token per frame, mean over frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The settings of one model type of transformers."""

    model: str
    """Model class."""
    embed: Callable[[Any, Any, int], tuple[Any, Any]]
    """(model, views (B, T, 3, S, S), T') -> clip (B, D), frame (B, T', D)."""
    pool: str
    """How `embed` pools, for the cache key."""
    config: Mapping[str, Any]
    """transformers' defaults of the configuration."""
    processor: Mapping[str, Any]
    """transformers' defaults of the processor."""
    frames: str = ""
    """Configuration key of the frames per view; empty for image models."""
    stride: int = 1
    """Frames between samples in the authors' evaluation, for dense sampling."""
    fixed_shape: bool = False
    """Whether the position embedding is for one frame count and size only."""


def _tubelet_means(tokens: Tensor, tubelets: int) -> Tensor:
    """Return the mean token of each tubelet, (B, T', D), of tokens (B, T'·P, D)."""
    return tokens.reshape(len(tokens), tubelets, -1, tokens.shape[-1]).mean(2)


def _videomae(model: Any, views: Tensor, tubelets: int) -> tuple[Tensor, Tensor]:
    tokens = getattr(model, "videomae", model)(pixel_values=views).last_hidden_state
    norm = getattr(model, "fc_norm", None) or (lambda x: x)  # of a fine-tuned classifier
    return norm(tokens.mean(1)), norm(_tubelet_means(tokens, tubelets))


def _vivit(model: Any, views: Tensor, tubelets: int) -> tuple[Tensor, Tensor]:
    tokens = model(pixel_values=views).last_hidden_state
    return tokens[:, 0], _tubelet_means(tokens[:, 1:], tubelets)


def _vjepa2(model: Any, views: Tensor, tubelets: int) -> tuple[Tensor, Tensor]:
    tokens = model.get_vision_features(views)
    return tokens.mean(1), _tubelet_means(tokens, tubelets)


def _per_frame(pool: Callable[[Any], Tensor], **options: Any) -> Callable[[Any, Tensor, int], tuple[Tensor, Tensor]]:
    def embed(model: Any, views: Tensor, tubelets: int) -> tuple[Tensor, Tensor]:
        frames = pool(model(pixel_values=views.flatten(0, 1), **options))
        frames = frames.reshape(len(views), tubelets, -1)
        return frames.mean(1), frames

    return embed


_CLS_TOKEN = _per_frame(lambda output: output.last_hidden_state[:, 0], interpolate_pos_encoding=True)
_POOLER = _per_frame(lambda output: output.pooler_output, interpolate_pos_encoding=True)
_DINO = _per_frame(lambda output: output.pooler_output)
FAMILIES = {
    "videomae": Family(
        model="VideoMAEModel",
        embed=_videomae,
        pool="mean token, LayerNorm of a fine-tuned classifier",
        config={**VIT, "num_frames": 16, "tubelet_size": 2},
        processor={**HALF, **CROP, **BILINEAR},
        frames="num_frames",
        stride=4,
        fixed_shape=True,
    ),
    "vivit": Family(
        model="VivitModel",
        embed=_vivit,
        pool="CLS token; mean patch per tubelet",
        config={"hidden_size": 768, "image_size": 224, "num_frames": 32, "tubelet_size": [2, 16, 16]},
        processor={**HALF, **CROP, "size": 256, **BILINEAR, "rescale_factor": 1 / 127.5, "offset": True},
        frames="num_frames",
        stride=2,
        fixed_shape=True,
    ),
    "vjepa2": Family(  # its authors train an attentive probe on all tokens; they publish no other pooling
        model="VJEPA2Model",
        embed=_vjepa2,
        pool="mean token",
        config={"hidden_size": 1024, "patch_size": 16, "crop_size": 256, "frames_per_clip": 64, "tubelet_size": 2},
        processor={**IMAGENET, **CROP, "crop_size": 256, **BILINEAR, "resize_of_crop": 256 / 224},
        frames="frames_per_clip",
        stride=4,
    ),
    "vit": Family(model="ViTModel", embed=_CLS_TOKEN, pool=CLS, config=VIT, processor={**HALF, **BILINEAR}),
    "clip_vision_model": Family(
        model="CLIPVisionModel",
        embed=_POOLER,
        pool="CLS token after the final LayerNorm per frame, mean over frames",
        config={**VIT, "patch_size": 32},
        processor={**CLIP, **CROP, **BICUBIC},
    ),
    "siglip_vision_model": Family(
        model="SiglipVisionModel",
        embed=_POOLER,
        pool="attention pooling head per frame, mean over frames",
        config=VIT,
        processor={**HALF, **BICUBIC},
    ),
    "dinov2": Family(
        model="Dinov2Model",
        embed=_DINO,
        pool=CLS,
        config={**VIT, "patch_size": 14},
        processor={**IMAGENET, **CROP, "size": 256, **BICUBIC},
    ),
    "dinov3_vit": Family(
        model="DINOv3ViTModel", embed=_DINO, pool=CLS, config=VIT, processor={**IMAGENET, **BILINEAR, "in_float": True}
    ),
}
