"""Made-up runs to test reports: scores of a known skill, ids in HMDB51's pattern."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.pipeline.reporting.embeddings import Embeddings
from actionvit.pipeline.runs import Predictions, Run, measure, write_run

NAMES = ("clap", "jump", "run", "walk", "wave", "<b>&")


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def clip_id(label: str, number: int, per_source: int) -> str:
    """A name in HMDB51's pattern: source, class, body part, camera, people, viewpoint, quality, number."""
    source, tag = f"Film{number // per_source}", label.strip("<>&") or "odd"
    part, camera = "fulh"[number % 4], ("cm", "nm")[number % 2]
    view, quality = ("fr", "ba", "le", "ri")[number // 2 % 4], ("goo", "med", "bad")[number % 3]
    return f"{label}/{source}_{tag}_{part}_{camera}_np{1 + number % 2}_{view}_{quality}_{number}.avi"


def predictions(
    *,
    skill: float = 1.5,
    seed: int = 0,
    clips: int = 120,
    names: Sequence[str] = NAMES,
    per_source: int = 3,
    splits: int = 2,
    every_split: bool = False,
) -> Predictions:
    """Scores whose true class leads by `skill` standard deviations of the noise; the clips do not depend on the seed.

    A clip is tested in one split, or in every split.
    """
    true = np.random.RandomState(9).randint(0, len(names), clips)
    ids = np.array([clip_id(names[y], n, per_source) for n, y in enumerate(true)])
    sources = np.array([f"Film{n // per_source}" for n in range(clips)])
    split = np.array([f"official-{1 + n % splits}" for n in range(clips)])
    if every_split:
        ids, sources, true = (np.tile(column, splits) for column in (ids, sources, true))
        split = np.repeat([f"official-{1 + n}" for n in range(splits)], clips)
    logits = np.random.RandomState(seed).standard_normal((len(true), len(names))) + skill * np.eye(len(names))[true]
    return Predictions(
        id=ids,
        split=split,
        true=true.astype(np.int64),
        scores=softmax(logits),
        source=sources,
        class_names=tuple(names),
    )


def write(folder: Path, found: Predictions, *, info: dict[str, Any] | None = None, **more: Any) -> Run:
    """A run's folder with these predictions."""
    videos = len(set(found.id.tolist()))
    known: dict[str, Any] = {
        "variant": folder.name,
        "gmac": 1.0,
        "coverage": {"videos": videos + 2, "cached": videos, "missing": 2, "failed": 1, "flagged": 0},
        "command": ["actionvit", "probe", "clips & more", "--variant", folder.name],
        "versions": {"python": "3.11", "actionvit": "0.1.0"},
        "seeds": {"bootstrap": 0},
        "dataset": {"name": "films", "root": "clips", "layout": "hmdb51", "videos": videos + 2, "notes": []},
        "protocol": "official",
        "head": {"kind": "linear", "C": 0.1},
        "timings": {"fit": 1.5, "predict": 0.25},
    }
    return write_run(
        folder,
        info=known | (info or {}),
        predictions=found,
        metrics=measure(found, n_train=dict.fromkeys(found.split_names, 10)),
        head_tensors={"coef": np.zeros((2, 2), np.float32)},
        head_config={"kind": "linear"},
        **more,
    )


def embeddings(found: Predictions, *, width: int = 16, seed: int = 0, extra: Sequence[str] = ()) -> Embeddings:
    """One embedding per clip, near those of the same class; `extra` ids belong to no class."""
    ids, first = np.unique(found.id, return_index=True)
    random = np.random.RandomState(seed)
    centres = random.standard_normal((len(found.class_names), width))
    x = centres[found.true[first]] + 0.7 * random.standard_normal((len(ids), width))
    every = [*ids.tolist(), *extra]
    x = np.concatenate([x, random.standard_normal((len(extra), width))])
    order = np.argsort(every)
    digest = np.array([f"{number:064x}" for number in range(len(every))])
    return Embeddings(id=np.array(every)[order], x=x[order].astype(np.float32), digest=digest)
