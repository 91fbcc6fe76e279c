"""Recognition of videos and frames among other files."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from video_corpus import Film

from actionvit.features.decoding import Decoded, DecodeError, DecodePolicy, DecodeRequest, decode, decode_stream
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import content_digest, fingerprint
from actionvit.features.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, frame_files, frame_series, natural_key
from actionvit.features.sampling import ClipSpec
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.datasets.duplicates import digests_where_sizes_agree

SPEC = ClipSpec(num_frames=4, size=32)
WIDE = (128, 64)  # decord fails on the widths that it pads
ENCODERS = {
    **dict.fromkeys((".mpg", ".mpeg", ".mpe", ".vob"), "mpeg2video"),
    **dict.fromkeys((".m2v", ".mxf", ".m2t", ".m2ts", ".mts", ".ts", ".wtv"), "mpeg2video"),
    **dict.fromkeys((".wmv", ".asf"), "wmv2"),
    **dict.fromkeys((".webm", ".ogv", ".ogm"), "libvpx"),
    **dict.fromkeys((".rm", ".rmvb"), "rv10"),
    ".flv": "flv",
    ".f4v": "libx264",
}
MUXERS = {
    **{".divx": "avi", ".f4v": "mp4", ".qt": "mov", ".mpe": "mpeg", ".ogm": "ogg", ".ogv": "ogg", ".rmvb": "rm"},
    **{".m2t": "mpegts", ".mpg": "mpeg", ".mpeg": "mpeg", ".m4v": "mp4"},
}


def write_images(folder: Path, *names: str) -> list[str]:
    """Write images that differ; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (16, 12), (number, 0, 0)).save(folder / name, lossless=True)
    return list(names)


def numbered(pattern: str, count: int = 8) -> list[str]:
    return [pattern.format(number) for number in range(1, count + 1)]


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_videos_of_every_suffix_decode(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    size = (720, 576) if suffix == ".mxf" else (176, 144)  # the smallest that their formats allow
    with av.open(str(path), "w", format=MUXERS.get(suffix)) as container:
        stream: Any = container.add_stream(ENCODERS.get(suffix, "mpeg4"), rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(12):
            image = np.full((size[1], size[0], 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    frames = decode(path, (SPEC,))
    assert frames.count in (11, 12) and frames.flags == ()
    assert (np.diff(frames.data.mean(axis=(1, 2, 3))) > 20).all()


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("pattern", ["img_{:05}", "frame{}", "{:04}", "{}", "image-{:06}", "Frame_{:03}_rgb"])
def test_frame_folders_of_common_numberings_are_read(tmp_path: Path, suffix: str, pattern: str) -> None:
    names = write_images(tmp_path, *(name + suffix for name in numbered(pattern, 12)))
    assert [file.name for file in frame_files(tmp_path)] == names
    frames = decode(tmp_path, (ClipSpec(num_frames=12, size=8),))
    assert frames.count == 12
    assert np.abs(frames.data[:, 0, 0, 0].astype(int) - np.arange(12)).max() <= 2  # but for what JPEG loses


def test_suffixes_in_capitals_count(tmp_path: Path) -> None:
    assert [file.name for file in frame_files_of(tmp_path, "IMG_2.JPG", "IMG_10.JPG", "IMG_1.JPG")] == [
        "IMG_1.JPG",
        "IMG_2.JPG",
        "IMG_10.JPG",
    ]
    assert natural_key("a2") < natural_key("a10")


def frame_files_of(folder: Path, *names: str) -> list[Path]:
    write_images(folder, *names)
    return frame_files(folder)


@pytest.mark.parametrize(
    "beside",
    [
        ["thumb.jpg"],
        ["cover.png", "poster.jpg"],
        [*numbered("flow_x_{:05}.jpg", 7), *numbered("flow_y_{:05}.jpg", 7)],
        [*numbered("x_{:04}.jpg", 7), *numbered("y_{:04}.jpg", 7)],
        [*numbered("flow_{}.png", 7), "._img_00001.jpg", ".DS_Store.jpg"],
        ["notes.txt.jpg"],
    ],
    ids=lambda names: names[0],
)
def test_only_the_series_of_frames_counts(tmp_path: Path, beside: list[str]) -> None:
    names = write_images(tmp_path, *numbered("img_{:05}.jpg"))
    digest, now = content_digest(tmp_path), fingerprint(tmp_path)
    for name in beside:
        Image.new("RGB", (9, 9)).save(tmp_path / name, "PNG")
    assert [file.name for file in frame_files(tmp_path)] == names
    assert content_digest(tmp_path) == digest and fingerprint(tmp_path).size == now.size
    assert decode(tmp_path, (SPEC,)).count == 8


@pytest.mark.parametrize(
    ("names", "series"),
    [
        ([*numbered("{:03}.jpg"), *numbered("{:03}.png")], ["*.jpg", "*.png"]),
        ([*numbered("img_{}.jpg"), *numbered("depth_{}.png")], ["depth_*.png", "img_*.jpg"]),
        ([*numbered("cam1_{}.jpg"), *numbered("cam2_{}.jpg")], ["cam1_*.jpg", "cam2_*.jpg"]),
        ([*numbered("img_{}.jpg"), *numbered("img_{} (1).jpg")], ["img_*.jpg", "img_* (*).jpg"]),
    ],
    ids=lambda value: value[0],
)
def test_several_series_of_images_are_refused(tmp_path: Path, names: list[str], series: list[str]) -> None:
    write_images(tmp_path, *names)
    assert set(frame_series(tmp_path)) == set(series)
    with pytest.raises(DecodeError, match="several series of images") as caught:
        decode(tmp_path, (SPEC,))
    assert caught.value.reason == "unsupported" and all(f"{name} (8)" in caught.value.detail for name in series)
    assert fingerprint(tmp_path).size > 0 and content_digest(tmp_path)  # planning needs them all the same


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "b.jpg", "c.jpg"],  # no number at all: every image is a frame
        [*numbered("{:03}.jpg", 5), "006.jpeg", "007.jpeg"],  # one numbering, two suffixes
        [f"shot{shot}_{number}.jpg" for shot, count in ((1, 3), (2, 5)) for number in range(count)],
        [f"2024-01-01_12-{minute:02}-{second:02}.png" for minute, second in ((0, 58), (0, 59), (1, 0), (1, 30))],
    ],
    ids=lambda names: names[0],
)
def test_names_of_one_numbering_are_one_series(tmp_path: Path, names: list[str]) -> None:
    write_images(tmp_path, *names)
    assert [file.name for file in frame_files(tmp_path)] == names and len(frame_series(tmp_path)) == 1


@pytest.mark.parametrize(
    "behind",
    [
        b"TAG" + b" " * 125,
        b"\x00\x00\x01\x0aMOREDATA" + bytes(range(60)),
        b"\xff\xd8\xff\xe0" + bytes(range(200)) + b"\xff\xd9",
        bytes(3),
        bytes(4096),
        b"\x00\x00\x00\x10free" + bytes(8),
        b"\xff" * 64,
    ],
    ids=["id3", "phone", "jpeg", "three zeros", "zeros", "free", "ones"],
)
@pytest.mark.parametrize("muxer", [{}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}], ids=str)
def test_bytes_behind_an_mp4_are_no_damage(tmp_path: Path, behind: bytes, muxer: dict[str, str]) -> None:
    path = Film(name="a.mp4", codec="libx264", muxer=muxer).write(tmp_path)
    whole = decode(path, (SPEC,))
    with path.open("ab") as file:
        file.write(behind)
    frames = decode(path, (SPEC,), DecodePolicy(on_corrupt="skip"))
    assert frames.flags == whole.flags == () and frames.count == whole.count
    np.testing.assert_array_equal(frames.data, whole.data)


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4", "a.flv"])
def test_bytes_behind_other_containers_are_no_damage(tmp_path: Path, name: str) -> None:
    path = Film(name=name, codec="flv" if name.endswith("flv") else "mpeg4").write(tmp_path)
    with path.open("ab") as file:
        file.write(b"TAG" + b" " * 125)
    assert decode(path, (SPEC,)).flags == ()


@pytest.mark.parametrize("lost", [1, 9, 200, 3000])
def test_an_mp4_that_is_cut_short_is_flagged_or_refused(tmp_path: Path, lost: int) -> None:
    path = Film(name="a.mp4", codec="libx264", muxer={"movflags": "faststart"}).write(tmp_path)
    os.truncate(path, path.stat().st_size - lost)
    try:
        assert "truncated" in decode(path, (ClipSpec(num_frames=1, size=8),)).flags
    except DecodeError as error:
        assert error.reason == "truncated"


@pytest.fixture
def special_files(tmp_path: Path) -> list[Path]:
    """Make a pipe, a socket, and links to a pipe and to a device, all named like videos."""
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp4"))
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "pipe.mp4")
    return [tmp_path / f"{name}.mp4" for name in ("pipe", "socket", "zero", "link")]


@pytest.mark.parametrize("workers", [0, 1])
def test_pipes_and_devices_are_no_videos(special_files: list[Path], workers: int) -> None:
    requests = [DecodeRequest(path.name, path, (SPEC,)) for path in special_files]
    for result in decode_stream(requests, workers=workers, timeout=20):
        assert isinstance(result, Failure), result.id
        assert (result.reason, result.detail) == ("not_video", "not a regular file")


def test_pipes_and_devices_are_never_read(special_files: list[Path], tmp_path: Path) -> None:
    for path in special_files:
        fingerprint(path)
        with pytest.raises(OSError, match="not a regular file"):
            content_digest(path)
    folder = tmp_path / "frames"
    names = write_images(folder, *numbered("{}.jpg"))
    os.mkfifo(folder / "9.jpg")
    (folder / "10.jpg").symlink_to("/dev/zero")
    assert [file.name for file in frame_files(folder)] == names and decode(folder, (SPEC,)).count == 8


def test_duplicates_are_sought_among_regular_files_only(special_files: list[Path], tmp_path: Path) -> None:
    same = [Film(name=name).write(tmp_path) for name in ("a.avi", "b.avi")]
    paths = [*special_files, *same]
    videos = [Video(id=path.name, path=path, label="x", source=path.name) for path in paths]
    assert set(digests_where_sizes_agree(videos)) == {"a.avi", "b.avi"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Start a server on this machine that answers every request with a video; yield port and requests."""
    video = Film(name="served.avi").write(tmp_path).read_bytes()
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    received.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(video) + video)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], received
        stop.set()
        thread.join()


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_no_decoder_reaches_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[int, list[bytes]], backend: Any
) -> None:
    """A relative path such as `http:/host/a.avi` names a file, even for libraries that would take it for an address."""
    port, received = server
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    for protocol in ("http:", "tcp:", "concat:", "subfile,,start,0,end,0,,:"):
        folder = Path(f"{protocol}/127.0.0.1:{port}")
        folder.mkdir(parents=True)
        path = folder / "a.avi"
        mine = Film(name="mine.avi", frames=17, size=WIDE).write(tmp_path)
        mine.replace(path)
        frames = decode(path, (SPEC,), DecodePolicy(backend=backend))
        assert frames.count == 17 and frames.backend == backend
        (result,) = decode_stream([DecodeRequest("a", path, (SPEC,))], policy=DecodePolicy(backend=backend), workers=1)
        assert isinstance(result, Decoded) and result.frames.count == 17
    assert received == []


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_playlists_open_no_other_file(tmp_path: Path, server: tuple[int, list[bytes]], backend: Any) -> None:
    port, received = server
    playlists = {
        "a.avi": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
        "b.mp4": f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.avi\n",
        "c.webm": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
        "d.mkv": f'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DecodeError) as caught:
            decode(tmp_path / name, (SPEC,), DecodePolicy(backend=backend))
        assert caught.value.reason == "not_video", name
    assert received == []


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace here")
@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_system_calls_show_no_network_and_no_other_file(tmp_path: Path, backend: str) -> None:
    path = Film(name="a.avi", size=WIDE).write(tmp_path)
    log = tmp_path / "log"
    code = (
        "import sys; from pathlib import Path; from actionvit.features.decoding import DecodePolicy, decode\n"
        "from actionvit.features.sampling import ClipSpec\n"
        "import av, decord; open('/dev/null').close()\n"
        "frames = decode(Path(sys.argv[1]), (ClipSpec(num_frames=4, size=32),), DecodePolicy(backend=sys.argv[2]))\n"
        "assert frames.backend == sys.argv[2]\n"
    )
    trace = ["strace", "-f", "-qq", "-e", "trace=socket,connect,open,openat", "-o", str(log)]
    run = subprocess.run([*trace, sys.executable, "-c", code, str(path), backend], capture_output=True, text=True)
    if "ptrace" in run.stderr.lower():
        pytest.skip("strace may not trace here")
    assert run.returncode == 0, run.stderr
    calls = log.read_text().rpartition("/dev/null")[2]
    assert "AF_INET" not in calls and str(path) in calls
    opened = {line.split('"')[1] for line in calls.splitlines() if "open" in line and '"' in line}
    foreign = {name for name in opened if name.startswith(str(tmp_path))} - {str(path)}
    assert foreign == set()
