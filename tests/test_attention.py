"""`actionvit attention` and the small pictures of a report."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import misbehaving_decoders
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from actionvit.cli import cli
from actionvit.features.decoding import decode
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.features.timesformer.rollout import AttentionRollout
from actionvit.features.timesformer.variants import clip_spec
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.reporting.pictures import animation, evenly, faces, overlay, side_by_side, strips


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A clip of 30 frames at 60 × 80, noise that differs from frame to frame."""
    frames = np.random.RandomState(0).randint(0, 256, (30, 60, 80, 3)).astype(np.uint8)
    write_avi(tmp_path / "clip.avi", frames)
    return tmp_path / "clip.avi"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["attention", *(str(each) for each in arguments)])


@pytest.mark.parametrize(("frames", "size", "kind"), [(8, 112, "gif"), (3, 64, "webp"), (24, 32, "gif")])
def test_it_writes_a_strip_and_an_animation(video: Path, tmp_path: Path, frames: int, size: int, kind: str) -> None:
    options = (
        "--variant",
        "tiny",
        "--num-frames",
        frames,
        "--size",
        size,
        "--animate",
        kind,
        "--output",
        tmp_path / "out",
    )
    result = run(video, *options)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.png", f"clip.{kind}"}
    with Image.open(tmp_path / "out" / "clip.png") as png:
        gap = size // 56
        assert png.size == (min(frames, 16) * (size + gap) - gap, 2 * size + gap)
    with Image.open(tmp_path / "out" / f"clip.{kind}") as moving:
        assert moving.n_frames == frames and moving.size == (2 * size, size) and moving.info["loop"] == 0


def test_a_folder_of_frames_is_named_from_inside_as_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (80, 60), (number, 0, 0)).save(folder / f"{number}.jpg")
    monkeypatch.chdir(folder)
    assert run(".", "--variant", "tiny", "--output", "look", "--animate", "none").exit_code == 0
    assert (folder / "look" / "clip.png").is_file() and not list(folder.glob("*.png"))
    (tmp_path / "wave").symlink_to(folder)  # as in repositories that keep large files in an annex
    assert run(tmp_path / "wave", "--variant", "tiny", "--output", "look", "--animate", "none").exit_code == 0
    assert (folder / "look" / "wave.png").is_file()


def test_strip_rows_are_input_frames_and_attention_rollout(video: Path, tmp_path: Path) -> None:
    assert run(video, "--variant", "tiny", "--output", tmp_path, "--animate", "none").exit_code == 0
    spec = clip_spec("tiny")
    seen, shares = AttentionRollout(find_weights("tiny"), spec, device="cpu")(decode(video, [spec]))
    with Image.open(tmp_path / "clip.png") as png:
        rows = np.asarray(png)
    S, gap = spec.size, spec.size // 56
    for top, frames in ((0, seen[0]), (S + gap, overlay(seen[0], shares[0]))):
        for place, frame in enumerate(frames):
            left = place * (S + gap)
            np.testing.assert_array_equal(rows[top : top + S, left : left + S], frame)
    assert (rows[S : S + gap] == 255).all() and (rows[:, S : S + gap] == 255).all()


def test_a_video_that_does_not_decode_costs_itself_alone(video: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.avi"
    bad.write_text("no video")
    result = run(bad, video, "--variant", "tiny", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"{bad}: not_video")
    assert [Path(one["video"]).name for one in json.loads(result.stdout)] == ["clip.avi"]


def test_videos_of_one_name_do_not_overwrite_each_other(video: Path, tmp_path: Path) -> None:
    for folder in ("jump", "run"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.b.avi").write_bytes(video.read_bytes())
    twice = [tmp_path / "jump" / "a.b.avi", tmp_path / "run" / "a.b.avi", tmp_path / "run" / "a.b.avi", video]
    small = ("--variant", "tiny", "--num-frames", 1, "--size", 32, "--animate", "none")
    assert run(*twice, *small, "--output", tmp_path / "out").exit_code == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"jump-a.b.png", "run-a.b-2.png", "run-a.b-3.png", "clip.png"}


def test_bad_size_and_unknown_weights_give_one_line_errors(video: Path, tmp_path: Path) -> None:
    from actionvit.errors import ActionVitError

    for options, message in [
        (("--size", 100), "multiple of the model's patch"),
        (("--weights", "nowhere/"), "no such"),
    ]:
        error = run(video, "--variant", "tiny", "--output", tmp_path / "out", *options).exception
        assert isinstance(error, ActionVitError) and message in str(error) and "\n" not in str(error)
    assert not (tmp_path / "out").exists()


def test_overlay_is_gray_below_median_and_colored_at_top() -> None:
    frames = np.full((2, 32, 32, 3), (200, 120, 40), np.uint8)
    shares = np.zeros((2, 2, 2), np.float32)
    shares[1, 0, 0] = 1
    shown = overlay(frames, shares).astype(int)
    grey = 0.85 * (0.299 * 200 + 0.587 * 120 + 0.114 * 40)
    assert abs(shown[0] - grey).max() <= 0.51, "nothing is attended in the first frame"
    red, _, blue = shown[1, 0, 0]
    assert red > blue + 40 and abs(shown[1, -1, -1] - grey).max() <= 0.51


def test_places_are_even_and_all_where_there_are_few() -> None:
    assert evenly(3, 6).tolist() == [0, 1, 2]
    assert evenly(8, 4).tolist() == [1, 3, 5, 7]
    assert evenly(96, 16).tolist() == list(range(3, 96, 6))


def test_strips_respect_limit_and_skip_undecodable_videos(video: Path, tmp_path: Path, caplog) -> None:
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / "text.avi").write_text("no video")
    paths = {name: tmp_path / f"{name}.avi" for name in ("gone", "pipe", "text")} | dict.fromkeys("abc", video)
    alone = len(strips({"a": video})["a"].frames)
    found = strips(paths, limit=2 * alone + 10)
    assert list(found) == ["a", "b"]
    for name, reason in (
        ("gone", "not a video file or frame folder"),
        ("pipe", "not a video file or frame folder"),
        ("text", "not_video"),
    ):
        assert f"no picture of {name}: {reason}" in caplog.text
    assert "c and later clips have none" in caplog.text
    with Image.open(io.BytesIO(found["a"].frames)) as image:
        assert image.size == (6 * round(80 * 112 / 60) + 5 * 2, 112)
    assert faces({"gone": paths["gone"], "a": video})["a"].shape == (44, round(80 * 44 / 60), 3)


def test_with_attention_a_strip_shows_the_encoders_own_frames(video: Path) -> None:
    spec = clip_spec("tiny")
    encoder = AttentionRollout(find_weights("tiny"), spec, device="cpu")
    found = strips({"a": video}, encoder=encoder)["a"]
    seen, shares = encoder(decode(video, [spec]))
    at = evenly(8, 6)
    for data, expected in [(found.frames, seen[0][at]), (found.attention, overlay(seen[0], shares[0])[at])]:
        with Image.open(io.BytesIO(data)) as image:
            difference = np.asarray(image).astype(int) - side_by_side(expected).astype(int)
        assert np.sqrt((difference**2).mean()) < 30, "JPEG of noise"


def test_an_animation_shows_each_picture_once() -> None:
    pictures = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (0, 100, 200)])
    with Image.open(io.BytesIO(animation(pictures, "webp"))) as moving:
        levels = []
        for number in range(moving.n_frames):
            moving.seek(number)
            levels.append(float(np.asarray(moving.convert("RGB")).mean()))
    assert levels == pytest.approx([0, 100, 200], abs=3)


def test_a_video_that_kills_its_decoder_fails_alone(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehaving_decoders.install(monkeypatch)
    (bad := tmp_path / "segfaults.avi").write_bytes(video.read_bytes())
    os.mkfifo(pipe := tmp_path / "pipe.avi")
    result = run(bad, pipe, video, "--variant", "tiny", "--output", tmp_path / "out", "--json", "--animate", "none")
    assert result.exit_code == 3
    assert f"{bad}: crashed: " in result.stderr and f"{pipe}: not_video: not a regular file" in result.stderr
    assert [Path(entry["video"]).name for entry in json.loads(result.stdout)] == ["clip.avi"]
