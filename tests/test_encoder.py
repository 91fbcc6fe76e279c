"""The encoder around the forward pass: reference embeddings, out-of-memory handling, timing, and the cache key."""

from __future__ import annotations

import json
import logging
import shutil

import golden
import numpy as np
import pytest
import torch
from transformers_reference import cosine, noise

from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timers import PhaseTimer
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.encoder import Encoder
from actionvit.features.timesformer.forward import EncoderOutput
from actionvit.features.timesformer.outputs import cache_key_fields
from actionvit.features.timesformer.state_dict import tensor_shapes
from actionvit.features.timesformer.tiny import untrained_weights
from actionvit.features.timesformer.variants import TINY, clip_spec
from actionvit.features.view_settings import ViewSettings
from actionvit.pipeline.extraction.job import Job

SPEC = ClipSpec(num_frames=4, size=32, clips=3)


def test_the_built_in_variants_give_what_they_always_gave() -> None:
    kept, found = json.loads(golden.FILE.read_text(encoding="utf-8")), golden.computed()
    assert set(untrained_weights()) == set(tensor_shapes(TINY))
    for variant, right in kept.items():
        assert found[variant].pop("weights") == right.pop("weights"), (
            "other built-in weights: python tests/support/golden.py"
        )
        for name, values in right.items():
            difference = np.abs(np.subtract(found[variant][name], values)).max()
            assert difference <= 2e-5, f"{variant} {name} is off by {difference}: a library changed the features"


def test_the_untrained_weights_are_the_same_numbers_everywhere() -> None:
    untrained, trained = find_weights("tiny", "untrained"), find_weights("tiny")
    assert untrained.digest == "9b050614582ead9f125a0bf41898847a89dd71371f388b5f75ac251e665d4bc7"
    assert trained.digest != untrained.digest and trained.config == untrained.config == find_weights("tiny-hr").config
    assert trained.file is not None and trained.file.stat().st_size <= 4e6, "what every installation carries"


class Scarce:
    """Wraps an encoder's forward pass like a device with memory for a limited number of views."""

    def __init__(self, encoder: Encoder, room: int) -> None:
        self.room, self.given, self.compute = room, [], encoder._compute
        encoder.across_videos = True  # as on a GPU
        encoder.batch_views = 16
        encoder._compute = self

    def __call__(self, pixels: torch.Tensor) -> EncoderOutput:
        self.given.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError(f"tried to hold {len(pixels)} views")
        return self.compute(pixels)


@pytest.mark.parametrize(("room", "batch"), [(2, 1), (4, 3), (7, 7), (16, 16)])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    room: int, batch: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos of two sizes, more of one than are copied at once."""
    videos = [noise(9), noise(4), noise(12, 40, 52), noise(5, 40, 52), noise(7), noise(30), noise(6)]
    monkeypatch.setattr("actionvit.features.preprocess._MAX_GROUP_BYTES", 2 * videos[4].data.nbytes)
    encoder = Encoder(find_weights("tiny"), SPEC, device="cpu")
    alone = [encoder.encode(frames) for frames in videos]
    scarce = Scarce(encoder, room)
    with caplog.at_level(logging.WARNING):
        found = encoder.submit(videos).result()
    assert encoder.batch_views == batch
    assert max(scarce.given[-3:]) <= room
    assert len(found) == len(videos)
    assert ("continuing with" in caplog.text) == (room < 15)
    for one, other in zip(alone, found, strict=True):
        np.testing.assert_array_equal(one["index"], other["index"])
        np.testing.assert_allclose(one["clip"], other["clip"], atol=2e-5)
        np.testing.assert_allclose(one["frame"], other["frame"], atol=2e-5)
    encoder.submit(videos[:2]).result()
    assert max(scarce.given[-2:]) <= room, "a batch size that did not fit is not tried again"


def test_a_device_that_holds_not_one_view_is_told_in_one_line() -> None:
    encoder = Encoder(find_weights("tiny"), SPEC, device="cpu")
    Scarce(encoder, 0)
    with pytest.raises(ActionVitError, match="one view of 4 × 32 pixels does not fit") as caught:
        encoder.submit([noise(9)])
    assert "\n" not in str(caught.value)


def test_seconds_are_counted_by_phase() -> None:
    encoder = Encoder(find_weights("tiny"), clip_spec("tiny-hr"), device="cpu")
    assert encoder.seconds == {"copy": 0, "prepare": 0, "forward": 0}
    encoder.encode(noise(20, 240, 320))
    first = encoder.seconds
    encoder.encode(noise(20, 240, 320))
    assert all(encoder.seconds[name] > first[name] > 0 for name in ("prepare", "forward"))
    phases = PhaseTimer(torch.device("cpu"))
    with pytest.raises(KeyError), phases.time("copy"):
        raise KeyError
    assert phases.seconds["copy"] == 0, "failed batches are not counted"


def test_the_key_holds_everything_that_changes_numbers() -> None:
    weights = find_weights("tiny")
    settings = {
        "precision": ("bf16", "fp16"),
        "frame_pool": ("mean",),
        "layers": ((2,), (2, 4)),
        "tokens_after": (0, 2),
        "compiled": (True,),
    }
    plain = {"precision": "fp32"}
    keys = [cache_key_fields(weights, SPEC, **plain)]  # type: ignore[arg-type]
    keys += [cache_key_fields(weights, SPEC, **{**plain, name: v}) for name, vs in settings.items() for v in vs]  # type: ignore[arg-type]
    texts = {json.dumps(key, sort_keys=True) for key in keys}
    assert len(texts) == len(keys)
    job = Job(variant="tiny", weights=weights, spec=SPEC, layers=(2,), frame_pool="mean", precision="bf16")
    assert job.key_fields() == cache_key_fields(weights, SPEC, precision="bf16", frame_pool="mean", layers=(2,))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_encoder_has_equal_rows_and_its_own_key() -> None:
    spec, frames = clip_spec("tiny", ViewSettings(num_clips=3)), noise(20)
    plain = Encoder(find_weights("tiny"), spec, device="cpu", layers=(2,))
    compiled = Encoder(find_weights("tiny"), spec, device="cpu", layers=(2,), compile=True)
    right, found = plain.encode(frames), compiled.encode(frames)
    for name in right:
        np.testing.assert_allclose(found[name], right[name], atol=1e-4)
    job = Job(variant="tiny", weights=find_weights("tiny"), spec=spec, compile=True)
    assert job.key_fields()["precision"] == "fp32, compiled"


def test_half_precision_of_tiny_stays_close() -> None:
    spec, frames = clip_spec("tiny"), noise(20, 120, 160)
    exact = Encoder(find_weights("tiny"), spec, device="cpu", precision="fp32").encode(frames)
    for precision in ("bf16", "fp16"):
        half = Encoder(find_weights("tiny"), spec, device="cpu", precision=precision).encode(frames)  # type: ignore[arg-type]
        assert cosine(exact["clip"], half["clip"]) >= 0.9995
