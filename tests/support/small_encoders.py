"""Small random models of every transformers family, with their processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32}
CROP = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
SQUARE = {"size": {"height": 32, "width": 32}}
# Name -> (model class, its configuration, processor class (PIL), its settings).
CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "videomae": ("VideoMAEModel", {**VIT, "patch_size": 8, "num_frames": 4}, "VideoMAEImageProcessorPil", CROP),
    "videomae-tuned": (
        "VideoMAEForVideoClassification",
        {**VIT, "patch_size": 8, "num_frames": 4, "num_labels": 3},
        "VideoMAEImageProcessorPil",
        CROP,
    ),
    "vivit": ("VivitModel", {**VIT, "num_frames": 4, "tubelet_size": [2, 8, 8]}, "VivitImageProcessor", CROP),
    "vjepa2": (
        "VJEPA2Model",
        {
            "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2.0, "patch_size": 8,
            "crop_size": 32, "frames_per_clip": 4, "pred_hidden_size": 24, "pred_num_hidden_layers": 1,
            "pred_num_attention_heads": 2, "num_pooler_layers": 1,
        },
        "",
        {"crop_size": 32, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 2},
    ),
    "vit": ("ViTModel", {**VIT, "patch_size": 8}, "ViTImageProcessorPil", SQUARE),
    "clip": ("CLIPVisionModel", {**VIT, "patch_size": 8}, "CLIPImageProcessorPil", CROP),
    "siglip": ("SiglipVisionModel", {**VIT, "patch_size": 8}, "SiglipImageProcessorPil", SQUARE),
    "dinov2": ("Dinov2Model", {**VIT, "patch_size": 8}, "BitImageProcessorPil", CROP),
    "dinov3": (
        "DINOv3ViTModel",
        {**VIT, "patch_size": 8},
        "",
        {**SQUARE, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 2},
    ),
}  # fmt: skip


def write_model(folder: Path, name: str) -> Any:
    """Write a random model of a case with its processor, and return it."""
    model_class, config, processor, settings = CASES[name]
    torch.manual_seed(0)
    cls = getattr(transformers, model_class)
    model = cls(cls.config_class(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    if processor:
        getattr(transformers, processor)(**settings).save_pretrained(folder)
    else:
        prefix = "video_" if name == "vjepa2" else ""
        (folder / f"{prefix}preprocessor_config.json").write_text(json.dumps(settings))
    return model
