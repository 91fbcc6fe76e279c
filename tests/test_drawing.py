"""Drawn clips: deterministic, true to their class, and a dataset as HMDB51 would be."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.names import parse_metadata, stem
from actionvit.pipeline.datasets.splits import leaking_sources
from actionvit.pipeline.datasets.synthetic.dataset import draw_dataset, plan_clips, write_avi
from actionvit.pipeline.datasets.synthetic.motions import MOTIONS, draw_clip, draw_scene

OPPOSITES = [("move_left", "move_right"), ("fall", "rise"), ("shrink", "grow"), ("vanish", "appear")]


def draw(motion: str, seed: int = 0, **options) -> np.ndarray:
    options = {"frames": 12, "size": 96, "noise": 0} | options
    return draw_clip(motion, np.random.RandomState(seed), **options)


def shape_mask(clip: np.ndarray) -> np.ndarray:
    """Where a frame differs from the clip's median picture, (T, H, W)."""
    return np.abs(clip.astype(int) - np.median(clip, axis=0)).sum(axis=-1) > 60


@pytest.mark.parametrize("motion", MOTIONS)
def test_same_state_same_pixels(motion):
    options = {"frames": 5, "size": (40, 60), "camera_motion": 0.1, "noise": 8}
    clip = draw(motion, 1, **options)
    assert (clip.shape, clip.dtype) == ((5, 40, 60, 3), np.uint8)
    np.testing.assert_array_equal(clip, draw(motion, 1, **options))
    assert not np.array_equal(clip, draw(motion, 2, **options))
    assert draw(motion, 1, frames=1).shape == (1, 96, 96, 3)


@pytest.mark.parametrize(("backward", "forward"), OPPOSITES)
def test_opposites_are_each_other_backwards(backward, forward):
    """The same pictures in the opposite order: no single frame distinguishes the two."""
    for seed in range(3):
        # Straight tracks are mirrored in time exactly when nothing bends them.
        state = np.random.RandomState(seed)
        scene = draw_scene(state)
        first = draw_clip(forward, np.random.RandomState(seed), frames=9, size=64, noise=0, scene=scene)
        second = draw_clip(backward, np.random.RandomState(seed), frames=9, size=64, noise=0, scene=scene)
        np.testing.assert_array_equal(first[0], second[-1])
        assert np.abs(first.astype(int) - second[::-1]).mean() < 6
        assert np.abs(first.astype(int) - second).mean() > np.abs(first.astype(int) - second[::-1]).mean()


def centre(clip: np.ndarray, frame: int) -> np.ndarray:
    return np.argwhere(shape_mask(clip)[frame]).mean(axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_motions_are_what_they_are_called(seed):
    for motion, axis, sign in (("move_right", 1, 1), ("move_left", 1, -1), ("fall", 0, 1), ("rise", 0, -1)):
        clip = draw(motion, seed)
        assert sign * (centre(clip, -1) - centre(clip, 0))[axis] > 25, motion
    plain = draw_scene(np.random.RandomState(seed))
    area = [
        shape_mask(np.stack([*[background(plain, seed)] * 3, frame]))[-1].sum()
        for frame in draw_in(plain, "grow", seed)
    ]
    assert area[-1] > 2.5 * area[0]


def background(scene, seed: int) -> np.ndarray:
    """The scene with nothing in it: a clip that has not appeared yet."""
    return draw_in(scene, "appear", seed)[0]


def draw_in(scene, motion: str, seed: int) -> np.ndarray:
    return draw_clip(motion, np.random.RandomState(seed), frames=12, size=96, noise=0, scene=scene)


def test_turning_clockwise_moves_the_top_to_the_right():
    from dataclasses import replace

    # A bar that turns: its upper end leans to the right a moment later, seen from the start of a quarter turn.
    right = 0
    for seed in range(12):
        scene = replace(draw_scene(np.random.RandomState(seed)), shape="box", stripes=0.0)
        clip = draw_in(scene, "turn_clockwise", seed)
        empty = background(scene, seed)
        tilt = []
        for frame in clip[:4]:
            spots = np.argwhere(np.abs(frame.astype(int) - empty).sum(axis=-1) > 60)
            y, x = (spots - spots.mean(axis=0)).T
            tilt.append(0.5 * np.arctan2(2 * (x * y).mean(), (x * x).mean() - (y * y).mean()))
        step = (np.diff(tilt) + np.pi / 2) % np.pi - np.pi / 2  # y points down: a growing angle is clockwise
        right += bool(step.mean() > 0)
    assert right == 12


def test_noise_and_camera_do_what_they_say():
    still, noisy = draw("blink", 3), draw("blink", 3, noise=10)
    assert np.abs(still.astype(int) - noisy).max() <= 10
    panned = draw("blink", 3, camera_motion=0.1)
    assert np.abs(panned[0].astype(int) - panned[-1]).mean() > 2 * np.abs(still[0].astype(int) - still[-1]).mean()
    for wrong in ({"noise": 16}, {"noise": -1}):
        with pytest.raises(ValueError, match="noise"):
            draw("blink", **wrong)
    with pytest.raises(ValueError, match="expected one of move_right"):
        draw("dance")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "set"
    assert draw_dataset(root) == len(plan_clips())
    return root


def test_the_dataset_looks_like_hmdb51(drawn):
    data = load_dataset(drawn)
    counts = Counter(video.label for video in data.videos)
    assert (data.format, data.sources_known) == ("hmdb51", True)
    assert set(data.class_names) == set(MOTIONS) and 110 <= len(data.videos) <= 150
    assert max(counts.values()) >= 3 * min(counts.values()) and min(counts.values()) >= 5
    assert [note for note in data.notes if "read from" not in note] == []
    assert {parse_metadata(stem(video.id)).camera_motion for video in data.videos} == {"camera moves", "camera still"}
    assert {parse_metadata(stem(video.id)).quality for video in data.videos} == {"good", "medium", "bad"}
    per_source = Counter(video.source for video in data.videos)
    assert max(per_source.values()) > 2 and len(per_source) > 40


def test_its_lists_are_as_the_official_ones(drawn):
    data = load_dataset(drawn)
    assert [split.name for split in data.official] == ["official-1", "official-2", "official-3"]
    label = {video.id: video.label for video in data.videos}
    for split in data.official:
        assert leaking_sources(data, split, within_class=False) == ()
        assert {label[id] for id in split.train} == {label[id] for id in split.test} == set(MOTIONS)
        assert 0.25 < len(split.test) / (len(split.train) + len(split.test)) < 0.4
        assert len(split.train) + len(split.test) < len(data.videos)  # some are unused, as in HMDB51
    assert len({split.test for split in data.official}) == 3


def test_its_files_are_mpeg4_and_hold_what_was_drawn(drawn):
    for clip in plan_clips()[::40]:
        pixels = clip.draw()
        with av.open(str(drawn / clip.motion / clip.name)) as container:
            stream = container.streams.video[0]
            assert (container.format.name, stream.codec_context.name) == ("avi", "mpeg4")
            assert stream.codec_context.codec_tag == "FMP4"
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        assert decoded.shape == pixels.shape and 24 <= len(decoded) <= 48
        assert np.abs(decoded.astype(int) - pixels).mean() < 12


def test_second_draw_keeps_clips_and_adds_missing_ones(drawn):
    files = sorted(drawn.glob("*/*.avi"))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    assert draw_dataset(drawn) == 0
    files[7].unlink()
    assert draw_dataset(drawn) == 1
    assert files[7].read_bytes() == before[files[7]][1]
    assert {file: file.stat().st_mtime_ns for file in files if file != files[7]} == {
        file: before[file][0] for file in files if file != files[7]
    }
    assert not list(drawn.glob("*/.*"))


def test_another_folder_is_left_alone(drawn, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ActionVitError, match="holds other files"):
        draw_dataset(tmp_path)
    with pytest.raises(ActionVitError, match="is a file"):
        draw_dataset(tmp_path / "mine.txt")
    with pytest.raises(ActionVitError, match="drawn otherwise"):
        draw_dataset(drawn, seed=1)
    (tmp_path / "mine.txt").unlink()
    (tmp_path / "drawn.json").write_text(json.dumps([1]))
    with pytest.raises(ActionVitError, match="drawn otherwise"):
        draw_dataset(tmp_path)


def test_another_seed_draws_other_clips():
    assert [clip.name for clip in plan_clips(seed=0)] == [clip.name for clip in plan_clips(seed=0)]
    assert [clip.name for clip in plan_clips(seed=0)] != [clip.name for clip in plan_clips(seed=1)]
    assert not np.array_equal(plan_clips(seed=0)[0].draw()[0], plan_clips(seed=1)[0].draw()[0])


def test_partially_written_clip_is_drawn_again(sixty, tmp_path, monkeypatch):
    def fail(file, clip):
        file.write_bytes(b"RIFF")
        raise KeyboardInterrupt

    root = Path(shutil.copytree(sixty, tmp_path / "set"))
    next(root.glob("*/*.avi")).unlink()
    monkeypatch.setattr("actionvit.pipeline.datasets.synthetic.dataset.write_avi", fail)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(root, clips=60)
    monkeypatch.setattr("actionvit.pipeline.datasets.synthetic.dataset.write_avi", write_avi)
    assert draw_dataset(root, clips=60) == 1
    assert len(load_dataset(root).videos) == len(plan_clips(clips=60))
