"""Pipes, nested JSON and odd names in place of a run's or a store's files: one line, never a hang or a traceback."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import click
import pytest
from fake_runs import predictions, write

from actionvit.cli import DISK_ERRORS
from actionvit.commands.run_name import RUN
from actionvit.errors import ActionVitError
from actionvit.features.store.parts import open_part, read_file
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.run_folder import recorded_info
from actionvit.pipeline.runs import _write_json as write_json
from actionvit.pipeline.runs import read_run

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("name", ["metrics.json", "predictions.npz", "head.safetensors"])
def test_a_pipe_in_a_run_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "run", predictions()).folder
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ActionVitError, match=f"{name}.*not a regular file"):
        read_run(folder).head()


def test_a_pipe_in_a_store_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key.json")
    for use in (read_file, open_part):
        with pytest.raises(ActionVitError, match="not a regular file"):
            use(tmp_path / "key.json")
    with pytest.raises(ActionVitError, match="not a regular file"):
        FeatureStore.open(tmp_path)


def test_pipe_or_nested_json_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 100_000)
    assert recorded_info(tmp_path) == {}
    (tmp_path / "run.json").unlink()
    os.mkfifo(tmp_path / "run.json")
    assert recorded_info(tmp_path) == {}


def test_nested_json_as_key_of_a_store_is_damage(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("[" * 100_000)
    with pytest.raises(ActionVitError, match="damaged"):
        FeatureStore.open(tmp_path)


def test_undecodable_bytes_in_a_command_are_recorded(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"command": ["o\udcff", "é"]})
    assert json.loads((tmp_path / "run.json").read_bytes()) == {"command": ["o\udcff", "é"]}


def test_a_missing_run_lists_printable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "runs" / "a\x1b[31m\nb", predictions())
    with pytest.raises(ActionVitError) as caught:
        read_run(tmp_path / "runs" / "c")
    monkeypatch.chdir(tmp_path)
    texts = [str(caught.value), RUN.get_missing_message(click.Argument(["run"]), None)]
    assert all("a\\x1b[31m\\nb" in text and "\n" not in text for text in texts)


def test_a_missing_run_with_wrong_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("actionvit.toml").write_text("runs = 5\n")
    assert "actionvit.toml: runs: got 5" in RUN.get_missing_message(click.Argument(["run"]), None)


def test_a_file_size_limit_is_an_error_of_the_machine() -> None:
    assert errno.EFBIG in DISK_ERRORS
