"""The recorded speed of an extraction, from the store to the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fake_store import embed, make

from actionvit.cli import cli
from actionvit.features.store.merge import merge_stores
from actionvit.features.store.speed import SPEED, Speed, add_speed, read_speed, timings
from actionvit.features.store.writer import Writer
from actionvit.pipeline.datasets.synthetic.dataset import write_avi


def test_extractions_add_up(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
    add_speed(a, Speed(videos=10, seconds=20.0, device="cpu"))
    add_speed(a, Speed(videos=30, seconds=20.0, device="cuda"))
    add_speed(b, Speed(videos=4, seconds=12.0, device="cpu"))
    assert [one.videos for one in read_speed(a)] == [10, 30]
    assert timings([a], rows=100) == {"clips_per_second": 1.0, "extract": 100.0, "device": "cpu, cuda"}
    assert timings([a, b], rows=10) == {"clips_per_second": 0.25, "extract": 40.0, "device": "cpu, cuda"}


@pytest.mark.parametrize("text", ["", "videos,seconds\n1,2\n", "videos,seconds,device\none,2,cpu\n", "\x00"])
def test_a_record_that_is_gone_or_broken_is_no_record(tmp_path: Path, text: str) -> None:
    assert timings([tmp_path], rows=5) == {}
    (tmp_path / SPEED).write_text(text)
    assert timings([tmp_path], rows=5) == {}


def test_merging_takes_the_record_along(tmp_path: Path) -> None:
    shards = [make(tmp_path / name) for name in ("a", "b")]
    for number, store in enumerate(shards, 1):
        video = tmp_path / f"{number}.avi"
        video.write_bytes(bytes([number]))
        with Writer(store) as writer:
            writer.append(embed(video.name, video))
        add_speed(store.folder, Speed(videos=1, seconds=2.0 * number, device="cuda"))
    merged = merge_stores(shards, tmp_path / "all")
    assert [speed.seconds for speed in read_speed(merged.folder)] == [2.0, 4.0]
    assert timings([merged.folder], rows=2)["extract"] == 6.0


@pytest.mark.timing
def test_a_probe_tells_what_its_embeddings_took(tmp_path: Path) -> None:
    def run(*arguments: object) -> None:
        result = CliRunner().invoke(cli, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output

    clips, cache = tmp_path / "clips", ("--cache", tmp_path / "cache")
    random = np.random.RandomState(0)
    for label in ("hop", "run"):
        (clips / label).mkdir(parents=True)
        for number in range(6):
            write_avi(clips / label / f"{label}{number}.avi", random.randint(0, 256, (6, 32, 32, 3)).astype(np.uint8))
    variants = ("--variant", "tiny", "--variant", "tiny-hr")
    run("extract", clips, *variants, *cache, "--workers", 0, "--num-frames", 2)
    run("extract", clips, *variants, *cache, "--workers", 0, "--num-frames", 2)  # nothing left to do: nothing to note
    run("probe", clips, *variants, *cache, "--runs", tmp_path / "runs", "--folds", 2, "--seeds", 1)
    rates = []
    for variant in ("tiny", "tiny-hr"):
        (speed,) = read_speed(next((tmp_path / "cache" / "clips").glob(f"{variant}-??????????")))
        assert speed.videos == 12
        run_folder = next((tmp_path / "runs").glob(f"{variant}-linear*"))
        timing = json.loads((run_folder / "run.json").read_text())["timings"]
        assert timing["clips_per_second"] == pytest.approx(speed.videos / speed.seconds, abs=0.01)
        assert timing["device"] in ("cpu", "cuda")
        rates.append(timing["clips_per_second"])
    assert rates[1] < rates[0], "four times the pixels"
