"""Fine-tuning for real, on a small model and drawn clips: what is trained, from what, and that it can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tuning

from actionvit.features.timesformer.weights import Weights
from actionvit.pipeline.datasets.dataset import Dataset
from actionvit.pipeline.finetuning.finetune import Tuned, Workplace, finetune


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tuning.write_clips(tmp_path_factory.mktemp("clips") / "drawn")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tuning.weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(dataset: Dataset, weights: Weights, folder: Path, **changes: Any) -> Tuned:
    place = {name: changes.pop(name) for name in list(changes) if name in Workplace.__dataclass_fields__}
    work = Workplace(cache=folder / "cache", folder=folder / "work", workers=0, **place)
    (tuned,) = finetune(dataset, weights, tuning.spec(**changes), work)
    return tuned


def equal(one: Tuned, other: Tuned) -> bool:
    same = all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    return (
        same and np.array_equal(one.logits, other.logits) and one.state.history_numbers == other.state.history_numbers
    )


@pytest.mark.parametrize("of", ["head", "last:1", "last:2"])
@pytest.mark.parametrize("augment", [True, False])
def test_training_from_cached_tokens_gives_the_numbers_of_training_through_the_frozen_blocks(
    dataset: Dataset, weights: Weights, tmp_path: Path, of: str, augment: bool
) -> None:
    changes: dict[str, Any] = {"train": of, "views": 3, "start": "zero"} | ({} if augment else {"augment": None})
    through = train(dataset, weights, tmp_path / "a", **changes)
    cached = train(dataset, weights, tmp_path / "b", tokens="fp32", **changes)
    assert through.state.history[-1]["loss"] == cached.state.history[-1]["loss"]
    for name in through.weights:
        np.testing.assert_array_equal(through.weights[name], cached.weights[name])
    np.testing.assert_array_equal(through.logits, cached.logits)
