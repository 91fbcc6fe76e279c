"""Frozen encoders of transformers: small random models of every family against a plain transformers script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from small_encoders import CASES, write_model
from transformers_reference import noise

from actionvit.errors import ActionVitError
from actionvit.features.sampling import clip_indices
from actionvit.features.transformers_encoder import find_encoder
from actionvit.features.transformers_families import FAMILIES
from actionvit.features.view_settings import ViewSettings


def their_pixels(name: str, frames: NDArray[np.uint8]) -> torch.Tensor:
    """Return pixels (T, 3, S, S) by the family's processor, or by its published steps where it needs torchvision."""
    _, _, processor, settings = CASES[name]
    images = [Image.fromarray(frame) for frame in frames]
    if processor.startswith("VideoMAE") or processor.startswith("Vivit"):
        return torch.as_tensor(
            np.asarray(getattr(transformers, processor)(**settings)(images, return_tensors="np")["pixel_values"])
        )[0].float()
    if processor:
        return getattr(transformers, processor)(**settings)(images=images, return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(settings[key])[:, None, None] for key in ("image_mean", "image_std"))
    if name == "dinov3":  # rescale, resize as floats, normalize
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        return (F.interpolate(pixels, size=(32, 32), mode="bilinear", antialias=True) - mean) / std
    short, (height, width) = int(32 * 256 / 224), frames.shape[1:3]
    size = (short * width // min(height, width), short * height // min(height, width))
    small = np.stack([np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for image in images])
    top, left = (small.shape[1] - 32) // 2, (small.shape[2] - 32) // 2
    cut = torch.from_numpy(small[:, top : top + 32, left : left + 32]).permute(0, 3, 1, 2).float() / 255
    return (cut - mean) / std


def their_embeddings(name: str, model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clip (D,) and frame (T', D) of one view's pixels by a plain forward."""
    with torch.inference_mode():
        if name.startswith("videomae"):
            tokens = getattr(model, "videomae", model)(pixels[None]).last_hidden_state[0]
            norm = model.fc_norm if name == "videomae-tuned" else lambda x: x
            return norm(tokens.mean(0)), norm(tokens.view(2, 16, -1).mean(1))
        if name == "vivit":
            tokens = model(pixels[None]).last_hidden_state[0]
            return tokens[0], tokens[1:].view(2, 16, -1).mean(1)
        if name == "vjepa2":
            tokens = model(pixels[None], skip_predictor=True).last_hidden_state[0]
            return tokens.mean(0), tokens.view(2, 16, -1).mean(1)
        output = model(pixels)
        frames = output.last_hidden_state[:, 0] if name == "vit" else output.pooler_output
        return frames.mean(0), frames


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("count", "height", "width", "clips"), [(11, 53, 71, 1), (3, 47, 33, 1), (17, 36, 64, 3)], ids=str
)
def test_embeddings_equal_a_plain_transformers_script(
    tmp_path: Path, name: str, count: int, height: int, width: int, clips: int
) -> None:
    """Odd sizes, a video shorter than its clip, and several views."""
    model = write_model(tmp_path, name)
    job = find_encoder(str(tmp_path), ViewSettings(num_frames=4, num_clips=clips))
    frames = noise(count, height, width)
    arrays = job.load("cpu").submit([frames]).result()[0]
    assert {key: (value.shape, str(value.dtype)) for key, value in arrays.items()} == job.output_spec()
    for view, index in enumerate(clip_indices(count, job.spec)):
        clip, frame = their_embeddings(name, model, their_pixels(name, frames.data[index]))
        assert np.abs(arrays["clip"][view] - clip.numpy()).max() <= 1e-4
        assert np.abs(arrays["frame"][view] - frame.numpy()).max() <= 1e-4


def test_every_family_has_a_case(tmp_path: Path) -> None:
    kinds = {getattr(transformers, case[0]).config_class.model_type for case in CASES.values()}
    assert kinds == set(FAMILIES)


@pytest.mark.parametrize("name", ["vit", "clip", "siglip", "dinov2", "dinov3", "vjepa2"])
def test_other_frame_counts_and_sizes_are_supported(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, name)
    job = find_encoder(str(tmp_path), ViewSettings(num_frames=6, size=48, flip=True))
    arrays = job.load("cpu").submit([noise(9)]).result()[0]
    assert {key: value.shape for key, value in arrays.items()} == {k: s for k, (s, _) in job.output_spec().items()}
    assert np.isfinite(arrays["clip"]).all()


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_key_changes_with_everything_that_changes_numbers(tmp_path: Path) -> None:
    write_model(tmp_path, "clip")

    def key(precision: Any = "fp32", **settings: Any) -> str:
        return json.dumps(
            find_encoder(str(tmp_path), ViewSettings(**settings), precision=precision).key_fields(), sort_keys=True
        )

    keys = [
        key(),
        key(num_frames=4),
        key(size=64),
        key(num_clips=2),
        key(crops=3),
        key(flip=True),
        key(precision="bf16"),
    ]
    keys += [key(sampling="dense", stride=2)]
    processor = tmp_path / "preprocessor_config.json"
    for change in (
        {"image_mean": [0.1, 0.2, 0.3]},
        {"image_std": [0.1, 0.2, 0.3]},
        {"resample": 2},
        {"size": {"shortest_edge": 40}},
        {"rescale_factor": 1 / 128},
    ):
        edit(processor, **change)
        keys.append(key())
    edit(tmp_path / "config.json", hidden_act="gelu")
    keys.append(key())
    tensors = load_file(tmp_path / "model.safetensors")
    next(value for key, value in tensors.items() if key.endswith("post_layernorm.bias")).add_(1)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    keys.append(key())
    assert len(set(keys)) == len(keys)
    edit(tmp_path / "config.json", transformers_version="9.9", id2label={"0": "x"})
    assert key() == keys[-1], "what changes no number stays out of the key"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "swin"}, "model_type 'swin', expected one of videomae"),
        ("config.json", {"auto_map": {"AutoModel": "code.Model"}}, "custom code"),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "code.P"}}, "custom code"),
        ("preprocessor_config.json", {"resample": 1}, "resample: got 1"),
        ("preprocessor_config.json", {"do_resize": False}, "do_resize"),
        ("preprocessor_config.json", {"do_pad": True}, "do_pad is true"),
        ("preprocessor_config.json", {"crop_size": 64}, "crop_size: got 64"),
        ("preprocessor_config.json", {"size": {"longest_edge": 32}}, "size: got"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std"),
    ],
)
def test_unsupported_models_are_refused_in_one_line(
    tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    write_model(tmp_path, "clip")
    edit(tmp_path / file, **change)
    with pytest.raises(ActionVitError, match=message) as caught:
        find_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_model_without_processor_settings_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ActionVitError, match=r"has no preprocessor_config\.json"):
        find_encoder(str(tmp_path))


@pytest.mark.parametrize("name", ["videomae-tuned", "clip", "siglip"])
def test_missing_tensors_are_named(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, name)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[next(key for key in tensors if "layernorm" in key.lower() or "layer_norm" in key)]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ActionVitError, match="1 tensors are missing") as caught:
        find_encoder(str(tmp_path), ViewSettings(num_frames=4)).load("cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("videomae", {"num_frames": 8}, "its positions are fixed"),
        ("vivit", {"size": 64}, "its positions are fixed"),
        ("vjepa2", {"num_frames": 5}, "expected multiples of 2"),
        ("clip", {"size": 36}, "expected multiples of 1 and 8"),
        ("vit", {"crops": 3}, "resizes to a square"),
    ],
)
def test_views_that_a_model_cannot_see_are_refused(
    tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    write_model(tmp_path, name)
    with pytest.raises(ActionVitError, match=message):
        find_encoder(str(tmp_path), ViewSettings(**settings)).output_spec()


def test_gmac_is_counted(tmp_path: Path) -> None:
    write_model(tmp_path, "vit")
    job = find_encoder(str(tmp_path), ViewSettings(num_frames=4, num_clips=2))
    D, P, mlp = 32, 16, 48
    tokens = P + 1
    block = 4 * D * D * tokens + 2 * tokens * tokens * D + 2 * D * mlp * tokens
    by_hand = 8 * (P * 3 * 64 * D + 2 * block)
    assert job.gmac * 1e9 == pytest.approx(by_hand, rel=0.02)


def test_planning_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_model(tmp_path, "clip")
    code = (
        "import sys; from actionvit.features.transformers_encoder import find_encoder;"
        f"find_encoder({str(tmp_path)!r}).key_fields(); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"
