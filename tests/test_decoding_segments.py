"""Segments of a video: the frames of a time span, equal to decoding the whole video and cutting it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pictures
from video_corpus import FILMS, Film, Image, claim_more_frames

from actionvit.features.decoding import (
    Decoded,
    DecodeError,
    DecodePolicy,
    DecodeRequest,
    decode,
    decode_stream,
    open_video,
    pyav,
)
from actionvit.features.decoding.pool import task
from actionvit.features.fingerprint import content_digest, segment_digest
from actionvit.features.sampling import ClipSpec, Segment, union_indices

SPEC = ClipSpec(num_frames=4, size=32)
DENSE = ClipSpec(num_frames=3, size=32, sampling="dense", stride=2, clips=2)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def written(film: Film, corpus: Path) -> Path:
    return path if (path := corpus / film.name).exists() else film.write(corpus)


def all_frames(path: Path, film: Film) -> tuple[list[Image], NDArray[np.float64] | None]:
    """Decode all of a video in order; return upright images, and their times after the first if all have one."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.best("video")))
    images = [film.turn(frame.to_ndarray(format="rgb24")) for frame in frames]
    if any(frame.pts is None for frame in frames):
        return images, None
    offsets = [(frame.pts - frames[0].pts) * frame.time_base for frame in frames]
    return images, np.array([float(offset) for offset in offsets])


def assert_cut(path: Path, images: Sequence[Image], times: NDArray[np.float64], segment: Segment) -> None:
    """Decoding a segment gives the sampled frames with start <= time < end."""
    inside = np.flatnonzero((segment.start <= times) & (times < segment.end))
    if not len(inside):
        with pytest.raises(DecodeError, match="no frame from") as caught:
            decode(path, (SPEC, DENSE), segment=segment)
        assert caught.value.reason == "empty"
        return
    frames = decode(path, (SPEC, DENSE), segment=segment)
    assert frames.count == len(inside)
    np.testing.assert_array_equal(frames.index, union_indices(len(inside), (SPEC, DENSE)))
    np.testing.assert_array_equal(frames.data, np.stack([images[inside[i]] for i in frames.index]))
    assert frames.duration is not None and 0 < frames.duration <= times[-1] - times[inside[0]] + 3


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_a_segment_has_the_frames_within_its_times(film: Film, corpus: Path) -> None:
    path = written(film, corpus)
    images, times = all_frames(path, film)
    if times is None or film.name == "packed.avi":  # without times of its own a frame is shown at its packet's time
        times = np.arange(len(images)) / 25
    end = float(times[-1])
    for start, stop in ((0, 0.4), (0.2, 0.52), (0.44, 0.48), (end / 3, end), (end / 2, end + 9), (end + 1, end + 2)):
        assert_cut(path, images, times, Segment(start, max(stop, start + 0.001)))


def test_a_segment_ends_before_its_end(tmp_path: Path) -> None:
    path = Film(name="a.mp4", frames=30).write(tmp_path)
    counts = [decode(path, (SPEC,), segment=Segment(a, b)).count for a, b in ((0, 0.64), (0.64, 1.2), (0, 0.6400001))]
    assert counts == [16, 14, 17]


def test_uneven_frame_times_decide_what_a_segment_holds(tmp_path: Path) -> None:
    times = [0, 1, 2, 30, 31, 60, 61, 62, 63, 100]  # in frames of 1/25 s
    film = Film(name="uneven.mp4", codec="libx264", frames=10, b_frames=2, times=times.__getitem__)
    path = film.write(tmp_path)
    images, seconds = all_frames(path, film)
    assert seconds is not None
    np.testing.assert_allclose(seconds, np.array(times) / 25)
    for segment in (Segment(0, 1.2), Segment(1.2, 2.4), Segment(2.4, 4), Segment(0.1, 1.0), Segment(2.56, 9)):
        assert_cut(path, images, seconds, segment)


def test_segments_in_frames_need_no_times(tmp_path: Path, corpus: Path) -> None:
    for number in range(12):
        Pictures.new("RGB", (8, 6), (number * 20, 0, 0)).save(tmp_path / f"img_{number:05}.png")
    frames = decode(tmp_path, (SPEC,), segment=Segment(4, 8, "frames"))
    assert frames.data[:, 0, 0, 0].tolist() == [80, 100, 120, 140] and frames.count == 4
    assert frames.index.tolist() == [0, 1, 2, 3] and frames.duration is None
    with pytest.raises(DecodeError, match="no presentation times") as caught:
        decode(tmp_path, (SPEC,), segment=Segment(0, 1))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize(("start", "end"), [(1, 1), (2, 1), (-1, 1), (float("nan"), 1), (0, float("inf"))])
def test_impossible_segments_are_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="segment: got"):
        Segment(start, end)
    with pytest.raises(ValueError, match="whole numbers"):
        Segment(0, 1.5, "frames")


def test_a_segment_prints_in_the_fewest_digits() -> None:
    assert [str(Segment(*ends)) for ends in ((0, 2.56), (12.5, 100), (1 / 3, 1))] == [
        "0-2.56",
        "12.5-100",
        "0.3333333333333333-1",
    ]


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_segments_of_one_video_share_one_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    """Also where all must be decoded from the beginning, and the segments overlap: each frame twice at most."""
    film = Film(name="a.mkv", codec=codec, frames=100, size=(64, 48))
    path, other = film.write(tmp_path), Film(name="b.mkv", frames=9).write(tmp_path)
    images, times = all_frames(path, film)
    opened, decoded, real_open, real = [], [], task.open_video, pyav._Pass._decode
    monkeypatch.setattr(task, "open_video", lambda path, *a, **k: opened.append(path.name) or real_open(path, *a, **k))

    def counted(self: Any) -> Any:
        for frame in real(self):
            decoded.append(1)
            yield frame

    monkeypatch.setattr(pyav._Pass, "_decode", counted)
    segments = [Segment(start / 25, (start + 10) / 25) for start in range(0, 90, 5)]
    requests = [DecodeRequest(f"a@{segment}", path, (SPEC,), segment) for segment in segments]
    results = list(decode_stream([*requests, DecodeRequest("b", other, (SPEC,))], workers=0))
    assert opened == ["a.mkv", "b.mkv"] and len(decoded) <= 200
    digests = set()
    for segment, result in zip(segments, results, strict=False):
        assert isinstance(result, Decoded) and times is not None
        first = round(segment.start * 25)
        np.testing.assert_array_equal(result.frames.data, np.stack([images[first + i] for i in result.frames.index]))
        assert result.record.digest == segment_digest(content_digest(path), segment)
        digests.add(result.record.digest)
    assert len(digests) == len(segments)


def test_segments_are_decoded_by_workers(tmp_path: Path) -> None:
    film = Film(name="a.mp4", codec="libx264", frames=60, b_frames=2)
    path = film.write(tmp_path)
    images, _ = all_frames(path, film)
    segments = [Segment(start / 25, (start + 10) / 25) for start in (40, 0, 20, 35, 5)]
    requests = [DecodeRequest(f"a@{segment}", path, (SPEC,), segment) for segment in segments]
    for segment, result in zip(segments, decode_stream(requests, workers=2), strict=True):
        assert isinstance(result, Decoded) and result.frames.count == 10
        expected = [images[round(segment.start * 25) + i] for i in result.frames.index]
        np.testing.assert_array_equal(result.frames.data, np.stack(expected))


def test_a_file_that_changes_between_segments_is_opened_anew(tmp_path: Path) -> None:
    path = Film(name="a.mp4", frames=30).write(tmp_path)
    other = Film(name="b.mp4", frames=20).write(tmp_path)
    decoder = task.RequestDecoder(DecodePolicy())
    request = DecodeRequest("a", path, (SPEC,), Segment(0, 9))
    first = decoder.decode(request)
    other.replace(path)
    second = decoder.decode(request)
    decoder.close()
    assert isinstance(first, Decoded) and isinstance(second, Decoded)
    assert (first.frames.count, second.frames.count) == (30, 20) and first.record.digest != second.record.digest


def test_times_are_right_where_the_header_claims_more_frames(tmp_path: Path) -> None:
    film = Film(name="more.avi", finish=claim_more_frames)
    path = film.write(tmp_path)
    images, _ = all_frames(path, film)
    frames = decode(path, (SPEC,), segment=Segment(0.8, 5))
    assert frames.count == 10
    np.testing.assert_array_equal(frames.data, np.stack([images[20 + i] for i in frames.index]))


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an hour of video, 32 × 32 at 5 frames per second, whose frames show their number in gray."""
    path = tmp_path_factory.mktemp("hour") / "hour.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=5, options={"qmin": "1", "qmax": "1"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = 50, 1
        for number in range(18_000):
            planes = np.full((48, 32), 128, np.uint8)
            planes[:16], planes[16:32] = 16 + number // 200, 16 + number % 200
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_of_an_hour_only_the_segments_packets_are_decoded(hour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, real = [], pyav._decode_run
    monkeypatch.setattr(pyav, "_decode_run", lambda codec, packets: decoded.extend(packets) or real(codec, packets))
    with av.open(str(hour)) as container:
        container.seek(int(3000 / container.streams.video[0].time_base), stream=container.streams.video[0])
        at = {
            frame.time: frame.to_ndarray(format="rgb24")
            for frame, _ in zip(container.decode(video=0), range(60), strict=False)
        }
    with open_video(hour) as video:
        assert video.count == 18_000 and video.times is not None and video.times[-1] == 3599.8
    frames = decode(hour, (SPEC,), segment=Segment(3000.2, 3002.2))
    assert frames.count == 10 and len(decoded) <= 60
    expected = [at[(15_001 + i) / 5] for i in frames.index.tolist()]
    np.testing.assert_array_equal(frames.data, np.stack(expected))


def test_many_windows_of_an_hour_are_quick(hour: Path) -> None:
    """1,400 windows take a fraction of the time of decoding from the beginning for each of them."""
    segments = [Segment(start, start + 2.56) for start in np.arange(0, 3590, 2.56).tolist()]
    requests = [DecodeRequest(f"hour@{segment}", hour, (SPEC,), segment) for segment in segments]
    results = list(decode_stream(requests, workers=1))
    assert all(isinstance(result, Decoded) and result.frames.count in (12, 13) for result in results)
    assert sum(result.seconds for result in results if isinstance(result, Decoded)) < 60
