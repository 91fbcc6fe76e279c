"""Segments of videos as rows of their own, from a list or from `data windows`, through extraction and probing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dataset_trees import CLASSES, put_frames, write

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.decoding.policy import DecodePolicy
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest
from actionvit.features.decoding.pool.supervisor import decode_stream
from actionvit.features.sampling import ClipSpec, Segment
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.loading import reload
from actionvit.pipeline.datasets.synthetic.dataset import RATE, write_avi
from actionvit.pipeline.datasets.synthetic.motions import draw_clip
from actionvit.pipeline.datasets.windows import windows

SMALL = ("--variant", "tiny", "--num-frames", 2, "--size", 32, "--workers", 0)


def run(*arguments: object):
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory) -> Path:
    """Two videos of four seconds per class."""
    root = tmp_path_factory.mktemp("long") / "videos"
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in range(2):
            clip = draw_clip(label, np.random.RandomState(number), frames=4 * RATE, size=48)
            write_avi(root / label / f"{number}.avi", clip)
    return root


def test_rows_of_segments(long_videos):
    lines = ["path,label,start,end", "grow/0.avi,a,0,1.5", "grow/0.avi,b,1.5,4", "grow/1.avi,a,,"]
    dataset = load_dataset(write(long_videos / "segments.csv", lines))
    assert [(video.id, video.label, video.source) for video in dataset.videos] == [
        ("grow/0.avi@0-1.5", "a", "grow/0.avi"),
        ("grow/0.avi@1.5-4", "b", "grow/0.avi"),
        ("grow/1.avi", "a", "grow/1.avi"),
    ]
    assert dataset.segments["grow/0.avi@1.5-4"] == Segment(1.5, 4.0)
    again = reload({"dataset": dataset.name, **dataset.record})
    assert again.segments == dataset.segments


def test_segments_in_frames_have_ids_of_their_own(long_videos):
    lines = ["path,label,start_frame,end_frame", "grow/0.avi,a,0,30", "grow/0.avi,b,30,60"]
    dataset = load_dataset(write(long_videos / "frames.csv", lines))
    assert [video.id for video in dataset.videos] == ["grow/0.avi@0-30f", "grow/0.avi@30-60f"]
    assert dataset.segments["grow/0.avi@0-30f"] == Segment(0, 30, "frames")


@pytest.mark.parametrize("times", ["2,1", "1,1", "a,b", "1,", ",1", "-1,2", "nan,1", "0,inf"])
def test_impossible_times_are_refused(long_videos, times):
    file = write(long_videos / "bad.csv", ["path,label,start,end", f"grow/0.avi,a,{times}"])
    with pytest.raises(ActionVitError, match=r"line 2: start .*expected two numbers of seconds, the first smaller"):
        load_dataset(file)


def test_repeated_segment_is_refused(long_videos):
    lines = ["path,label,start,end", "grow/0.avi,a,0,1", "grow/0.avi,a,0.0,1.0"]
    with pytest.raises(ActionVitError, match="is already in line 2"):
        load_dataset(write(long_videos / "twice.csv", lines))


def test_windows_lie_inside_the_video():
    assert list(windows(4.0, 2.56, 0.64)) == [(0, 2.56), (0.64, 3.2), (1.28, 3.84)]
    assert list(windows(2.56, 2.56, 0.64)) == [(0, 2.56)]
    assert list(windows(1.0, 2.56, 0.64)) == [(0, 2.56)]
    assert len(list(windows(3600.0, 2.56, 0.64))) == 5622


def test_windows_are_written_extracted_and_probed(long_videos, tmp_path):
    file = tmp_path / "windows.csv"
    done = run("data", "windows", long_videos, "--length", 1.28, "--stride", 0.64, "-o", file, "--workers", 0)
    assert done.exit_code == 0, done.output
    assert "20 windows of 4 videos" in done.stdout
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["start"], row["end"]) for row in rows[:5]] == [
        ("0", "1.28"),
        ("0.64", "1.92"),
        ("1.28", "2.56"),
        ("1.92", "3.2"),
        ("2.56", "3.84"),
    ]
    where = ("--cache", tmp_path / "cache")
    assert run("extract", file, *SMALL, *where).exit_code == 0
    again = run("extract", file, *SMALL, *where)
    assert again.exit_code == 0
    store = FeatureStore.open(next((tmp_path / "cache").glob("*/*/key.json")).parent)
    dataset = load_dataset(file)
    assert len(store) == 20 and set(store.ids) == {video.id for video in dataset.videos}
    assert run("cache", "export", store.folder, "-o", tmp_path / "windows.npz").exit_code == 0
    with np.load(tmp_path / "windows.npz", allow_pickle=False) as exported:
        written = {(row["path"], row["start"], row["end"]) for row in rows}
        paths = [id.rpartition("@")[0] for id in exported["id"].tolist()]
        assert set(zip(paths, exported["start"].tolist(), exported["end"].tolist(), strict=True)) == written
    probe = ("--variant", "tiny", *where, "--runs", tmp_path / "runs", "--folds", 2, "--json")
    done = run("probe", file, *probe)
    assert done.exit_code == 0, done.output
    [record] = (tmp_path / "runs").rglob("run.json")
    assert json.loads(record.read_text())["protocol"] == "grouped"


def test_rows_of_segments_equal_those_of_frames_decoded_whole(long_videos, tmp_path):
    """A segment's row is computed from the same frames as after decoding all of the video and cutting."""
    path, spec = long_videos / "grow" / "0.avi", ClipSpec(num_frames=4, size=32)
    whole = ClipSpec(num_frames=4 * RATE, size=32)
    [everything] = decode_stream([DecodeRequest("all", path, (whole,))], policy=DecodePolicy(), workers=0, timeout=60)
    assert isinstance(everything, Decoded)
    segments = [Segment(0.5, 2.0), Segment(1.0, 4.0), Segment(15, 60, "frames")]
    requests = [DecodeRequest(str(segment), path, (spec,), segment) for segment in segments]
    parts = list(decode_stream(requests, policy=DecodePolicy(), workers=0, timeout=60))
    for segment, part in zip(segments, parts, strict=True):
        assert isinstance(part, Decoded)
        first = round(segment.start * (RATE if segment.unit == "seconds" else 1))
        np.testing.assert_array_equal(part.frames.data, everything.frames.data[first + part.frames.index])


def test_renamed_video_keeps_the_rows_of_its_segments(long_videos, tmp_path):
    lines = ["path,label,start,end", *(f"{{}},a,{start},{start + 1}" for start in range(3))]
    (tmp_path / "old.avi").write_bytes((long_videos / "grow" / "0.avi").read_bytes())
    file = write(tmp_path / "list.csv", [line.format("old.avi") for line in lines])
    assert run("extract", file, *SMALL, "--cache", tmp_path / "cache").exit_code == 0
    (tmp_path / "old.avi").rename(tmp_path / "new.avi")
    write(file, [line.format("new.avi") for line in lines])
    done = run("extract", file, *SMALL, "--cache", tmp_path / "cache", "--json")
    assert done.exit_code == 0, done.output
    [outcome] = json.loads(done.stdout)["outcomes"]
    assert outcome["embedded"] == 0, outcome
    store = FeatureStore.open(next((tmp_path / "cache").glob("*/*/key.json")).parent)
    rows = store.read([f"new.avi@{start}-{start + 1}" for start in range(3)], "clip")
    assert len({row.tobytes() for row in rows}) == 3


def test_frame_folders_have_no_windows(tmp_path):
    for label in CLASSES:
        put_frames(tmp_path / "set" / label / "a", 1, label)
    done = run("data", "windows", tmp_path / "set", "--length", 1, "-o", tmp_path / "w.csv", "--workers", 0)
    assert done.exit_code == 1 and "no video has a duration" in str(done.exception)
    assert not (tmp_path / "w.csv").exists()


def test_times_of_windows_are_written_in_full(long_videos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "actionvit.pipeline.datasets.windows._durations",
        lambda dataset, *_: ({video.id: 1001.0 for video in dataset.videos}, []),
    )
    done = run(
        "data", "windows", long_videos, "--length", 0.5, "--stride", 0.125, "-o", tmp_path / "w.csv", "--workers", 0
    )
    assert done.exit_code == 0, done.output
    with (tmp_path / "w.csv").open(newline="") as stream:
        starts = [row["start"] for row in csv.DictReader(stream) if row["path"].endswith("grow/0.avi")]
    assert "1000.125" in starts and len(starts) == len(set(starts))
