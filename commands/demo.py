"""`actionvit demo`: the three stages on synthetic clips, each as an ordinary `actionvit` command."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from actionvit.commands.command import Command
from actionvit.commands.options import output_option
from actionvit.errors import ActionVitError

VARIANTS = ("tiny", "tiny-hr")


class Step(NamedTuple):
    """One command of the demo."""

    title: str
    arguments: tuple[str, ...]
    after: str
    """An explanation of the result, printed afterwards."""


@click.command(cls=Command, examples="actionvit demo -o actionvit-demo")
@output_option("actionvit-demo")
def command(out: Path | None) -> None:
    """Run the whole pipeline offline on synthetic clips: draw, extract, probe, report. Takes about a minute.

    Every step is printed as a command that can be repeated or changed by hand. A second run in the same folder keeps
    the clips and the cached embeddings.
    """
    out = out or Path("actionvit-demo")
    steps = list(_steps(out))
    click.echo(f"actionvit demo: {len(steps)} steps, all in `{out}`, nothing is downloaded")
    for number, step in enumerate(steps, start=1):
        click.secho(f"\n[{number}/{len(steps)}] {step.title}", bold=True)
        click.echo(f"$ {shlex.join(('actionvit', *step.arguments))}")
        # One process per step, so that no step depends on the memory of another.
        done = subprocess.run([sys.executable, "-m", "actionvit", *step.arguments], check=False)
        if done.returncode:
            raise ActionVitError(f"demo: step {number} ended with exit code {done.returncode}; see its message above")
        if step.after:
            click.echo(f"({step.after})")
    click.secho(f"\nThe report: {(out / 'report' / 'report.html').resolve()}", bold=True)
    if (note := how_to_call()) is not None:
        click.echo(note)


def how_to_call() -> str | None:
    """Return how to call `actionvit` if the shell does not find it or finds another one."""
    installed = Path(sys.executable).absolute().parent / "actionvit"
    on_path = shutil.which("actionvit")
    if on_path is not None and Path(on_path).absolute() == installed:
        return None
    if not installed.is_file():
        return f"To call actionvit yourself: {shlex.join([sys.executable, '-m', 'actionvit'])}"
    activate = installed.parent / "activate"
    short = f", or once per shell: . {shlex.quote(str(activate))}" if activate.is_file() else ""
    return f"To call actionvit yourself: {shlex.quote(str(installed))}{short}"


def _steps(out: Path) -> Iterator[Step]:
    """Yield the commands, in order."""
    clips, cache, runs = (str(out / name) for name in ("clips", "features-cache", "runs"))
    variants = [part for variant in VARIANTS for part in ("--variant", variant)]
    yield Step(
        "Draw clips: 12 motions with a long tail; names, file format and splits are those of HMDB51",
        ("data", "draw", clips),
        "five of the motions are five others played backwards: no single frame distinguishes them",
    )
    yield Step(
        "Extract: decode each clip once, embed it with two variants, cache the embeddings",
        ("extract", clips, *variants, "--cache", cache),
        "the weights of tiny and tiny-hr are part of the package, trained only on synthetic clips like these;"
        " base, hr and large use weights trained on real videos",
    )
    probe = ("probe", clips, *variants, "--cache", cache, "--runs", runs)
    yield Step("Probe: a linear head on each variant's embeddings, for every official split", probe, "")
    yield Step(
        "Probe again, with classes weighted by inverse frequency",
        (*probe, "--balanced"),
        "weighting improves mean class accuracy: rare classes gain, common classes lose",
    )
    names = [f"{variant}-linear{suffix}" for suffix in ("", "-balanced") for variant in VARIANTS]
    yield Step(
        "Report: per class, per split, base against HR, as a page and as files",
        ("report", *(str(out / "runs" / name) for name in names), "--output", str(out / "report")),
        "",
    )
