"""The reference of the command line, made from every command's `--help`.

`python tests/support/command_line_page.py` writes docs/reference/command-line.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from actionvit.cli import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "command-line.md"
HEAD = """# Command line

Made from `--help` by `tests/support/command_line_page.py`.

An option that takes several values may be repeated or take a comma list. ROOT, `--cache` and `--runs` default to
`data/hmdb51`, `features-cache` and `runs`, to the environment variables `ACTIONVIT_ROOT`, `ACTIONVIT_CACHE` and
`ACTIONVIT_RUNS`, or to `root`, `cache` and `runs` in an `actionvit.toml` in the working directory.

Exit codes: 0 success; 1 error, or Ctrl-C; 2 wrong usage; 3 finished, but some videos failed.
"""


def commands_of(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that is not a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_of(command, (*path, name))
        else:
            yield (*path, name)


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for words in commands_of(cli):
        text = CliRunner().invoke(cli, [*words, "--help"], prog_name="actionvit", terminal_width=100).output
        parts.append(f"## actionvit {' '.join(words)}\n\n```\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
