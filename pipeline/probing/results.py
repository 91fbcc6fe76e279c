"""Fitted heads -> a run: predictions and metrics over all splits, and their provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.speed import timings
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.variants import gmac
from actionvit.heads.base import Head
from actionvit.heads.fusion import FusionRule, LateFusion
from actionvit.heads.saving import dump_head
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.datasets.splits import count_leaks, recorded_spec
from actionvit.pipeline.probing.features import FeatureTable, coverage
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.pipeline.probing.tasks import Fitted, Task, plan
from actionvit.pipeline.run_folder import check_place, locked_run, recorded_info
from actionvit.pipeline.run_names import default_name
from actionvit.pipeline.runs import Predictions, Run, measure, read_run, versions, write_run
from actionvit.settings import settings_of

VERSIONS = ("numpy", "scikit-learn", "scipy")
MADE_BY = "experiment"
"""The entry `made_by` of runs that an experiment or sweep may replace."""
IDENTITY = ("variant", "dataset", "input", "videos_digest")
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
    """`videos`: number of training videos; `part`: their part of the dataset."""
    train: dict[str, list[str]]

    def write(self, runs: Path, *, name: str | None = None, overwrite: bool = False) -> Run:
        """Write the run below `runs`; an existing run of that name is replaced if it has the same settings and data.

        Raises
        ------
        ActionVitError
            If a run of that name with other settings or data exists and `overwrite` is off.
        """
        folder = runs / (name or self.name)
        tensors, config = dump_head(self.head)
        keys = [store["key"] for store in self.info["stores"]]
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
            overwrite=overwrite or _same_identity(recorded_info(folder), self.info, keys),
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
    """Return the run of fitted heads.

    Parameters
    ----------
    dataset : Dataset
    tables : sequence of FeatureTable
        The embeddings; several if the heads are fused.
    fitted : sequence of Fitted
        One per split and seed.
    spec : ProbeSpec
    suffix : str
        Added to the run's name and the head's kind, such as `-fused-mean`.
    final : Fitted, optional
        A head trained on all videos, which the run stores instead of the first split's.
    """
    table = tables[0]
    variant = "+".join(member.variant for member in tables)
    predictions = _predictions(table, fitted)
    n_train = {fit.task.name: len(fit.train) for fit in fitted}
    stores = [_store(member) for member in tables]
    inner = fitted[0].head  # a calibrated head wraps the one with the requested settings
    if spec.calibrate and not suffix and isinstance(inner, LateFusion):
        inner = inner.heads_[0]
    info = {
        **_identity(dataset, tables, spec, [fit.task for fit in fitted]),
        "protocol": fitted[0].task.split.name.rpartition("-")[0],
        "store": stores[0],
        "stores": stores,
        "gmac": sum(_gmac(member) for member in tables),
        "head": {"kind": spec.head + suffix, **_settings(inner)},
        "search": [
            {"split": fit.task.name, "variant": of.variant, **search}
            for fit in fitted
            for of, search in zip(tables, fit.searches, strict=True)
        ],
        "final": final and {"videos": len(final.train), "setting": final.selected.best_params},
        "leaks": count_leaks(dataset, {fit.task.name: fit.task.split for fit in fitted}),
        "seeds": {"splits, folds, training": sorted({fit.task.seed for fit in fitted})},
        "timings": {
            **timings([member.store.folder for member in tables], rows=len(table.id)),
            "fit": round(sum(fit.seconds[0] for fit in fitted), 3),
            "predict": round(sum(fit.seconds[1] for fit in fitted), 3),
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
        train={fit.task.name: ids[fit.train].tolist() for fit in fitted},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run that is about to be computed."""

    tables: Sequence[FeatureTable]
    spec: ProbeSpec
    tasks: Sequence[Task]
    suffix: str = ""
    """Added to the run's name, such as `-fused-mean`."""


def planned_runs(
    dataset: Dataset, tables: Sequence[FeatureTable], specs: Sequence[ProbeSpec], fusion: Iterable[FusionRule] = ()
) -> list[PlannedRun]:
    """Return the runs of `probe`: each table and each fusion of them, with each spec."""
    groups = [([table], "") for table in tables] + [(list(tables), fused_suffix(rule)) for rule in fusion]
    return [
        PlannedRun(tables=used, spec=spec, tasks=tasks, suffix=suffix)
        for spec, tasks in [(spec, plan(dataset, spec)) for spec in specs]
        for used, suffix in groups
    ]


def fused_suffix(rule: FusionRule) -> str:
    """Return the end of the name of a fused run."""
    return f"-fused-{rule}"


@contextmanager
def reserved_runs(
    runs: Path, dataset: Dataset, planned: Sequence[PlannedRun], *, name: str | None = None, overwrite: bool = False
) -> Iterator[None]:
    """Check the folders of runs before anything is computed, and hold the locks of their names until they are written.

    Parameters
    ----------
    runs : Path
        Folder of the runs.
    dataset : Dataset
    planned : sequence of PlannedRun
        The runs to be computed.
    name : str, optional
        Name of the run, instead of the default; for a single one.
    overwrite : bool
        Replace existing runs.

    Raises
    ------
    ActionVitError
        If a run exists that `ProbeResult.write` would not replace, or another process writes a run of the same name.
    """
    with ExitStack() as locks:
        for run in planned:
            identity = _identity(dataset, run.tables, run.spec, run.tasks)
            folder = runs / (name or run_name(identity["variant"], run.spec) + run.suffix)
            keys = [table.store.key.to_dict() for table in run.tables]
            locks.enter_context(locked_run(folder))
            recorded = recorded_info(folder)
            replaced = overwrite or _same_identity(recorded, identity, keys)
            differences = "" if replaced else _differences(recorded, identity, keys)
            check_place(folder, overwrite=replaced, dataset=dataset.name, differences=differences)
        yield


def _identity(
    dataset: Dataset, tables: Sequence[FeatureTable], spec: ProbeSpec, tasks: Sequence[Task]
) -> dict[str, Any]:
    """Return the entries of run.json that identify a probe."""
    return {
        "variant": "+".join(member.variant for member in tables),
        "dataset": dataset.run_record,
        "spec": _spec(spec),
        "input": {"variants": [member.variant for member in tables], "features": spec.features, "views": spec.views},
        "videos_digest": videos_digest(dataset, tables[0].id.tolist(), tasks),
    }


def run_name(variant: str, spec: ProbeSpec) -> str:
    """Return the default name of a run."""
    first = [variant, spec.head, spec.features if spec.features != "clip" else ""]
    more = [
        f"tail{spec.long_tail:g}" if spec.long_tail is not None else "",
        "even" if spec.long_tail_even else "",
        f"{spec.shots}-shot" if spec.shots is not None else "",
        "calibrated" if spec.calibrate else "",
        "select-on-val" if spec.select_on == "val" else "",
    ]
    views = "each-view" if spec.views == "each" else ""
    return default_name([*first, views], spec, spec.sampler, more, spec.protocol)


def _predictions(table: FeatureTable, fitted: Sequence[Fitted]) -> Predictions:
    """Join the test rows of all tasks; a class that a training set lacked has probability 0."""
    scores = []
    for fit in fitted:
        full = np.zeros((len(fit.test), len(table.class_names)))
        full[:, fit.head.classes_] = np.exp(fit.log_proba)
        scores.append(full)
    rows = np.concatenate([fit.test for fit in fitted])
    return Predictions(
        id=table.id[rows],
        split=np.concatenate([np.full(len(fit.test), fit.task.name) for fit in fitted]),
        true=table.y[rows].astype(np.int64),
        scores=np.concatenate(scores).astype(np.float32),
        source=table.source[rows],
        class_names=table.class_names,
    )


def _store(table: FeatureTable) -> dict[str, Any]:
    return {"path": str(table.store.folder), "digest": table.store.digest(), "key": table.store.key.to_dict()}


def _gmac(table: FeatureTable) -> float:
    """Return the multiply-adds per video in 10⁹."""
    if "family" in table.store.key.model:  # not a TimeSformer: counted when it was extracted
        return round(float(table.store.info.get("gmac", 0.0)), 3)
    clip = ClipSpec(**table.store.key.clip)
    return round(gmac(TimeSformerConfig(**table.store.key.model), clip) * clip.views, 3)


def _spec(spec: ProbeSpec) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(recorded_spec(spec), default=list))
    if value["select_on"] == "folds":
        del value["select_on"]  # as in the runs of the first edition
    return value


def _current(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a run's spec with fields that older versions did not write; they wrote `long_tail` 1 for no thinning."""
    full = {**_spec(ProbeSpec()), **spec}
    if "long_tail_even" not in spec and full["long_tail"] == 1:
        full["long_tail"] = None
    return full


def _settings(head: Head) -> dict[str, Any]:
    """Return the settings that JSON can represent; the settings of nested heads are in `search`."""
    plain = (str, int, float, bool, type(None), list)
    return {name: value for name, value in head.get_params(deep=False).items() if isinstance(value, plain)}


def videos_digest(dataset: Dataset, ids: Sequence[str], tasks: Sequence[Task]) -> str:
    """Return a digest of the videos used, with their labels, sources and splits."""
    used = set(ids)
    videos = [[video.id, video.label, video.source] for video in dataset.videos if video.id in used]
    splits = [[task.name, task.split.train, task.split.test] for task in tasks]
    return hashlib.sha256(json.dumps([dataset.name, videos, splits], ensure_ascii=True).encode()).hexdigest()


def has_same_result(
    folder: Path, spec: ProbeSpec, dataset: Dataset, stores: Sequence[FeatureStore], ids: Sequence[str]
) -> bool:
    """Return whether a run has this spec, these embeddings and videos, and was made with these versions."""
    recorded = recorded_info(folder)
    try:
        return bool(
            _current(recorded["spec"]) == _spec(spec)
            and [entry["digest"] for entry in recorded["stores"]] == [store.digest() for store in stores]
            and recorded["videos_digest"] == videos_digest(dataset, ids, plan(dataset, spec))
            and recorded["versions"] == versions(*VERSIONS)
        )
    except (KeyError, TypeError):
        return False


def ensure_run(
    folder: Path,
    spec: ProbeSpec,
    dataset: Dataset,
    store: FeatureStore,
    ids: Sequence[str],
    make: Callable[[], ProbeResult],
) -> tuple[Run, bool]:
    """Return the run of a folder, and whether it was there with this result; otherwise `make` makes it.

    If another process is making it, wait for that. The lock also removes the leftovers of a killed process. A broken
    run is made again; a run that no experiment or sweep wrote raises ActionVitError.
    """
    with locked_run(folder, wait=True):
        check_own([folder])
        if has_same_result(folder, spec, dataset, [store], ids):
            with suppress(ActionVitError):
                return read_run(folder), True
        result = make()
        result.info["made_by"] = MADE_BY
        return result.write(folder.parent, name=folder.name, overwrite=True), False


def check_own(folders: Iterable[Path]) -> None:
    """Raise ActionVitError if one of the runs exists and no experiment or sweep wrote it."""
    for folder in folders:
        if folder.exists() and recorded_info(folder).get("made_by") != MADE_BY:
            raise ActionVitError(f"{folder} exists and no experiment or sweep wrote it; choose another output=")


def _differences(recorded: dict[str, Any], identity: dict[str, Any], keys: Sequence[dict[str, Any]]) -> str:
    """Return how an existing run differs from a new one: `other settings: folds=5 (here 3)`; empty if unreadable."""
    try:
        old, new = _current(recorded["spec"]), {"select_on": "folds", **identity["spec"]}
        names = {field: about.name or field for field, about in settings_of(ProbeSpec).items()}
        changed = [
            f"{names.get(name, name)}={_value(old.get(name))} (here {_value(value)})"
            for name, value in new.items()
            if name != "final" and old.get(name, "folds" if name == "select_on" else None) != value
        ]
        if changed:
            return f"other settings: {', '.join(changed)}"
        if [store["key"] for store in recorded["stores"]] != json.loads(json.dumps(keys)):
            return "other embeddings"
        return "" if recorded["videos_digest"] == identity["videos_digest"] else "other videos or splits"
    except (KeyError, TypeError, AttributeError):
        return ""


def _value(value: Any) -> str:
    """Return a setting as a word: the grid as `C=0.1,1`, and None or an empty grid as `default`."""
    if isinstance(value, dict):
        return " ".join(f"{name}={','.join(map(str, values))}" for name, values in value.items()) or "default"
    return "default" if value is None else str(value)


def _same_identity(recorded: dict[str, Any], identity: dict[str, Any], keys: Sequence[dict[str, Any]]) -> bool:
    """Return whether a run.json has the same videos, splits, settings and store keys; False if it is malformed."""
    try:
        same = [store["key"] for store in recorded["stores"]] == json.loads(json.dumps(keys))
        return (
            same
            and all(recorded[key] == identity[key] for key in IDENTITY)
            and {**_current(recorded["spec"]), "final": None} == {**identity["spec"], "final": None}
        )
    except (KeyError, TypeError):
        return False
