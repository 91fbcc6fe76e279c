"""The extras of `actionvit extract` through the command and the store, against transformers' model and by hand."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from forked_commands import ForkedCommands
from transformers import TimesformerModel
from transformers_reference import SMALL, expected, reference

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.decoding import Decoded, Frames, decode
from actionvit.features.fingerprint import Fingerprint
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.encoder import Encoder
from actionvit.features.timesformer.variants import clip_spec
from actionvit.features.transforms import resize_short_side
from actionvit.features.video_record import VideoRecord
from actionvit.features.view_settings import ViewSettings
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.extraction.extract import extract
from actionvit.pipeline.extraction.job import Job

SHAPE = ("--variant", "tiny", "--num-frames", 4, "--size", 32, "--workers", 0)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four small clips of two classes, all wider than high."""
    random = np.random.RandomState(0)
    for label in ("hop", "run"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(2):
            coarse = random.randint(0, 256, (9 + number, 6, 10, 3)).astype(np.uint8)
            write_avi(tmp_path / "clips" / label / f"{label}{number}.avi", coarse.repeat(8, 1).repeat(8, 2))
    return tmp_path / "clips"


@pytest.fixture
def model(tmp_path: Path) -> TimesformerModel:
    return reference(tmp_path / "model", **SMALL, num_frames=4, image_size=32)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def store_of(root: Path, cache: Path, *options: object) -> FeatureStore:
    result = run("extract", root, "--cache", cache, *SHAPE, *options, "--json")
    assert result.exit_code == 0, result.output
    return FeatureStore.open(Path(json.loads(result.stdout)["outcomes"][0]["store"]))


def pixels_of(path: Path, spec: ClipSpec) -> torch.Tensor:
    """Return the views (K, T, 3, S, S) of a video, put together one by one."""
    frames = decode(path, [spec])
    small = resize_short_side(torch.from_numpy(frames.data), spec.size).float().div(255).sub(0.45).div(0.225)
    left = (small.shape[3] - spec.size) // 2
    edges = [left] if spec.crops == 1 else [0, left, small.shape[3] - spec.size]
    views, rows = [], clip_indices(frames.count, spec)
    for clip in range(spec.clips):
        index = rows[clip * spec.crops * (2 if spec.flip else 1)]
        chosen = small[torch.from_numpy(frames.positions(index))]
        for edge in edges:
            view = chosen[..., edge : edge + spec.size]
            views += [view, view.flip(-1)] if spec.flip else [view]
    return torch.stack(views)


@pytest.mark.parametrize(
    "option",
    [
        ("--timeout", "nan"),
        ("--flush-mib", "inf"),
        ("--flush-mib", "nan"),
        ("--flush-seconds", "inf"),
        ("--shard", "²/3"),
    ],
)
def test_values_that_are_no_numbers_are_wrong_usage(tmp_path: Path, option: tuple[str, str]) -> None:
    result = run("extract", tmp_path, "--cache", tmp_path / "cache", *SHAPE, *option)
    assert result.exit_code == 2 and "expected" in result.output, result.output


def test_stride_with_uniform_sampling_warns(caplog: pytest.LogCaptureFixture) -> None:
    assert clip_spec("tiny", ViewSettings(stride=4)) == clip_spec("tiny") and "sampling=dense" in caplog.text
    caplog.clear()
    assert clip_spec("tiny", ViewSettings(sampling="dense", stride=4)).stride == 4 and not caplog.text


def test_views_layers_and_tokens_are_transformers(clips: Path, model: TimesformerModel, tmp_path: Path) -> None:
    extras = ("--num-clips", 2, "--crops", 3, "--flip", "--save-layers", "1,3", "--save-tokens-after", 2)
    store = store_of(clips, tmp_path / "cache", "--weights", tmp_path / "model", *extras)
    spec = ClipSpec(num_frames=4, size=32, clips=2, crops=3, flip=True)
    assert {name: shape for name, (shape, _) in store.quantities.items()} == {
        "clip": (12, 64),
        "frame": (12, 4, 64),
        "index": (12, 4),
        "layer1": (12, 64),
        "layer3": (12, 64),
        "tokens2": (12, 4, 5, 64),
    }
    for video in load_dataset(clips).videos:
        right = expected(model, pixels_of(video.path, spec))
        found = {name: store.read([video.id], name)[0] for name in store.quantities}
        assert np.abs(found["clip"] - right.clip.numpy()).max() <= 1e-4
        assert np.abs(found["frame"] - right.frame.numpy()).max() <= 1e-4
        for layer in (1, 3):
            np.testing.assert_allclose(found[f"layer{layer}"], right.layers[layer], rtol=1e-4, atol=1e-4)
        assert found["tokens2"].dtype == np.float16
        np.testing.assert_allclose(found["tokens2"], right.tokens[2], rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(found["index"], clip_indices(store.records([video.id])[0].count, spec))


def test_the_mean_patch_instead_of_the_frames_cls(clips: Path, model: TimesformerModel, tmp_path: Path) -> None:
    weights = ("--weights", tmp_path / "model")
    by_cls = store_of(clips, tmp_path / "cache", *weights)
    by_mean = store_of(clips, tmp_path / "cache", *weights, "--frame-pool", "mean")
    assert by_cls.folder != by_mean.folder
    assert [name for name, _, _ in by_cls.key.differences(by_mean.key)] == ["outputs.frame_pool"]
    spec = ClipSpec(num_frames=4, size=32)
    for video in load_dataset(clips).videos:
        right = expected(model, pixels_of(video.path, spec))
        assert np.abs(by_mean.read([video.id], "frame")[0] - right.mean.numpy()).max() <= 1e-4
        np.testing.assert_allclose(by_mean.read([video.id], "clip"), by_cls.read([video.id], "clip"), atol=2e-5)


def test_probe_reads_views_averaged_or_each_and_layers(clips: Path, tmp_path: Path) -> None:
    for label in ("hop", "run"):
        for number in range(2, 8):
            frames = np.random.RandomState(number).randint(0, 256, (9, 48, 64, 3)).astype(np.uint8)
            write_avi(clips / label / f"{label}{number}.avi", frames)
    store_of(clips, tmp_path / "cache", "--num-clips", 2, "--flip", "--save-layers", "2")
    probe = ("probe", clips, "--variant", "tiny", "--cache", tmp_path / "cache", "--runs", tmp_path / "runs")
    split = ("--protocol", "stratified", "--folds", 2, "--seeds", 1)
    for option in (("--view-aggregation", "mean"), ("--view-aggregation", "each"), ("--features", "layers")):
        result = run(*probe, *split, *option)
        assert result.exit_code == 0, result.output


def test_the_size_of_tokens_is_said_and_must_fit(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ("extract", clips, "--cache", tmp_path / "cache", *SHAPE, "--save-tokens-after", 2)
    planned = run(*tokens, "--dry-run")
    row = 2 * 4 * 5 * 128 + 4 * (128 + 4 * 128 + 4)  # tokens in fp16, clip, frames, index
    assert planned.exit_code == 0
    assert f"4 rows to write, {row / 1e6:.1f} MB each with all tokens: {4 * row / 1e9:.2f} GB" in planned.stderr
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3 * row})())
    refused = run(*tokens)
    assert isinstance(refused.exception, ActionVitError)
    assert "embeddings of 4 videos take" in str(refused.exception) and "leave out --save-tokens-after" in str(
        refused.exception
    )
    assert not (tmp_path / "cache").exists()
    monkeypatch.undo()
    assert "rows to write" in run(*tokens).stderr
    assert "rows to write" not in run(*tokens).stderr, "nothing is left to write"


def test_parallel_shards_merge_to_the_complete_store(forked: ForkedCommands, clips: Path, tmp_path: Path) -> None:
    """As several GPUs of one machine would share a dataset: `--device cuda:0 --shard 1/2`, `--device cuda:1 ...`."""
    whole = store_of(clips, tmp_path / "whole")
    common = ["extract", clips, "--cache", tmp_path / "cache", *SHAPE, "--device", "cpu"]
    for process in [forked.start([*common, "--shard", f"{part}/2"]) for part in (1, 2)]:
        ended = forked.wait(process)
        assert ended.returncode == 0, ended.stderr
    parts = sorted((tmp_path / "cache" / "clips").iterdir())
    assert len(parts) == 2
    assert run("cache", "merge", *parts).exit_code == 0
    merged = FeatureStore.open(parts[0].with_name(whole.folder.name))
    assert merged.ids == whole.ids and merged.digest() == whole.digest()


def test_an_extraction_goes_on_after_running_out_of_memory(clips: Path, tmp_path: Path) -> None:
    spec = ClipSpec(num_frames=4, size=32, clips=4)
    job = Job(variant="tiny", weights=find_weights("tiny"), spec=spec)
    right = extract(load_dataset(clips), [job], cache=tmp_path / "right", workers=0)

    def scarce(job: Job, device: str) -> Encoder:
        encoder = Encoder(job.weights, job.spec, device="cpu")
        encoder.across_videos, encoder.batch_views, compute = True, 16, encoder._compute

        def two_at_most(pixels: torch.Tensor) -> object:
            if len(pixels) > 2:
                raise torch.OutOfMemoryError(f"tried to hold {len(pixels)} views")
            return compute(pixels)

        encoder._compute = two_at_most
        return encoder

    summary = extract(load_dataset(clips), [job], cache=tmp_path / "scarce", workers=0, make_encoder=scarce)
    assert summary.outcomes[0].embedded == 4
    stores = [FeatureStore.open(each.outcomes[0].store) for each in (right, summary)]
    for name in ("clip", "frame", "index"):
        a, b = (store.read(stores[0].ids, name) for store in stores)
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_frames_are_let_go_once_the_encoder_has_them(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any batch size, and for slow results."""
    from actionvit.pipeline.extraction import encode_queue

    monkeypatch.setattr(encode_queue, "BATCH_BYTES", 3 * 16 * 32 * 32 * 3)
    sizes: list[int] = []
    written: list[Any] = []
    pixels: list[weakref.ref[Any]] = []

    class Slow:
        batch_videos, seconds = 1000, {"copy": 0.0, "prepare": 0.0, "forward": 0.0}

        def submit(self, videos: Sequence[Frames]) -> Any:
            sizes.append(count := len(videos))
            index = np.zeros((1, 4), np.int32)
            arrays = {"clip": np.zeros((1, 8), np.float32), "frame": np.zeros((1, 4, 8), np.float32), "index": index}
            return SimpleNamespace(done=lambda: False, result=lambda: [arrays] * count)

    with ThreadPoolExecutor(1) as thread:
        queue = encode_queue.EncodeQueue(
            Slow(), SimpleNamespace(append=written.append), frozenset(), thread, encode_queue.StageSeconds()
        )  # type: ignore[arg-type]
        for number in range(8):
            data = np.zeros((16, 32, 32, 3), np.uint8)
            pixels.append(weakref.ref(data))
            frames = Frames(data=data, index=np.arange(16), count=16, backend="pyav")
            record = VideoRecord(f"{number}", "00" * 32, Fingerprint(1, 2), 16, (), "pyav")
            queue.put(Decoded(record, frames, 0.1))
            del frames, data
        thread.submit(int).result()
        gc.collect()
        held = sum(one() is not None for one in pixels)
        assert sizes == [3, 3] and held == 2, "those of the batch that is being gathered"
        queue.finish()
    assert [row.id for row in written] == [f"{number}" for number in range(8)]


def test_what_overflows_is_not_cached(clips: Path, tmp_path: Path) -> None:
    weights = find_weights("tiny")
    job = Job(variant="tiny", weights=weights, spec=ClipSpec(num_frames=4, size=32), precision="fp16")

    def large(job: Job, device: str) -> Encoder:
        encoder = Encoder(job.weights, job.spec, device="cpu", precision="fp16")
        with torch.inference_mode():
            encoder._embedding.table.mul_(1e6)
        return encoder

    with pytest.raises(ActionVitError, match=r"contains NaN or Inf. In fp16 .* use precision=bf16"):
        extract(load_dataset(clips), [job], cache=tmp_path / "cache", workers=0, make_encoder=large)
    (key,) = (tmp_path / "cache").glob("*/*/key.json")
    assert not FeatureStore.open(key.parent).ids
    assert extract(load_dataset(clips), [job], cache=tmp_path / "cache", workers=0).outcomes[0].embedded == 4


def test_tokens_beyond_fp16_are_not_cached(clips: Path, tmp_path: Path) -> None:
    weights = find_weights("tiny")
    job = Job(variant="tiny", weights=weights, spec=ClipSpec(num_frames=4, size=32), precision="fp32", tokens_after=1)

    def large(job: Job, device: str) -> Encoder:
        encoder = Encoder(job.weights, job.spec, device="cpu", precision="fp32", tokens_after=1)
        with torch.inference_mode():
            encoder._embedding.table.mul_(1e6)
        return encoder

    with pytest.raises(ActionVitError, match="tokens1 exceed fp16's range"):
        extract(load_dataset(clips), [job], cache=tmp_path / "cache", workers=0, make_encoder=large)
    (key,) = (tmp_path / "cache").glob("*/*/key.json")
    assert not FeatureStore.open(key.parent).ids


def test_the_summary_says_where_the_time_went(clips: Path, tmp_path: Path) -> None:
    command = ("extract", clips, "--cache", tmp_path / "cache", *SHAPE)
    told = json.loads(run(*command, "--json").stdout)
    busy, loop = told["stage_seconds"], told["seconds"] - told["start"]
    assert set(busy) == {"decode", "copy", "prepare", "forward", "write"}
    assert busy["decode"] > 0 and busy["prepare"] > 0 and busy["forward"] > 0 and busy["write"] > 0
    assert busy["prepare"] + busy["forward"] <= loop
    assert told["gmac_per_second"] > 0 and 0 < told["share_of_limit"] <= 1
    assert told["bound_by"] in ("decoding", "copying", "forward pass", "writing")
    (tmp_path / "cache").rename(tmp_path / "away")
    message = run(*command, "-v").stdout
    for word in ("4 videos in", "per second", "decode", "copy", "resize", "forward", "GMAC/s", "bottleneck:"):
        assert word in message
    (tmp_path / "cache").rename(tmp_path / "away-too")
    short = run(*command).stdout
    assert "per second" in short and "bottleneck:" in short
    assert "GMAC/s" not in short and "time per stage" not in short
