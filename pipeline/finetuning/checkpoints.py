"""Checkpoints: a training's state as one safetensors file, replaced atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.atomic import make_folder
from actionvit.features.tensor_file import load_tensors, save_tensors

FILE = "checkpoint.safetensors"
SCHEMA = 1


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON-serializable state to `folder/checkpoint.safetensors`, atomically.

    Raises
    ------
    ActionVitError
        If the disk is full or read-only; the previous checkpoint is then unchanged.
    """
    make_folder(folder)
    save_tensors(folder / FILE, tensors, {"schema": SCHEMA, **state})


def has_checkpoint(folder: Path) -> bool:
    """Return whether the folder holds a checkpoint."""
    return (folder / FILE).is_file()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and state, or None without a checkpoint.

    Raises
    ------
    ActionVitError
        If the file cannot be read, or is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    tensors, state = load_tensors(path)
    if not isinstance(state, dict) or not isinstance(state.get("schema"), int):
        raise ActionVitError(f"{path}: holds no training state; remove its folder and train again")
    if state["schema"] > SCHEMA:
        raise ActionVitError(f"{path}: schema {state['schema']}, this version reads up to {SCHEMA}: upgrade actionvit")
    return tensors, state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as tensors, named PARAMETER_NUMBER.NAME."""
    states = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, state in states.items() for name, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state that `optimizer_tensors` returned."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
