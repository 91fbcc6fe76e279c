"""Broken videos: copies of good ones with bad blocks, cut ends or wrong names."""

from __future__ import annotations

import random
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from video_corpus import FILMS

SOURCES = (
    *("plain.avi", "xvid.avi", "packed.avi", "sound.avi", "mjpeg.avi", "h264-annexb.avi", "mpeg4.mp4", "h264.mp4"),
    *("h264-fragments.mp4", "h264-cut.mp4", "h264-fast-start.mp4", "h264-pyramid.mkv", "h265.mp4", "h265-open.mkv"),
    *("vp8.webm", "vp9.webm", "av1.mp4", "mpeg2.ts", "mpeg1.mpg", "wmv2.wmv", "sorenson.flv", "ffv1.mkv"),
)
"""Videos of the corpus to break; the first nine are broken in every way."""

Break = Callable[[bytearray, random.Random], None]


def flip(bits: int) -> Break:
    """Flip that many random bits."""

    def act(data: bytearray, rnd: random.Random) -> None:
        for _ in range(bits):
            data[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)

    return act


def flip_head(data: bytearray, rnd: random.Random) -> None:
    """Flip four bits of the headers at the beginning or of the index at the end."""
    for _ in range(4):
        at = rnd.randrange(min(600, len(data)))
        data[at if rnd.random() < 0.5 else -1 - at] ^= 1 << rnd.randrange(8)


def cut(low: float, high: float) -> Break:
    """Cut the file somewhere between two parts of its length."""

    def act(data: bytearray, rnd: random.Random) -> None:
        del data[int(rnd.uniform(low, high) * len(data)) :]

    return act


def cut_bytes(most: int) -> Break:
    """Cut off a few bytes at the end."""

    def act(data: bytearray, rnd: random.Random) -> None:
        del data[-rnd.randint(1, most) :]

    return act


def cut_head(data: bytearray, rnd: random.Random) -> None:
    """Leave only a few of the first bytes."""
    del data[rnd.randint(0, 64) :]


def blank(data: bytearray, rnd: random.Random) -> None:
    """Overwrite a range with zeros, like a lost disk block."""
    at, length = rnd.randrange(len(data)), rnd.choice((16, 512, 4096))
    data[at : at + length] = bytes(len(data[at : at + length]))


def drop(data: bytearray, rnd: random.Random) -> None:
    """Remove a range of bytes, so that everything behind it moves."""
    at = rnd.randrange(len(data))
    del data[at : at + rnd.choice((1, 7, 188, 2000))]


def insert(data: bytearray, rnd: random.Random) -> None:
    """Insert random bytes."""
    at = rnd.randrange(len(data))
    data[at:at] = rnd.randbytes(rnd.choice((1, 9, 1000)))


BREAKS: dict[str, Break] = {
    "flip-1": flip(1),
    "flip-8": flip(8),
    "flip-200": flip(200),
    "flip-head": flip_head,
    "cut-head": cut_head,
    "cut-early": cut(0.01, 0.2),
    "cut-middle": cut(0.2, 0.8),
    "cut-late": cut(0.8, 0.99),
    "cut-bytes": cut_bytes(40),
    "blank": blank,
    "drop": drop,
    "insert": insert,
}


def mutants(corpus: Path, folder: Path, count: int, seed: int = 0) -> Iterator[Path]:
    """Write `count` broken copies of films, evenly over films and ways to break them."""
    films = {film.name: film for film in FILMS}
    rnd = random.Random(seed)
    pairs = [(name, kind) for kind in BREAKS for name in SOURCES]
    rnd.shuffle(pairs)
    for number in range(count):
        name, kind = pairs[number % len(pairs)]
        source = corpus / name
        data = bytearray((source if source.exists() else films[name].write(corpus)).read_bytes())
        BREAKS[kind](data, rnd)
        path = folder / f"{number:04}-{kind}-{name}"
        path.write_bytes(data)
        yield path


def impostors(corpus: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Write files with misleading names; yield each with the expected failure reason, "" where it decodes."""
    films = {film.name: film for film in FILMS}

    def take(name: str, to: str) -> Path:
        source = corpus / name
        path = folder / to
        path.write_bytes((source if source.exists() else films[name].write(corpus)).read_bytes())
        return path

    def put(to: str, data: bytes) -> Path:
        (folder / to).write_bytes(data)
        return folder / to

    yield take("plain.avi", "avi.mp4"), ""
    yield take("h264.mp4", "mp4.avi"), ""
    yield take("vp9.webm", "webm.mov"), ""
    yield put("nothing.avi", b""), "empty"
    yield put("zeros.avi", bytes(100_000)), "not_video"
    yield put("text.avi", b"Not a video in spite of its name.\n" * 99), "not_video"
    yield put("playlist.avi", b"#EXTM3U\n#EXTINF:1,\nplain.avi\n"), "not_video"
    yield put("list.avi", b"ffconcat version 1.0\nfile plain.avi\n"), "not_video"
    yield put("page.mp4", b"<!DOCTYPE html><html><body>404</body></html>"), "not_video"
    Image.new("RGB", (64, 48), "red").save(folder / "png.avi", "PNG")
    yield folder / "png.avi", "not_video"
    Image.new("RGB", (64, 48), "red").save(folder / "jpeg.mp4", "JPEG")
    yield folder / "jpeg.mp4", "not_video"
    with wave.open(str(folder / "sound.avi"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(np.zeros(16000, np.int16).tobytes())
    yield folder / "sound.avi", "not_video"
    yield only_sound(folder / "sound.mp4"), "not_video"
    yield only_sound(folder / "sound.mkv"), "not_video"
    yield claim_size(take("mjpeg.avi", "large.avi"), 12_000), "too_large"  # than a policy allows
    yield claim_size(take("mjpeg.avi", "huge.avi"), 16_384), "too_large"  # than FFmpeg can do


def only_sound(path: Path) -> Path:
    """Write a file with a sound track only."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 16000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def claim_size(path: Path, side: int) -> Path:
    """Set the size in the headers of a motion JPEG and of its pictures to side × side pixels."""
    data = bytearray(path.read_bytes())
    for at in _places(data, b"\xff\xc0\x00\x11\x08"):  # start of frame
        data[at + 5 : at + 9] = side.to_bytes(2, "big") * 2
    at = data.index(b"strf") + 12
    data[at : at + 8] = side.to_bytes(4, "little") * 2
    path.write_bytes(data)
    return path


def _places(data: bytearray, what: bytes) -> Iterator[int]:
    at = data.find(what)
    while at >= 0:
        yield at
        at = data.find(what, at + 1)
