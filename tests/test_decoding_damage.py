"""Broken videos: a reason from the closed list, or frames that are truly in the file; never a crash, never a hang."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
from broken_videos import impostors, mutants
from video_corpus import Film, Image

from actionvit.features.decoding import DecodeError, DecodePolicy, DecodeRequest, decode, decode_stream
from actionvit.features.decoding.convert import upright
from actionvit.features.decoding.damage import DecodedFrame, affected_frames, damaged_packets
from actionvit.features.failures import Failure, Reason
from actionvit.features.sampling import ClipSpec

SPECS = (ClipSpec(num_frames=8, size=224),)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def all_that_decodes(path: Path) -> tuple[list[Image], bool]:
    """Decode in order all that PyAV can; return the pictures, and whether it reported damage."""
    images: list[Image] = []
    damage = False
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            packets = []
            try:
                packets.extend(container.demux(stream))
            except av.FFmpegError:
                damage = True
            for packet in [*(packet for packet in packets if packet.size), None]:
                try:
                    for frame in stream.codec_context.decode(packet):
                        damage = damage or frame.is_corrupt
                        matrix = frame.side_data.get("DISPLAYMATRIX")  # which a flipped bit may change, too
                        turn = None if matrix is None else np.frombuffer(matrix, np.int32)
                        images.append(upright(frame.to_ndarray(format="rgb24"), turn))
                except av.FFmpegError:
                    damage = True
    except (av.FFmpegError, ValueError):
        damage = True
    return images, damage


def judge(paths: Iterable[Path]) -> collections.Counter[str]:
    """Decode broken videos in workers; check each result as far as possible, and count the outcomes."""
    found: collections.Counter[str] = collections.Counter()
    requests = [DecodeRequest(path.name, path, SPECS) for path in paths]
    for request, item in zip(requests, decode_stream(requests, workers=2, timeout=30), strict=True):
        assert item.id == request.id
        if isinstance(item, Failure):
            assert item.reason in get_args(Reason) and item.detail and "\n" not in item.detail, item
            # Only native libraries may kill a worker or raise unexpected errors.
            assert item.reason not in ("timeout", "crashed"), item
            found[item.reason] += 1
            continue
        images, damage = all_that_decodes(request.path)
        frames = item.frames
        assert frames.count == len(images), request.id
        if not request.id.endswith("vp8.webm"):  # of broken files FFmpeg may show uninitialized memory
            np.testing.assert_array_equal(frames.data, np.stack([images[at] for at in frames.index]), request.id)
        found["flagged" if frames.flags else "damage elsewhere" if damage else "unseen"] += 1
    return found


def test_broken_videos_fail_alone(corpus: Path, tmp_path: Path) -> None:
    found = judge(mutants(corpus, tmp_path, 150))
    assert found.total() == 150 and found["flagged"] > 10 and found["corrupt"] > 10 and found["truncated"] > 10


@pytest.mark.slow
def test_a_thousand_broken_videos_fail_alone(corpus: Path, tmp_path: Path) -> None:
    """The environment variable `ACTIONVIT_TEST_MUTANTS` sets another number of copies."""
    count = int(os.environ.get("ACTIONVIT_TEST_MUTANTS", "1000"))
    found = judge(mutants(corpus, tmp_path, count, seed=1))
    print(json.dumps(found))
    assert found.total() == count


def gop(*times: int, entries: tuple[int, ...] = (0,), corrupt: tuple[int, ...] = ()) -> list[DecodedFrame]:
    """Return decoder output: frames shown at these times, in order."""
    return [DecodedFrame(time, time in entries, time in corrupt) for time in sorted(times)]


def test_damage_spreads_in_decoding_order_up_to_the_next_entry() -> None:
    times = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]  # I P B B P B B I B B, the last two leading
    shown = gop(*times, entries=(0, 9))
    assert affected_frames(times, shown, set()) == set()
    assert affected_frames(times, shown, {4}) == {
        4,
        5,
        6,
        7,
        8,
    }  # the P shown at 6, what refers to it, what leads the next I
    assert affected_frames(times, shown, {8}) == {7, 8}
    assert affected_frames(times, shown, {0}) == set(range(9))
    assert affected_frames([0, None, 2], [DecodedFrame(None, True, False)] * 3, {1}) == {0, 1, 2}  # ambiguous


def test_what_is_bad_is_found_from_errors_marks_and_losses() -> None:
    times = [0, 3, 1, 2, 4]
    whole, none = gop(*times), ()
    assert damaged_packets(times, whole, failed=none, one_frame_each=range(5), exact=True) == set()
    assert damaged_packets(times, gop(*times, corrupt=(3,)), failed=none, one_frame_each=none, exact=True) == {1}
    assert damaged_packets(times, gop(0, 1, 2, 4), failed=none, one_frame_each=range(5), exact=True) == {1}
    assert damaged_packets(times, gop(0, 1, 2, 4), failed=none, one_frame_each=none, exact=True) == set()
    assert damaged_packets(times, whole, failed={3}, one_frame_each=none, exact=True) == {3}
    assert damaged_packets(times, whole, failed={3}, one_frame_each=none, exact=False) == {0, 1, 2, 3}


def test_damaged_video_with_intact_samples_is_flagged(tmp_path: Path) -> None:
    path = Film(name="h264.mp4", codec="libx264", gop=10).write(tmp_path)
    images, _ = all_that_decodes(path)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    at, size = packets[27]
    data[at + 4 : at + size] = bytes(size - 4)  # near the end of the last GOP
    path.write_bytes(data)
    two = ClipSpec(num_frames=2, size=224)
    found = decode(path, [two])
    assert (found.flags, found.count) == (("corrupt",), 30 - 1)
    np.testing.assert_array_equal(found.data, np.stack([images[at] for at in found.index]))
    with pytest.raises(DecodeError) as caught:
        decode(path, [two], DecodePolicy(on_corrupt="skip"))
    assert caught.value.reason == "corrupt"
    with pytest.raises(DecodeError, match="sampled frames are damaged"):
        decode(path, [ClipSpec(num_frames=30, size=224)])


def test_a_video_cut_short_is_flagged_and_gives_what_is_left(tmp_path: Path) -> None:
    path = Film(name="plain.avi").write(tmp_path)
    images, _ = all_that_decodes(path)
    data = path.read_bytes()
    path.write_bytes(data[: -len(data) // 8])
    found = decode(path, SPECS)
    assert "truncated" in found.flags and 8 < found.count < 30
    np.testing.assert_array_equal(found.data, np.stack([images[at] for at in found.index]))
    path.write_bytes(data[:8000])  # in the midst of the first frame
    with pytest.raises(DecodeError) as caught:
        decode(path, SPECS)
    assert (caught.value.reason, caught.value.frames_decoded) == ("truncated", 1)


def test_impostors_are_seen_through(corpus: Path, tmp_path: Path) -> None:
    expected = dict(impostors(corpus, tmp_path))
    requests = [DecodeRequest(path.name, path, SPECS) for path in expected]
    found = {}
    for item in decode_stream(requests, workers=1, timeout=30):
        found[tmp_path / item.id] = item.reason if isinstance(item, Failure) else ""
    assert found == expected
