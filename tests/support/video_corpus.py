"""Videos of every kind found in datasets, written by PyAV, as references to test decoding against.

`python tests/support/video_corpus.py FOLDER` writes them all.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Edit = tuple[int, int]  # how long (in units of the movie), from where (in units of the track)


def pictures(count: int, width: int = 96, height: int = 64) -> Iterator[Image]:
    """Yield (H, W, 3) pictures that all differ, with an edge that moves and some noise."""
    random = np.random.RandomState(count)
    ground = random.randint(0, 80, (height, width, 3))
    for number in range(count):
        image = ground + np.array([number * 5 % 160, 3 * number % 160, 0])
        image[number % height :, : 3 * number % width] = random.randint(0, 255, 3)
        yield np.clip(image + random.randint(0, 12, image.shape), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Film:
    """How to write one video."""

    name: str
    codec: str = "mpeg4"
    frames: int = 30
    size: tuple[int, int] = (96, 64)
    pixels: str = "yuv420p"
    b_frames: int = 0
    gop: int = 12
    tag: str = ""
    options: dict[str, str] = field(default_factory=dict)
    """For the encoder."""
    muxer: dict[str, str] = field(default_factory=dict)
    times: Callable[[int], int] = int
    """Maps a frame's number to its presentation time, in units of 1/25 s."""
    full_range: bool = False
    interlaced: bool = False
    audio: bool = False
    finish: Callable[[Path], object] = lambda path: None
    """Changes made to the file after it is written."""
    turn: Callable[[Image], Image] = lambda image: image
    """Rotation that a player applies."""

    def write(self, folder: Path) -> Path:
        """Write it into a folder."""
        path = folder / self.name
        with av.open(str(path), "w", options=self.muxer) as container:
            stream: Any = container.add_stream(self.codec, rate=25, options=self.options)
            stream.width, stream.height = self.size
            stream.pix_fmt = self.pixels
            stream.codec_context.max_b_frames = self.b_frames
            stream.codec_context.gop_size = self.gop
            stream.codec_context.thread_count = 1
            if self.tag:
                stream.codec_context.codec_tag = self.tag
            if self.full_range:
                stream.codec_context.color_range = 2
            sound: Any = container.add_stream("aac", rate=16000, layout="mono") if self.audio else None
            for number, image in enumerate(pictures(self.frames, *self.size)):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=self.pixels)
                frame.pts, frame.time_base = self.times(number), Fraction(1, 25)
                container.mux(stream.encode(frame))
                if sound is not None:
                    wave = np.zeros((1, 640), np.float32)
                    noise = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                    noise.rate, noise.pts = 16000, 640 * number
                    container.mux(sound.encode(noise))
            container.mux(stream.encode(None))
            if sound is not None:
                container.mux(sound.encode(None))
        self.finish(path)
        return path


def claim_more_frames(path: Path) -> None:
    """Set an AVI's frame count eight frames too high, as in all files of HMDB51."""
    data = bytearray(path.read_bytes())
    for box, at in ((b"avih", 24), (b"strh", 40)):
        place = data.index(box) + at
        data[place : place + 4] = struct.pack("<I", struct.unpack("<I", data[place : place + 4])[0] + 8)
    path.write_bytes(data)


def pack_b_frames(path: Path) -> None:
    """Turn an MPEG-4 AVI with single B-VOPs into DivX's packed bitstream: pairs in one packet, then an empty VOP."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    head, vop = packets[0], packets[0].index(b"\x00\x00\x01\xb6")
    packed = [head[:vop] + b"\x00\x00\x01\xb2DivX503b1393p" + head[vop:]]
    at = 1
    while at < len(packets):
        if at + 1 < len(packets) and packets[at + 1][4] >> 6 == 2:
            packed += [packets[at] + packets[at + 1], _not_coded(packets[at])]
            at += 2
        else:
            packed.append(packets[at])
            at += 1
    _write_avi(path, packed, head[:vop])


def insert_empty_vops(path: Path) -> None:
    """Put a VOP that is not coded ("as before") behind every fifth of an MPEG-4 AVI."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    found: list[bytes] = []
    for number, packet in enumerate(packets):
        found += [packet, _not_coded(packet)] if number % 5 == 4 else [packet]
    _write_avi(path, found, b"")


def _not_coded(like: bytes) -> bytes:
    """Return a P-VOP with the time of another (25 fps: five bits of it), not coded."""
    bits = f"{int.from_bytes(like[like.index(VOP) + 4 :][:4], 'big'):032b}"
    time = bits[2 : bits.index("0", 2) + 1 + 1 + 5]  # modulo_time_base, a marker, vop_time_increment
    code = f"01{time}10"
    code += "0" + "1" * (-(len(code) + 1) % 8)
    return VOP + int(code, 2).to_bytes(len(code) // 8, "big")


VOP = b"\x00\x00\x01\xb6"


def _write_avi(path: Path, packets: Sequence[bytes], extradata: bytes) -> None:
    with av.open(str(path)) as container:
        size = container.streams.video[0].width, container.streams.video[0].height
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = size
        stream.codec_context.codec_tag = "DX50"
        container.start_encoding()
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = stream.time_base, number == 0
            container.mux(packet)


def cut_at(start: int, path: Path) -> None:
    """Hide the frames before `start` by an edit list, as `ffmpeg -ss START -c copy` does."""
    whole = path.with_name(f"whole-{path.name}")
    path.rename(whole)
    with (
        av.open(str(whole)) as source,
        av.open(str(path), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}) as target,
    ):
        taken = source.streams.video[0]
        given = target.add_stream_from_template(taken)
        shift = int(start / 25 / taken.time_base)
        for packet in source.demux(taken):
            if packet.size:
                packet.stream, packet.pts, packet.dts = given, packet.pts - shift, packet.dts - shift
                target.mux(packet)
    whole.unlink()


def edit(edits: Sequence[Edit], path: Path) -> None:
    """Replace the edit list of the first track of an mp4 that has its index at the end."""
    data = path.read_bytes()
    entries = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in edits)
    fresh = _box(b"edts", _box(b"elst", struct.pack(">II", 0, len(edits)) + entries))

    def rebuild(data: bytes, inside: tuple[bytes, ...]) -> bytes:
        out = b""
        for kind, body in _boxes(data):
            if kind == b"edts":
                continue
            if kind == b"tkhd":
                out += _box(kind, body) + fresh
            elif inside and kind == inside[0]:
                out += _box(kind, rebuild(body, inside[1:]))
            else:
                out += _box(kind, body)
        return out

    path.write_bytes(rebuild(data, (b"moov", b"trak")))


def set_matrix(matrix: Sequence[int], path: Path) -> None:
    """Write a, b, c, d of the display matrix (16.16) into an mp4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def uneven(number: int) -> int:
    """Show frames at uneven times."""
    return number + number // 3 + 2 * (number // 7)


X264, X265 = "libx264", "libx265"
QUIET = {"x265-params": "log-level=none:pools=1:frame-threads=1"}
FILMS = (
    Film(name="plain.avi"),
    Film(name="one.avi", frames=1),
    Film(name="two.avi", frames=2),
    Film(name="xvid.avi", tag="XVID", b_frames=2),
    Film(name="claims-more.avi", finish=claim_more_frames),
    Film(name="claims-more-b.avi", b_frames=2, tag="DIVX", finish=claim_more_frames),
    Film(name="packed.avi", b_frames=1, gop=10, options={"b_strategy": "0"}, finish=pack_b_frames),
    Film(name="empty-vops.avi", finish=insert_empty_vops),
    Film(name="qpel.avi", options={"flags": "+qpel+mv4"}, b_frames=1),
    Film(name="mpeg4-interlaced.avi", options={"flags": "+ildct+ilme"}, b_frames=1),
    Film(name="odd.avi", size=(97, 65)),
    Film(name="uneven.avi", times=uneven),
    Film(name="sound.avi", audio=True, b_frames=1),
    Film(name="mpeg4.mp4", b_frames=2),
    Film(name="mpeg4.mkv", b_frames=2),
    Film(name="mjpeg.avi", codec="mjpeg", pixels="yuvj420p"),
    Film(name="wmv2.wmv", codec="wmv2"),
    Film(name="mpeg1.mpg", codec="mpeg1video", b_frames=2),
    Film(name="mpeg2.ts", codec="mpeg2video", b_frames=2),
    Film(name="sorenson.flv", codec="flv"),
    Film(name="ffv1.mkv", codec="ffv1", pixels="yuv422p"),
    Film(name="ffv1-gray.mkv", codec="ffv1", pixels="gray"),
    Film(name="h264.mp4", codec=X264, b_frames=3),
    Film(name="h264-one.mp4", codec=X264, frames=1),
    Film(name="h264-intra.mp4", codec=X264, gop=1),
    Film(name="h264-pyramid.mkv", codec=X264, b_frames=5, gop=15, options={"x264-params": "b-pyramid=normal:ref=4"}),
    Film(name="h264-open.mp4", codec=X264, b_frames=3, gop=8, options={"x264-params": "open-gop=1:keyint-min=4"}),
    Film(name="h264-refresh.mp4", codec=X264, gop=10, options={"x264-params": "intra-refresh=1"}),
    Film(name="h264-interlaced.mp4", codec=X264, b_frames=2, options={"flags": "+ildct+ilme"}),
    Film(name="h264-slices.mp4", codec=X264, b_frames=2, options={"x264-params": "slices=4"}),
    Film(name="h264-annexb.avi", codec=X264),
    Film(name="h264.ts", codec=X264, b_frames=2),
    Film(name="h264.flv", codec=X264, b_frames=2),
    Film(name="h264-10bit.mp4", codec=X264, pixels="yuv420p10le", b_frames=2),
    Film(name="h264-444-odd.mkv", codec=X264, pixels="yuv444p", size=(97, 65)),
    Film(name="h264-full.mp4", codec=X264, pixels="yuvj420p", full_range=True),
    Film(
        name="h264-709.mp4",
        codec=X264,
        options={"x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709"},
    ),
    Film(name="h264-uneven.mp4", codec=X264, b_frames=2, times=uneven),
    Film(name="h264-uneven.mkv", codec=X264, b_frames=2, times=uneven),
    Film(name="h264-fragments.mp4", codec=X264, b_frames=2, muxer={"movflags": "frag_keyframe+empty_moov"}),
    Film(name="h264-fast-start.mp4", codec=X264, audio=True, muxer={"movflags": "faststart"}),
    Film(name="h264-cut.mp4", codec=X264, b_frames=2, gop=8, finish=partial(cut_at, 11)),
    Film(
        name="h264-cut-late.mp4",
        codec=X264,
        b_frames=2,
        gop=40,
        options={"x264-params": "scenecut=0"},
        finish=partial(cut_at, 21),
    ),
    Film(name="h264-empty-edit.mp4", codec=X264, b_frames=2, finish=partial(edit, [(400, -1), (1200, 1024)])),
    Film(name="h264-two-edits.mp4", codec=X264, gop=6, finish=partial(edit, [(320, 2048), (400, 9728)])),
    Film(name="h264-repeats.mp4", codec=X264, gop=6, finish=partial(edit, [(400, 0), (400, 0)])),
    Film(name="mpeg4-cut.mp4", b_frames=2, gop=8, finish=partial(cut_at, 13)),
    Film(name="turned-90.mp4", codec=X264, finish=partial(set_matrix, (0, 1, -1, 0)), turn=lambda i: np.rot90(i, -1)),
    Film(name="turned-180.mp4", codec=X264, finish=partial(set_matrix, (-1, 0, 0, -1)), turn=lambda i: np.rot90(i, 2)),
    Film(name="turned-270.mp4", codec=X264, finish=partial(set_matrix, (0, -1, 1, 0)), turn=np.rot90),
    Film(name="mirrored.mp4", codec=X264, finish=partial(set_matrix, (-1, 0, 0, 1)), turn=np.fliplr),
    Film(name="on-its-head.mp4", codec=X264, finish=partial(set_matrix, (1, 0, 0, -1)), turn=np.flipud),
    Film(name="transposed.mp4", codec=X264, finish=partial(set_matrix, (0, 1, 1, 0)), turn=lambda i: i.swapaxes(0, 1)),
    Film(name="h265.mp4", codec=X265, b_frames=3, options=QUIET),
    Film(name="h265-one.mp4", codec=X265, frames=1, options=QUIET),
    Film(
        name="h265-open.mkv",
        codec=X265,
        options={"x265-params": "open-gop=1:keyint=8:min-keyint=4:bframes=3:log-level=none:pools=1:frame-threads=1"},
    ),
    Film(name="h265-10bit.mp4", codec=X265, pixels="yuv420p10le", options=QUIET),
    Film(name="h265-cut.mp4", codec=X265, gop=8, options=QUIET, finish=partial(cut_at, 11)),
    Film(name="vp8.webm", codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "10"}),
    Film(name="vp9.webm", codec="libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "5"}),
    Film(name="vp9-odd.mp4", codec="libvpx-vp9", size=(97, 65), options={"cpu-used": "5"}),
    Film(name="vp9-one.webm", codec="libvpx-vp9", frames=1),
    Film(name="av1.mp4", codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"}),
    Film(name="av1.webm", codec="libsvtav1", pixels="yuv420p10le", options={"preset": "12", "svtav1-params": "lp=1"}),
)

if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for each in FILMS:
        each.write(out)
