"""The folder of a run's name: whether it is free, and the lock that one process holds while it trains."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.fingerprint import require_file
from actionvit.features.store.locks import locked_folder

INFO = "run.json"
BUSY = "is training under this run name; wait for it, or choose another run_name="


def check_run_name(name: str | None) -> None:
    """Raise SettingError if a run's name is a path, or empty; None stands for the default name."""
    if name is not None and (name == ".." or Path(name).name != name or not name):
        raise SettingError(f"run_name: got {name!r}, expected a name; runs= sets the folder")


def check_place(folder: Path, *, overwrite: bool, dataset: str = "", differences: str = "") -> None:
    """Raise ActionVitError if the folder holds a run and `overwrite` is off, or holds anything else.

    Parameters
    ----------
    folder : Path
        `RUNS/NAME`.
    overwrite : bool
    dataset, differences : str
        The dataset of the new run, and what else differs from the existing one, for the message.
    """
    if not folder.exists():
        return
    if not overwrite:
        about, example = f" with {differences}" if differences else "", ""
        if dataset and (recorded := _dataset_name(recorded_info(folder))) not in ("", dataset):
            about, example = f", of dataset {recorded} (this one: {dataset})", f"for example {dataset}-{folder.name}, "
        raise ActionVitError(
            f"run {folder} exists{about}: choose another run_name=, {example}or overwrite=True to replace it"
        )
    if not (folder / INFO).is_file():
        raise ActionVitError(f"{folder} exists and is not a run (no {INFO}): choose another name")


def recorded_info(folder: Path) -> dict[str, Any]:
    """Return a run's `run.json`; empty if it is missing or cannot be read."""
    try:
        require_file(folder / INFO)
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def _dataset_name(info: dict[str, Any]) -> str:
    """Return the name of a run's dataset; empty if it is not recorded."""
    dataset = info.get("dataset")
    return str(dataset.get("name", "")) if isinstance(dataset, dict) else ""


def training_folder(folder: Path) -> Path:
    """Return the folder of a run's lock and checkpoints, `RUN.training` beside the run."""
    return folder.with_name(f"{folder.name}.training")


def locked_run(folder: Path, *, wait: bool = False) -> AbstractContextManager[None]:
    """Return a context that holds the lock of a run's name, in the folder `RUN.training` beside the run.

    Raises
    ------
    ActionVitError
        If another process trains under this name and `wait` is false, or the parent folder is not writable.
    """
    return locked_folder(training_folder(folder), wait=wait, busy=BUSY)
