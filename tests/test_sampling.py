"""Index arithmetic: known answers by hand, and rules that hold for every length."""

from __future__ import annotations

import numpy as np
import pytest

from actionvit.features.sampling import ClipSpec, clip_indices


def test_uniform_takes_the_middle_of_equal_parts() -> None:
    spec = ClipSpec(num_frames=3, size=8)
    assert clip_indices(12, spec).tolist() == [[2, 6, 10]]


def test_uniform_clips_interleave() -> None:
    spec = ClipSpec(num_frames=3, size=8, clips=2)
    assert clip_indices(12, spec).tolist() == [[1, 5, 9], [3, 7, 11]]


def test_dense_is_centred() -> None:
    spec = ClipSpec(num_frames=3, size=8, sampling="dense", stride=3)
    assert clip_indices(12, spec).tolist() == [[2, 5, 8]]


def test_dense_clips_spread_from_first_to_last_start() -> None:
    spec = ClipSpec(num_frames=3, size=8, sampling="dense", stride=3, clips=2)
    assert clip_indices(12, spec).tolist() == [[0, 3, 6], [5, 8, 11]]


@pytest.mark.parametrize("sampling", ["uniform", "dense"])
def test_short_videos_repeat_their_last_frame(sampling: str) -> None:
    spec = ClipSpec(num_frames=6, size=8, sampling=sampling, stride=1)  # type: ignore[arg-type]
    assert clip_indices(4, spec).tolist() == [[0, 1, 2, 3, 3, 3]]


def test_as_many_frames_as_asked_are_taken_once_each() -> None:
    assert clip_indices(16, ClipSpec(num_frames=16, size=8)).tolist() == [list(range(16))]


def test_crops_and_flips_repeat_rows_innermost() -> None:
    spec = ClipSpec(num_frames=2, size=8, clips=2, crops=3, flip=True)
    index = clip_indices(10, spec)
    assert spec.views == 12
    assert index.shape == (12, 2)
    plain = clip_indices(10, ClipSpec(num_frames=2, size=8, clips=2))
    np.testing.assert_array_equal(index, np.repeat(plain, 6, axis=0))


@pytest.mark.parametrize("sampling", ["uniform", "dense"])
@pytest.mark.parametrize("clips", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 4, 32])
def test_every_index_exists_and_rows_are_sorted(sampling: str, clips: int, stride: int) -> None:
    for frames in (1, 8, 16):
        spec = ClipSpec(num_frames=frames, size=8, sampling=sampling, stride=stride, clips=clips)  # type: ignore[arg-type]
        for count in [*range(1, 90), 1000]:
            index = clip_indices(count, spec)
            assert index.shape == (clips, frames)
            assert index.min() >= 0 and index.max() < count
            assert np.all(np.diff(index, axis=1) >= 0)
            if count >= spec.span:
                assert np.all(np.diff(index, axis=1) >= 1), "a long enough video never repeats a frame"


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_frames", 0), ("size", 0), ("stride", 0), ("clips", 0), ("crops", 2), ("sampling", "random")],
)
def test_impossible_specs_are_refused_with_the_value(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}: got {value!r}"):
        ClipSpec(**{"num_frames": 8, "size": 224, field: value})  # type: ignore[arg-type]


def test_a_video_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="count: got 0"):
        clip_indices(0, ClipSpec(num_frames=8, size=224))
