"""The files of a run: complete or absent, as docs/reference/run-format.md describes, refused if damaged or too new."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest
from fake_runs import NAMES, predictions, write

from actionvit.errors import ActionVitError
from actionvit.evaluation.metrics import METRICS
from actionvit.features import atomic
from actionvit.pipeline.runs import Run, find_runs, measure, read_run

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "reference" / "metrics.schema.json").read_text())
check = fastjsonschema.compile(SCHEMA)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write(tmp_path / "base", predictions(), train={"official-1": ["a", "b"], "official-2": ["c"]})


def metrics(run: Run) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run.folder / "metrics.json").read_text())
    return value


def test_metrics_follow_the_schema(run: Run) -> None:
    check(metrics(run))
    one_class_short = predictions(clips=2, splits=1)  # classes without clips: recall and precision of 0/0
    value = measure(one_class_short, n_train={"official-1": 3})
    assert value["summary"]["top1"]["std"] is None
    check({"schema": 1, **json.loads(json.dumps(value))})


def test_real_runs_in_the_repository_follow_the_schema() -> None:
    found = sorted(DOCS.parent.glob("results/*/runs/*/metrics.json"))
    assert found
    for path in found:
        check(json.loads(path.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(schema=2),
        lambda value: value.update(more=1),
        lambda value: value["splits"][0].pop("ece"),
        lambda value: value["splits"][0].update(top1=61.9),
        lambda value: value["splits"][0]["per_class"][0].update(support=1.5),
        lambda value: value["splits"][0]["reliability"].pop(),
        lambda value: value["summary"]["top1"].update(ci95=[0.1]),
        lambda value: value["summary"].pop("brier"),
    ],
)
def test_the_schema_notices(run: Run, change: Any) -> None:
    value = copy.deepcopy(metrics(run))
    change(value)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        check(value)


def test_the_schema_and_the_page_name_the_same_keys() -> None:
    page = (DOCS / "reference" / "run-format.md").read_text()
    table = page[page.index("## `metrics.json`") : page.index("## `run.json`")]
    split = SCHEMA["$defs"]["split"]["properties"]
    for name in split:
        assert f"`{name}`" in table, name
    for part in ("class", "bin", "summary"):
        for name in SCHEMA["$defs"][part]["properties"]:
            assert f"`{name}`" in table, f"{part}: {name}"
    assert list(SCHEMA["properties"]["summary"]["properties"]) == list(METRICS)
    assert "metrics.schema.json" in table


def test_run_json_is_documented_as_far_as_the_report_reads_it(run: Run) -> None:
    page = (DOCS / "reference" / "run-format.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", page[page.index("## `run.json`") :], re.MULTILINE))
    source = (DOCS.parent / "pipeline" / "reporting" / "describe.py").read_text()
    read = set(re.findall(r'info\.get\("(\w+)"', source)) | {
        "command",
        "versions",
        "dataset",
        "protocol",
        "store",
        "seeds",
    }
    assert read <= documented


def test_what_is_written_is_read(run: Run) -> None:
    there = predictions()
    np.testing.assert_array_equal(run.predictions.scores, there.scores)
    assert run.predictions.class_names == NAMES
    assert run.train == {"official-1": ["a", "b"], "official-2": ["c"]}
    tensors, config = run.head()
    assert tensors["coef"].shape == (2, 2) and config == {"kind": "linear"}
    assert run.metrics == metrics(run)


def test_a_run_prints_as_one_short_line(run: Run) -> None:
    top1 = 100 * run.metrics["summary"]["top1"]["mean"]
    splits = len(run.predictions.split_names)
    names = len(run.predictions.class_names)
    assert repr(run) == f"Run({run.folder}: {splits} splits, {names} classes, top-1 {top1:.1f} %)"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name / "base", predictions()) for name in "ab")
    for path in sorted(first.folder.iterdir()):
        assert path.read_bytes() == (second.folder / path.name).read_bytes(), path.name


def test_a_run_is_not_overwritten_unasked(run: Run) -> None:
    with pytest.raises(ActionVitError, match="exists"):
        write(run.folder, predictions(seed=1))
    assert read_run(run.folder).metrics == run.metrics
    other = write(run.folder, predictions(seed=1), overwrite=True)
    assert other.metrics != run.metrics
    assert [path.name for path in run.folder.parent.iterdir()] == ["base"], "nothing is left over"


def test_what_is_no_run_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ActionVitError, match="is not a run"):
        write(tmp_path / "mine", predictions(), overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "predictions.npz"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff{", b"[]"])
def test_a_broken_file_is_one_line(run: Run, name: str, content: bytes) -> None:
    (run.folder / name).write_bytes(content)
    with pytest.raises(ActionVitError, match=rf"{name} cannot be read .*make it again") as error:
        read_run(run.folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "train.json"])
def test_a_file_that_lacks_what_it_is_for_is_one_line(run: Run, name: str) -> None:
    (run.folder / name).write_text('{"schema": 1}')
    with pytest.raises(ActionVitError, match=rf"{name} cannot be read .*make it again"):
        read_run(run.folder)


def test_newer_schema_is_refused_and_missing_run_lists_others(run: Run) -> None:
    (run.folder / "metrics.json").write_text('{"schema": 2}')
    with pytest.raises(ActionVitError, match="has schema 2, this version reads up to 1: upgrade"):
        read_run(run.folder)
    with pytest.raises(ActionVitError, match="runs beside it: base"):
        read_run(run.folder.parent / "bass")
    (run.folder.parent / ".base.new-1").mkdir()
    assert find_runs(run.folder.parent) == [run.folder]


def test_predictions_that_are_no_probabilities_are_refused() -> None:
    found = predictions()
    fields = {name: getattr(found, name) for name in ("id", "split", "true", "scores", "source", "class_names")}
    for change in ({"scores": found.scores * 2}, {"true": found.true + 6}, {"source": found.source[:-1]}):
        with pytest.raises(ValueError, match="expected"):
            type(found)(**{**fields, **change})


def test_run_whose_replacement_was_killed_comes_back(run: Run) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    hidden = atomic._aside(run.folder, atomic.OLD_PREFIX)
    dead = hidden.with_name(hidden.name.replace(f"-{os.getpid()}-", f"-{int(child.stdout)}-"))
    for find in (lambda: read_run(run.folder).folder, lambda: find_runs(run.folder.parent)[0]):
        run.folder.rename(dead)
        assert find() == run.folder and not dead.exists()
    run.folder.rename(hidden)  # by a process that is still replacing it
    assert find_runs(run.folder.parent) == [] and hidden.exists()


def test_failed_replacement_leaves_the_run_and_nothing_else(run: Run) -> None:
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(ZeroDivisionError), atomic.atomic_folder(run.folder) as folder:
        (folder / "half").write_text("written")
        raise ZeroDivisionError
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before
    assert [path for path in run.folder.parent.iterdir() if path.name.startswith(".")] == []
