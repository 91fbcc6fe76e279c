"""The labels of the videos in a store, read from the dataset they came from."""

from __future__ import annotations

from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets.loading import reload


def labels_of(store: FeatureStore, root: Path | None = None) -> dict[str, str]:
    """Return the labels of the dataset at `root`, or of the one recorded when the store was extracted.

    Labels live in the dataset, never in the store: relabelled videos are exported under their new labels.

    Raises
    ------
    ActionVitError
        If there is no dataset (any more); the remedy is `--root`.
    """
    if root is None and store.info.get("root") is None:
        raise ActionVitError(f"{store.folder}: does not say where its dataset is; give --root")
    dataset = reload({"dataset": store.dataset, **store.info}, root)
    return {video.id: video.label for video in dataset.videos}
