"""Resizing against PIL, cropping by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from actionvit.features.resizing import resize_by_integers
from actionvit.features.sampling import ClipSpec
from actionvit.features.transforms import crop_corners, resize_short_side, views

SIZES = [
    (240, 320),
    (320, 240),
    (97, 61),
    (40, 50),
    (224, 224),
    (112, 400),
    (113, 112),
    (33, 640),
    (1080, 1920),
    (7, 9),
]


@pytest.mark.parametrize("size", [16, 112, 224])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_is_pils_within_one_level(height: int, width: int, size: int) -> None:
    """Up and down, by whole and odd factors; and by the sums that other devices take, bit for bit the same."""
    random = np.random.RandomState(0)
    noise = random.randint(0, 256, (height, width, 3)).astype(np.uint8)
    extremes = (random.randint(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    for image in (noise, extremes):
        frames = torch.from_numpy(image[None])
        found = resize_short_side(frames, size)
        shape = (found.shape[2], found.shape[3])
        expected = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR)).astype(int)
        assert min(shape) == size and max(shape) == max(height, width) * size // min(height, width)
        assert np.abs(found[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
        assert torch.equal(resize_by_integers(frames, *shape), found.permute(0, 2, 3, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_gpu_resizes_to_the_same_bytes(height: int, width: int) -> None:
    frames = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8)
    assert torch.equal(resize_short_side(frames.cuda(), 112).cpu(), resize_short_side(frames, 112))


def test_crops_lie_at_start_centre_and_end_of_the_long_side() -> None:
    assert crop_corners(10, 16, 10, 3) == [(0, 0), (0, 3), (0, 6)]
    assert crop_corners(16, 10, 10, 3) == [(0, 0), (3, 0), (6, 0)]
    assert crop_corners(10, 16, 10, 1) == [(0, 3)]


def test_several_videos_give_what_each_gives_alone() -> None:
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (6, 20, 32, 3), dtype=torch.uint8)
    spec = ClipSpec(num_frames=3, size=16, clips=2, crops=3, flip=True)
    rows = torch.randint(0, 3, (12, 3))
    norms = ((0.5, 0.4, 0.3), (0.25, 0.5, 1.0))
    alone = [views(each, rows, spec, *norms) for each in (frames[:3], frames[3:])]
    assert torch.equal(views(frames, torch.cat([rows, rows + 3]), spec, *norms), torch.cat(alone))
    with pytest.raises(ValueError, match="expected"):
        views(frames, rows[:7], spec, *norms)


def test_views_are_normalised_cropped_and_mirrored_in_order() -> None:
    frames = torch.arange(2 * 4 * 6 * 3, dtype=torch.uint8).reshape(2, 4, 6, 3)
    spec = ClipSpec(num_frames=2, size=4, crops=3, flip=True)
    rows = torch.tensor([[1, 0]]).repeat(6, 1)
    found = views(frames, rows, spec, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    assert found.shape == (6, 2, 3, 4, 4)
    std = torch.tensor([0.25, 0.5, 1.0]).view(1, 3, 1, 1)
    for crop, left in enumerate((0, 1, 2)):
        plain = (frames[[1, 0], :, left : left + 4].permute(0, 3, 1, 2).float() / 255 - 0.5) / std
        torch.testing.assert_close(found[2 * crop], plain)
        torch.testing.assert_close(found[2 * crop + 1], plain.flip(-1))
