"""The docs: their commands run as written, and the reference of the command line is current."""

from __future__ import annotations

import re
import shlex
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner
from command_line_page import PAGE, render

import actionvit as av
from actionvit.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("tutorial.md", "how-to/read-the-cache.md", "how-to/export-and-predict.md", "how-to/compare-runs.md")
"""In an order in which they can run one after another; the last one sweeps, so that there are several stores."""
WITHOUT = ("parquet", "--push")
"""Words of commands that need more than a plain installation."""
QUICKER = {"experiment": ("--seeds", "1")}
"""Options added to commands, so that they compute the same table from fewer repetitions."""


def commands(page: Path) -> list[str]:
    """Return the commands that a page shows, as `actionvit …` at the start of an indented or fenced line."""
    return re.findall(r"^ *(?:\$ )?(actionvit [a-z].*)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_command_line_reference_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run tests/support/command_line_page.py"


@pytest.mark.timeout(900)
def test_the_commands_of_the_docs_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ROOT", "CACHE", "RUNS"):
        monkeypatch.delenv(f"ACTIONVIT_{name}", raising=False)
    fence = re.search(r"## Quick start(.*?)## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert fence is not None
    lines = re.findall(r"^\$ (actionvit .*)$", fence[1], re.MULTILINE)
    lines += [line for name in PAGES for line in commands(ROOT / "docs" / name)]
    assert len(lines) > 15
    for line in dict.fromkeys(lines):
        if any(word in line for word in WITHOUT):
            continue
        stores = sorted(path.parent for path in tmp_path.glob("features-cache/clips/tiny-*/key.json"))
        words = [str(stores[0]) if word == "STORE" else word for word in shlex.split(line)[1:]]
        result = CliRunner().invoke(cli, [*words, *QUICKER.get(words[0], ())], input="n\n")
        assert result.exit_code == 0, f"{line}: {result.output}{result.exception!r}"


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
