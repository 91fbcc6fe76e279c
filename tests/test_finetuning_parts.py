"""The parts of a fine-tuning against computations by hand, or another implementation."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
import torch.distributed as dist
import torch.nn.functional as F

from actionvit.errors import ActionVitError
from actionvit.evaluation.metrics import class_mix_distance
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.model import TimeSformer
from actionvit.features.timesformer.state_dict import to_transformers
from actionvit.heads.calibration import fit_temperature, mean_softmax
from actionvit.heads.weighting import class_weights
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.finetuning import tensorboard
from actionvit.pipeline.finetuning.augment import COLOR_OPS, draw_box, draw_times, draw_view
from actionvit.pipeline.finetuning.checkpoints import load_checkpoint, save_checkpoint
from actionvit.pipeline.finetuning.classifier import Classifier, FrozenBlocks, num_frozen_blocks
from actionvit.pipeline.finetuning.clips import Batch, CachedFrames, ViewSpec, _blend, prefetch, thread_map
from actionvit.pipeline.finetuning.distributed import init_distributed
from actionvit.pipeline.finetuning.loss import Loss
from actionvit.pipeline.finetuning.sampling import MixPartner, Sample, class_counts, epoch_steps
from actionvit.pipeline.finetuning.schedule import (
    EMA,
    drop_path_keep_probs,
    layer_of,
    lr_factor,
    parameter_groups,
    set_lr,
)
from actionvit.pipeline.finetuning.scoring import validation_metrics
from actionvit.pipeline.finetuning.spec import AugmentSpec, LossSpec, OptimSpec, SamplingSpec
from actionvit.pipeline.finetuning.tensorboard import tensorboard_log
from actionvit.pipeline.finetuning.validation import validation_mask

RNG = np.random.default_rng
Y = np.array([0] * 6 + [1] * 3 + [2] * 1)


def model(num_frozen: int = -1, **options: object) -> Classifier:
    torch.manual_seed(0)
    encoder = TimeSformer(tiny_model.SHAPE)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    classifier = Classifier(encoder, 3, num_frozen=num_frozen, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(classifier.head.weight)
    return classifier


# The loss


def test_cross_entropy_equals_torch() -> None:
    rng = torch.Generator().manual_seed(1)
    logits, y = torch.randn(5, 3, generator=rng), torch.tensor([0, 2, 1, 0, 0])
    plain = Loss(LossSpec(label_smoothing=0.1), Y, 3, "cpu")
    expected = F.cross_entropy(logits, y, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(plain(logits, F.one_hot(y, 3).float()), expected)
    weight = torch.tensor(class_weights(Y, 3, "balanced"), dtype=torch.float32)
    weighted = Loss(LossSpec(class_weight="balanced", label_smoothing=0.0), Y, 3, "cpu")
    torch.testing.assert_close(
        weighted(logits, F.one_hot(y, 3).float()), F.cross_entropy(logits, y, weight=weight, reduction="none")
    )
    soft = torch.tensor([[0.3, 0.7, 0.0]])
    torch.testing.assert_close(
        Loss(LossSpec(label_smoothing=0.0), Y, 3, "cpu")(logits[:1], soft),
        F.cross_entropy(logits[:1], soft, reduction="none"),
    )


def test_logit_adjustment_and_focus_by_hand() -> None:
    logits, target = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    prior = np.array([0.6, 0.3, 0.1])
    p = np.exp([1, 0, -1]) * prior**2
    p /= p.sum()
    adjusted = Loss(LossSpec(logit_adjust=2.0, label_smoothing=0.0), Y, 3, "cpu")
    assert float(adjusted(logits, target)) == pytest.approx(-np.log(p[1]), rel=1e-5)
    q = np.exp([1, 0, -1]) / np.exp([1, 0, -1]).sum()
    focal = Loss(LossSpec(focal=2.0, label_smoothing=0.0), Y, 3, "cpu")
    assert float(focal(logits, target)) == pytest.approx(-((1 - q[1]) ** 2) * np.log(q[1]), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_a_sure_clip_has_a_gradient_whatever_the_focus(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.5, 0.0, 0.0]], requires_grad=True)
    focal = Loss(LossSpec(focal=gamma), Y, 3, "cpu")
    focal(logits, F.one_hot(torch.tensor([0, 0]), 3).float()).sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad[1].abs().sum() > 0


def test_logit_adjustment_of_an_absent_class_is_bounded() -> None:
    adjusted = Loss(LossSpec(logit_adjust=1.0), Y, 4, "cpu")
    logits = torch.zeros(1, 4, requires_grad=True)
    adjusted(logits, torch.tensor([[1.0, 0.0, 0.0, 0.0]])).sum().backward()
    assert logits.grad is not None
    # Of classes 2 and 3, one has a single clip and one has none: they are treated alike.
    assert float(logits.grad[0, 3]) == pytest.approx(float(logits.grad[0, 2])) and logits.grad[0, 3] > 0


def test_targets_of_mixed_clips_are_shares() -> None:
    items = [Sample(0, 0, 1, 0, MixPartner(9, 1, 0.75, False)), Sample(7, 0, 1, 1, MixPartner(8, 0, 0.25, True))]
    target = Loss(LossSpec(), Y, 3, "cpu").targets(Batch(items, torch.empty(2), np.array([0.75, 0.3])), Y)
    np.testing.assert_allclose(target.numpy(), [[0.75, 0, 0.25], [0, 1, 0]], atol=1e-6)


# The schedule


def test_the_rate_rises_then_follows_half_a_cosine() -> None:
    rates = [lr_factor(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:] == pytest.approx(0.5 * (1 + np.cos(np.pi * np.arange(90) / 90)))
    assert lr_factor(0, 5, 0.0) == 1.0


def test_rates_fall_with_depth_and_only_matrices_decay() -> None:
    named = model().trained()
    groups = parameter_groups(named, OptimSpec(layer_decay=0.5, weight_decay=0.1), 3)
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    set_lr(optimizer, 1e-2)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(named)
    expected = {
        "head.weight": (1e-2, 0.1), "head.bias": (1e-2, 0), "norm.weight": (1e-2, 0),
        "blocks.2.mlp_in.weight": (1e-2, 0.1), "blocks.1.mlp_in.bias": (5e-3, 0),
        "blocks.0.time_qkv.weight": (2.5e-3, 0.1), "patch.weight": (1.25e-3, 0.1), "position": (1.25e-3, 0),
        "cls": (1.25e-3, 0), "time": (1.25e-3, 0),
    }  # fmt: skip
    for name, (rate, decay) in expected.items():
        assert found[id(named[name])] == (pytest.approx(rate), decay), name
    assert [layer_of(name, 3) for name in ("time", "blocks.0.x", "blocks.2.x", "norm.bias")] == [0, 1, 3, 4]


def test_stochastic_depth_rate_falls_towards_the_input() -> None:
    np.testing.assert_allclose(1 - drop_path_keep_probs(0.2, 5)[:-1], [0, 0.2 / 3, 0.4 / 3, 0.2])
    np.testing.assert_allclose(1 - drop_path_keep_probs(0.2, 3)[:-1], [0, 0.2])
    assert drop_path_keep_probs(0.2, 2)[0] == 1


def test_the_moving_average_is_the_recursion() -> None:
    values = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    average, expected = EMA({"a": values[0]}, 0.9), values[0].double()
    for t, value in enumerate(values[1:]):
        average.update({"a": value})
        decay = min(0.9, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value.double()
    torch.testing.assert_close(average.values["a"], expected.float())


# Assignment of clips to ranks


@pytest.mark.parametrize("deal", ["shuffled", "class-aware"])
def test_every_rank_number_makes_the_same_steps(deal: str) -> None:
    y = RNG(0).integers(0, 4, 53)
    spec = SamplingSpec(batch=8, deal=deal, mixup=0.4, cutmix=0.4, seed=3)  # type: ignore[arg-type]
    alone, sizes = epoch_steps(y, spec, epoch=2)
    assert sorted(item.video for step in alone for item in step) == list(range(53))
    assert sizes == [len(step) for step in alone] and max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
    for world in (2, 3):
        ranks = [epoch_steps(y, spec, epoch=2, rank=rank, world=world)[0] for rank in range(world)]
        for step, whole in enumerate(alone):
            together = [item for rank in ranks for item in rank[step]]
            assert sorted(together, key=lambda item: item.position) == whole
            assert max(len(rank[step]) for rank in ranks) - min(len(rank[step]) for rank in ranks) <= 1
    again, _ = epoch_steps(y, spec, epoch=2)
    other, _ = epoch_steps(y, spec, epoch=3)
    assert again == alone and other != alone


def test_class_aware_ranks_are_even_and_fixed_shards_are_not() -> None:
    y = np.sort(RNG(1).choice(6, 300, p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04]))  # in the order of ids, as folders are
    uneven = {}
    for deal in ("shuffled", "class-aware", "sharded"):
        counts = class_counts(y, SamplingSpec(batch=24, deal=deal), epoch=1, world=4, n_classes=6)  # type: ignore[arg-type]
        assert counts.sum(0).tolist() == np.bincount(y).tolist()
        uneven[deal] = class_mix_distance(counts)
    assert uneven["class-aware"] < 0.7 * uneven["shuffled"] and uneven["sharded"] > 4 * uneven["shuffled"]
    assert class_mix_distance(np.array([[5, 0], [0, 5]])) == 0.5 and class_mix_distance(np.array([[2, 4], [1, 2]])) == 0


def test_the_balanced_sampler_draws_classes_alike() -> None:
    counts = np.zeros(3)
    for epoch in range(300):
        steps, _ = epoch_steps(Y, SamplingSpec(batch=4, sampler="balanced"), epoch=epoch)
        counts += np.bincount([Y[item.video] for step in steps for item in step], minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.03)


def test_items_name_videos_of_the_whole_dataset() -> None:
    item = Sample(1, 0, 1, 5, MixPartner(0, 2, 0.5, False)).of_rows(np.array([40, 70]))
    assert (item.video, item.mix and item.mix.video, item.position) == (70, 40, 5)
    assert item.rng("view").random() != item.rng("view", second=True).random() != item.rng("drop").random()


def test_validation_set_has_every_class_and_whole_sources() -> None:
    rng = RNG(0)
    for trial in range(20):
        films = [(label, film) for label in range(8) for film in range(rng.integers(1, 7))]
        rows = [(label, f"{label}-{film}") for label, film in films for _ in range(rng.integers(1, 5))]
        y, sources = np.array([label for label, _ in rows]), np.array([film for _, film in rows])
        held = validation_mask(y, sources, share=0.25, seed=trial)
        assert not set(sources[held]) & set(sources[~held])
        assert set(y[~held]) == set(y), "a class lost its only source"
        number = Counter(label for label, _ in films)
        spared = {label for label in number if number[label] > 1}
        assert set(y[held]) <= spared
        assert held.sum() <= 1.5 * 0.25 * len(y)
        assert len(spared - set(y[held])) <= 1
        assert (held == validation_mask(y, sources, share=0.25, seed=trial)).all()
    assert not validation_mask(np.array([0, 0, 1]), np.array(["a", "a", "b"]), share=0.5, seed=0).any()


# Training views


def frames(count: int = 32, height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.from_numpy(RNG(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def test_times_rise_and_cover_what_the_window_says() -> None:
    for seed in range(50):
        times = draw_times(32, 8, 0.5, RNG(seed))
        assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] < 32
        assert times[-1] - times[0] >= 32 * 0.5 * 6 / 8 - 1
    assert len({tuple(draw_times(32, 8, 1.0, RNG(seed))) for seed in range(20)}) == 20
    assert draw_times(1, 4, 0.5, RNG(0)).tolist() == [0, 0, 0, 0]


def test_crops_lie_inside_and_keep_to_their_share() -> None:
    shares = []
    for seed in range(300):
        top, left, h, w = draw_box(40, 60, 0.4, RNG(seed))
        assert 0 <= top <= 40 - h and 0 <= left <= 60 - w
        assert 3 / 4 - 0.05 <= w / h <= 4 / 3 + 0.05
        shares.append(h * w / 40**2)
    assert 0.35 < min(shares) < 0.5 and 0.85 < max(shares) <= 1.35


def test_one_draw_holds_for_all_frames_of_a_view() -> None:
    still = frames(1).expand(16, -1, -1, -1)
    view = draw_view(still, AugmentSpec(), RNG(3), num_frames=8, size=32, label="run")
    assert view.shape == (8, 3, 32, 32) and (view == view[:1]).all() and view.min() >= 0 and view.max() <= 255


def test_half_of_views_are_mirrored_except_sided_classes() -> None:
    plain = AugmentSpec(window=1, area=1, colours=0, flip=False)
    for label, expected in (("run", range(25, 76)), ("turn_left", range(1))):
        spec = replace(plain, flip=True, keep_sides=("turn_left",))
        changed = 0
        for seed in range(100):
            one, other = (
                draw_view(frames(8), each, RNG(seed), num_frames=4, size=16, label=label) for each in (spec, plain)
            )
            changed += not torch.equal(one, other)
            assert torch.equal(one, other) or torch.equal(one.flip(-1), other)
        assert changed in expected


def test_colours_change_grey_levels_and_leave_outlines() -> None:
    view = frames(4, 16, 16).float()
    for colour in COLOR_OPS:
        torch.testing.assert_close(colour(view, 0.0), view, atol=1e-3, rtol=1e-5)
        changed = colour(view, 0.7).clamp(0, 255)
        assert (changed - view).abs().mean() > 1
        one, other = (x.mean(1).flatten() - x.mean() for x in (view, changed))
        assert float(one @ other / (one.norm() * other.norm())) > 0.9, colour


def test_mixup_averages_and_cutmix_pastes_a_box() -> None:
    one, other = torch.ones(2, 3, 20, 20), torch.zeros(2, 3, 20, 20)
    mixed, share = _blend(Sample(0, 0, 1, 0, MixPartner(1, 1, 0.3, False)), one, other)
    assert share == 0.3 and torch.allclose(mixed, torch.full_like(one, 0.3))
    for position in range(20):
        cut, share = _blend(Sample(0, 0, 1, position, MixPartner(1, 1, 0.6, True)), one, other)
        assert share == pytest.approx(float(cut.mean())) and abs(share - 0.6) < 0.05
        empty = (cut[0, 0] == 0).nonzero()
        assert len(empty) == (empty.max(0).values - empty.min(0).values + 1).prod() and (cut[0] == cut[1]).all()
    assert (one == 1).all(), "the clip itself must stay as it is: others may be blended with it"


def test_views_come_in_order_from_threads_that_compute_alone() -> None:
    before = torch.get_num_threads()

    def make(number: int) -> tuple[int, int]:
        time.sleep(0.002 * (number % 3))
        return number, torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        assert list(thread_map(make, range(40))) == [(number, 1) for number in range(40)]
        assert list(prefetch(iter([torch.get_num_threads()]))) == [2] == [torch.get_num_threads()]
        with closing(thread_map(make, iter(int, 1))) as endless:
            assert next(endless) == (0, 1)
        with pytest.raises(ZeroDivisionError):
            list(thread_map(lambda number: 1 // number, [1, 0]))
    finally:
        torch.set_num_threads(before)


def as_torchrun(monkeypatch: pytest.MonkeyPatch, world: str, rank: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in {"WORLD_SIZE": world, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


def test_unlaunched_world_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    as_torchrun(monkeypatch, "2", "0")
    for name in ("RANK", "MASTER_PORT"):
        with monkeypatch.context() as less:
            less.delenv(name)
            with pytest.raises(ActionVitError, match=f"WORLD_SIZE is 2 and {name} is not set"), init_distributed("cpu"):
                pass


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("fails", [True, False])
def test_failing_process_exits_without_waiting_for_others(
    monkeypatch: pytest.MonkeyPatch, fails: bool, device: str
) -> None:
    # Destroying an NCCL group waits for all ranks; without a GPU the test can only check whether it is called.
    as_torchrun(monkeypatch, "2", "0")
    left: list[bool] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "1")
    monkeypatch.setattr(dist, "init_process_group", lambda *how, **more: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: left.append(True))
    with pytest.raises(ActionVitError) if fails else nullcontext(), init_distributed(device):
        if fails:
            raise ActionVitError("the disk is full")
    assert left == ([] if fails and device == "cuda" else [True])


TRAINED = """
import os, torch
from actionvit.pipeline.finetuning.distributed import init_distributed
with init_distributed("cpu") as group:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    group.all_reduce_([weight.grad])
    torch.optim.AdamW([weight]).step()
print(*(open(f"/proc/self/task/{each}/comm").read().strip() for each in os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists threads as Linux does")
def test_no_thread_of_the_group_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    as_torchrun(monkeypatch, "2", "0")
    started = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        started.append(subprocess.Popen([sys.executable, "-c", TRAINED], stdout=subprocess.PIPE, text=True))
    threads = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert all("python" in each and "gloo" not in each for each in threads), threads


def test_more_processes_than_gpus_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    as_torchrun(monkeypatch, "2", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ActionVitError, match="2 processes on this machine, and torch finds 1 GPUs"),
        init_distributed("cuda"),
    ):
        pass


def test_fixed_views_are_the_plain_one_and_others_that_stay(tmp_path: Path) -> None:
    spec = ViewSpec(
        clip=ClipSpec(num_frames=4, size=32), augment=AugmentSpec(), views=3, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    held = CachedFrames(frames(16, 36, 48).permute(0, 2, 3, 1).contiguous(), np.arange(16), 16)
    plain = CachedFrames(frames(4, 32, 44).permute(0, 2, 3, 1).contiguous(), np.array([2, 6, 10, 14]), 16)
    video = Video(id="run/a.avi", path=tmp_path, label="run", source="a")
    assert {spec.choose(RNG(seed)) for seed in range(50)} == {0, 1, 2} and spec.kind(0) == "plain"
    assert torch.equal(spec.training(plain, video, 0), spec.plain(plain)[0])
    one, two = spec.training(held, video, 1), spec.training(held, video, 2)
    assert torch.equal(one, spec.training(held, video, 1)) and not torch.equal(one, two)
    assert replace(spec, views=0).choose(RNG(0)) is None
    assert replace(spec, augment=None, clip=replace(spec.clip, clips=2)).choose(RNG(0)) in (0, 1)


# The model


@pytest.mark.parametrize("first", [-1, 0, 1, 2, 3])
def test_splitting_the_model_changes_no_output(first: int) -> None:
    whole, cut = model(), model(first)
    pixels = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    frozen = FrozenBlocks(cut.encoder, tiny_model.CLIP, first, "cpu")
    torch.testing.assert_close(cut.logits(frozen(pixels)), whole.logits(pixels), atol=2e-5, rtol=1e-4)
    named = cut.trained()
    blocks = {name.split(".")[1] for name in named if name.startswith("blocks.")}
    assert blocks == {str(block) for block in range(max(first, 0), 3)}
    assert ("patch.weight" in named) == (first == -1) and ("norm.weight" in named) == (first < 3)


def test_gradients_are_those_of_transformers_model() -> None:
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    own, shape = model(), tiny_model.SHAPE
    config = TimesformerConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=48, num_labels=3, layer_norm_eps=shape.eps,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0,
    )  # fmt: skip
    other = TimesformerForVideoClassification(config).train()
    named = own.trained()
    other.load_state_dict({to_transformers(name): value.detach() for name, value in named.items()})
    pixels, y = torch.randn(3, 4, 3, 32, 32), torch.tensor([0, 2, 1])
    F.cross_entropy(own.logits(pixels), y).backward()
    F.cross_entropy(other(pixels).logits, y).backward()
    theirs = dict(other.named_parameters())
    for name, parameter in named.items():
        expected = theirs[to_transformers(name)].grad
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=2e-3)


def test_checkpointing_recomputes_to_the_same_gradients() -> None:
    pixels, gradients = torch.randn(2, 4, 3, 32, 32), []
    for checkpointing in (False, True):
        one = model(checkpointing=checkpointing)
        one.logits(pixels).square().sum().backward()
        gradients.append([p.grad for p in one.parameters()])
    for one_, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one_, other)


def test_a_dropped_block_is_no_block_and_a_kept_one_counts_more() -> None:
    own = model()
    pixels = torch.randn(2, 4, 3, 32, 32)
    keep = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
    found = own.logits(pixels, keep)
    torch.testing.assert_close(found[:1], own.logits(pixels[:1]))
    from actionvit.features.timesformer.forward import apply_block, embed_patches, run_blocks

    x = embed_patches(pixels[1:], own.encoder.patch_embedding(4, 32))
    folded = own.encoder.fold()
    x = x + 2 * (apply_block(x, folded.blocks[1], folded)[0] - x)
    last = replace(folded, blocks=folded.blocks[2:], first=2)
    torch.testing.assert_close(found[1:], own.head(run_blocks(x, last).clip), atol=1e-5, rtol=1e-4)


def test_logits_are_fp32_where_products_are_bf16() -> None:
    own, pixels = model(), torch.randn(2, 4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        logits, embedding = own.logits(pixels), own.embedding(pixels)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, own.head(embedding.float()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("of", ["head", "last:1", "last:2", "all"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_takes_nothing_from_another_device(
    of: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: torch's `meta` device, which, like a GPU, cannot be mixed with the CPU."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # knows no such device
    first = num_frozen_blocks(of, tiny_model.SHAPE.depth)
    own = model(first, checkpointing=checkpointing)
    frozen = FrozenBlocks(own.encoder, tiny_model.CLIP, first, "meta", bf16=True)
    own = own.to("meta")
    keep = None if of == "head" else torch.ones(2, own.depth, device="meta")
    loss = Loss(LossSpec(class_weight="balanced", logit_adjust=1.0, focal=1.0), Y, 3, "meta")
    losses = loss(own.logits(frozen(torch.zeros(2, 4, 3, 32, 32)), keep), torch.zeros(2, 3, device="meta"))
    losses.sum().backward()
    parameters = own.trained()
    gradients = [parameter.grad for parameter in parameters.values()]
    assert all(gradient is not None and gradient.device.type == "meta" for gradient in gradients)
    torch.optim.AdamW(parameter_groups(parameters, OptimSpec(), own.depth)).step()
    EMA(parameters, 0.9).update(parameters)
    if of in ("last:2", "all"):  # the last block is never left out
        with pytest.raises((RuntimeError, ValueError)):  # it is refused
            own.logits(frozen(torch.zeros(2, 4, 3, 32, 32)), torch.ones(2, own.depth))


def test_what_cannot_be_trained_is_said_in_a_line() -> None:
    assert [num_frozen_blocks(each, 12) for each in ("head", "last:1", "last:12", "all")] == [12, 11, 0, -1]
    for wrong in ("last", "last:0", "last:13", "last:x", "most"):
        with pytest.raises(ActionVitError, match="train: got"):
            num_frozen_blocks(wrong, 12)


# Metrics of scores


def test_temperature_is_where_log_loss_is_least() -> None:
    rng = RNG(0)
    y = rng.integers(0, 4, 500)
    logits = 6 * (np.eye(4)[y] + rng.normal(size=(500, 4)))[:, None]
    found = fit_temperature(logits, y)
    loss = [-np.log(mean_softmax(logits, t)[np.arange(500), y]).mean() for t in (found * 0.97, found, found * 1.03)]
    assert loss[1] < min(loss[0], loss[2])
    assert fit_temperature(np.zeros((0, 1, 4)), []) == 1.0


def test_epochs_are_judged_by_means_over_views() -> None:
    rng = RNG(1)
    logits, y, known = rng.normal(size=(9, 2, 3)), np.array([0, 0, 0, 0, 1, 1, 2, 2, 2]), np.ones(9, dtype=bool)
    known[3] = False
    scores = torch.tensor(logits).softmax(-1).mean(1)[known].numpy()
    num_correct = scores.argmax(1) == y[known]
    found = validation_metrics(logits, known, y)
    assert found["accuracy"] == pytest.approx(num_correct.mean())
    assert found["mean_class_accuracy"] == pytest.approx(np.mean([num_correct[y[known] == c].mean() for c in range(3)]))
    assert found["log_loss"] == pytest.approx(-np.log(scores[np.arange(8), y[known]]).mean())


# Files


def test_a_checkpoint_comes_back_and_a_broken_one_is_said(tmp_path: Path) -> None:
    tensors = {"now/a": torch.randn(3, 2), "optimizer/0.step": torch.tensor(5.0)}
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, tensors, {"epoch": 3, "score": 0.1})
    found, state = load_checkpoint(tmp_path) or ({}, {})
    assert all(torch.equal(found[name], tensors[name]) for name in tensors) and state["score"] == 0.1
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x08")
    with pytest.raises(ActionVitError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_tensorboard_reads_the_event_files(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    with tensorboard_log(tmp_path) as log:
        log({"epoch": 1, "loss": 2.5, "validation_accuracy": 0.25})
        events = accumulator.EventAccumulator(str(tmp_path)).Reload()  # readable while the training runs
        assert [(e.step, e.value) for e in events.Scalars("validation_accuracy")] == [(1, 0.25)]
        log({"epoch": 300, "loss": 1.5})
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 2.5), (300, 1.5)]


def test_without_tensorboard_no_event_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with tensorboard_log(tmp_path) as log:
        log({"epoch": 1, "loss": 2.5})
    assert not list(tmp_path.iterdir())


def test_the_small_model_is_read_as_any_other(tmp_path: Path) -> None:
    assert find_weights("tiny", tiny_model.write_weights(tmp_path)).config == tiny_model.SHAPE
