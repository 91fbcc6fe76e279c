"""A training's state as one file: there whole or not at all, without pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write, make_folder

FILE = "checkpoint.safetensors"
SCHEMA = 1


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and what JSON can hold as `folder/checkpoint.safetensors`, atomically.

    Raises
    ------
    ActionVitError
        If the disk is full or read-only; the checkpoint before is then still there.
    """
    from safetensors.torch import save

    make_folder(folder)
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write(folder / FILE, save(kept, {"state": json.dumps({"schema": SCHEMA, **state})}))


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint."""
    return (folder / FILE).is_file()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and state, or None where there is no checkpoint.

    Raises
    ------
    ActionVitError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ActionVitError(f"{path}: cannot be read ({error}); remove its folder and train again") from error
    if state["schema"] > SCHEMA:
        raise ActionVitError(f"{path}: schema {state['schema']}, this version reads up to {SCHEMA}: upgrade actionvit")
    return tensors, state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's moments by parameter number."""
    states = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, state in states.items() for name, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
