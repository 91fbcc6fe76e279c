"""Serialize fitted heads as arrays and JSON, without pickle; a loaded head predicts the same bits."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from actionvit.heads.base import Head

HeadName = Literal["linear", "attentive", "mlp", "knn", "centroid"]
KINDS = {
    "linear": "actionvit.heads.linear.LinearProbe",
    "attentive": "actionvit.heads.attentive.AttentiveProbe",
    "mlp": "actionvit.heads.mlp.MLPProbe",
    "knn": "actionvit.heads.nearest.KNNProbe",
    "centroid": "actionvit.heads.nearest.CentroidProbe",
    "fusion": "actionvit.heads.fusion.LateFusion",
}
"""Classes by the names that commands and files use; imported on demand, since some need torch."""

Tensors = dict[str, NDArray[Any]]


def head_class(kind: str) -> type[Head]:
    """Return the class of a kind of head.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"head: got {kind!r}, expected one of {', '.join(KINDS)}")
    module, _, name = KINDS[kind].rpartition(".")
    head: type[Head] = getattr(importlib.import_module(module), name)
    return head


def kind_of(head: Head) -> str:
    """Return the name that `head_class` takes."""
    path = f"{type(head).__module__}.{type(head).__qualname__}"
    return next(kind for kind, full_name in KINDS.items() if full_name == path)


def dump_head(head: Head) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays of a fitted head by name, and the rest as JSON values."""
    tensors: Tensors = {}
    return tensors, _dump(head, "", tensors)


def load_head(tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Head:
    """Return the head that `dump_head` serialized.

    Raises
    ------
    ValueError
        If the kind is unknown.
    KeyError
        If a tensor is missing.
    """
    kind, settings = head_class(config["kind"]), _load(config["settings"], tensors)
    # Runs of earlier versions also hold parameters that the head no longer has, such as a linear probe's `device`.
    head = kind(**{name: value for name, value in settings.items() if name in kind().get_params(deep=False)})
    for name, value in config["state"].items():
        setattr(head, name, _load(value, tensors))
    return head


def _dump(head: Head, prefix: str, tensors: Tensors) -> dict[str, Any]:
    state = {name: value for name, value in sorted(vars(head).items()) if name.endswith("_")}
    return {
        "kind": kind_of(head),
        "settings": _encode(head.get_params(deep=False), f"{prefix}settings.", tensors),
        "state": {name: _encode(value, f"{prefix}{name}", tensors) for name, value in state.items()},
    }


def _encode(value: Any, name: str, tensors: Tensors) -> Any:
    """Turn a value into JSON; numeric arrays go to `tensors`, types unknown to JSON are tagged with `is`."""
    from actionvit.heads.base import Head  # imports scikit-learn

    if isinstance(value, Head):
        return {"is": "head", **_dump(value, f"{name}.", tensors)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            return {"is": "names", "values": value.tolist(), "object": value.dtype.kind == "O"}
        tensors[name] = np.ascontiguousarray(value)
        return {"is": "tensor", "name": name}
    if isinstance(value, Mapping):
        # As pairs: JSON's keys are strings, and a class may be a number.
        return {
            "is": "mapping",
            "pairs": [[_encode(k, name, tensors), _encode(v, f"{name}.{k}", tensors)] for k, v in value.items()],
        }
    if isinstance(value, tuple | list):
        return [_encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _load(value: Any, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """Undo `_encode`; a tuple comes back as a list."""
    if isinstance(value, list):
        return [_load(item, tensors) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value["is"] == "head":
        return load_head(tensors, value)
    if value["is"] == "tensor":
        return tensors[value["name"]]
    if value["is"] == "names":
        return np.array(value["values"], dtype=object if value["object"] else None)
    return {_load(k, tensors): _load(v, tensors) for k, v in value["pairs"]}
