"""Labels, sources and splits of the videos in a store, read from the dataset they came from."""

from __future__ import annotations

from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets.loading import reload


def dataset_columns(store: FeatureStore, root: Path | None = None) -> dict[str, dict[str, str]]:
    """Return texts per video of the dataset at `root`, or of the one recorded when the store was extracted.

    Labels live in the dataset, never in the store: relabelled videos are exported under their new labels.

    Returns
    -------
    dict
        `label` and `source` by id; for each official split `split-NAME`, `train`, `val` or `test`; and for segments
        `start` and `end` in seconds or, as `start_frame` and `end_frame`, in frames.

    Raises
    ------
    ActionVitError
        If the dataset cannot be read; the remedy is `root`.
    """
    if root is None and store.info.get("root") is None:
        raise ActionVitError(f"{store.folder}: does not record its dataset's folder; give root=FOLDER")
    dataset = reload({"dataset": store.dataset, **store.info}, root, official=True)
    columns = {
        "label": {video.id: video.label for video in dataset.videos},
        "source": {video.id: video.source for video in dataset.videos},
    }
    for split in dataset.official:
        sets = {"train": split.train, "val": split.val, "test": split.test}
        columns[f"split-{split.name}"] = {id: name for name, ids in sets.items() for id in ids}
    for id, segment in dataset.segments.items():
        suffix = "_frame" if segment.unit == "frames" else ""
        columns.setdefault(f"start{suffix}", {})[id] = str(segment).split("-")[0]
        columns.setdefault(f"end{suffix}", {})[id] = str(segment).split("-")[1]
    return columns
