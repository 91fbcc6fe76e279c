"""Mutated weights and runs: one line of error or a result, never another exception."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runs import predictions, write
from tiny_model import write_weights

from actionvit.errors import ActionVitError
from actionvit.features.timesformer.checkpoint import find_weights
from actionvit.pipeline.reporting.writer import assemble
from actionvit.pipeline.runs import parsing, read_run

VALUES: tuple[Any, ...] = (None, -1, 0, 1e308, float("nan"), "x", [], {}, True, 2**70, "1" * 5000, [1, 2], {"a": 1})
MUTANTS = 100


def mutate_value(value: Any, numbers: random.Random) -> None:
    """Remove or replace one entry of nested JSON, at any depth."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = numbers.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and numbers.random() < 0.75:
            value = value[key]
            continue
        if numbers.random() < 0.2:
            del value[key]
        else:
            value[key] = numbers.choice(VALUES)
        return


def mutate_json(data: bytes, numbers: random.Random) -> bytes:
    value = json.loads(data)
    mutate_value(value, numbers)
    return json.dumps(value).encode()


def mutate_bytes(data: bytes, numbers: random.Random) -> bytes:
    place, end = numbers.randrange(len(data)), len(data)
    return numbers.choice(
        [
            data[:place],
            struct.pack("<q", numbers.choice([0, -1, 2**62, 2**31, 2 * end, 7])) + data[8:],
            data[:place] + bytes([data[place] ^ 1 << numbers.randrange(8)]) + data[place + 1 :],
            data[:place] + numbers.randbytes(64) + data[place + 64 :],
            numbers.randbytes(numbers.randrange(200)),
            data + bytes(100),
        ]
    )


def mutate_header(data: bytes, numbers: random.Random) -> bytes:
    """Change one entry of the header of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    name = numbers.choice([name for name in header if name != "__metadata__"])
    changes: list[dict[str, Any]] = [
        *({"dtype": value} for value in ("F64", "BF16", "I8", "X", "", 3, "BOOL")),
        *({"shape": value} for value in ([-1], [2**62, 4], [], [0], ["a"], None)),
        *({"data_offsets": value} for value in ([-4, 0], [0, 2**63], [8, 4], [0], None)),
    ]
    kind = numbers.randrange(4)
    if kind == 0:
        header[name].update(numbers.choice(changes))
    elif kind == 1:
        header["x" * 100_000] = header.pop(name)
    elif kind == 2:
        header["__metadata__"] = numbers.choice([None, [], {"a": 1}, {"sha256": "0", "state": "[" * 100_000}])
    else:
        mutate_value(header, numbers)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def is_refused(use: Callable[[], object]) -> bool:
    """Return whether something ends in an ActionVitError, which has one line of bounded length."""
    try:
        use()
    except ActionVitError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return True
    return False


def mutate_folder(folder: Path, copy: Path, seed: int) -> None:
    """Copy a folder and mutate one of its files."""
    numbers = random.Random(seed)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    path = numbers.choice(sorted(path for path in copy.iterdir() if path.is_file()))
    change = mutate_bytes
    if numbers.random() < 0.7:
        change = {".json": mutate_json, ".safetensors": mutate_header}.get(path.suffix, mutate_bytes)
    path.write_bytes(change(path.read_bytes(), numbers))


def test_mutated_weights_load_or_cost_one_line(tmp_path: Path) -> None:
    folder = write_weights(tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b"}}))
    pixels = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.1, 0.2, 0.3], "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    refused = 0
    for seed in range(MUTANTS):
        mutate_folder(folder, tmp_path / "mutant", seed)
        refused += is_refused(lambda: find_weights("tiny", tmp_path / "mutant").load())
    assert refused > MUTANTS / 3


@pytest.mark.parametrize("labels", [[], [1, 2], {"a": "b"}, 3, "x"])
def test_wrong_labels_of_weights_cost_one_line(tmp_path: Path, labels: Any) -> None:
    folder = write_weights(tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    assert is_refused(lambda: find_weights("tiny", folder)) == bool(labels)


@pytest.mark.parametrize(
    "content",
    [
        3,
        {"model_state": {}},
        {1: torch.ones(2)},
        {"pos_embed": torch.ones(1, 0, 64), "blocks.0.norm1.weight": torch.ones(1)},
        {"blocks.x.norm1.weight": torch.ones(1)},
    ],
    ids=["number", "empty", "integer keys", "no positions", "no block number"],
)
def test_wrong_content_of_a_pyth_costs_one_line(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pyth")
    assert is_refused(lambda: find_weights("base", tmp_path / "x.pyth"))


def test_random_bytes_as_pyth_cost_one_line(tmp_path: Path) -> None:
    for seed in range(20):
        (tmp_path / "x.pyth").write_bytes(random.Random(seed).randbytes(seed * 7))
        assert is_refused(lambda: find_weights("base", tmp_path / "x.pyth"))


def test_mutated_runs_are_read_or_cost_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", predictions()).folder
    refused = 0

    def use() -> None:
        run = read_run(tmp_path / "mutant")
        run.head()
        with parsing(run):
            assemble([run])

    with np.errstate(all="ignore"):
        for seed in range(MUTANTS):
            mutate_folder(folder, tmp_path / "mutant", seed)
            refused += is_refused(use)
    assert refused > MUTANTS / 3
