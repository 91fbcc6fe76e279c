"""Trees of empty files and list files, and the labels and sets that `load_dataset` reads from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.dataset import Dataset


def tree(root: Path, *names: str, **texts: str) -> Path:
    """Make empty files, or files with the text given by a name whose `.` and `/` are written `__` and `___`."""
    for name in names:
        put(root, name)
    for name, text in texts.items():
        put(root, name.replace("___", "/").replace("__", "."), text)
    return root


def put(root: Path, name: str, text: str = "") -> Path:
    """Write a file, making its folder."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def error(root: Path, **options) -> str:
    """Return the error of `load_dataset`, which is one line."""
    with pytest.raises(ActionVitError) as caught:
        load_dataset(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels(dataset: Dataset) -> dict[str, str]:
    """Return the label of each video by id."""
    return {video.id: video.label for video in dataset.videos}


def sizes(dataset: Dataset) -> list[tuple[int, int, int]]:
    """Return the number of training, validation and test videos of each official split."""
    return [(len(split.train), len(split.val), len(split.test)) for split in dataset.official]
