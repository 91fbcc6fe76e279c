"""Stage 2: a head per split on cached embeddings, chosen inside its training set and scored once on its test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from actionvit.errors import ActionVitError, SettingError
from actionvit.heads.base import Head
from actionvit.heads.fusion import FusionRule
from actionvit.heads.gradient import GradientHead
from actionvit.heads.saving import head_class
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.probing.features import FeatureTable, extract_command
from actionvit.pipeline.probing.results import ProbeResult, fused_suffix, make_result
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.pipeline.probing.tasks import Fitted, Task, fit_final, fit_task, fuse_task, plan
from actionvit.settings import settings_of


def probe(
    dataset: Dataset,
    tables: Sequence[FeatureTable],
    spec: ProbeSpec,
    *,
    fusion: Iterable[FusionRule] = (),
    jobs: int = 2,
    on_task: Callable[[int, int], None] | None = None,
) -> list[ProbeResult]:
    """Fit and score a head on each table, over all splits and seeds, and their fusions.

    All randomness is seeded and every matmul runs in one thread, so that the result does not depend on `jobs` or the
    number of cores.

    Parameters
    ----------
    dataset : Dataset
        Gives the splits.
    tables : sequence of FeatureTable
        As from `read_tables`: all over the same videos.
    spec : ProbeSpec
    fusion : iterable of {"mean", "stacked"}
        Late fusions of all tables' heads, each a further result.
    jobs : int
        Number of threads, each working on one split.
    on_task : callable, optional
        Called with the number of finished tasks and of all tasks.

    Raises
    ------
    ActionVitError
        If the head does not have a setting, or no training or test video of a split is cached.
    """
    tasks = plan(dataset, spec)
    head = build_head(spec)
    _check_sets(dataset, tasks, tables[0])
    work = [(table, task) for table in tables for task in tasks]
    done: list[Fitted] = []
    with _one_thread(head):
        fits = (delayed(fit_task)(head, table, task, spec) for table, task in work)
        for fitted in Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(fits):
            done.append(fitted)
            if on_task is not None:
                on_task(len(done), len(work))
        by_table = [done[i : i + len(tasks)] for i in range(0, len(done), len(tasks))]
        finals = [
            fit_final(head, table, fitted, spec) if spec.final else None
            for table, fitted in zip(tables, by_table, strict=True)
        ]
        outcomes = [([table], fitted, final, "") for table, fitted, final in zip(tables, by_table, finals, strict=True)]
        for rule in fusion:
            fused = [fuse_task(members, rule) for members in zip(*by_table, strict=True)]
            members = [final for final in finals if final]
            outcomes.append((list(tables), fused, fuse_task(members, rule) if members else None, fused_suffix(rule)))
    return [make_result(dataset, used, fitted, spec, suffix, final=final) for used, fitted, final, suffix in outcomes]


@contextmanager
def _one_thread(head: Head) -> Iterator[None]:
    """Limit matmuls to one thread per task, including torch's if the head trains with it."""
    with threadpool_limits(1):
        if not isinstance(head, GradientHead):
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def build_head(spec: ProbeSpec) -> Head:
    """Return the head with the settings of the spec.

    Raises
    ------
    ActionVitError
        If the head does not have a setting or a searched parameter.
    """
    head = head_class(spec.head)()
    defaults = head.get_params()
    settings = {"class_weight": "none", "sampler": "uniform", "logit_adjust": 0.0, "focal": 0.0, "device": "cpu"}
    for name, default in settings.items():
        value = getattr(spec, name)
        if name in defaults:
            head.set_params(**{name: value})
        elif value != default:
            public = settings_of(spec)[name].name or name
            raise SettingError(f"{public}: got {value}, but the head `{spec.head}` has no such setting")
    searchable = sorted(defaults.keys() - {"device", "random_state"})
    for name, values in spec.grid.items():
        if name not in searchable:
            raise SettingError(f"grid: got {name}, but the head `{spec.head}` has {', '.join(searchable)}")
        for value in values:
            _check_kind(name, value, defaults[name])
    if spec.device.startswith("mps"):
        raise SettingError("device: got mps, which lacks the double precision that probes need; leave it out")
    return head


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse a value whose type differs from the default's: a word for a number, a fraction for a count, ..."""
    fits = {
        bool: (value in (0, 1), "true or false"),
        int: (type(value) is int, "a whole number"),
        float: (type(value) in (int, float) and math.isfinite(value), "a number"),
    }
    fitting, expected = fits.get(type(default), (True, ""))
    if not fitting:
        raise SettingError(f"grid: got {name}={value}, expected {expected}")


def _check_sets(dataset: Dataset, tasks: Sequence[Task], table: FeatureTable) -> None:
    """Refuse a split whose training or test set cannot be used.

    Raises
    ------
    ActionVitError
        If a training set has one class, or too few videos are cached.
    """
    for task in tasks:
        train, test = table.rows(task.split.train), table.rows(task.split.test)
        classes = len(np.unique(table.y[train]))
        if classes == 1 and len(train) == len(task.split.train):
            raise ActionVitError(f"split {task.name}: its training set has one class; choose another protocol=")
        if classes < 2 or not len(test):
            raise ActionVitError(
                f"split {task.name}: of {len(task.split.train)} training and {len(task.split.test)} test videos"
                f" {len(train)} and {len(test)} are cached; run {extract_command(dataset, table.store)}"
            )
