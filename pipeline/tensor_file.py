"""Safetensors files of numpy arrays, read without torch; their metadata holds a JSON value and a checked digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.fingerprint import require_file
from actionvit.text import first_line

DIGEST = "tensors_sha256"


def tensors_digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 of names, dtypes, shapes and bytes of tensors, in hex."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}\t{value.dtype.str}\t{value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def dump_tensors(tensors: Mapping[str, NDArray[Any]], key: str, value: Mapping[str, Any]) -> bytes:
    """Return a safetensors file; `value` and the digest are the JSON value of the metadata entry `key`.

    A single entry, as safetensors writes several in varying order.
    """
    from safetensors.numpy import save

    text = json.dumps({**value, DIGEST: tensors_digest(tensors)}, ensure_ascii=False)
    return save(dict(tensors), metadata={key: text})


def load_tensors(path: Path, key: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read tensors and JSON value of a file from `dump_tensors`; files of older versions have no digest to check.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is malformed, or its tensors do not match the digest.
    """
    from safetensors import SafetensorError, safe_open

    try:
        require_file(path)
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            value = json.loads(file.metadata()[key])
        digest = value.pop(DIGEST, None)
    except (SafetensorError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(first_line(error)) from error
    if digest is not None and digest != tensors_digest(tensors):
        raise ValueError("its tensors do not match their digest: bytes were changed after it was written")
    return tensors, value
