"""`actionvit data`: get datasets, look at them, draw one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.options import (
    dataset_options,
    echo_json,
    json_option,
    open_dataset,
    root_argument,
    split_options,
    test_fraction_option,
)
from actionvit.errors import ActionVitError

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset, Split


class _Group(click.Group):
    """Knows `check` by name and imports it when it is called: it decodes, and decoders load slowly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "check"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "check":
            return super().get_command(ctx, cmd_name)
        command = importlib.import_module("actionvit.commands.data_check").check
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Group, short_help="Fetch a dataset; say what is there, what is broken, what leaks.")
def command() -> None:
    """Get datasets, look at them, draw one."""


@command.command(short_help="Download and unpack a dataset.")
@click.argument("name")
@click.option("-o", "--output", "to", type=click.Path(path_type=Path), help="A new folder.  [default: data/NAME]")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE|URL",
    help="Take this archive (zip, tar, rar, 7z) instead of the official address; repeat for several.",
)
def fetch(name: str, to: Path | None, sources: tuple[str, ...]) -> None:
    """Download and unpack hmdb51; unpack hmdb_simp from a file that you downloaded.

    A download that was cut short goes on where it stopped. Archives are unpacked so that nothing in them can land
    outside the folder. Rar needs bsdtar, unrar or 7z on the machine.
    """
    from actionvit.pipeline.datasets.fetching import fetch as stage
    from actionvit.pipeline.text import pluralize

    recipe = stage.find_recipe(name)
    click.echo(f"{recipe.title}. Licence: {recipe.licence}. Cite: {recipe.citation}")
    with _Bars() as bars:
        fetched = stage.fetch(name, to or Path("data") / name, sources=sources, track=bars.update)
    there = (
        f"{pluralize(fetched.videos, 'video')} of {pluralize(fetched.classes, 'class', 'classes')} in `{fetched.root}`"
    )
    click.echo(there if fetched.new else f"there already: {there}; nothing to do")
    if fetched.videos != recipe.videos:
        click.echo(f"note: the whole of it has {recipe.videos:,} videos", err=True)
    click.echo(f"next: actionvit extract {fetched.root}")


class _Bars:
    """One progress bar a step; the next step closes the last one's."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, step: str, done: int, total: int | None) -> None:
        """Show how far a step is."""
        from tqdm import tqdm

        if self.bar is None or self.bar.desc != f"{step}: ":
            self.__exit__()
            scale = step.startswith("download")
            self.bar = tqdm(desc=step, total=total, unit="B" if scale else "archive", unit_scale=scale, disable=None)
        self.bar.total = total
        self.bar.update(done - self.bar.n)


@command.command(short_help="Write a small dataset of drawn clips.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Another seed, other clips.")
@click.option("--count", "clips", type=click.IntRange(60), default=130, show_default=True, help="About how many.")
def draw(out: Path, seed: int, clips: int) -> None:
    """Write a small dataset in the shape of HMDB51: moving shapes, unevenly many a class, with split lists.

    The classes are motions that no single frame tells apart. Clips that are there already are kept.
    """
    from tqdm import tqdm

    from actionvit.pipeline.datasets.synthetic.dataset import draw_dataset, plan_clips

    def track(missing: Any) -> Any:
        return tqdm(missing, desc="draw", unit="clip", disable=None, leave=False)

    drawn = draw_dataset(out, seed=seed, clips=clips, track=track)
    kept = len(plan_clips(seed=seed, clips=clips)) - drawn
    click.echo(f"{drawn} clips drawn, {kept} kept, in `{out}`")


@command.command(short_help="Say who trains and who tests, and which sources leak.")
@root_argument
@dataset_options
@split_options("all there are")
@test_fraction_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the shuffling.")
@json_option
def splits(root: Path, protocol: str | None, as_json: bool, **options: Any) -> None:
    """Print the sizes of each split of the dataset at ROOT, and how many sources have clips on both sides.

    Such a source shows people and places in training that its test clips show again: accuracy is then flattered.
    """
    from actionvit.pipeline.datasets.splits import make_splits

    dataset = open_dataset(root, options)
    protocols = [protocol] if protocol else ["official", "grouped", "stratified", "random"][not dataset.official :]
    numbers = {name: options[name] for name in ("folds", "test_fraction", "seed")}
    made: list[Split] = []
    why: ActionVitError | None = None
    for name in protocols:
        try:
            made += make_splits(dataset, name, **numbers)  # type: ignore[arg-type]
        except ActionVitError as error:
            if protocol:
                raise
            why = error
            click.echo(f"note: no {name} splits: {error}", err=True)
    if why and not made:
        raise why
    rows = [_row(dataset, split) for split in made]
    if as_json:
        echo_json({"dataset": dataset.name, "sources_known": dataset.sources_known, "splits": rows})
        return
    click.echo(f"{dataset.name}: {len(dataset.videos):,} videos, {len(dataset.class_names)} classes, {dataset.layout}")
    click.echo(f"{'split':<14}{'train':>7}{'test':>7}{'unused':>8}{'leaking':>9}{'shared':>8}")
    for row in rows:
        click.echo("{split:<14}{train:>7}{test:>7}{unused:>8}{leaking:>9}{shared:>8}".format(**row))
    click.echo("leaking: sources with clips of one class on both sides; shared: with clips of any class on both sides")


def _row(dataset: Dataset, split: Split) -> dict[str, Any]:
    from actionvit.pipeline.datasets.splits import leaking_sources

    return {
        "split": split.name,
        "train": len(split.train),
        "test": len(split.test),
        "unused": len(dataset.videos) - len(split.train) - len(split.test),
        "leaking": len(leaking_sources(dataset, split)),
        "shared": len(leaking_sources(dataset, split, within_class=False)),
    }
