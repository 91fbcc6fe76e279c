"""The forward against transformers' own: every shape, every output, every precision; random weights, no bias zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TimesformerConfig, TimesformerModel
from transformers_reference import SMALL, Expected, cosine, expected, noise, own, reference

from actionvit.features.device import Precision
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.attention import attend_space, attend_time
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.encoder import Encoder
from actionvit.features.timesformer.variants import TINY

HR, LARGE = {"num_frames": 16, "image_size": 448}, {"num_frames": 96, "image_size": 224}
NARROW = {**SMALL, "num_hidden_layers": 2}
FRAMES = noise(8, 224, 224)
LONG = pytest.mark.timeout(2400)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Expected]:
    """The full base model, 12 blocks × 768 over 8 × 224, and its outputs for `FRAMES`."""
    folder = tmp_path_factory.mktemp("base")
    pixels = torch.from_numpy(FRAMES.data).permute(0, 3, 1, 2)[None].float() / 255
    return folder, expected(reference(folder, spread=0.02), (pixels - 0.45) / 0.225)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({**NARROW, **HR}, id="HR's tokens, narrow"),
        pytest.param({**NARROW, **LARGE}, id="large's tokens, narrow"),
        pytest.param(
            {
                "hidden_size": TINY.width,
                "num_hidden_layers": TINY.depth,
                "num_attention_heads": TINY.heads,
                "intermediate_size": TINY.mlp,
                "image_size": 112,
            },
            id="tiny",
        ),
        pytest.param({**SMALL, "image_size": 64, "num_frames": 4}, id="small"),
        pytest.param({**SMALL, "image_size": 32, "num_frames": 40}, id="more frames than go through plain products"),
        pytest.param({**SMALL, "image_size": 48, "num_frames": 1, "hidden_act": "quick_gelu"}, id="one frame"),
        pytest.param({**SMALL, "image_size": 32, "num_frames": 8, "qkv_bias": False}, id="no qkv bias"),
        pytest.param({**HR}, id="HR, whole", marks=[pytest.mark.slow, LONG]),
        pytest.param({**LARGE}, id="large, whole", marks=[pytest.mark.slow, LONG]),
    ],
)
def test_every_output_equals_transformers(tmp_path: Path, config: dict[str, int]) -> None:
    theirs = reference(tmp_path, spread=0.05 if "hidden_size" in config else 0.02, **config)
    T, S, depth = theirs.config.num_frames, theirs.config.image_size, theirs.config.num_hidden_layers
    wide = "hidden_size" not in config
    pixels = torch.randn(1 if wide or T * S > 2000 else 2, T, 3, S, S)
    right, model = expected(theirs, pixels), own(tmp_path)
    with torch.inference_mode():
        found = model(pixels, layers=range(1, depth + 1), tokens_after=depth - 1)
    assert (found.clip - right.clip).abs().max() <= 1e-4
    assert (found.frame - right.frame).abs().max() <= 1e-4
    for number, cls in found.layers.items():
        assert_close(cls, right.layers[number])
    assert found.tokens is not None
    assert_close(found.tokens, right.tokens[depth - 1])
    if wide:
        return
    with torch.inference_mode():
        by_mean = model(pixels, mean_pool=True, tokens_after=0)
    assert (by_mean.clip - right.clip).abs().max() <= 1e-4
    assert (by_mean.frame - right.mean).abs().max() <= 1e-4
    assert by_mean.tokens is not None
    assert_close(by_mean.tokens, right.tokens[0])


def assert_close(found: torch.Tensor, right: torch.Tensor) -> None:
    """Compare a residual stream, which is not normalized, within 1e-4 of its largest value."""
    assert (found - right).abs().max() <= 1e-4 * max(1.0, right.abs().max().item())


@pytest.mark.parametrize(
    "precision",
    ["fp32", *(pytest.param(precision, marks=[pytest.mark.slow, LONG]) for precision in ("bf16", "fp16"))],
)
def test_the_encoder_of_base_equals_transformers(base: tuple[Path, Expected], precision: Precision) -> None:
    folder, right = base
    spec = ClipSpec(num_frames=8, size=224)
    found = Encoder(find_weights("base", folder), spec, device="cpu", precision=precision).encode(FRAMES)
    if precision == "fp32":
        assert np.abs(found["clip"] - right.clip.numpy()).max() <= 1e-4
        assert np.abs(found["frame"] - right.frame.numpy()).max() <= 1e-4
    assert cosine(found["clip"], right.clip) >= 0.9995
    assert cosine(found["frame"], right.frame) >= 0.9995


def test_base_with_few_blocks_keeps_its_bound_in_bf16(tmp_path: Path) -> None:
    """All 12 blocks take long in half precision on CPUs, so that they are slow tests."""
    theirs = reference(tmp_path, spread=0.02, num_hidden_layers=3)
    encoder = Encoder(find_weights("base", tmp_path), ClipSpec(num_frames=8, size=224), device="cpu", precision="bf16")
    pixels = torch.from_numpy(FRAMES.data).permute(0, 3, 1, 2)[None].float() / 255
    right, found = expected(theirs, (pixels - 0.45) / 0.225), encoder.encode(FRAMES)
    assert cosine(found["clip"], right.clip) >= 0.9995
    assert cosine(found["frame"], right.frame) >= 0.9995


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_on_a_gpu_every_precision_keeps_its_bound(tmp_path: Path, precision: Precision, act: str) -> None:
    """Against transformers on the CPU in fp32: base whole, views of three videos in one batch."""
    theirs = reference(tmp_path, spread=0.02, hidden_act=act)
    pixels = torch.randn(3, 8, 3, 224, 224)
    encoder = Encoder(
        find_weights("base", tmp_path), ClipSpec(num_frames=8, size=224), device="cuda", precision=precision
    )
    right, found = expected(theirs, pixels), encoder.forward(pixels.to(encoder.device, encoder.dtype))
    if precision == "fp32":
        assert (found.clip.cpu() - right.clip).abs().max() <= 1e-4
        assert (found.frame.cpu() - right.frame).abs().max() <= 1e-4
    assert cosine(found.clip.float().cpu(), right.clip) >= 0.9995
    assert cosine(found.frame.float().cpu(), right.frame) >= 0.9995


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("frames", "size"), [(4, 32), (16, 32), (40, 16)])
def test_half_precision_keeps_other_shapes_too(tmp_path: Path, precision: Precision, frames: int, size: int) -> None:
    theirs = reference(tmp_path, **SMALL, num_frames=frames, image_size=size)
    encoder = Encoder(
        find_weights("base", tmp_path), ClipSpec(num_frames=frames, size=size), device="cpu", precision=precision
    )
    pixels = torch.randn(2, frames, 3, size, size)
    right, found = expected(theirs, pixels), encoder.forward(pixels.to(encoder.dtype))
    assert cosine(found.clip.float(), right.clip) >= 0.9995
    assert cosine(found.frame.float(), right.frame) >= 0.9995


@pytest.mark.parametrize(("frames", "size"), [(8, 48), (2, 32), (4, 64), (3, 80), (6, 16)])
def test_other_frame_counts_and_sizes_equal_the_reference(tmp_path: Path, frames: int, size: int) -> None:
    """transformers reshapes by its config's frame count: another count runs there, with wrong results."""
    reference(tmp_path / "stored", **SMALL, image_size=48, num_frames=4)
    theirs = TimesformerModel(TimesformerConfig(**SMALL, image_size=size, num_frames=frames)).eval()
    state = load_file(tmp_path / "stored" / "model.safetensors")
    # "Nearest" by hand: place i of n takes what lies at floor(i · stored / n).
    side, time = size // 16, state["embeddings.time_embeddings"].numpy()
    state["embeddings.time_embeddings"] = torch.from_numpy(time[:, np.arange(frames) * 4 // frames])
    position = state["embeddings.position_embeddings"].numpy()
    row = np.arange(side) * 3 // side
    grid = position[:, 1:].reshape(1, 3, 3, -1)[:, row][:, :, row].reshape(1, side * side, -1)
    state["embeddings.position_embeddings"] = torch.from_numpy(np.concatenate([position[:, :1], grid], 1))
    theirs.load_state_dict(state)
    pixels = torch.randn(1, frames, 3, size, size)
    right = expected(theirs, pixels)
    with torch.inference_mode():
        found = own(tmp_path / "stored")(pixels)
    assert (found.clip - right.clip).abs().max() <= 1e-4
    assert (found.frame - right.frame).abs().max() <= 1e-4


@pytest.mark.parametrize("frames", [1, 8, 32, 33, 96])
def test_attention_is_what_its_formula_says(frames: int) -> None:
    torch.manual_seed(0)
    T, B, N, H, d = frames, 2, 5, 3, 8
    qkv = torch.randn(T, B, N, 3 * H * d)
    q, k, v = qkv.double().view(T, B, N, 3, H, d).unbind(3)
    over_time = (torch.einsum("tbnhd,sbnhd->bnhts", q, k) / d**0.5).softmax(-1)
    right = torch.einsum("bnhts,sbnhd->tbnhd", over_time, v).reshape(T, B, N, H * d)
    assert (attend_time(qkv, H) - right).abs().max() <= 1e-5
    within = (torch.einsum("tbnhd,tbmhd->tbhnm", q, k) / d**0.5).softmax(-1)
    right = torch.einsum("tbhnm,tbmhd->tbnhd", within, v).reshape(T, B, N, H * d)
    assert (attend_space(qkv, H) - right).abs().max() <= 1e-5
