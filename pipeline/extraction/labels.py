"""The labels of the videos in a store, read from the dataset they came from."""

from __future__ import annotations

from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets import load_dataset


def labels_of(store: FeatureStore, root: Path | None = None) -> dict[str, str]:
    """Return the labels of the dataset at `root`, or of the one recorded when the store was extracted.

    Labels live in the dataset, never in the store: relabelled videos are exported under their new labels.

    Raises
    ------
    ActionVitError
        If there is no dataset (any more); the remedy is `--root`.
    """
    recorded, layout = store.info.get("root"), store.info.get("layout")
    if root is None:
        if recorded is None:
            raise ActionVitError(f"{store.folder}: does not say where its dataset is; give --root")
        root = Path(recorded)
        if layout == "csv":
            root = Path(store.info.get("csv") or root / f"{store.dataset}.csv")
    # A label is the folder's name with official lists and without, so they need not be found.
    dataset = load_dataset(root, layout="folder" if layout == "hmdb51" else layout)
    return {video.id: video.label for video in dataset.videos}
