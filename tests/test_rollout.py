"""Attention rollout against the product of whole matrices, over attentions that transformers computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TimesformerConfig, TimesformerModel

from actionvit.errors import ActionVitError
from actionvit.features.decoding import Frames
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.model import TimeSformer
from actionvit.features.timesformer.rollout import AttentionRollout, attention_rollout

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def pair(folder: Path, **config: object) -> tuple[TimesformerModel, TimeSformer]:
    """A random model of transformers with clearly non-uniform attention, and ours with the same weights."""
    torch.manual_seed(0)
    theirs = TimesformerModel(TimesformerConfig(**SMALL, **config)).eval()  # type: ignore[arg-type]
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(folder)
    weights = find_weights("base", folder)
    ours = TimeSformer(weights.config)
    ours.load_state_dict(weights.load())
    return theirs, ours.eval()


def attentions(model: TimesformerModel, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of one clip, by block: over time (P, T, T) and within frames (T, N, N), the mean over the heads.

    transformers returns the attention within frames; that over time is computed by calling its module on its input.
    """
    given: list[Tensor] = []
    hooks = [
        layer.temporal_attention.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        for layer in model.encoder.layer
    ]
    with torch.inference_mode():
        space = model(pixels, output_attentions=True).attentions
        for hook in hooks:
            hook.remove()
        time = [
            layer.temporal_attention(x, output_attentions=True)[1]
            for layer, x in zip(model.encoder.layer, given, strict=True)
        ]
    return [one.mean(1) for one in time], [one.mean(1) for one in space]


def product_of_whole_matrices(time: list[Tensor], space: list[Tensor]) -> Tensor:
    """The rollout as it is defined: (1 + T·P)² matrices, from the first block to the last; token 1 + t·P + p."""
    P, T = len(time[0]), len(space[0])
    size = 1 + T * P
    eye, total = torch.eye(size), torch.eye(size)
    for over_time, over_space in zip(time, space, strict=True):
        a_time, a_space = torch.eye(size), torch.zeros(size, size)
        for p in range(P):
            for t in range(T):
                a_time[1 + t * P + p, 1 + t * P + p] = 0
                for u in range(T):
                    a_time[1 + t * P + p, 1 + u * P + p] += over_time[p, t, u]
        for t in range(T):
            mine = slice(1 + t * P, 1 + (t + 1) * P)
            a_space[mine, 0] = over_space[t, 1:, 0]
            a_space[mine, mine] = over_space[t, 1:, 1:]
            a_space[0, 0] += over_space[t, 0, 0] / T
            a_space[0, mine] += over_space[t, 0, 1:] / T
        time_step = (eye + a_time) / 2
        time_step[0] = eye[0]
        total = (eye + a_space) / 2 @ time_step @ total
    return total[0]


@pytest.mark.parametrize(
    ("frames", "size"), [(1, 32), (2, 48), (5, 32), (8, 48), (11, 64)], ids=lambda value: str(value)
)
def test_it_is_the_product_of_whole_matrices(tmp_path: Path, frames: int, size: int) -> None:
    theirs, ours = pair(tmp_path, image_size=size, num_frames=frames)
    pixels = torch.randn(2, frames, 3, size, size)
    with torch.inference_mode():
        found = attention_rollout(ours, pixels)
    assert found.shape == (2, frames, size // 16, size // 16)
    for view, shares in zip(pixels, found, strict=True):
        expected = product_of_whole_matrices(*attentions(theirs, view[None]))
        assert expected.sum().item() == pytest.approx(1, abs=1e-5)
        assert expected.std() > 0.1 / len(expected), "a flat picture would prove nothing"
        torch.testing.assert_close(shares.flatten(), expected[1:], atol=1e-6, rtol=1e-4)


def test_the_order_time_then_space_matters(tmp_path: Path) -> None:
    theirs, ours = pair(tmp_path, image_size=48, num_frames=4)
    pixels = torch.randn(1, 4, 3, 48, 48)
    with torch.inference_mode():
        found = attention_rollout(ours, pixels).flatten()
    time, space = attentions(theirs, pixels)
    backwards = product_of_whole_matrices(time[::-1], space[::-1])[1:]
    assert (found - backwards).abs().max() > 1e-3


def test_other_frame_counts_and_sizes_than_the_stored_ones(tmp_path: Path) -> None:
    _, stored = pair(tmp_path / "stored", image_size=32, num_frames=4)
    theirs, _ = pair(tmp_path / "other", image_size=64, num_frames=6)
    state = dict(theirs.state_dict())
    from safetensors.torch import load_file

    state.update(load_file(tmp_path / "stored" / "model.safetensors"))
    state["embeddings.time_embeddings"] = stored.times(6)[None].detach()
    state["embeddings.position_embeddings"] = stored.positions(4)[None].detach()
    theirs.load_state_dict(state)
    pixels = torch.randn(1, 6, 3, 64, 64)
    with torch.inference_mode():
        found = attention_rollout(stored, pixels)[0]
    expected = product_of_whole_matrices(*attentions(theirs, pixels))[1:]
    torch.testing.assert_close(found.flatten(), expected, atol=1e-6, rtol=1e-4)


def test_time_attention_behind_a_zero_projection_is_ignored(tmp_path: Path) -> None:
    theirs, ours = pair(tmp_path, image_size=32, num_frames=3)
    with torch.no_grad():
        for block in ours.blocks:
            block.time_dense.weight.zero_()
            block.time_dense.bias.zero_()
        for layer in theirs.encoder.layer:
            layer.temporal_dense.weight.zero_()
            layer.temporal_dense.bias.zero_()
    pixels = torch.randn(1, 3, 3, 32, 32)
    with torch.inference_mode():
        found = attention_rollout(ours, pixels)[0].flatten()
    _, space = attentions(theirs, pixels)
    nowhere = [torch.eye(3).expand(4, 3, 3)] * len(space)
    torch.testing.assert_close(found, product_of_whole_matrices(nowhere, space)[1:], atol=1e-6, rtol=1e-4)


def test_what_is_shown_beside_it_are_the_views_pixels() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)
    frames = Frames(data=data, index=np.arange(6), count=6, backend="folder")
    spec = ClipSpec(num_frames=3, size=32, clips=2, crops=3, flip=True)
    seen, shares = AttentionRollout(find_weights("tiny"), spec, device="cpu")(frames)
    assert seen.shape == (12, 3, 32, 32, 3) and shares.shape == (12, 3, 2, 2)
    np.testing.assert_array_equal(seen[0], data[[0, 2, 4], :, :32])  # left crop of the first clip
    np.testing.assert_array_equal(seen[1], data[[0, 2, 4], :, 31::-1])  # mirrored
    assert (shares >= 0).all() and (shares.sum((1, 2, 3)) < 1).all()


def test_a_size_of_no_whole_patches_is_refused() -> None:
    with pytest.raises(ActionVitError, match="multiple of the model's patch"):
        AttentionRollout(find_weights("tiny"), ClipSpec(num_frames=2, size=40))
