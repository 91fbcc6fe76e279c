"""Fitted heads -> a run: predictions and metrics over all splits, and where every number comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.features.sampling import ClipSpec
from actionvit.features.store.speed import timings
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.variants import gmac
from actionvit.heads.base import Head
from actionvit.heads.fusion import LateFusion
from actionvit.heads.saving import dump_head
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import leaking_sources
from actionvit.pipeline.probing.features import FeatureTable, coverage
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.pipeline.probing.tasks import Fitted, Task, plan
from actionvit.pipeline.runs import INFO, Predictions, Run, check_place, locked_run, measure, versions, write_run

VERSIONS = ("numpy", "scikit-learn", "scipy")
QUESTION = ("variant", "dataset", "input", "videos_digest")
"""Keys of run.json that identify a probe, beside its spec and the keys of its stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """A run that is not on disk yet."""

    name: str
    info: dict[str, Any]
    predictions: Predictions
    metrics: dict[str, Any]
    head: Head
    """Of the first split and seed, or the final head on all videos."""
    trained_on: dict[str, Any]
    """`videos`: how many; `part`: which."""
    train: dict[str, list[str]]

    def write(self, runs: Path, *, name: str | None = None, overwrite: bool = False) -> Run:
        """Write the run below `runs`; one of that name is replaced if it answered the same question.

        Raises
        ------
        ActionVitError
            If another run of that name is there and `overwrite` is off.
        """
        folder = runs / (name or self.name)
        tensors, config = dump_head(self.head)
        return write_run(
            folder,
            info=self.info,
            predictions=self.predictions,
            metrics=self.metrics,
            head_tensors=tensors,
            head_config={
                **config,
                "input": self.info["input"],
                "class_names": list(self.predictions.class_names),
                "split": None if self.info["final"] else self.predictions.split_names[0],
                "trained_on": self.trained_on,
            },
            train=self.train,
            overwrite=overwrite or _same_question(folder, self.info, [one["key"] for one in self.info["stores"]]),
        )


def make_result(
    dataset: Dataset,
    tables: Sequence[FeatureTable],
    fitted: Sequence[Fitted],
    spec: ProbeSpec,
    suffix: str = "",
    *,
    final: Fitted | None = None,
) -> ProbeResult:
    """Return the run of one table's heads, or of several tables' fused ones; it stores `final` if there is one."""
    table = tables[0]
    variant = "+".join(one.variant for one in tables)
    predictions = _predictions(table, fitted)
    n_train = {one.task.name: len(one.train) for one in fitted}
    stores = [_store(one) for one in tables]
    inner = fitted[0].head  # that of a calibrated one: its settings are what was asked for
    if spec.calibrate and not suffix and isinstance(inner, LateFusion):
        inner = inner.heads_[0]
    info = {
        **_question(dataset, tables, spec, [one.task for one in fitted]),
        "protocol": fitted[0].task.split.name.rpartition("-")[0],
        "store": stores[0],
        "stores": stores,
        "gmac": sum(_gmac(one) for one in tables),
        "head": {"kind": spec.head + suffix, **_settings(inner)},
        "search": [
            {"split": one.task.name, "variant": of.variant, **search}
            for one in fitted
            for of, search in zip(tables, one.searches, strict=True)
        ],
        "final": final and {"videos": len(final.train), "setting": final.selected.best_params},
        "leaks": _leaks(dataset, fitted),
        "seeds": {"splits, folds, training": sorted({one.task.seed for one in fitted}), "bootstrap": 0},
        "timings": {
            **timings([one.store.folder for one in tables], rows=len(table.id)),
            "fit": round(sum(one.seconds[0] for one in fitted), 3),
            "predict": round(sum(one.seconds[1] for one in fitted), 3),
        },
        "coverage": coverage(dataset, table),
        "versions": versions(*VERSIONS),
    }
    ids = table.id
    return ProbeResult(
        name=run_name(variant, spec) + suffix,
        info=info,
        predictions=predictions,
        metrics=measure(predictions, n_train=n_train),
        head=(final or fitted[0]).head,
        trained_on={
            "videos": len((final or fitted[0]).train),
            "part": "all videos" if final else f"training set of split {fitted[0].task.name}",
        },
        train={one.task.name: ids[one.train].tolist() for one in fitted},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run that is about to be computed."""

    tables: Sequence[FeatureTable]
    spec: ProbeSpec
    suffix: str = ""
    """Of the default name, for fused runs."""


@contextmanager
def reserved_runs(
    runs: Path, dataset: Dataset, planned: Sequence[PlannedRun], *, name: str | None = None, overwrite: bool = False
) -> Iterator[None]:
    """Check the places of runs before anything is computed, and hold the locks of their names until they are written.

    Raises
    ------
    ActionVitError
        If `ProbeResult.write` would, or another process trains under one of the names.
    """
    with ExitStack() as locks:
        for run in planned:
            question = _question(dataset, run.tables, run.spec, plan(dataset, run.spec))
            folder = runs / (name or run_name(question["variant"], run.spec) + run.suffix)
            keys = [table.store.key.to_dict() for table in run.tables]
            locks.enter_context(locked_run(folder))
            check_place(folder, overwrite=overwrite or _same_question(folder, question, keys))
        yield


def _question(
    dataset: Dataset, tables: Sequence[FeatureTable], spec: ProbeSpec, tasks: Sequence[Task]
) -> dict[str, Any]:
    """Return the entries of run.json that identify a probe."""
    return {
        "variant": "+".join(one.variant for one in tables),
        "dataset": dataset.run_record,
        "spec": _spec(spec),
        "input": {"variants": [one.variant for one in tables], "features": spec.features, "views": spec.views},
        "videos_digest": videos_digest(dataset, tables[0].id.tolist(), tasks),
    }


def run_name(variant: str, spec: ProbeSpec) -> str:
    """Return a name that tells what is not as usual: `base-linear-balanced`."""
    parts = [
        variant,
        spec.head,
        spec.features if spec.features != "clip" else "",
        "each-view" if spec.views == "each" else "",
        spec.class_weight if spec.class_weight != "none" else "",
        f"{spec.sampler}-sampler" if spec.sampler != "uniform" else "",
        f"adjust{spec.logit_adjust:g}" if spec.logit_adjust else "",
        f"focal{spec.focal:g}" if spec.focal else "",
        f"tail{spec.long_tail:g}" if spec.long_tail is not None else "",
        "even" if spec.long_tail_even else "",
        f"{spec.shots}-shot" if spec.shots is not None else "",
        "calibrated" if spec.calibrate else "",
        "select-on-val" if spec.select_on == "val" else "",
        spec.protocol or "",
    ]
    return "-".join(part for part in parts if part)


def _predictions(table: FeatureTable, fitted: Sequence[Fitted]) -> Predictions:
    """Join the test rows of all tasks; a class that a training set lacked has probability 0."""
    scores = []
    for one in fitted:
        full = np.zeros((len(one.test), len(table.class_names)))
        full[:, one.head.classes_] = np.exp(one.log_proba)
        scores.append(full)
    rows = np.concatenate([one.test for one in fitted])
    return Predictions(
        id=table.id[rows],
        split=np.concatenate([np.full(len(one.test), one.task.name) for one in fitted]),
        true=table.y[rows].astype(np.int64),
        scores=np.concatenate(scores).astype(np.float32),
        source=table.source[rows],
        class_names=table.class_names,
    )


def _leaks(dataset: Dataset, fitted: Sequence[Fitted]) -> dict[str, int]:
    """Return how many sources stand on both sides, by split, where any does."""
    counts = {one.task.name: len(leaking_sources(dataset, one.task.split)) for one in fitted}
    return {name: count for name, count in counts.items() if count}


def _store(table: FeatureTable) -> dict[str, Any]:
    return {"path": str(table.store.folder), "digest": table.store.digest(), "key": table.store.key.to_dict()}


def _gmac(table: FeatureTable) -> float:
    """Return 10⁹ multiply-adds a video."""
    if "family" in table.store.key.model:  # not a TimeSformer: counted when it was extracted
        return round(float(table.store.info.get("gmac", 0.0)), 3)
    clip = ClipSpec(**table.store.key.clip)
    return round(gmac(TimeSformerConfig(**table.store.key.model), clip) * clip.views, 3)


def _spec(spec: ProbeSpec) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(asdict(spec), default=list))
    if value["select_on"] == "folds":
        del value["select_on"]  # as in the runs of the first edition
    return value


def _current(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a run's spec with the fields that it was written without; `long_tail` was 1 where nothing was thinned."""
    full = {**_spec(ProbeSpec()), **spec}
    if "long_tail_even" not in spec and full["long_tail"] == 1:
        full["long_tail"] = None
    return full


def _settings(head: Head) -> dict[str, Any]:
    """Return the settings that JSON can hold; nested heads are told by `search`."""
    plain = (str, int, float, bool, type(None), list)
    return {name: value for name, value in head.get_params(deep=False).items() if isinstance(value, plain)}


def videos_digest(dataset: Dataset, ids: Sequence[str], tasks: Sequence[Task]) -> str:
    """Return what tells whether two probes saw the same videos under the same labels, sources and splits."""
    used = set(ids)
    videos = [[video.id, video.label, video.source] for video in dataset.videos if video.id in used]
    splits = [[task.name, task.split.train, task.split.test] for task in tasks]
    return hashlib.sha256(json.dumps([dataset.name, videos, splits], ensure_ascii=True).encode()).hexdigest()


def same_answer(
    folder: Path, spec: ProbeSpec, dataset: Dataset, stores: Sequence[FeatureStore], ids: Sequence[str]
) -> bool:
    """Return whether a run has this spec, these embeddings and videos, and was made with these versions."""
    try:
        there = json.loads((folder / INFO).read_text(encoding="utf-8"))
        return bool(
            _current(there["spec"]) == _spec(spec)
            and [one["digest"] for one in there["stores"]] == [store.digest() for store in stores]
            and there["videos_digest"] == videos_digest(dataset, ids, plan(dataset, spec))
            and there["versions"] == versions(*VERSIONS)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _same_question(folder: Path, question: dict[str, Any], keys: Sequence[dict[str, Any]]) -> bool:
    """Return whether a run has the same videos, splits, settings and store keys; False if it cannot be read."""
    try:
        there = json.loads((folder / INFO).read_text(encoding="utf-8"))
        same = [store["key"] for store in there["stores"]] == json.loads(json.dumps(keys))
        return (
            same
            and all(there[key] == question[key] for key in QUESTION)
            and {**_current(there["spec"]), "final": None} == {**question["spec"], "final": None}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
