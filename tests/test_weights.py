"""Weights: the processor files that are read, untrained shapes, and the digest of written files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers_reference import SMALL, clip_folder, reference

from actionvit.errors import ActionVitError
from actionvit.features.tensor_file import load_tensors, save_tensors
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.inflate import inflate
from actionvit.features.timesformer.state_dict import tensor_shapes
from actionvit.features.timesformer.variants import TINY, VARIANTS
from actionvit.pipeline.finetuning.checkpoints import FILE, load_checkpoint, save_checkpoint

PIXELS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
FORMS = [
    ("preprocessor_config.json", PIXELS),
    ("video_preprocessor_config.json", PIXELS),
    ("processor_config.json", {"processor_class": "CLIPProcessor", "image_processor": PIXELS}),
    ("processor_config.json", {"video_processor": PIXELS}),
]


@pytest.mark.parametrize(("file", "content"), FORMS)
def test_every_processor_file_gives_mean_and_std(tmp_path: Path, file: str, content: dict[str, Any]) -> None:
    reference(tmp_path, **SMALL, image_size=32, num_frames=4)
    (tmp_path / file).write_text(json.dumps(content))
    weights = find_weights("base", tmp_path)
    assert weights.mean == (0.1, 0.2, 0.3) and weights.std == (0.4, 0.5, 0.6)


@pytest.mark.parametrize(("file", "content"), FORMS)
def test_inflation_keeps_the_pixels_of_every_processor_file(tmp_path: Path, file: str, content: dict[str, Any]) -> None:
    clip_folder(tmp_path / "clip")
    (tmp_path / "clip" / file).write_text(json.dumps(content))
    inflate(tmp_path / "clip", tmp_path / "out")
    assert find_weights("base", tmp_path / "out").mean == (0.1, 0.2, 0.3)


def test_processor_files_that_disagree_are_refused(tmp_path: Path) -> None:
    reference(tmp_path, **SMALL, image_size=32, num_frames=4)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(PIXELS))
    find_weights("base", tmp_path)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({**PIXELS, "image_std": [1, 1, 1]}))
    with pytest.raises(ActionVitError, match="normalize pixels differently"):
        find_weights("base", tmp_path)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_untrained_weights_have_the_variants_own_shape(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actionvit.features.timesformer.checkpoint.untrained_digest", lambda config: "0" * 64)
    config = find_weights(variant, "untrained").config
    own = VARIANTS[variant]
    if variant.startswith("tiny"):
        assert config == TINY
    else:
        assert (config.width, config.depth) == (768, 12)
        assert (config.num_frames, config.image_size) == (own.num_frames, own.size)


def test_untrained_base_weights_have_their_own_digest() -> None:
    weights = find_weights("base", "untrained")
    assert weights.digest != find_weights("tiny", "untrained").digest
    assert {name: tuple(value.shape) for name, value in weights.load().items()} == tensor_shapes(weights.config)


def flip_bit(path: Path) -> None:
    """Flip one bit in the middle of the tensors."""
    data = bytearray(path.read_bytes())
    data[(8 + int.from_bytes(data[:8], "little") + len(data)) // 2] ^= 4
    path.write_bytes(data)


def test_a_flipped_bit_in_inflated_weights_is_refused_on_load(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip")
    inflate(tmp_path / "clip", tmp_path / "out")
    find_weights("base", tmp_path / "out").load()
    flip_bit(tmp_path / "out" / "model.safetensors")
    with pytest.raises(ActionVitError, match="does not match its digest") as caught:
        find_weights("base", tmp_path / "out").load()
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_training_checkpoint_is_refused(tmp_path: Path) -> None:
    tensors = {"weight": torch.randn(7, 5), "step": torch.tensor(3), "half": torch.ones(3, dtype=torch.bfloat16)}
    save_checkpoint(tmp_path, tensors, {"epoch": 2})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded[1]["epoch"] == 2
    assert all(torch.equal(loaded[0][name], value) for name, value in tensors.items())
    flip_bit(tmp_path / FILE)
    with pytest.raises(ActionVitError, match="does not match its digest"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_without_a_digest_is_still_read(tmp_path: Path) -> None:
    state = {"state": json.dumps({"schema": 1, "epoch": 4})}
    save_file({"weight": torch.ones(2)}, tmp_path / FILE, metadata=state)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded[1]["epoch"] == 4 and torch.equal(loaded[0]["weight"], torch.ones(2))


def test_a_tensor_file_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5), "a": torch.ones(3, 2)}
    for name in ("one", "two"):
        save_tensors(tmp_path / name, tensors, {"x": [1, "ü"]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert torch.equal(load_file(tmp_path / "one")["b"], tensors["b"])
    assert load_tensors(tmp_path / "one")[1] == {"x": [1, "ü"]}
    (tmp_path / "one").write_bytes((tmp_path / "one").read_bytes()[:-3])
    with pytest.raises(ActionVitError, match="cannot be read"):
        load_tensors(tmp_path / "one")
