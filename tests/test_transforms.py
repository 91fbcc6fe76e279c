"""Resizing against PIL, cropping by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from actionvit.features.clips import ClipSpec
from actionvit.features.transforms import crop_corners, resized, views


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (97, 61), (40, 50), (224, 224)])
def test_resizing_is_pils_within_one_level(height: int, width: int) -> None:
    image = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    found = resized(torch.from_numpy(image[None]), 112)[0].permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(image).resize(found.shape[1::-1], Image.Resampling.BILINEAR))
    assert min(found.shape[:2]) == 112
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_crops_lie_at_start_centre_and_end_of_the_long_side() -> None:
    assert crop_corners(10, 16, 10, 3) == [(0, 0), (0, 3), (0, 6)]
    assert crop_corners(16, 10, 10, 3) == [(0, 0), (3, 0), (6, 0)]
    assert crop_corners(10, 16, 10, 1) == [(0, 3)]


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
