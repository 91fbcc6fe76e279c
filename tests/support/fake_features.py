"""A dataset of empty files, and stores of random embeddings for them, to test probes and experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from actionvit.features.fingerprint import Fingerprint
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import Row
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.video_record import VideoRecord
from actionvit.pipeline.datasets import Dataset, load_dataset

CLASSES = ("clap", "jump", "run", "wave")
VIEWS, FRAMES, WIDTH = 2, 4, 12


def write_dataset(root: Path, *, sources: int = 8, clips: int = 3, classes: Sequence[str] = CLASSES) -> Dataset:
    """Empty files with HMDB51 names: `clips` of each of `sources` films per class."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for source in range(sources):
            for clip in range(clips):
                (root / name / f"Film{name}{source}_{name}_f_cm_np1_fr_goo_{clip}.avi").touch()
    return load_dataset(root)


def write_store(
    cache: Path,
    dataset: Dataset,
    variant: str = "base",
    *,
    noise: float = 1.0,
    seed: int = 0,
    skip: int = 0,
    weights: str = "0" * 64,
    size: int = 224,
) -> FeatureStore:
    """A store whose embeddings are a class mean, an offset per film and noise; the last `skip` videos are missing."""
    rng = np.random.default_rng([seed, len(variant)])
    means = rng.normal(size=(len(dataset.class_names), WIDTH))
    shape = TimeSformerConfig(width=WIDTH, heads=2, depth=2, mlp=24)
    key = FeatureKey(
        weights=weights,
        model=asdict(shape),
        clip=asdict(ClipSpec(num_frames=FRAMES, size=size, clips=VIEWS)),
        preprocessing={},
        decoder="test",
        precision="fp32",
        outputs={"frame_pool": "cls", "layers": [1], "tokens_after": None},
        schema=1,
    )
    store = FeatureStore.create(
        cache / dataset.name / f"{variant}-{key.digest[:10]}", key=key, dataset=dataset.name, variant=variant, info={}
    )
    offsets = {source: rng.normal(size=WIDTH) for source in sorted({video.source for video in dataset.videos})}
    with Writer(store) as writer:
        for video in dataset.videos[: len(dataset.videos) - skip]:
            middle = means[dataset.class_names.index(video.label)] + 0.3 * offsets[video.source]
            frame = (middle + noise * rng.normal(size=(VIEWS, FRAMES, WIDTH))).astype(np.float32)
            arrays = {
                "clip": frame.mean(axis=1),
                "frame": frame,
                "layer1": frame[:, 0],
                "index": np.zeros((VIEWS, FRAMES), np.int32),
            }
            writer.append(Row(VideoRecord(video.id, "0" * 64, Fingerprint(0, 0), FRAMES, (), "test"), arrays))
    return store
