"""Real fine-tuning of a small model on drawn clips: trained parts, resuming, caching, and no leak of test clips."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from click.testing import CliRunner, Result
from forked_commands import ForkedCommands
from safetensors.numpy import load_file
from tiny_model import command

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.decoding import decoder_version
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import fingerprint
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.pipeline.datasets.dataset import Dataset, Split
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.finetuning import tokens
from actionvit.pipeline.finetuning.classifier import Classifier, FrozenBlocks
from actionvit.pipeline.finetuning.clips import FileClips
from actionvit.pipeline.finetuning.distributed import ProcessGroup
from actionvit.pipeline.finetuning.finetune import finetune, selected_splits, view_spec
from actionvit.pipeline.finetuning.identity import training_identity
from actionvit.pipeline.finetuning.split import FinetuneResult, TrainingContext, TrainValRows
from actionvit.pipeline.finetuning.trainer import Trainer
from actionvit.pipeline.runs import read_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_model.write_clips(tmp_path_factory.mktemp("clips") / "drawn")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_model.weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(dataset: Dataset, weights: Weights, where: Path, **changes: Any) -> FinetuneResult:
    place = {name: changes.pop(name) for name in list(changes) if name in TrainingContext.__dataclass_fields__}
    work = TrainingContext(**{"cache": where / "cache", "folder": where / "work", "workers": 0, **place})
    (tuned,) = finetune(dataset, weights, tiny_model.spec(**changes), work).splits
    return tuned


def far(one: FinetuneResult, other: FinetuneResult) -> float:
    """Return the largest difference of trained weights and test logits."""
    assert one.weights.keys() == other.weights.keys()
    pairs = [(one.logits, other.logits), *((one.weights[name], other.weights[name]) for name in one.weights)]
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


# Cached tokens


@pytest.mark.parametrize("of", ["head", "last:1", "last:2"])
@pytest.mark.parametrize("augment", [True, False])
def test_cached_tokens_train_to_the_bits_of_frozen_blocks(
    dataset: Dataset, weights: Weights, tmp_path: Path, of: str, augment: bool
) -> None:
    changes: dict[str, Any] = {"train": of, "views": 3} | ({} if augment else {"augment": None})
    through = train(dataset, weights, tmp_path / "a", **changes)
    cached = train(dataset, weights, tmp_path / "b", tokens="fp32", **changes)
    assert through.state.history[-1]["loss"] == cached.state.history[-1]["loss"]
    assert far(through, cached) == 0
    other = train(dataset, weights, tmp_path / "c", **changes, seed=1)
    assert far(through, other) > 1e-3


def test_tokens_in_half_precision_are_close_and_half_as_large(
    dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    sizes: dict[str, int] = {}
    found = {}
    for kept in ("fp16", "fp32"):

        def note(videos: int, size: int, kept: str = kept) -> None:
            sizes[kept] = size

        found[kept] = train(dataset, weights, tmp_path, tokens=kept, views=2, on_tokens=note, folder=tmp_path / kept)
    assert sizes["fp32"] == 2 * sizes["fp16"] == len(dataset.videos) * 2 * 4 * 5 * 32 * 4
    assert 0 < far(found["fp16"], found["fp32"]) < 0.05


def test_one_view_is_the_plain_one(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    cached = train(dataset, weights, tmp_path / "a", train="last:1", tokens="fp32", views=1)
    assert far(cached, train(dataset, weights, tmp_path / "b", train="last:1", views=1)) == 0
    assert far(cached, train(dataset, weights, tmp_path / "c", train="last:1", tokens="fp32", augment=None)) == 0


def test_finished_then_killed_training_keeps_its_record(weights: Weights, tmp_path: Path) -> None:
    dataset = tiny_model.write_clips(tmp_path / "drawn")
    broken = next(video for video in dataset.videos if "1_" in video.path.name)
    broken.path.write_bytes(b"no video")
    place = {"folder": tmp_path / "work", "train": "head", "views": 0}
    first = train(dataset, weights, tmp_path, **place)
    again = train(dataset, weights, tmp_path, resume=True, **place)
    assert first.failures == again.failures == {broken.id: "not_video"}
    assert first.trained == again.trained and far(first, again) == 0


def test_bad_training_settings_are_refused_before_work(weights: Weights, tmp_path: Path) -> None:
    def computed(videos: int, size: int) -> None:
        pytest.fail("tokens were computed first")

    two = tiny_model.write_clips(tmp_path / "two", sources=2, clips=1)
    with pytest.raises(ActionVitError, match="no training source can be spared"):
        train(two, weights, tmp_path, tokens="fp16", views=2, folds=2, splits=(), on_tokens=computed)
    one = tiny_model.write_clips(tmp_path / "one", motions=("grow",))
    for folds in (2, 100):
        with pytest.raises(ActionVitError, match="has one class"):
            train(one, weights, tmp_path, tokens="fp16", views=2, folds=folds, splits=(), on_tokens=computed)


def test_tokens_are_computed_once_for_all_splits_and_reruns(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    seen: list[int] = []
    for splits in (("grouped-1", "grouped-2"), ()):
        work = TrainingContext(
            cache=tmp_path,
            folder=tmp_path / f"w{len(splits)}",
            workers=0,
            on_video=lambda done, total: seen.append(done),
        )
        finetune(dataset, weights, tiny_model.spec(tokens="fp16", views=2, splits=splits, epochs=1), work)
    assert seen == list(range(1, len(dataset.videos) + 1))


def test_tokens_lost_to_machine_failures_are_retried(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    seen: list[int] = []
    how: dict[str, Any] = {"tokens": "fp16", "views": 2, "epochs": 1, "cache": tmp_path}
    train(dataset, weights, tmp_path / "a", **how)
    (key,) = tmp_path.glob("*/tiny-tokens-*/key.json")
    late, broken = dataset.videos[0], dataset.videos[-1]
    with Writer(FeatureStore.open(key.parent)) as writer:
        for id, reason, path in (
            (late.id, "timeout", late.path), (broken.id, "corrupt", broken.path), ("gone.avi", "corrupt", late.path),
        ):  # fmt: skip
            failure = Failure(id=id, reason=reason, detail="not decoded within 60 s", fingerprint=fingerprint(path))
            writer.add_failure(replace(failure, decoder_version=decoder_version()))
    found = train(dataset, weights, tmp_path / "b", **how, on_video=lambda done, total: seen.append(total))
    assert seen == [1] and found.failures == {broken.id: "corrupt"}


def test_tokens_that_memory_has_room_for_are_read_once(
    dataset: Dataset, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = FeatureStore.read, []

    def counted(self: FeatureStore, ids: Any, name: str) -> Any:
        calls.append((*ids, name))
        return read(self, ids, name)

    monkeypatch.setattr(FeatureStore, "read", counted)
    found = []
    for memory in (0, 1 << 30):
        calls.clear()
        found.append(
            train(dataset, weights, tmp_path, tokens="fp16", views=2, memory=memory, folder=tmp_path / str(memory))
        )
        assert (len(calls) == len(set(calls))) == bool(memory)
    assert far(*found) == 0


@pytest.mark.parametrize("views", [0, 2])
def test_memory_is_for_frames_that_epochs_ask_for_again(
    dataset: Dataset, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: int
) -> None:
    keep, kept = FileClips._keep, []

    def noted(self: FileClips, at: tuple[str, int], held: Any) -> Any:
        kept.append(at)
        return keep(self, at, held)  # type: ignore[arg-type]

    monkeypatch.setattr(FileClips, "_keep", noted)
    rows: list[TrainValRows] = []
    train(dataset, weights, tmp_path, views=views, epochs=1, on_split=lambda split, each: rows.append(each))
    plain = {row for kind, row in kept if kind == "plain"}
    assert set(rows[0].val.tolist()) <= plain and (plain <= set(rows[0].val.tolist())) == (not views)
    assert {row for kind, row in kept if kind == "drawn"} <= set(rows[0].train.tolist())


def test_tokens_beyond_free_space_are_refused_first(
    dataset: Dataset, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    result = invoke(*command(dataset, weights, tmp_path))
    assert result.exit_code == 1 and isinstance(result.exception, ActionVitError)
    assert "GB" in str(result.exception) and "--cached-views" in str(result.exception)
    assert not list(tmp_path.rglob("*.h5"))


# The same numbers after interruptions


@pytest.mark.parametrize(
    "how",
    [
        ["--train", "all", "--mixup", "0.4", "--ema-decay", "0.9"],
        pytest.param(["--train", "last:2", "--ema-decay", "0.9"], marks=pytest.mark.slow),
    ],
    ids=["all", "last:2"],
)
def test_kill_and_resume_in_any_epoch_gives_the_same_bits(
    forked: ForkedCommands, dataset: Dataset, weights: Weights, tmp_path: Path, how: list[str]
) -> None:
    def run(folder: Path, die: int, *more: str) -> subprocess.CompletedProcess[str]:
        before = f"import tiny_model; tiny_model.die_in_step({die})"
        return forked.run(command(dataset, weights, folder, *how, *more), before=before)

    whole = invoke(*command(dataset, weights, tmp_path / "whole", *how))
    assert whole.exit_code == 0, whole.output
    # Three steps per epoch: dies in the first epoch, then in the second of the epochs that were left.
    assert run(tmp_path / "cut", 2).returncode == -signal.SIGKILL
    for more, message in [((), "--resume"), (("--resume", "--lr", "1e-3"), "training.optim.lr differ")]:
        refused = invoke(*command(dataset, weights, tmp_path / "cut", *how, *more))
        assert refused.exit_code == 1 and message in str(refused.exception)
    assert run(tmp_path / "cut", 5, "--resume").returncode == -signal.SIGKILL
    last = invoke(*command(dataset, weights, tmp_path / "cut", *how, "--resume", "--micro-batch-size", "8"))
    assert last.exit_code == 0, last.output
    for name in ("head.safetensors", "predictions.npz", "metrics.json", "train.json"):
        one, other = ((tmp_path / folder / "runs" / "run" / name).read_bytes() for folder in ("whole", "cut"))
        assert one == other, name
    assert not (tmp_path / "cut" / "runs" / "run.training").exists()
    assert len(read_run(tmp_path / "cut" / "runs" / "run").info["curves"]) == 3


@pytest.mark.parametrize("kept", [None, "fp32"])
def test_a_checkpoint_is_not_resumed_on_other_clips(
    dataset: Dataset, weights: Weights, tmp_path: Path, kept: Any
) -> None:
    how: dict[str, Any] = {"protocol": "stratified", "splits": (), "folds": 1, "tokens": kept, "views": 2, "epochs": 1}
    copied = tiny_model.load_dataset(Path(shutil.copytree(dataset.root, tmp_path / "drawn")))
    train(copied, weights, tmp_path, **how)
    assert train(copied, weights, tmp_path, **how, resume=True).state.epoch == 1
    # By the same ids and labels, but other sources: clips that were trained on would choose the epoch.
    others = [replace(video, source=copied.videos[at - 1].source) for at, video in enumerate(copied.videos)]
    more = replace(copied, class_names=(*copied.class_names, "swing"))
    for other, message in ((replace(copied, videos=tuple(others)), "clips"), (more, "classes")):
        with pytest.raises(ActionVitError, match=f"another training .*{message}.* differ"):
            train(other, weights, tmp_path, **how, resume=True)
    for video in copied.videos:
        write_avi(video.path, np.random.default_rng(0).integers(0, 255, (9, 48, 64, 3)).astype(np.uint8))
    with pytest.raises(ActionVitError, match=r"another training \(files differ\)"):
        train(copied, weights, tmp_path, **how, resume=True)


def test_world_size_binds_a_checkpoint_for_fixed_shards_only(
    dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    rows, spec = np.arange(4), tiny_model.spec()
    clips = FileClips(dataset.videos, view_spec(weights, spec))

    def same(deal: str) -> bool:
        dealt = tiny_model.spec(deal=deal)
        one, two = (training_identity(dataset, rows, rows, weights, dealt, clips, world=world) for world in (1, 2))
        return one == two

    assert same("shuffled") and same("class-aware") and not same("sharded")


def test_checkpoint_interval_changes_no_result(
    dataset: Dataset, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = Trainer._save

    def noted(self: Trainer) -> None:
        saved.append(self.state.epoch)
        save(self)

    monkeypatch.setattr(Trainer, "_save", noted)
    often = train(dataset, weights, tmp_path / "a", epochs=3)
    assert saved == [0, 1, 2, 3]
    seldom = train(dataset, weights, tmp_path / "b", epochs=3, flush_seconds=60)
    again = train(dataset, weights, tmp_path / "b", epochs=3, flush_seconds=60, resume=True)
    assert saved[4:] == [3]
    assert far(often, seldom) == far(often, again) == 0 and again.state.history == seldom.state.history


@pytest.mark.parametrize(
    "how",
    [
        ["--train", "all", "--cutmix", "1", "--ema-decay", "0.9"],
        pytest.param(["--train", "last:2", "--ema-decay", "0.9"], marks=pytest.mark.slow),
    ],
    ids=["all", "last:2"],
)
def test_two_processes_compute_what_one_does(
    dataset: Dataset, weights: Weights, tmp_path: Path, how: list[str]
) -> None:
    how = [*how, "--rank-sampling", "class-aware", "--head-init", "zero"]
    single = invoke(*command(dataset, weights, tmp_path / "one", *how))
    assert single.exit_code == 0, single.output
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    done = subprocess.run(
        [*launch, "actionvit", *command(dataset, weights, tmp_path / "two", *how)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    runs = {name: read_run(tmp_path / name / "runs" / "run") for name in ("one", "two")}
    one, two = (load_file(run.folder / "head.safetensors") for run in runs.values())
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=2e-5)
    np.testing.assert_allclose(runs["two"].predictions.scores, runs["one"].predictions.scores, atol=2e-5)
    ranks = runs["two"].info["ranks"]
    assert ranks["number"] == 2 and ranks["deal"] == "class-aware" and ranks["unevenness"] < 0.1
    (alone,) = runs["one"].info["ranks"]["clips_a_class"]
    assert np.sum(ranks["clips_a_class"], 0).tolist() == alone
    for rank, counts in enumerate(ranks["clips_a_class"]):
        assert f"rank {rank}: {' '.join(map(str, counts))} clips per class" in done.stdout


def two_ranks(forked: ForkedCommands, arguments: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """Run a command as two ranks; return both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [forked.start(arguments, {**environment, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    return [forked.wait(process) for process in processes]


def test_where_one_process_fails_each_says_so_in_a_line(
    forked: ForkedCommands, dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    # The first process, which alone writes checkpoints, finds a folder in the way of its first.
    (tmp_path / "runs" / "run.training" / "grouped-1" / "checkpoint.safetensors").mkdir(parents=True)
    ended = two_ranks(forked, command(dataset, weights, tmp_path, "--train", "head"))
    message = [process.stderr for process in ended]
    assert [process.returncode for process in ended] == [1, 1], message
    for text, reason in zip(
        message, ("cannot be written", "another process of this training has stopped"), strict=True
    ):
        assert "Traceback" not in text and reason in text.splitlines()[-1]


def test_what_failed_in_any_process_is_told_and_is_no_crash(
    forked: ForkedCommands, dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(dataset.root, tmp_path / "drawn"))
    (split,) = selected_splits(dataset, tiny_model.spec())
    victims = sorted([*split.train[:2], *split.test[:2]])  # of the test clips, each process opens one
    for id in victims:
        (broken / id).write_bytes(b"RIFF")
    how = ["--train", "all", "--epochs", "1", "--head-init", "zero"]
    arguments = command(tiny_model.load_dataset(broken), weights, tmp_path, *how)
    done, other = two_ranks(forked, arguments)
    assert other.returncode == 0, other.stderr
    assert done.returncode == 0, done.stderr
    assert "4 videos did not decode" in done.stderr
    run = read_run(tmp_path / "runs" / "run")
    assert [each["id"] for each in run.info["coverage"]["failures"]] == victims


def test_small_pieces_add_up_to_the_batch(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    whole = train(dataset, weights, tmp_path / "a", train="all")
    pieces = train(dataset, weights, tmp_path / "b", train="all", micro_batch=3)
    assert 0 < far(whole, pieces) < 2e-3


def test_out_of_memory_halves_the_pieces_and_keeps_the_batch(
    dataset: Dataset,
    weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = train(dataset, weights, tmp_path / "a", train="all", micro_batch=3)
    logits = Classifier.logits

    def cramped(self: Classifier, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        if len(x) > 3 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return logits(self, x, keep)

    monkeypatch.setattr(Classifier, "logits", cramped)
    found = train(dataset, weights, tmp_path / "b", train="all")
    assert far(found, expected) == 0
    assert "with 3 views at once" in caplog.text

    def full(self: Classifier, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        if torch.is_grad_enabled():
            torch.empty(10**16)  # the CPU allocator's message
        return logits(self, x, keep)

    monkeypatch.setattr(Classifier, "logits", full)
    with pytest.raises(ActionVitError, match="one view does not fit into memory; use activation_checkpointing=True"):
        train(dataset, weights, tmp_path / "c", train="all")
    with pytest.raises(ActionVitError, match="one view does not fit into memory; use fewer"):
        train(dataset, weights, tmp_path / "d", train="last:1")  # recomputing would save nothing


def test_out_of_memory_outside_the_step_halves_the_pieces_too(
    dataset: Dataset,
    weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    how: dict[str, Any] = {"tokens": "fp32", "views": 2, "clip": replace(tiny_model.CLIP, clips=4)}
    expected = train(dataset, weights, tmp_path / "a", **how)
    logits, frozen = Classifier.logits, FrozenBlocks.__call__

    def no_more_than(most: int) -> None:
        def cramped_logits(self: Classifier, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
            if len(x) > most and not torch.is_grad_enabled():
                raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
            return logits(self, x, keep)

        def cramped_frozen(self: FrozenBlocks, pixels: torch.Tensor) -> torch.Tensor:
            if len(pixels) > most:
                raise RuntimeError("MPS backend out of memory (MPS allocated: 18.12 GB)")
            return frozen(self, pixels)

        monkeypatch.setattr(Classifier, "logits", cramped_logits)
        monkeypatch.setattr(FrozenBlocks, "__call__", cramped_frozen)

    no_more_than(3)
    found = train(dataset, weights, tmp_path / "b", **how)
    assert far(found, expected) < 1e-5
    assert "with 2 views at once" in caplog.text
    no_more_than(0)
    for cache in ("b", "c"):  # where scoring comes first, and where the tokens do
        with pytest.raises(ActionVitError, match="one view does not fit into memory; give fewer num_frames="):
            train(dataset, weights, tmp_path / "d", cache=tmp_path / cache / "cache", **how)


def test_out_of_memory_where_no_piece_helps_ends_in_a_line(
    dataset: Dataset, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: torch.optim.AdamW, closure: Any = None) -> None:
        torch.empty(10**16)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(ActionVitError, match=r"^out of memory \(.*DefaultCPUAllocator.*\): train fewer blocks"):
        train(dataset, weights, tmp_path)


def test_the_best_epoch_is_kept_and_patience_ends(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    found = train(dataset, weights, tmp_path, epochs=40, patience=3, lr=0.1, criterion="log_loss")
    losses = [row["validation_log_loss"] for row in found.state.history]
    assert found.state.best_epoch == int(np.argmin(losses)) == len(losses) - 4
    again = train(dataset, weights, tmp_path, epochs=40, patience=3, lr=0.1, criterion="log_loss", resume=True)
    assert far(found, again) == 0 and again.state.history == found.state.history


def test_a_loss_that_is_no_number_ends_in_a_line(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(ActionVitError, match="lower lr="):
        train(dataset, weights, tmp_path, lr=1e30, clip_norm=0.0, train="all", warmup=0.0)


def test_nan_weights_after_the_last_step_are_not_kept(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    how: dict[str, Any] = {"lr": 1e30, "clip_norm": 0.0, "train": "all", "warmup": 0.0, "epochs": 1, "batch": 100}
    with pytest.raises(ActionVitError, match="lower lr="):
        train(dataset, weights, tmp_path, **how)


def test_what_a_killed_checkpoint_left_is_removed(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    left = tmp_path / "work" / "grouped-1" / ".tmp-1-checkpoint.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(1000))
    train(dataset, weights, tmp_path, epochs=1)
    assert not left.exists() and (left.parent / "checkpoint.safetensors").exists()


# The parts of a training set


def test_the_test_side_decides_nothing(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    rows: list[TrainValRows] = []
    found = train(dataset, weights, tmp_path / "a", on_split=lambda split, each: rows.append(each))
    parts = {"fit": rows[0].train, "held": rows[0].val}
    sources = {name: {dataset.videos[row].source for row in each} for name, each in parts.items()}
    sources["test"] = {video.source for video in found.tested}
    assert not (sources["fit"] & sources["held"]) | (sources["test"] & (sources["fit"] | sources["held"]))
    # Other pixels in every test clip: not one trained number moves.
    changed = Path(shutil.copytree(dataset.root, tmp_path / "drawn"))
    for video in found.tested:
        write_avi(changed / video.id, np.random.default_rng(0).integers(0, 255, (9, 48, 64, 3)).astype(np.uint8))
    other = train(tiny_model.load_dataset(changed, name="drawn"), weights, tmp_path / "b")
    assert all(np.array_equal(other.weights[name], value) for name, value in found.weights.items())
    assert other.temperature == found.temperature and not np.array_equal(other.logits, found.logits)


def test_the_epoch_is_selected_on_the_datas_validation_set(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    ids = np.array([video.id for video in dataset.videos])
    groups = np.array([video.source[-1] for video in dataset.videos])  # films 0 to 5 of each class
    train_ids, val, test = (tuple(ids[np.isin(groups, list(films))]) for films in ("012", "3", "45"))
    split = Split(name="official-1", train=train_ids, val=val, test=test)
    own = replace(dataset, official=(split,))
    phases: dict[str, tuple[set[str], set[str]]] = {}

    def on_split(name: str, rows: TrainValRows) -> None:
        phases[name] = (set(ids[rows.train]), set(ids[rows.val]))

    changes = {
        "protocol": "official",
        "folds": None,
        "splits": (),
        "tokens": "fp32",
        "views": 1,
        "select_on": "val",
        "epochs": 1,
    }
    result = train(own, weights, tmp_path, refit=True, on_split=on_split, **changes)
    assert phases == {
        "official-1": (set(train_ids), set(val)),
        "official-1 refit": ({*train_ids, *val}, set()),
    }
    assert set(result.trained) == {*train_ids, *val} and result.n_train == len(result.trained)
    assert {video.id for video in result.tested} == set(test)
    with pytest.raises(ActionVitError, match="select_on: got `val`, but split official-1 has no validation set"):
        train(replace(own, official=(replace(split, val=()),)), weights, tmp_path / "b", **changes)


def test_a_video_that_does_not_decode_costs_itself(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(dataset.root, tmp_path / "drawn"))
    victims = [dataset.videos[0].id, dataset.videos[-1].id]
    for id in victims:
        (broken / id).write_bytes(b"RIFF")
    for more in (["--train", "last:1"], ["--train", "all"]):
        folder = tmp_path / more[1][0]
        result = invoke(*command(tiny_model.load_dataset(broken), weights, folder, *more))
        assert result.exit_code == 3, result.output
        run = read_run(folder / "runs" / "run")
        assert [each["id"] for each in run.info["coverage"]["failures"]] == victims
        assert not set(victims) & {*run.predictions.id.tolist(), *run.train["grouped-1"]}
        assert run.metrics["splits"][0]["n_train"] == len(run.train["grouped-1"])


@pytest.mark.parametrize("of", ["head", "all"])
def test_a_split_of_which_no_test_clip_decodes_ends_in_a_line(
    dataset: Dataset, weights: Weights, tmp_path: Path, of: str
) -> None:
    broken = Path(shutil.copytree(dataset.root, tmp_path / "drawn"))
    (split,) = selected_splits(dataset, tiny_model.spec())
    for id in split.test:
        (broken / id).write_bytes(b"RIFF")
    result = invoke(*command(tiny_model.load_dataset(broken), weights, tmp_path, "--train", of, "--epochs", "1"))
    assert isinstance(result.exception, ActionVitError)
    assert "split grouped-1: none of its" in str(result.exception) and "\n" not in str(result.exception)
    trained = (tmp_path / "runs" / "run.training" / "grouped-1").exists()
    assert trained == (of == "all")  # known from the tokens, before training


@pytest.mark.parametrize("criterion", ["mean_class_accuracy", "log_loss"])
def test_a_run_tells_the_scores_that_chose_the_epoch(
    dataset: Dataset, weights: Weights, tmp_path: Path, criterion: str
) -> None:
    assert (
        invoke(*command(dataset, weights, tmp_path, "--selection-metric", criterion, "--train", "head")).exit_code == 0
    )
    run = read_run(tmp_path / "runs" / "run")
    (search,) = run.info["search"]
    assert search["criterion"] == criterion
    assert search["scores"][search["values"].index(search["chosen"])] == max(search["scores"])
    rows = csv.DictReader((run.folder / "history.csv").read_text(encoding="utf-8").splitlines())
    sign = -1 if criterion == "log_loss" else 1
    assert search["scores"] == pytest.approx(
        [sign * float(row[f"validation_{criterion}"]) for row in rows if row["phase"] == "select"], abs=1e-4
    )


# The command


def test_a_run_is_like_any_other(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    result = invoke(*command(dataset, weights, tmp_path, "--balanced"))
    assert result.exit_code == 0, result.output
    run = read_run(tmp_path / "runs" / "run")
    assert run.info["head"] == {"kind": "finetuned", "train": "last:1"}
    rows = list(csv.DictReader((run.folder / "history.csv").read_text(encoding="utf-8").splitlines()))
    chosen, refit = ([row for row in rows if row["phase"] == phase] for phase in ("select", "refit"))
    assert [row["epoch"] for row in chosen] == ["0", "1", "2", "3"] and sum(row["best"] == "1" for row in chosen) == 1
    assert [row["epoch"] for row in refit][-1] == next(row["epoch"] for row in chosen if row["best"] == "1")
    if importlib.util.find_spec("tensorboard"):
        assert list(run.folder.glob("tensorboard/grouped-1/events.out.tfevents.*"))
    tensors, config = run.head()
    assert config["train"] == "last:1" and set(tensors) > {"head.weight", "blocks.2.mlp_in.weight", "norm.weight"}
    assert "blocks.1.mlp_in.weight" not in tensors and config["class_names"] == list(dataset.class_names)
    assert run.predictions.scores.sum(1) == pytest.approx(1, abs=1e-5)
    again = invoke(*command(dataset, weights, tmp_path))
    assert again.exit_code == 1 and "--overwrite" in str(again.exception)


def test_the_report_compares_a_fine_tuned_run_with_a_probe(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    common = ["--variant", "tiny", "--cache", tmp_path / "cache"]
    shape = ["--weights", weights.source, "--num-frames", "4", "--size", "32"]
    whole = [each for each in command(dataset, weights, tmp_path) if each not in ("--split", "grouped-1")]
    assert invoke(*whole).exit_code == 0
    assert invoke("extract", dataset.root, *common, *shape).exit_code == 0
    runs = ["--runs", tmp_path / "runs", "--protocol", "grouped", "--folds", "3"]
    probe = invoke("probe", dataset.root, *common, *runs, "--run-name", "probe")
    assert probe.exit_code == 0, probe.output
    out = tmp_path / "report"
    result = invoke("report", tmp_path / "runs" / "probe", tmp_path / "runs" / "run", "--output", out)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    (comparison,) = report["comparisons"]
    assert (comparison["a"], comparison["b"]) == ("probe", "run")
    assert {run["name"]: run["head"]["kind"] for run in report["runs"]}["run"] == "finetuned"
    assert "validation log loss" in (out / "report.html").read_text(encoding="utf-8")


def test_options_that_do_nothing_are_named(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    idle = ["--no-augment", "--no-flip-class", "nonsense", "--activation-checkpointing", "--stochastic-depth", "0.2"]
    idle += ["--layer-decay", "0.5"]
    result = invoke(*command(dataset, weights, tmp_path, "--epochs", "0", *idle, "--json"))
    assert result.exit_code == 0, result.output
    for name in (
        "--no-flip-class does nothing with --no-augment",
        "--activation-checkpointing does nothing with --train last:1",
        "--layer-decay does nothing with --train last:1",
    ):
        assert f"warning: {name}" in result.stderr
    assert "--stochastic-depth does nothing" in result.stderr and result.stderr.count("does nothing") == 4
    used = ["--train", "last:2", "--activation-checkpointing", "--stochastic-depth", "0.2", "--run-name", "two"]
    assert "does nothing" not in invoke(*command(dataset, weights, tmp_path, "--epochs", "0", *used)).stderr


def test_a_folder_that_is_no_run_is_refused_before_the_training(
    dataset: Dataset, weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "run").mkdir(parents=True)
    result = invoke(*command(dataset, weights, tmp_path, "--overwrite"))
    assert result.exit_code == 1 and "is not a run" in str(result.exception)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "runs" / "run.training").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train", "last:9"], "K is 1 to 3"),
        (["--train", "all", "--tokens"], "--no-tokens"),
        (["--mixup", "0.3", "--tokens"], "--no-tokens"),
        (["--cached-views", "0"], "--cached-views 4"),
        (["--split", "grouped-9"], "grouped-1"),
        (["--size", "40"], "multiple of the model's patch"),
        (["--no-flip-class", "walk_left"], "walk_left"),
        (["--resume", "--restart"], "give one of them"),
        (["--protocol", "official"], "no official splits"),
    ],
)
def test_wrong_options_end_in_a_line(
    dataset: Dataset, weights: Weights, tmp_path: Path, more: list[str], message: str
) -> None:
    result = invoke(*command(dataset, weights, tmp_path, *more))
    assert result.exit_code in (1, 2) and message in (result.output + str(result.exception))
    assert "\n" not in str(result.exception).strip() and not (tmp_path / "runs" / "run").exists()


# A GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("of", "kept"), [("head", None), ("last:1", "fp32"), ("last:2", None), ("all", None)])
def test_a_gpu_trains_what_the_cpu_does(dataset: Dataset, weights: Weights, tmp_path: Path, of: str, kept: Any) -> None:
    how: dict[str, Any] = {"train": of, "tokens": kept, "views": 2, "ema": 0.9}
    on_cpu = train(dataset, weights, tmp_path / "cpu", **how)
    on_gpu = train(dataset, weights, tmp_path / "gpu", ranks=ProcessGroup(device="cuda"), **how)
    rough = train(dataset, weights, tmp_path / "bf16", ranks=ProcessGroup(device="cuda"), autocast=True, **how)
    for name in ("loss", "validation_log_loss"):
        cpu, gpu, bf16 = (one.state.history[-1][name] for one in (on_cpu, on_gpu, rough))
        assert gpu == pytest.approx(cpu, rel=2e-3) and bf16 == pytest.approx(cpu, rel=0.05)
    assert far(on_cpu, on_gpu) < 0.05
    assert np.mean(on_cpu.logits.mean(1).argmax(1) == rough.logits.mean(1).argmax(1)) > 0.7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_training_on_a_gpu_resumes_where_it_was_killed(dataset: Dataset, weights: Weights, tmp_path: Path) -> None:
    arguments = [
        *command(dataset, weights, tmp_path, "--train", "all"),
        "--device",
        "cuda",
        "--precision",
        "bf16",
    ]
    script = [sys.executable, str(Path(tiny_model.__file__)), "7", *arguments]
    assert subprocess.run(script, check=False, capture_output=True).returncode == -signal.SIGKILL
    result = invoke(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "runs" / "run" / "history.csv").open()))
    assert len(rows) >= 3
