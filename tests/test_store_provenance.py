"""A setting that changes numbers gives another store or row, any other reuses the rows; through the real command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_store import environment
from small_extraction import draw, extraction, rows_of, store_in
from small_extraction import extract as extract_tiny

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.fingerprint import content_digest
from actionvit.features.store.catalog import find_stores
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.extraction.labels import dataset_columns


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four clips of one class."""
    return draw(tmp_path / "clips", 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TimeSformer as transformers itself saves it."""
    from transformers import TimesformerConfig, TimesformerModel

    folder = tmp_path_factory.mktemp("weights") / "small"
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    TimesformerModel(TimesformerConfig(**shape, image_size=32, num_frames=2)).save_pretrained(folder)
    return folder


@pytest.fixture
def weights(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "weights"))


def run(root: Path, cache: Path, *more: object) -> Result:
    small = ("--variant", "base", "--num-frames", 2, "--size", 32, "--workers", 0)
    return CliRunner().invoke(cli, list(map(str, ("extract", root, "--cache", cache, *small, *more))))


def outcome(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, (result.output, result.exception)
    (found,) = json.loads(result.stdout)["outcomes"]
    return {name: found[name] for name in ("embedded", "cached", "reused", "failed")}


NOTHING = {"embedded": 0, "cached": 4, "reused": 0, "failed": 0}


def extract(root: Path, cache: Path, weights: Path, *more: object) -> dict[str, Any]:
    return outcome(run(root, cache, "--weights", weights, "--json", *more))


def test_changed_weights_of_the_same_name_make_a_new_store(root: Path, tmp_path: Path, weights: Path) -> None:
    cache, file = tmp_path / "cache", weights / "model.safetensors"
    assert extract(root, cache, weights)["embedded"] == 4
    old, before = content_digest(file), rows_of(store_in(cache))
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x10  # one bit of one tensor
    stat = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # size and time do not identify weights
    result = run(root, cache, "--weights", weights)
    assert result.exit_code == 0 and "4 embedded" in result.output
    assert f'weights is "{content_digest(file)}" here and "{old}" there' in result.output
    stores = find_stores(cache)
    assert sorted(store.key.weights for store in stores) == sorted([old, content_digest(file)])
    kept = next(store for store in stores if store.key.weights == old)
    assert rows_of(kept) == before
    assert "here and" not in run(root, cache, "--weights", weights).output, "the note is printed once"


def test_only_a_changed_video_is_embedded_again(root: Path, tmp_path: Path, weights: Path) -> None:
    cache, video = tmp_path / "cache", root / "hop" / "02.avi"
    extract(root, cache, weights)
    before = rows_of(store_in(cache))
    write_avi(video, np.random.RandomState(7).randint(0, 256, (9, 48, 64, 3)).astype(np.uint8))
    assert extract(root, cache, weights) == {"embedded": 1, "cached": 3, "reused": 0, "failed": 0}
    store = store_in(cache)
    after = rows_of(store)
    assert {id for id in after if after[id] != before[id]} == {"hop/02.avi"}
    assert store.records(["hop/02.avi"])[0].digest == content_digest(video)
    extract(root, tmp_path / "fresh", weights)
    assert store.digest() == store_in(tmp_path / "fresh").digest()


def test_another_version_of_transformers_changes_nothing(
    root: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    extract(root, cache, weights)
    config = json.loads((weights / "config.json").read_text())
    assert "transformers_version" in config
    config |= {"transformers_version": "99.0.0", "a_new_setting": None}  # saved again by a later one
    (weights / "config.json").write_text(json.dumps(config))
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0" if name == "transformers" else version(name))
    monkeypatch.setattr("transformers.__version__", "99.0")
    assert extract(root, cache, weights) == NOTHING
    assert len(find_stores(cache)) == 1


@pytest.mark.parametrize("name", ["clips", "another name"])
def test_a_moved_root_changes_nothing(root: Path, tmp_path: Path, weights: Path, name: str) -> None:
    cache = tmp_path / "cache"
    extract(root, cache, weights)
    before = rows_of(store_in(cache))
    (tmp_path / "elsewhere").mkdir()
    moved = root.rename(tmp_path / "elsewhere" / name)
    found = extract(moved, cache, weights)
    assert (found["embedded"], found["failed"]) == (0, 0)
    store = next(store for store in find_stores(cache) if store.dataset == name)
    assert rows_of(store) == before
    out = tmp_path / "all.npz"
    result = CliRunner().invoke(cli, ["cache", "export", str(store.folder), "--output", str(out)])
    assert result.exit_code == 0 and "labels stay empty" not in result.stderr, "the new place of its labels is recorded"
    assert set(np.load(out, allow_pickle=False)["label"]) == {"hop"}
    assert extract(moved, cache, weights) == NOTHING


def test_copied_root_with_new_times_reuses_all_rows(root: Path, tmp_path: Path, weights: Path) -> None:
    cache = tmp_path / "cache"
    extract(root, cache, weights)
    for path in root.rglob("*.avi"):
        os.utime(path, ns=(1, 1))
    assert extract(root, cache, weights) == NOTHING
    assert (store_in(cache).folder / "seen.csv").exists()


def test_a_relabelled_dataset_changes_nothing(root: Path, tmp_path: Path, weights: Path) -> None:
    cache, table = tmp_path / "cache", tmp_path / "films.csv"
    lines = [f"clips/hop/{number:02}.avi" for number in range(4)]
    table.write_text("path,label\n" + "".join(f"{line},{'ab'[number % 2]}\n" for number, line in enumerate(lines)))
    assert extract(table, cache, weights)["embedded"] == 4
    table.write_text("path,label\n" + "".join(f"{line},{'xyz'[number % 3]}\n" for number, line in enumerate(lines)))
    assert extract(table, cache, weights) == NOTHING
    out = tmp_path / "all.npz"
    CliRunner().invoke(cli, ["cache", "export", str(cache), "--output", str(out)])
    assert np.load(out, allow_pickle=False)["label"].tolist() == ["x", "y", "z", "x"]


def test_a_video_in_another_class_folder_is_not_embedded_again(root: Path, tmp_path: Path, weights: Path) -> None:
    cache = tmp_path / "cache"
    extract(root, cache, weights)
    (root / "run").mkdir()
    (root / "hop" / "02.avi").rename(root / "run" / "02.avi")
    assert extract(root, cache, weights) == {"embedded": 0, "cached": 3, "reused": 1, "failed": 0}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--num-frames", 4), "clip.num_frames is 4 here and 2 there"),
        (("--size", 48), "clip.size is 48 here and 32 there"),
        (("--num-clips", 2), "clip.clips is 2 here and 1 there"),
        (("--frame-pool", "mean"), 'outputs.frame_pool is "mean" here and "cls" there'),
        (("--save-layers", "1"), "outputs.layers is [1] here and [] there"),
        (("--on-corrupt", "skip"), "decoder is"),
        (("--precision", "bf16"), 'precision is "bf16" here and "fp32" there'),
    ],
)
def test_changed_settings_are_named_with_both_values(
    root: Path, tmp_path: Path, weights: Path, option: tuple[str, Any], message: str
) -> None:
    cache = tmp_path / "cache"
    extract(root, cache, weights)
    assert message in run(root, cache, "--weights", weights, *option, "--dry-run").output
    assert len(find_stores(cache)) == 1, "a dry run writes nothing"


def test_store_under_another_keys_name_is_refused(root: Path, tmp_path: Path, weights: Path) -> None:
    cache = tmp_path / "cache"
    extract(root, cache, weights)
    taken = Path(
        json.loads(run(root, cache, "--weights", weights, "--num-frames", 4, "--dry-run", "--json").stdout)["outcomes"][
            0
        ]["store"]
    )
    store_in(cache).folder.rename(taken)
    with pytest.raises(
        ActionVitError, match=r"another key: clip\.num_frames is 2 in the store and 4 requested"
    ) as caught:
        raise run(root, cache, "--weights", weights, "--num-frames", 4).exception or AssertionError
    assert "\n" not in str(caught.value)


def test_key_is_readable_and_holds_digests(root: Path, tmp_path: Path, weights: Path) -> None:
    cache = tmp_path / "cache"
    extract(root, cache, weights)
    store = store_in(cache)
    assert store.folder == cache / "clips" / f"base-{store.key.digest[:10]}"
    text = (store.folder / "key.json").read_text(encoding="utf-8")
    key = json.loads(text)["key"]
    assert text.count("\n") > 30 and FeatureKey.from_dict(key) == store.key
    assert set(key) == {"weights", "model", "clip", "preprocessing", "decoder", "precision", "outputs", "schema"}
    assert key["weights"] == content_digest(weights / "model.safetensors")
    assert not re.search(r"[/.]weights|transformers|torch", json.dumps(key)), "no name, no place, no version"
    for row in store.records(store.ids):
        assert row.digest == content_digest(root / row.id)


def test_a_dry_run_writes_nothing_and_counts_right(root: Path, tmp_path: Path, weights: Path) -> None:
    cache = tmp_path / "cache"
    result = json.loads(run(root, cache, "--weights", weights, "--dry-run", "--json").stdout)["outcomes"][0]
    assert (result["pending"], result["rows"]) == (4, 0) and not cache.exists()
    extract(root, cache, weights)
    draw(root, 5)
    before = {path: path.stat().st_mtime_ns for path in sorted(cache.rglob("*"))}
    result = json.loads(run(root, cache, "--weights", weights, "--dry-run", "--json").stdout)["outcomes"][0]
    assert (result["pending"], result["rows"]) == (1, 4)
    assert {path: path.stat().st_mtime_ns for path in sorted(cache.rglob("*"))} == before


def test_frames_that_change_places_make_another_video(tmp_path: Path, weights: Path) -> None:
    from PIL import Image

    folder, random = tmp_path / "frames" / "hop" / "one", np.random.RandomState(0)
    folder.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(random.randint(0, 256, (48, 64, 3)).astype(np.uint8)).save(folder / f"{number}.bmp")
        os.utime(folder / f"{number}.bmp", ns=(1, 1))
    extract(tmp_path / "frames", tmp_path / "cache", weights)
    for old, new in ((0, "x"), (3, 0), ("x", 3)):  # the same names, sizes and times
        (folder / f"{old}.bmp").rename(folder / f"{new}.bmp")
    assert extract(tmp_path / "frames", tmp_path / "cache", weights)["embedded"] == 1


def test_real_clips_are_left_alone_when_nothing_changed(real_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "few"
    for label in ("clap", "walk"):
        (root / label).mkdir(parents=True)
        for path in sorted((real_data / "jhmdb21" / label).glob("*.avi"))[:2]:
            (root / label / path.name).symlink_to(path)
    command = [
        "extract",
        str(root),
        "--cache",
        str(tmp_path / "cache"),
        "--variant",
        "tiny",
        "--workers",
        "0",
        "--json",
    ]
    assert outcome(CliRunner().invoke(cli, command))["embedded"] == 4
    assert outcome(CliRunner().invoke(cli, command)) == NOTHING
    store = FeatureStore.open(store_in(tmp_path / "cache").folder)
    assert all(row.digest == content_digest(root / row.id) for row in store.records(store.ids))


def test_datasets_of_one_name_are_not_one(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = draw(tmp_path / "a" / "clips", 3), draw(tmp_path / "b" / "clips", 2)
    write_avi(second / "hop" / "01.avi", np.full((9, 48, 64, 3), 7, np.uint8))
    assert extract_tiny(first, cache).exit_code == 0
    before = rows_of(store_in(cache)), store_in(cache).info
    for more in ((), ("--dry-run",)):
        refused = extract_tiny(second, cache, *more).exception
        assert isinstance(refused, ActionVitError)
        for message in (str(first), "ids of other videos there: 1", "--dataset-name"):
            assert message in str(refused)
    assert (rows_of(store_in(cache)), store_in(cache).info) == before
    named = outcome(extract_tiny(second, cache, "--dataset-name", "other", "--json"))
    assert named == {"embedded": 1, "cached": 0, "reused": 1, "failed": 0}
    write_avi(first / "hop" / "01.avi", np.full((9, 48, 64, 3), 7, np.uint8))
    assert outcome(extract_tiny(first, cache, "--json"))["cached"] == 2, "its own videos may change"
    shutil.move(first, tmp_path / "c")
    write_avi(tmp_path / "c" / "hop" / "02.avi", np.full((9, 48, 64, 3), 8, np.uint8))
    moved = outcome(extract_tiny(tmp_path / "c", cache, "--dataset-name", "clips", "--json"))
    assert moved["embedded"] == 1, "so may those of a dataset that moved"


def test_a_dataset_whose_path_is_no_text_is_one_like_others(tmp_path: Path) -> None:
    root, cache = draw(tmp_path / "n\udcff", 2), tmp_path / "cache"
    command = [*extraction(root, cache), "--workers", "0"]
    strict = environment(PYTHONIOENCODING="utf-8:strict")  # as in most people's locales
    done = subprocess.run(command, env=strict, capture_output=True, check=False)
    assert done.returncode == 0 and b"/n\xff/" in done.stdout, done.stderr
    assert verify_store(store_in(cache).folder) == []
    assert store_in(cache).info["root"] == str(root)
    listed = subprocess.run(
        [sys.executable, "-m", "actionvit", "cache", "ls", "--cache", cache, "--json"],
        env=strict,
        capture_output=True,
        check=True,
    )
    assert json.loads(listed.stdout)[0]["dataset"] == "n\udcff"
    export = ("cache", "export", str(cache), "--output", str(tmp_path / "all.npz"))
    assert CliRunner().invoke(cli, export).exit_code == 0


def test_labels_come_from_the_extracted_list(tmp_path: Path) -> None:
    root, cache = draw(tmp_path / "clips", 2), tmp_path / "cache"
    (root / "chosen.csv").write_text("path,label\nhop/00.avi,jump\nhop/01.avi,leap\n")
    (root / "mine.csv").write_text("path,label\nhop/00.avi,wrong\n")
    assert extract_tiny(root / "chosen.csv", cache, "--dataset-name", "mine").exit_code == 0
    assert dataset_columns(store_in(cache))["label"] == {"hop/00.avi": "jump", "hop/01.avi": "leap"}


def test_dataset_without_common_videos_is_not_merged(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = draw(tmp_path / "a" / "clips", 2), tmp_path / "b" / "clips"
    (second / "hop").mkdir(parents=True)
    write_avi(second / "hop" / "other.avi", np.full((9, 48, 64, 3), 7, np.uint8))
    assert extract_tiny(first, cache).exit_code == 0
    with pytest.raises(ActionVitError, match=r"no video of one is in the other; choose another --dataset-name"):
        raise extract_tiny(second, cache).exception or AssertionError
    assert len(store_in(cache)) == 2
    shutil.copy(first / "hop" / "00.avi", second / "hop" / "renamed.avi")
    assert outcome(extract_tiny(second, cache, "--json")) == {"embedded": 1, "cached": 0, "reused": 1, "failed": 0}
