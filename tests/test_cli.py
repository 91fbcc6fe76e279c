"""The front door: help for every command, fast, and in the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from actionvit.cli import COMMANDS, cli
from actionvit.commands.options import FiniteRange

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_and_option_has_help(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    family = [command, *command.commands.values()] if isinstance(command, click.Group) else [command]
    for each in family:
        assert each.help
        for option in each.params:
            if isinstance(option, click.Option):
                assert option.help, f"{each.name} {option.opts}"
                if isinstance(option.type, click.types.FloatParamType):
                    assert isinstance(option.type, FiniteRange), f"{each.name} {option.opts}"
    assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_every_command_stands_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(COMMANDS) <= set(re.findall(r"actionvit ([a-z]+)", text))


def test_the_readme_names_only_commands_there_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:\$ )?actionvit ([a-z]+)", text, re.MULTILINE)) <= set(COMMANDS)


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/*/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"root = 3", "root: got 3, expected a path in quotes"),
        (b'root = "\xe9"', "utf-8"),
        (b"rooot = 'x'", "got rooot, expected root"),
        (b"root =", "actionvit.toml: "),
    ],
)
def test_settings_that_are_none_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ROOT", "CACHE", "RUNS"):
        monkeypatch.delenv(f"ACTIONVIT_{name}", raising=False)
    (tmp_path / "actionvit.toml").write_bytes(content)
    result = CliRunner().invoke(cli, ["data", "check"])
    assert result.exit_code == 2 and said in result.output, result.output


@pytest.mark.timing
def test_help_is_fast() -> None:
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "actionvit", "--help"], check=True, capture_output=True)
        after = os.times()  # what it computed: by the clock a busy machine would count too
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.3


@pytest.mark.parametrize(
    ("place", "said"),
    [("file", "Not a directory"), ("sealed", "Permission denied")],
)
def test_a_place_that_cannot_be_written_costs_one_line(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "sealed").mkdir(mode=0o500)
    if place == "sealed" and os.access(tmp_path / "sealed", os.W_OK):
        pytest.skip("this user may write everywhere")
    command = [sys.executable, "-m", "actionvit", "data", "draw", str(tmp_path / place / "below")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ") and said in done.stderr and place in done.stderr
