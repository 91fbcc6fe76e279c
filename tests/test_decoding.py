"""Frames against PyAV decoding everything in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from actionvit.features.clips import ClipSpec, clip_indices
from actionvit.features.decoding.decode import DecodePolicy, decode
from actionvit.features.decoding.frames import DecodeError
from actionvit.features.decoding.workers import Decoded, DecodeRequest, Failure, decode_stream

SPECS = (ClipSpec(num_frames=8, size=224), ClipSpec(num_frames=16, size=448, clips=2))


def write_video(path: Path, *, frames: int = 20, codec: str = "mpeg4", b_frames: int = 0) -> Path:
    random = np.random.RandomState(frames)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.gop_size = 6
        for number in range(frames):
            image = np.full((64, 96, 3), number * 10 % 256, np.uint8)
            image[:, : 3 * number % 96] = random.randint(0, 255, 3)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def oracle(path: Path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))]


def assert_exact(path: Path, policy: DecodePolicy = DecodePolicy()) -> None:
    expected, found = oracle(path), decode(path, SPECS, policy)
    assert found.count == len(expected)
    wanted = np.unique(np.concatenate([clip_indices(len(expected), spec).ravel() for spec in SPECS]))
    np.testing.assert_array_equal(found.index, wanted)
    for place, image in zip(found.index, found.data, strict=True):
        np.testing.assert_array_equal(image, expected[place])


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
@pytest.mark.parametrize(
    ("suffix", "codec", "b_frames"),
    [(".avi", "mpeg4", 0), (".avi", "mpeg4", 2), (".mp4", "mpeg4", 2), (".mp4", "libx264", 3), (".mkv", "libx264", 2)],
)
def test_sampled_frames_are_those_of_the_whole_file(
    tmp_path: Path, suffix: str, codec: str, b_frames: int, backend: str
) -> None:
    path = write_video(tmp_path / f"a{suffix}", codec=codec, b_frames=b_frames)
    assert_exact(path, DecodePolicy(backend=backend))  # type: ignore[arg-type]


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    assert_exact(write_video(tmp_path / "one.avi", frames=1))


def test_real_clips_are_exact(real_data: Path) -> None:
    for path in sorted((real_data / "jhmdb21").rglob("*.avi"))[::13]:
        assert_exact(path)
        assert_exact(path, DecodePolicy(backend="decord"))


@pytest.mark.slow
def test_all_real_clips_are_exact(real_data: Path) -> None:
    for path in sorted((real_data / "jhmdb21").rglob("*.avi")):
        assert_exact(path)


def test_fixtures_are_exact_or_refused(real_data: Path) -> None:
    turned = {"video_90.mov", "video_180.mov", "video_270.mov"}
    for path in sorted((real_data / "fixtures").rglob("*.*")):
        if path.name == "corrupted.mp4":
            with pytest.raises(DecodeError, match="corrupt"):
                decode(path, SPECS)
        elif path.name not in turned:
            assert_exact(path)
            assert_exact(path, DecodePolicy(backend="decord"))


def test_rotated_videos_stand_upright(real_data: Path) -> None:
    for degrees in (90, 180, 270):
        path = real_data / "fixtures" / "decord" / f"video_{degrees}.mov"
        with av.open(path) as container:
            frame = next(container.decode(video=0))
        # PyAV tells the counterclockwise turn that a player makes.
        expected = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        np.testing.assert_array_equal(decode(path, SPECS).data[0], expected)


def test_frame_folders_are_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.new("RGB", (8, 6), (number * 20, 0, 0)).save(tmp_path / f"img_{number}.png")
    found = decode(tmp_path, [ClipSpec(num_frames=3, size=8)])
    assert [int(image[0, 0, 0]) for image in found.data] == [20, 40, 200]
    assert found.backend == "folder"


def test_a_broken_image_costs_its_folder_alone(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:100])
    with pytest.raises(DecodeError, match="corrupt"):
        decode(tmp_path, [ClipSpec(num_frames=2, size=8)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"hello", "not_video"), (None, "missing"), (b"RIFF\0\0\0\1AVI ", "truncated")],
)
def test_what_is_no_video_is_refused_with_a_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        decode(path, SPECS)
    assert caught.value.reason == reason


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_answers_in_order_and_survives_bad_videos(tmp_path: Path, workers: int) -> None:
    good = [write_video(tmp_path / f"{n}.avi", frames=10 + n) for n in range(5)]
    (tmp_path / "bad.avi").write_bytes(b"nothing")
    paths = [*good[:2], tmp_path / "bad.avi", *good[2:]]
    requests = [DecodeRequest(path.name, path, SPECS[:1]) for path in paths]
    found = list(decode_stream(requests, workers=workers))
    assert [item.id for item in found] == [path.name for path in paths]
    assert [isinstance(item, Failure) for item in found] == [False, False, True, False, False, False]
    for item in found:
        if isinstance(item, Decoded):
            np.testing.assert_array_equal(item.frames.data, decode(tmp_path / item.id, SPECS[:1]).data)


def test_a_decoder_that_hangs_costs_one_video(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.mkdir()
    os.mkfifo(hang / "1.png")  # opening it waits for a writer that never comes
    good = write_video(tmp_path / "good.avi")
    requests = [DecodeRequest(path.name, path, SPECS[:1]) for path in (good, hang, good)]
    began = time.monotonic()
    found = list(decode_stream(requests, workers=1, timeout=2.0))
    assert [item.reason if isinstance(item, Failure) else "" for item in found] == ["", "timeout", ""]
    assert time.monotonic() - began < 30


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi")
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\n"
        "from actionvit.features.clips import ClipSpec\n"
        "from actionvit.features.decoding.workers import DecodeRequest, decode_stream\n"
        "if __name__ == '__main__':\n"
        "    request = DecodeRequest('a', Path(sys.argv[1]), (ClipSpec(num_frames=2, size=8),))\n"
        "    stream = decode_stream([request] * 50, workers=6)  # some are still starting\n"
        "    next(stream)\n    print('decoding', flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path / "a.avi"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"decoding\n"
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if _runs(child)]


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
