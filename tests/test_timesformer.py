"""Weights of every origin, inflation against CLIP, and the encoder around the forward pass."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionModel,
    TimesformerModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from transformers_reference import SMALL, clip_folder, noise, own, reference

from actionvit.errors import ActionVitError
from actionvit.features.device import resolve_device
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.encoder import Encoder
from actionvit.features.timesformer.forward import run_blocks
from actionvit.features.timesformer.inflate import inflate
from actionvit.features.timesformer.state_dict import from_original, tensor_shapes
from actionvit.features.timesformer.variants import TINY, VARIANTS, clip_spec, gmac


def test_going_on_from_tokens_gives_the_same_embedding(tmp_path: Path) -> None:
    reference(tmp_path, **SMALL, image_size=32, num_frames=4)
    model, pixels = own(tmp_path), torch.randn(2, 4, 3, 32, 32)
    with torch.inference_mode():
        whole = model(pixels, tokens_after=2, layers=(1, 3))
        assert whole.tokens is not None
        rest = run_blocks(whole.tokens.transpose(0, 1), model.fold(2))
    assert torch.allclose(rest.clip, whole.clip, atol=1e-5)
    assert set(whole.layers) == {1, 3}


def test_mean_frame_pool_keeps_the_clip_embedding(tmp_path: Path) -> None:
    reference(tmp_path, **SMALL, image_size=32, num_frames=4)
    model, pixels = own(tmp_path), torch.randn(1, 4, 3, 32, 32)
    with torch.inference_mode():
        by_cls, by_mean = model(pixels), model(pixels, mean_pool=True)
    assert torch.allclose(by_cls.clip, by_mean.clip, atol=1e-5)
    assert not torch.allclose(by_cls.frame, by_mean.frame, atol=1e-2)


def test_inflated_clip_model_matches_clip_on_still_clips(tmp_path: Path) -> None:
    clip = clip_folder(tmp_path / "clip")
    shape = inflate(tmp_path / "clip", tmp_path / "out")
    assert shape.pre_norm and not shape.patch_bias
    picture = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = clip(picture).pooler_output
        found = own(tmp_path / "out")(picture[:, None].expand(-1, 8, -1, -1, -1))
    assert (found.clip - expected).abs().max() <= 1e-4
    assert (found.frame - expected[:, None]).abs().max() <= 1e-4


@pytest.mark.parametrize("classifier", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_inflated_vit_matches_the_vit_on_still_clips(tmp_path: Path, classifier: bool, qkv_bias: bool) -> None:
    torch.manual_seed(1)
    config = ViTConfig(**SMALL, image_size=48, patch_size=16, qkv_bias=qkv_bias, num_labels=5)
    vit = (ViTForImageClassification(config) if classifier else ViTModel(config)).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    vit.save_pretrained(tmp_path / "vit")
    shape = inflate(tmp_path / "vit", tmp_path / "out")
    assert not shape.pre_norm and shape.patch_bias and shape.qkv_bias == qkv_bias
    picture = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        expected = (vit.vit if classifier else vit)(picture).last_hidden_state[:, 0]
        found = own(tmp_path / "out")(picture[:, None].expand(-1, 8, -1, -1, -1))
    assert (found.clip - expected).abs().max() <= 1e-4
    assert (found.frame - expected[:, None]).abs().max() <= 1e-4
    weights = find_weights("base", tmp_path / "out")
    assert weights.mean == (0.5, 0.5, 0.5)
    # The folder is a plain TimeSformer: transformers loads it too, and sees the same.
    theirs = TimesformerModel.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        again = theirs(picture[:, None].expand(-1, 8, -1, -1, -1)).last_hidden_state[:, 0]
    assert (again - expected).abs().max() <= 1e-4


@pytest.mark.slow
def test_a_real_clip_inflates_exactly(tmp_path: Path) -> None:
    folder = os.environ.get("ACTIONVIT_TEST_CLIP")
    if not folder:
        pytest.skip("set ACTIONVIT_TEST_CLIP to a CLIP vision tower's folder")
    clip = CLIPVisionModel.from_pretrained(folder).eval()
    inflate(Path(folder), tmp_path / "out")
    picture = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = clip(picture).pooler_output
        found = own(tmp_path / "out")(picture[:, None].expand(-1, 8, -1, -1, -1))
    assert (found.clip - expected).abs().max() <= 1e-4


def test_a_whole_clip_inflates_as_its_tower_does(tmp_path: Path) -> None:
    """With the text tower, the projections and the scale that a checkpoint of the whole has."""
    clip_folder(tmp_path / "tower")
    inflate(tmp_path / "tower", tmp_path / "a")
    tower, config = load_file(tmp_path / "tower" / "model.safetensors"), tmp_path / "tower" / "config.json"
    more = {name: torch.zeros(2) for name in ("logit_scale", "text_projection.weight", "visual_projection.weight")}
    whole = tmp_path / "whole"
    whole.mkdir()
    save_file({**tower, **more, "text_model.final_layer_norm.bias": torch.zeros(2)}, whole / "model.safetensors")
    (whole / "config.json").write_text(
        json.dumps({"model_type": "clip", "vision_config": json.loads(config.read_text())})
    )
    inflate(whole, tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", '{"image_mean": ', "preprocessor_config.json"),
        ("preprocessor_config.json", '{"image_std": [0, 0, 0]}', "image_std: got"),
        ("config.json", {"hidden_act": "gelu_new"}, "act: got 'gelu_new'"),
        ("config.json", {"num_attention_heads": 0}, "heads: got 0"),
    ],
)
def test_unusable_image_model_is_refused_before_writing(tmp_path: Path, file: str, change: Any, message: str) -> None:
    clip_folder(tmp_path / "clip")
    path = tmp_path / "clip" / file
    path.write_text(change if isinstance(change, str) else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ActionVitError, match=message) as caught:
        inflate(tmp_path / "clip", tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", {"image_mean": 0.5}, "image_mean: got 0.5"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "image_mean: got"),
        ("preprocessor_config.json", {"image_std": [0.1, 0.1, 0]}, "image_std: got"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize is false"),
        ("config.json", {"patch_size": 0}, "patch: got 0"),
        ("config.json", {"id2label": {"zero": "hop"}}, "labels"),
        ("config.json", {"id2label": ["hop"]}, "labels"),
    ],
)
def test_a_configuration_that_no_model_has_is_one_line(
    tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    reference(tmp_path, **SMALL, image_size=32, num_frames=4)
    path = tmp_path / file
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **change}))
    with pytest.raises(ActionVitError, match=message) as caught:
        find_weights("base", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("mps", "torch finds no Apple GPU"),
        ("cpu:first", "got 'cpu:first', expected"),
        ("cuda:7", "torch finds"),
        ("tpu", "got 'tpu'"),
    ],
)
def test_a_device_that_is_not_here_is_one_line(device: str, message: str) -> None:
    with pytest.raises(ActionVitError, match=message):
        resolve_device(device)


def test_inflation_refuses_what_it_cannot_place(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip")
    tensors = load_file(tmp_path / "clip" / "model.safetensors")
    save_file({**tensors, "vision_model.extra.weight": torch.zeros(1)}, tmp_path / "clip" / "model.safetensors")
    with pytest.raises(ActionVitError, match=r"extra\.weight has no place"):
        inflate(tmp_path / "clip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["missing", "unexpected", "of another shape"])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: str) -> None:
    reference(tmp_path, **SMALL, image_size=32, num_frames=4)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "encoder.layer.1.temporal_dense.bias"
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        tensors["encoder.layer.1.surprise.bias"] = torch.zeros(3)
    else:
        tensors[name] = torch.zeros(7)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ActionVitError, match=f"1 {change} ") as caught:
        find_weights("base", tmp_path).load()
    assert "\n" not in str(caught.value)


def test_original_checkpoint_maps_every_key(tmp_path: Path) -> None:
    names = {}
    shape = TimeSformerConfig(width=128, depth=2, heads=2, mlp=256, num_frames=4, image_size=32)
    torch.manual_seed(2)
    theirs = {
        "cls": "cls_token",
        "position": "pos_embed",
        "time": "time_embed",
        "patch": "patch_embed.proj",
        "time_norm": "temporal_norm1",
        "time_qkv": "temporal_attn.qkv",
        "time_proj": "temporal_attn.proj",
        "time_dense": "temporal_fc",
        "space_norm": "norm1",
        "space_qkv": "attn.qkv",
        "space_proj": "attn.proj",
        "mlp_norm": "norm2",
        "mlp_in": "mlp.fc1",
        "mlp_out": "mlp.fc2",
    }
    for ours, size in tensor_shapes(shape).items():
        original = ".".join(theirs.get(part, part) for part in ours.split("."))
        names[f"model.{original}"] = torch.randn(size)
        assert from_original(f"model.{original}") == ours
    names |= {"model.head.weight": torch.randn(5, 128), "model.head.bias": torch.randn(5)}
    torch.save({"epoch": 1, "model_state": names}, tmp_path / "k400.pyth")
    weights = find_weights("base", tmp_path / "k400.pyth")
    loaded = weights.load()
    assert weights.config == shape
    assert {name for name in loaded if not name.startswith("head.")} == set(tensor_shapes(shape))
    torch.save({"model_state": names}, tmp_path / "older.pyth", _use_new_zipfile_serialization=False)
    older = find_weights("base", tmp_path / "older.pyth").load()
    assert all(torch.equal(older[name], loaded[name]) for name in loaded)


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"model_state": Trap()}, tmp_path / "trap.pyth")
    with pytest.raises(ActionVitError, match="without running code"):
        find_weights("base", tmp_path / "trap.pyth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", list(VARIANTS))
def test_costs_are_those_of_the_table(name: str) -> None:
    shape = TINY if name.startswith("tiny") else TimeSformerConfig()
    assert gmac(shape, clip_spec(name)) == pytest.approx(VARIANTS[name].gmac, rel=0.02)
    assert gmac(shape, clip_spec(name), needed=True) < gmac(shape, clip_spec(name))


def test_a_row_never_depends_on_its_neighbours() -> None:
    spec = ClipSpec(num_frames=4, size=32, clips=2, crops=3, flip=True)
    encoder = Encoder(find_weights("tiny"), spec, device="cpu")
    a, b = noise(9), noise(5)
    alone, together = encoder.encode(a), encoder.submit([b, a]).result()[1]
    assert alone["clip"].shape == (12, 128) and alone["frame"].shape == (12, 4, 128)
    for name in alone:
        np.testing.assert_array_equal(alone[name], together[name])
