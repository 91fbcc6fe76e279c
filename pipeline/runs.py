"""A run: a folder with the predictions of a head, their metrics, the head itself, and the provenance of all of it.

Readable without torch; `docs/reference/run-format.md` describes each file.
"""

from __future__ import annotations

import filecmp
import json
import platform
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit import __version__, escape
from actionvit.errors import ActionVitError
from actionvit.evaluation.clustered import Design
from actionvit.evaluation.metrics import check_scores, evaluate, per_class
from actionvit.evaluation.summary import summarize
from actionvit.features.atomic import atomic_folder, restore_folder, restore_folders
from actionvit.features.fingerprint import require_file
from actionvit.pipeline.run_folder import INFO, check_place
from actionvit.pipeline.tensor_file import dump_tensors, load_tensors
from actionvit.text import first_line, pluralize, printable

SCHEMA = 1
"""Version of the files of a run; a reader refuses a higher one."""

METRICS, PREDICTIONS, HEAD = "metrics.json", "predictions.npz", "head.safetensors"
TRAIN, REPORT = "train.json", "report"


def versions(*packages: str) -> dict[str, str]:
    """Return the versions that a run was made with: Python's, ours (also where it is not installed), some packages'."""
    return {
        "python": platform.python_version(),
        "actionvit": __version__,
        **{name: version(name) for name in packages},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Scores of every test clip of every split; M rows, C classes."""

    id: NDArray[np.str_]
    """(M,), the video's id; a clip that several splits test has a row in each."""
    split: NDArray[np.str_]
    """(M,), name of the split."""
    true: NDArray[np.int64]
    """(M,), class numbers."""
    scores: NDArray[np.float32]
    """(M, C), probabilities."""
    source: NDArray[np.str_]
    """(M,), the film or upload the clip was cut from, empty where unknown."""
    class_names: tuple[str, ...]
    """C names, in the order of `scores`."""

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths, and scores that are not probabilities."""
        rows = len(self.id)
        for name in ("split", "true", "source"):
            if getattr(self, name).shape != (rows,):
                raise ValueError(f"{name}: got {getattr(self, name).shape}, expected ({rows},)")
        check_scores(self.true, self.scores, self.class_names)

    @property
    def cluster(self) -> NDArray[np.str_]:
        """(M,), the cluster of each clip for intervals: its source, or its id if the source is unknown."""
        return np.where(self.source == "", self.id, self.source)

    def of_splits(self, names: Sequence[str]) -> Predictions:
        """Return the predictions of some splits."""
        rows = np.isin(self.split, list(names))
        arrays = {name: getattr(self, name)[rows] for name in ("id", "split", "true", "scores", "source")}
        return Predictions(**arrays, class_names=self.class_names)

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits in order of appearance."""
        return tuple(dict.fromkeys(self.split.tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as read from its folder."""

    folder: Path
    info: dict[str, Any]
    predictions: Predictions
    metrics: dict[str, Any]
    train: dict[str, list[str]]
    """Ids of the training clips by split name; empty if the run does not record them."""

    def __repr__(self) -> str:
        """Return `Run(runs/base-linear: 5 splits, 51 classes, top-1 61.2 %)`."""
        predictions, top1 = self.predictions, self.metrics.get("summary", {}).get("top1")
        figure = f", top-1 {100 * top1['mean']:.1f} %" if top1 else ""
        splits = pluralize(len(predictions.split_names), "split")
        return f"Run({self.folder}: {splits}, {len(predictions.class_names)} classes{figure})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def confusion(self) -> NDArray[np.float64]:
        """(C, C), clips by true class (rows) and predicted class (columns).

        A clip counts once: where several splits test it, each of its predictions counts in proportion.
        """
        _, inverse, counts = np.unique(self.predictions.id, return_inverse=True, return_counts=True)
        matrix = np.zeros((len(self.predictions.class_names),) * 2)
        np.add.at(matrix, (self.predictions.true, self.predictions.scores.argmax(axis=1)), 1 / counts[inverse])
        return matrix

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """One record per class: `class`, `precision`, `recall`, `f1` and `support` (clips), over all splits.

        A value that is not defined, such as the precision of a class that is never predicted, is None.
        """
        return per_class(self.confusion, self.predictions.class_names)

    def head(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the head's tensors by name and its configuration.

        Raises
        ------
        ActionVitError
            If the file cannot be read, or its tensors do not match their digest.
        """
        path = self.folder / HEAD
        try:
            return load_tensors(path, "config")
        except (OSError, ValueError) as error:
            raise _broken(path, error) from error


def measure(predictions: Predictions, *, n_train: Mapping[str, int]) -> dict[str, Any]:
    """Return the content of `metrics.json`: every split evaluated, and the summary over them with intervals.

    Parameters
    ----------
    predictions : Predictions
        Of one run.
    n_train : mapping
        Training clips by split name.
    """
    splits = []
    for name in predictions.split_names:
        rows = predictions.split == name
        true, scores, cluster = (column[rows] for column in (predictions.true, predictions.scores, predictions.cluster))
        splits.append(
            evaluate(true, scores, predictions.class_names, n_train=n_train[name], name=name, cluster=cluster)
        )
    return {"splits": splits, "summary": summarize(splits, design_of(predictions, n_train), scores=predictions.scores)}


def design_of(predictions: Predictions, n_train: Mapping[str, int] | None = None) -> Design:
    """Return the design of a run's test results; see `evaluation.clustered.Design`."""
    return Design(
        split=predictions.split,
        true=predictions.true,
        cluster=predictions.cluster,
        clip=predictions.id,
        n_train=n_train,
    )


def on_validation_set(info: Mapping[str, Any]) -> bool:
    """Return whether a run was scored on the dataset's validation set; only official splits keep to its sets."""
    return info.get("protocol") == "official" and (info.get("dataset") or {}).get("test_set") == "val"


def training_sizes(*metrics: Mapping[str, Any]) -> dict[str, int]:
    """Return the smallest number of training clips of each split over the metrics of runs, by the split's name."""
    sizes: dict[str, int] = {}
    for of_run in metrics:
        for split in of_run.get("splits", []):
            sizes[split["name"]] = min(split["n_train"], sizes.get(split["name"], split["n_train"]))
    return sizes


INFO_TYPES: dict[str, type] = {
    **dict.fromkeys(("variant", "protocol"), str),
    **dict.fromkeys(("dataset", "input", "spec", "head", "store", "leaks", "seeds", "timings"), dict),
    **dict.fromkeys(("coverage", "versions", "final", "mveb"), dict),
    **dict.fromkeys(("search", "stores", "command"), list),
}
"""Types of the keys of run.json."""


def write_run(
    folder: Path,
    *,
    info: Mapping[str, Any],
    predictions: Predictions,
    metrics: Mapping[str, Any],
    head_tensors: Mapping[str, NDArray[Any]],
    head_config: Mapping[str, Any],
    train: Mapping[str, Sequence[str]] | None = None,
    more: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> Run:
    """Write a run atomically.

    The same input gives the same bytes in every file. If a run is replaced, its report is kept if the predictions are
    unchanged, and deleted with the run otherwise.

    Parameters
    ----------
    folder : Path
        `RUNS/NAME`.
    info : mapping
        Provenance of the run; `docs/reference/run-format.md` lists the keys.
    predictions : Predictions
        Of all test clips of all splits.
    metrics : mapping
        As from `measure`.
    head_tensors, head_config : mapping
        The head: arrays by name, and its settings as JSON values.
    train : mapping, optional
        Ids of the training clips by split name; without them a report cannot search for leaks.
    more : mapping, optional
        Further files by their path in the folder.
    overwrite : bool
        Replace an existing run.

    Raises
    ------
    ActionVitError
        If the folder exists and `overwrite` is off, or it holds something that is not a run.
    """
    check_place(folder, overwrite=overwrite)
    with atomic_folder(folder) as fresh:
        _write_json(fresh / INFO, {"schema": SCHEMA, **info})
        _write_json(fresh / METRICS, {"schema": SCHEMA, **metrics})
        _write_json(
            fresh / TRAIN, {"schema": SCHEMA, "train": {name: list(ids) for name, ids in (train or {}).items()}}
        )
        _write_predictions(fresh / PREDICTIONS, predictions)
        (fresh / HEAD).write_bytes(dump_tensors(head_tensors, "config", head_config))
        for name, data in (more or {}).items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(data)
        old = folder / PREDICTIONS
        if (folder / REPORT).is_dir() and old.is_file() and filecmp.cmp(old, fresh / PREDICTIONS, shallow=False):
            shutil.copytree(folder / REPORT, fresh / REPORT)
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises
    ------
    ActionVitError
        If a file is missing or damaged, or was written by a newer version.
    """
    if not folder.exists():
        restore_folder(folder)  # a process may have been killed while it replaced the run
    if not (folder / INFO).is_file():
        near = ", ".join(printable(run.name) for run in find_runs(folder.parent)) or "none"
        raise ActionVitError(f"{folder} is not a run (no {INFO}); runs beside it: {near}")
    return Run(
        folder=folder,
        info=_read_json(folder / INFO, "variant", **INFO_TYPES),
        predictions=_read_predictions(folder / PREDICTIONS),
        metrics=_read_json(folder / METRICS, "splits", "summary", splits=list, summary=dict),
        train=_read_json(folder / TRAIN, "train", train=dict)["train"] if (folder / TRAIN).is_file() else {},
    )


@contextmanager
def parsing(*runs: Run) -> Iterator[None]:
    """Raise ActionVitError for the errors of code that uses malformed runs."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        folders = ", ".join(str(run.folder) for run in runs)
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ActionVitError(f"{folders}: the run is malformed ({reason}): make it again") from error


def find_run(name: str, runs: Path) -> Run:
    """Read a run by its folder, or by its name below `runs`; folders without `run.json` are ignored.

    Raises
    ------
    ActionVitError
        If neither is a run.
    """
    folder = Path(name)
    if not (folder / INFO).is_file() and ((runs / name / INFO).is_file() or not folder.is_dir()):
        folder = runs / name
    return read_run(folder)


def find_runs(root: Path) -> list[Path]:
    """Return the run folders directly below `root`, sorted by name; hidden folders are ignored."""
    if not root.is_dir():
        return []
    restore_folders(root)
    return sorted(path for path in root.iterdir() if path.name[0] != "." and (path / INFO).is_file())


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_bytes(escape.encode(text + "\n"))


def _read_json(path: Path, *needed: str, **types: type) -> dict[str, Any]:
    """Read an object with the keys `needed`; other keys may be absent or null, else they have the type given."""
    try:
        require_file(path)
        value = json.loads(path.read_text(encoding="utf-8"))
        schema = int(value["schema"])
        for key in needed if schema <= SCHEMA else ():
            value[key]
        for key, kind in types.items():
            if value.get(key) is not None and not isinstance(value[key], kind):
                raise TypeError(f"{key}: got {type(value[key]).__name__}, expected {kind.__name__}")
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise _broken(path, error) from error
    if schema > SCHEMA:
        raise ActionVitError(f"{path} has schema {schema}, this version reads up to {SCHEMA}: upgrade actionvit")
    return dict(value)


def _write_predictions(path: Path, predictions: Predictions) -> None:
    # Members of `savez` have the date 1980-01-01, so that the same predictions give the same bytes.
    np.savez_compressed(
        path,
        id=predictions.id,
        split=predictions.split,
        true=predictions.true.astype(np.int64),
        scores=predictions.scores.astype(np.float32),
        source=predictions.source,
        class_names=np.array(predictions.class_names, dtype=np.str_),
    )


def _read_predictions(path: Path) -> Predictions:
    try:
        require_file(path)
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays: dict[str, Any] = {field.name: file[field.name] for field in fields(Predictions)}
        return Predictions(**{**arrays, "class_names": tuple(arrays["class_names"].tolist())})
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> ActionVitError:
    if isinstance(error, FileNotFoundError):
        return ActionVitError(f"{path} is missing: the run is incomplete, make it again")
    return ActionVitError(f"{path} cannot be read ({first_line(error)}): the run is broken, make it again")
