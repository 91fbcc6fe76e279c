"""`actionvit demo`: the three stages, on clips it draws itself, by the very commands that anyone would type."""

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
    """What to know about what it did."""


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
        # A process each: a step cannot lean on what another left in memory.
        done = subprocess.run([sys.executable, "-m", "actionvit", *step.arguments], check=False)
        if done.returncode:
            raise ActionVitError(
                f"demo: step {number} ended with exit code {done.returncode}; its message stands above"
            )
        if step.after:
            click.echo(f"({step.after})")
    click.secho(f"\nThe report: {(out / 'report' / 'report.html').resolve()}", bold=True)
    if (note := how_to_call()) is not None:
        click.echo(note)


def how_to_call() -> str | None:
    """Return how to call `actionvit` where the shell does not find it or finds another one."""
    own = Path(sys.executable).absolute().parent / "actionvit"
    found = shutil.which("actionvit")
    if found is not None and Path(found).absolute() == own:
        return None
    if not own.is_file():
        return f"To call actionvit yourself: {shlex.join([sys.executable, '-m', 'actionvit'])}"
    activate = own.parent / "activate"
    short = f", or once per shell: . {shlex.quote(str(activate))}" if activate.is_file() else ""
    return f"To call actionvit yourself: {shlex.quote(str(own))}{short}"


def _steps(out: Path) -> Iterator[Step]:
    """Yield the commands, in order."""
    clips, cache, runs = (str(out / name) for name in ("clips", "features-cache", "runs"))
    variants = [part for variant in VARIANTS for part in ("--variant", variant)]
    yield Step(
        "Draw clips: 12 motions, unevenly many clips of each, named, packed and split as HMDB51 is",
        ("data", "draw", clips),
        "five of the motions are five others played backwards: no single frame tells them apart",
    )
    yield Step(
        "Extract: decode each clip once, embed it with two variants, cache the embeddings",
        ("extract", clips, *variants, "--cache", cache),
        "the weights of tiny and tiny-hr come with the package; they learned motions from drawn clips like these, from"
        " no real video; base, hr and large take weights trained on real ones",
    )
    probe = ("probe", clips, *variants, "--cache", cache, "--runs", runs)
    yield Step("Probe: a linear head on each variant's embeddings, for every official split", probe, "")
    yield Step(
        "Probe again, classes weighted by how rare they are",
        (*probe, "--balanced"),
        "weighting is for mean class accuracy: it gives up some of the common classes' clips for the rare ones'",
    )
    names = [f"{variant}-linear{suffix}" for suffix in ("", "-balanced") for variant in VARIANTS]
    yield Step(
        "Report: per class, per split, base against HR, as a page and as files",
        ("report", *(str(out / "runs" / name) for name in names), "--output", str(out / "report")),
        "",
    )
