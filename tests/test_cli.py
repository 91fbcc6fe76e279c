"""The command line: help for every command, one grammar, fast start-up, and the README."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from fake_features import write_dataset, write_store
from fake_runs import predictions
from fake_runs import write as write_run

import actionvit.cli as cli_module
from actionvit.cli import COMMANDS, cli, main
from actionvit.commands.command import GROUP_OF, GROUPS, Command, long_name
from actionvit.commands.options import FiniteRange, several_numbers

ROOT = Path(__file__).resolve().parents[1]


def commands_of(group: click.Group, path: str = "actionvit") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is not a group, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def options_of(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option)]


def test_every_option_belongs_to_one_group() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    for path, command in commands_of(cli):
        assert isinstance(command, Command), path
        missing = [long_name(option) for option in options_of(command) if long_name(option) not in GROUP_OF]
        assert not missing, f"{path}: {missing}"


def test_no_option_name_has_two_meanings() -> None:
    meanings: dict[str, dict[str, list[str]]] = {}
    for path, command in commands_of(cli):
        for option in options_of(command):
            text = re.sub(r" *\[.*", "", option.help or "")
            meanings.setdefault(long_name(option), {}).setdefault(text, []).append(path)
    assert not {name: texts for name, texts in meanings.items() if len(texts) > 1}


def test_each_group_of_options_fits_a_screen() -> None:
    for path, _ in commands_of(cli):
        text = CliRunner().invoke(cli, [*path.split()[1:], "--help"], terminal_width=80).output
        for section in re.split(r"\n\n(?=[A-Z][a-z]+:\n)", text)[1:]:
            assert len(section.splitlines()) <= 32, f"{path}: {section.splitlines()[0]}"


def test_every_command_shows_an_example_that_parses() -> None:
    for path, command in commands_of(cli):
        assert isinstance(command, Command) and command.examples, path
        for line in command.examples:
            words = shlex.split(line)
            words = words[words.index("actionvit") + 1 :]
            target, context = cli.get_command(click.Context(cli), words.pop(0)), click.Context(cli)
            while isinstance(target, click.Group):
                target = target.get_command(context, words.pop(0))
            assert target is command
            known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            unknown = set(re.findall(r"(?<!\S)--?[a-z-]+", " ".join(words))) - known
            assert not unknown, line


@pytest.mark.parametrize(("given", "expected"), [(("4,8", "16"), (4, 8, 16)), (("4", "8", "16"), (4, 8, 16)), ((), ())])
def test_values_may_be_repeated_or_comma_listed(given: tuple[str, ...], expected: tuple[int, ...]) -> None:
    @click.command()
    @several_numbers("--num-frames", "frames")
    def show(frames: tuple[int, ...]) -> None:
        click.echo(repr(frames))

    arguments = [part for text in given for part in ("--num-frames", text)]
    assert CliRunner().invoke(show, arguments).output.strip() == repr(expected)


def test_quiet_hides_warnings_and_verbose_shows_the_log() -> None:
    code = (
        "import logging, click, sys; from actionvit.commands.command import Command, configure_logging\n"
        "configure_logging(); log = logging.getLogger('actionvit.x')\n"
        "@click.command(cls=Command)\n"
        "def show(): log.info('detail'); log.warning('careful\\nnow')\n"
        "show(sys.argv[1:])"
    )
    shown = {
        flags: subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True).stderr
        for flags in ((), ("-v",), ("-q",))
    }
    assert shown == {(): "warning: careful now\n", ("-v",): "info: detail\nwarning: careful now\n", ("-q",): ""}


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
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"root = 3", "root: got 3, expected a path in quotes"),
        (b'root = "\xe9"', "utf-8"),
        (b"rooot = 'x'", "got rooot, expected root"),
        (b"root =", "actionvit.toml: "),
    ],
)
def test_settings_that_are_none_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ROOT", "CACHE", "RUNS"):
        monkeypatch.delenv(f"ACTIONVIT_{name}", raising=False)
    (tmp_path / "actionvit.toml").write_bytes(content)
    result = CliRunner().invoke(cli, ["data", "check"])
    assert result.exit_code == 2 and message in result.output, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract", "films", "--variant", "bse"], 2, "error: --variant: got 'bse', expected one of base, "),
        (["finetune", "films", "--variant", "bse"], 2, "error: --variant: got 'bse', expected one of base, "),
        (["probe", "films", "--head", "liner"], 2, "'liner' is not one of 'linear', "),
        (["probe", "films", "--variant", "bse"], 2, "error: --variant: no embeddings of films for 'bse'"),
        (["probe", "films", "--variant", "hr"], 1, "error: features-cache: no embeddings of films hr, cached"),
        (["report"], 2, "Missing argument 'RUN...'. runs holds these runs: a, b"),
        (["predict", "films"], 2, "Missing option '--run'. runs holds these runs: a, b"),
        (["export"], 2, "Missing argument 'RUN'. runs holds these runs: a, b"),
        (["export", "c", "-o", "model"], 1, "runs beside it: a, b"),
    ],
)
def test_wrong_values_of_options_are_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(cli_module, "configure_logging", lambda: None)  # it would outlast this test
    monkeypatch.chdir(tmp_path)
    for name in ("ROOT", "CACHE", "RUNS"):
        monkeypatch.delenv(f"ACTIONVIT_{name}", raising=False)
    write_store(tmp_path / "features-cache", write_dataset(tmp_path / "films"), "base")
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, predictions())
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert (end.value.code, message in error) == (code, True), error


@pytest.mark.timing
def test_help_is_fast() -> None:
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "actionvit", "--help"], check=True, capture_output=True)
        after = os.times()  # CPU time: wall time would depend on the load of the machine
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.3


@pytest.mark.parametrize(
    ("place", "message"),
    [("file", "Not a directory"), ("sealed", "Permission denied")],
)
def test_a_place_that_cannot_be_written_costs_one_line(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "sealed").mkdir(mode=0o500)
    if place == "sealed" and os.access(tmp_path / "sealed", os.W_OK):
        pytest.skip("this user may write everywhere")
    command = [sys.executable, "-m", "actionvit", "data", "draw", str(tmp_path / place / "below")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ") and message in done.stderr and place in done.stderr
