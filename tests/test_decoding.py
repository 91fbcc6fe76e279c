"""Frames against PyAV decoding everything in order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pictures
from video_corpus import FILMS, QUIET, Film, Image

from actionvit.features.decoding import CountChangedError, DecodeError, DecodePolicy, Frames, decode, open_video, pyav
from actionvit.features.decoding.policy import Backend
from actionvit.features.sampling import ClipSpec, clip_indices

SPECS = (
    ClipSpec(num_frames=8, size=224),
    ClipSpec(num_frames=16, size=448, clips=2),
    ClipSpec(num_frames=3, size=224, sampling="dense", stride=2, clips=3),
    ClipSpec(num_frames=1, size=224),
    ClipSpec(num_frames=64, size=224),
)
ASKED = ((SPECS[0],), (SPECS[2],), (SPECS[3],), SPECS)
BACKENDS = get_args(Backend)


def oracle(path: Path) -> list[Image]:
    """Decode all of a video in order; not turned."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))]


def frames_at(path: Path, indices: NDArray[np.int64]) -> Frames:
    """Decode the frames at some positions, again if the file promised another number of frames."""
    with open_video(path) as video:
        try:
            return video.frames_at(indices)
        except CountChangedError:
            return video.frames_at(indices)


def assert_exact(path: Path, expected: Sequence[Image], backend: Backend = "pyav") -> None:
    """Each spec alone, and all together, give the reference's frames and no flags, by the given backends if any."""
    for specs in ASKED if backend == "pyav" else ASKED[-1:]:
        found = decode(path, specs, DecodePolicy(backend=backend))
        assert (found.count, found.flags) == (len(expected), ())
        wanted = np.unique(np.concatenate([clip_indices(len(expected), spec).ravel() for spec in specs]))
        np.testing.assert_array_equal(found.index, wanted)
        for place, image in zip(wanted, found.data, strict=True):
            np.testing.assert_array_equal(image, expected[place])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def written(film: Film, corpus: Path) -> Path:
    return path if (path := corpus / film.name).exists() else film.write(corpus)


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_sampled_frames_are_those_of_the_whole_file(film: Film, corpus: Path) -> None:
    path = written(film, corpus)
    expected = [film.turn(image) for image in oracle(path)]
    for backend in BACKENDS:
        assert_exact(path, expected, backend)


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_any_frames_are_those_of_the_whole_file(film: Film, corpus: Path) -> None:
    path = written(film, corpus)
    expected = [film.turn(image) for image in oracle(path)]
    random = np.random.RandomState(0)
    for size in (1, 2, 3, 5, 8, 13):
        wanted = np.sort(random.permutation(len(expected))[:size])
        found = frames_at(path, wanted)
        np.testing.assert_array_equal(found.data, np.stack([expected[place] for place in wanted]))


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_the_duration_is_that_of_the_frames_that_play(film: Film, corpus: Path) -> None:
    path = written(film, corpus)
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(container.streams.best("video"))]
    known = [time for time in times if time is not None]
    expected = max(known) - min(known) + 1 / 25
    for backend in BACKENDS:
        assert decode(path, SPECS, DecodePolicy(backend=backend)).duration == pytest.approx(expected, abs=1e-3)


def test_the_corpus_holds_what_it_is_named_for(corpus: Path) -> None:
    def packets(name: str) -> tuple[int, int, int, str, str]:
        film = next(film for film in FILMS if film.name == name)
        with av.open(str(written(film, corpus))) as container:
            stream = container.streams.video[0]
            found = [packet for packet in container.demux(stream) if packet.size]
            codec = stream.codec_context
            hidden = sum(packet.is_discard for packet in found)
            return len(found), hidden, stream.frames, codec.name, str(codec.codec_tag)

    assert packets("claims-more.avi")[::2][:2] == (30, 38)
    assert packets("h264-cut.mp4")[1] == 3 and packets("h264-two-edits.mp4")[1] == 8 and packets("h264-cut-late.mp4")[1]
    assert packets("h264-repeats.mp4")[0] - packets("h264-repeats.mp4")[1] == 20
    assert packets("xvid.avi")[4] == "XVID" and packets("av1.mp4")[3] == "libdav1d"
    assert len(oracle(corpus / "packed.avi")) == 30
    data = (corpus / "packed.avi").read_bytes()
    assert b"DivX503b1393p" in data


@pytest.mark.parametrize(("codec", "most"), [("mpeg4", 20), ("libx264", 20), ("libx265", 40)])
def test_of_a_long_video_only_what_is_needed_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, most: int
) -> None:
    options = QUIET if codec == "libx265" else {}
    path = Film(name="long.mp4", codec=codec, frames=300, size=(64, 64), b_frames=2, gop=12, options=options).write(
        tmp_path
    )
    decoded = []
    real = pyav._decode_run
    monkeypatch.setattr(pyav, "_decode_run", lambda codec, packets: decoded.extend(packets) or real(codec, packets))
    spec = ClipSpec(num_frames=4, size=64, sampling="dense", stride=1, clips=2)  # at both ends
    expected = oracle(path)
    found = decode(path, [spec])
    np.testing.assert_array_equal(found.data, np.stack([expected[place] for place in found.index]))
    assert 8 <= len(decoded) <= most


def test_real_clips_are_exact(real_data: Path) -> None:
    for path in sorted((real_data / "jhmdb21").rglob("*.avi"))[::26]:
        expected = oracle(path)
        for backend in BACKENDS:
            assert_exact(path, expected, backend)


@pytest.mark.slow
def test_all_real_clips_are_exact(real_data: Path) -> None:
    paths = sorted((real_data / "jhmdb21").rglob("*.avi"))
    assert len(paths) == 523
    for path in paths:
        expected = oracle(path)
        for backend in BACKENDS:
            assert_exact(path, expected, backend)


def test_fixtures_are_exact_or_refused(real_data: Path) -> None:
    paths = sorted(path for path in (real_data / "fixtures").rglob("*") if path.is_file())
    assert len(paths) == 18
    for path in paths:
        if path.name == "corrupted.mp4":
            for backend in BACKENDS:
                with pytest.raises(DecodeError, match="corrupt"):
                    decode(path, SPECS, DecodePolicy(backend=backend))
            continue
        expected = oracle(path)
        with av.open(str(path)) as container:
            # PyAV reports the counterclockwise rotation that a player applies.
            turns = round(next(container.decode(video=0)).rotation / 90)
        upright = [np.rot90(image, turns) for image in expected]
        for backend in BACKENDS:
            assert_exact(path, upright, backend)


def test_frame_folders_are_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Pictures.new("RGB", (8, 6), (number * 20, 0, 0)).save(tmp_path / f"img_{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".img_3.png").write_bytes(b"hidden")
    (tmp_path / "img_4.png").mkdir()
    found = decode(tmp_path, [ClipSpec(num_frames=3, size=8)])
    assert [int(image[0, 0, 0]) for image in found.data] == [20, 40, 200]
    assert (found.backend, found.count, found.flags) == ("folder", 3, ())


def test_copies_of_a_frame_are_frames(tmp_path: Path) -> None:
    for number in range(6):
        Pictures.new("RGB", (8, 6), (number // 3 * 99, 0, 0)).save(tmp_path / f"{number}.png")
    found = decode(tmp_path, [ClipSpec(num_frames=6, size=8)])
    assert [int(image[0, 0, 0]) for image in found.data] == [0, 0, 0, 99, 99, 99]


def test_a_broken_image_costs_its_folder_alone(tmp_path: Path) -> None:
    for number in range(4):
        Pictures.new("RGB", (8, 6)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "2.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:100])
    with pytest.raises(DecodeError, match=r"2\.jpg") as caught:
        decode(tmp_path, [ClipSpec(num_frames=4, size=8)])
    assert (caught.value.reason, caught.value.frames_decoded, caught.value.backend) == ("corrupt", 4, "folder")
    assert decode(tmp_path, [ClipSpec(num_frames=2, size=8)]).index.tolist() == [1, 3]  # not asked for


def test_images_of_several_sizes_are_no_clip(tmp_path: Path) -> None:
    for number in range(3):
        Pictures.new("RGB", (8 + number // 2, 6)).save(tmp_path / f"{number}.png")
    with pytest.raises(DecodeError, match="8 × 6, 9 × 6") as caught:
        decode(tmp_path, [ClipSpec(num_frames=3, size=8)])
    assert caught.value.reason == "unsupported"


def test_a_picture_is_one_of_few_formats_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand PostScript to Ghostscript, which runs it."""
    (tmp_path / "bin").mkdir()
    for name in ("gs", "gswin64c"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\nshowpage\n")
    with pytest.raises(DecodeError, match="corrupt"):
        decode(folder, [ClipSpec(num_frames=1, size=8)])
    assert not (tmp_path / "ran").exists()


def test_images_stand_upright_and_deep_ones_are_refused(tmp_path: Path) -> None:
    turned = Pictures.new("RGB", (8, 6))
    exif = Pictures.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise
    turned.save(tmp_path / "1.jpg", exif=exif)
    assert decode(tmp_path, [ClipSpec(num_frames=1, size=8)]).data.shape == (1, 8, 6, 3)
    Pictures.fromarray(np.full((6, 8), 40_000, np.uint16)).save(tmp_path / "1.png")
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(DecodeError, match="unsupported"):
        decode(tmp_path, [ClipSpec(num_frames=1, size=8)])
