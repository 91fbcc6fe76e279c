"""The docs: their examples run, and the reference of the command line is current."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest
from command_line_page import PAGE, render

import actionvit as av

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_line_reference_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run tests/support/command_line_page.py"


def test_the_example_of_the_readme_runs(tmp_path: Path, sixty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(sixty)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example.replace('"tiny"', '"tiny", num_frames=2, size=32', 1), "README.md", "exec"), {})


class _Record(dict):
    """A stand-in for FiftyOne's Sample, Classification and Dataset: keeps its fields."""

    made: ClassVar[list[_Record]] = []

    def __init__(self, name: str = "", **fields: Any) -> None:
        super().__init__(fields)
        _Record.made.append(self)

    def add_samples(self, samples: list[_Record]) -> None:
        self["samples"] = samples


def test_fiftyone_example_has_labels_embeddings_predictions(
    tmp_path: Path, sixty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(sixty)
    dataset = av.load_dataset("clips")
    av.extract(dataset, "tiny", num_frames=2, size=32, workers=1)
    run = av.probe(dataset, "tiny", protocol="grouped", folds=2, seeds=1, head="centroid", run_name="tiny-linear")
    fiftyone = types.SimpleNamespace(Sample=_Record, Classification=_Record, Dataset=_Record)
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    text = (ROOT / "docs" / "how-to" / "read-the-cache.md").read_text(encoding="utf-8")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "fiftyone" in code]
    exec(compile(example, "read-the-cache.md", "exec"), {})
    samples = _Record.made[-1]["samples"]
    assert len(samples) == len(dataset.videos)
    for sample in samples:
        assert Path(sample["filepath"]).is_file() and sample["embedding"].shape == (128,)
        assert sample["ground_truth"]["label"] == Path(sample["filepath"]).parent.name
        assert 0 < sample["prediction"]["confidence"] <= 1
    correct = sum(sample["prediction"]["label"] == sample["ground_truth"]["label"] for sample in samples)
    assert correct / len(samples) == pytest.approx(run.metrics["summary"]["top1"]["mean"], abs=0.02)


def test_the_readme_is_short_and_its_pages_exist() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120
