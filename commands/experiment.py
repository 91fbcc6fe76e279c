"""`actionvit experiment`: tables that compare heads, weightings, shots, splits and shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Group
from actionvit.commands.dataset_options import dataset_options, open_dataset
from actionvit.commands.options import (
    HEADS,
    cache_option,
    embedding_options,
    embeddings_wanted,
    jobs_option,
    output_option,
    root_argument,
    seeds_option,
    several,
    several_numbers,
    split_options,
    together,
    variant_option,
)
from actionvit.commands.progress import progress

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset
    from actionvit.pipeline.experiments.differences import Metric
    from actionvit.pipeline.experiments.grids import Cell, Row
    from actionvit.pipeline.probing.tasks import ProbeSpec
    from actionvit.pipeline.runs import Run


@click.group(cls=Group)
def command() -> None:
    """Compare many probes on cached embeddings, every number with its 95 % interval.

    Each experiment writes a table (JSON, CSV, Markdown) and a figure.
    """


experiment_options = together(
    root_argument,
    dataset_options,
    variant_option,
    embedding_options,
    cache_option,
    split_options(),
    seeds_option(5),
    output_option("experiments-output/DATASET-NAME"),
    jobs_option,
)
"""What all experiments take."""
head_option = click.option(
    "--head", type=click.Choice(HEADS), default="linear", show_default=True, help="Classifier head."
)


@command.command(examples="actionvit experiment heads videos/ --head linear,knn --shots 1,4,16")
@experiment_options
@several("--head", "heads", choices=HEADS, default=HEADS, help="Classifier head.  [default: all; repeatable]")
@several_numbers("--shots", default=("1,4,16",), help="Training clips per class.  [default: 1,4,16]")
def heads(**options: Any) -> None:
    """Compare heads × class weightings × training clips per class."""
    from actionvit.pipeline.experiments.grids import STRATEGIES, heads_cells, row_of
    from actionvit.pipeline.experiments.tables import curves_figure

    dataset = open_dataset(options["root"], options)
    cells = heads_cells(_base(options), heads=options["heads"], strategies=tuple(STRATEGIES), shots=options["shots"])
    rows, found = _run(dataset, "heads", cells, options, row_of, "top1")
    caption = "Heads, weightings and training clips a class."
    folder = _write(dataset, "heads", rows, options, caption, found)
    curve = [row for row in rows if row["shots"] != "all"]
    curve += [{**row, "shots": row["train"] / len(dataset.class_names)} for row in rows if _plain(row)]
    names = ("training clips a class", "top-1, %")
    curves_figure(curve, folder / "curves.png", x="shots", y="top1", series="head", names=names)


@command.command(examples="actionvit experiment shots videos/ --head linear --shots 1,2,4,8,16")
@experiment_options
@head_option
@several_numbers("--shots", default=("1,2,4,8,16",), help="Training clips per class.  [default: 1,2,4,8,16]")
def shots(**options: Any) -> None:
    """Plot a learning curve: accuracy against training clips per class."""
    from actionvit.pipeline.experiments.grids import heads_cells, row_of
    from actionvit.pipeline.experiments.tables import curves_figure

    dataset = open_dataset(options["root"], options)
    cells = heads_cells(_base(options), heads=(options["head"],), strategies=("none",), shots=options["shots"])
    rows, _ = _run(dataset, "shots", cells, options, row_of)
    folder = _write(dataset, "shots", rows, options, f"The head `{options['head']}` with few training clips a class.")
    curve = [{**row, "shots": row["train"] / len(dataset.class_names)} for row in rows]
    names = ("training clips a class", "top-1, %")
    curves_figure(curve, folder / "curves.png", x="shots", y="top1", series="head", names=names)


@command.command(examples="actionvit experiment imbalance videos/ --factors 1,4,16")
@experiment_options
@head_option
@several_numbers(
    "--factors", kind=float, default=("1,4,16",), help="Imbalance: largest class / smallest class.  [default: 1,4,16]"
)
def imbalance(**options: Any) -> None:
    """Compare class weighting, sampling and logit adjustment under long-tailed training sets."""
    from actionvit.pipeline.experiments.grids import STRATEGIES, imbalance_cells, row_of, thirds_of
    from actionvit.pipeline.experiments.tables import curves_figure

    dataset = open_dataset(options["root"], options)
    base = _base(options, head=options["head"])
    cells = imbalance_cells(base, factors=options["factors"], strategies=tuple(STRATEGIES))
    rows, found = _run(
        dataset,
        "imbalance",
        cells,
        options,
        lambda cell, result: {**row_of(cell, result), **thirds_of(dataset, result)},
        "mean_class_accuracy",
    )
    caption = f"The head `{options['head']}` under long tails: accuracy on the third of classes with most, middling and"
    caption += " fewest training clips; test sides are untouched."
    folder = _write(dataset, "imbalance", rows, options, caption, found)
    for column in ("head", "middle", "tail", "mean_class_accuracy"):
        known = [each for each in rows if column in each]  # a third of a few classes may have no test clip
        if not known:
            continue
        name = column.replace("_", " ") + (" classes" if column != "mean_class_accuracy" else "")
        names = ("largest class : smallest class", f"{name}, %")
        curves_figure(known, folder / f"{column}.png", x="factor", y=column, series="weighting", names=names)


@command.command(examples="actionvit experiment splits videos/ --shards 4")
@experiment_options
@head_option
@click.option("--shards", type=click.IntRange(2), default=4, show_default=True, help="Number of shards.")
def splits(**options: Any) -> None:
    """Compare split protocols (leaks, class balance) and the class mix of data-parallel shards."""
    from actionvit.pipeline.experiments.grids import quantity_of, row_of, splits_cells, unevenness_of
    from actionvit.pipeline.experiments.sharding import shard_row
    from actionvit.pipeline.experiments.tables import histograms_figure, write_table
    from actionvit.pipeline.probing.features import read_tables

    dataset = open_dataset(options["root"], options)
    base = _base(options, head=options["head"], protocol=None)
    cells = splits_cells(dataset, base)
    rows, _ = _run(
        dataset, "splits", cells, options, lambda cell, result: {**row_of(cell, result), **unevenness_of(result)}
    )
    folder = _write(dataset, "splits", rows, options, "One head under every protocol; sources that leak flatter it.")
    quantity = quantity_of(options["head"])
    which = {"cache": options["cache"], "quantity": quantity, **embeddings_wanted(options)}
    table = read_tables(dataset, [options["variant"]], **which)[0]
    spec = _base(options, head=options["head"], features=quantity, seeds=1)
    found = [
        shard_row(dataset, table, spec, shards=options["shards"], how=how)
        for how in ("contiguous", "hashed", "stratified")
    ]
    caption = f"{options['shards']} workers that each see one shard of the training side."
    histograms = {row["sharding"]: counts.tolist() for row, counts in found}
    about = {**_about(dataset, options), "class_names": list(dataset.class_names), "histograms": histograms}
    files = write_table(folder, "shards", [row for row, _ in found], caption=caption, about=about)
    histograms_figure(histograms, folder / "shards.png", class_names=dataset.class_names)
    click.echo("\n" + files[-1].read_text(encoding="utf-8"))


def _base(options: dict[str, Any], **more: Any) -> ProbeSpec:
    from actionvit.pipeline.probing.tasks import ProbeSpec

    given = {name: options[name] for name in ("protocol", "folds", "test_fraction", "seeds")}
    return ProbeSpec(**{**given, **more})


def _plain(row: Row) -> bool:
    return bool(row["shots"] == "all" and row["weighting"] == "none")


def _folder(dataset: Dataset, name: str, options: dict[str, Any]) -> Path:
    """Return where an experiment writes: an ignored folder by default."""
    return options["out"] or Path("experiments-output") / f"{dataset.name}-{name}"


def _run(
    dataset: Dataset,
    name: str,
    cells: Sequence[Cell],
    options: dict[str, Any],
    row: Callable[[Cell, Run], Row],
    compared: Metric | None = None,
) -> tuple[list[Row], list[str]]:
    """Run the cells behind a progress bar; return the rows, compared by a metric where one is given, and findings."""
    from actionvit.pipeline.experiments.differences import differences, findings
    from actionvit.pipeline.experiments.grids import n_train_of, run_cells

    which = {"variant": options["variant"], "cache": options["cache"], **embeddings_wanted(options)}
    found = run_cells(dataset, cells, runs=_folder(dataset, name, options) / "runs", jobs=options["jobs"], **which)
    rows, predicted = [], []
    with progress(name, "probe", total=len(cells)) as advance:
        for cell, result in found:
            rows.append(row(cell, result))
            predicted.append((cell.labels, result.predictions, n_train_of(result)))
            advance(len(rows), len(cells))
    if compared is None:
        return rows, []
    told = differences(predicted, metric=compared)
    for one in told:
        rows[one.row] = {**rows[one.row], **one.columns}
    return rows, findings(told)


def _about(dataset: Dataset, options: dict[str, Any]) -> dict[str, Any]:
    import sys

    given = {name: value for name, value in options.items() if not isinstance(value, Path)}
    return {"dataset": dataset.name, "command": ["actionvit", *sys.argv[1:]], "options": given}


def _write(
    dataset: Dataset,
    name: str,
    rows: Sequence[Row],
    options: dict[str, Any],
    caption: str,
    findings: Sequence[str] = (),
) -> Path:
    """Write the table, show it, and return its folder."""
    from actionvit.pipeline.experiments.grids import protocol_of
    from actionvit.pipeline.experiments.tables import write_table
    from actionvit.text import pluralize

    folder = _folder(dataset, name, options)
    protocol = protocol_of(dataset, _base(options)) if name != "splits" else "several"
    full = (
        f"{caption} {dataset.name}, {options['variant']}, protocol {protocol},"
        f" {pluralize(options['seeds'], 'seed')}."
        " Percent: mean ± deviation between splits [95 % interval by source]."
    )
    if findings:
        full += " Δ: points, paired clip by clip with the row that has what `against` says, all else alike."
        full += " p: corrected t test, Holm's correction over the table."
    files = write_table(folder, name, rows, caption=full, about=_about(dataset, options), findings=findings)
    click.echo(files[-1].read_text(encoding="utf-8"))
    click.echo(str(folder))
    return folder
