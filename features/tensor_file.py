"""safetensors files with a digest of their tensors, written atomically and checked on load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write
from actionvit.features.fingerprint import require_file
from actionvit.text import first_line

if TYPE_CHECKING:
    from torch import Tensor

_DIGEST = "sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: object = None) -> None:
    """Write tensors and a JSON value to a file, atomically, with a digest over both.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    tensors : mapping of str to Tensor
        On any device; written as they are.
    state : JSON value
        Stored beside the tensors.

    Raises
    ------
    ActionVitError
        If the disk is full or read-only; the previous file is then still there.
    """
    from safetensors.torch import save

    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    metadata = {"format": "pt", _DIGEST: tensor_digest(arrays, text), "state": text}
    atomic_write(path, _with_metadata(save(arrays), metadata))


def _with_metadata(file: bytes, metadata: dict[str, str]) -> bytes:
    """Return a safetensors file with metadata in this order; the library writes several keys in random order."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(file[8:end])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors begin at a multiple of 8
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(file)[end:]))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], object]:
    """Return tensors and JSON value of a safetensors file, on the CPU; files without a digest are not checked.

    Raises
    ------
    ActionVitError
        If the file cannot be read or its content does not match its digest.
    """
    from safetensors import SafetensorError, safe_open

    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = json.loads(metadata.get("state", "null"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise ActionVitError(f"{path}: cannot be read ({first_line(error)}); restore it or make it again") from error
    expected = metadata.get(_DIGEST)
    if expected is not None and tensor_digest(tensors, metadata.get("state", "null")) != expected:
        raise ActionVitError(f"{path}: its content does not match its digest: damaged; restore it or make it again")
    return tensors, state


def tensor_digest(tensors: Mapping[str, Tensor], state: str = "") -> str:
    """Return the sha256 over names, types, shapes and bytes of tensors in main memory, and a text."""
    import torch

    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
