"""`actionvit experiment`: tables that compare heads, weightings, shots, splits and shards."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from actionvit.commands.command import Group
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.missing import warn_of_missing
from actionvit.commands.options import (
    cache_option,
    echo_json,
    jobs_option,
    json_option,
    output_option,
    packed,
    several_numbers,
    stored_options,
    variant_option,
)
from actionvit.commands.progress import progress
from actionvit.commands.spec_options import spec_object, spec_option, spec_values
from actionvit.heads.saving import HeadName
from actionvit.pipeline.probing.spec import ProbeSpec

if TYPE_CHECKING:
    from actionvit.pipeline.experiments.comparisons import Experiment
    from actionvit.pipeline.experiments.tables import WrittenTable
    from actionvit.pipeline.probing.features import StoreChoice


@click.group(cls=Group)
def command() -> None:
    """Compare many probes on cached embeddings, every number with its 95 % interval.

    Each experiment writes a table (JSON, CSV, Markdown) and a figure.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentOptions:
    """Options of all experiments."""

    data: DatasetOptions
    variant: str
    stored: StoreChoice
    cache: Path
    base: ProbeSpec
    seeds: int
    out: Path | None
    jobs: int
    as_json: bool

    @contextmanager
    def open(self, name: str) -> Iterator[Experiment]:
        """Read the dataset and show the progress of the experiment."""
        from actionvit.pipeline.experiments.comparisons import Experiment
        from actionvit.pipeline.probing.features import stores_of

        dataset = self.data.open()
        (store,) = stores_of(dataset, [self.variant], cache=self.cache, **self.stored)
        warn_of_missing(dataset, store)
        with progress(name, "head") as advance:
            yield Experiment(
                dataset=dataset,
                store=store,
                folder=self.out or Path("experiments-output") / f"{dataset.name}-{name}",
                base=replace(self.base, seeds=self.seeds),
                jobs=self.jobs,
                command=["actionvit", *sys.argv[1:]],
                on_head=advance,
            )

    def show(self, experiment: Experiment, tables: Sequence[WrittenTable]) -> None:
        """Print the tables of an experiment."""
        if self.as_json:
            echo_json({"folder": str(experiment.folder), "tables": [table.record for table in tables]})
        else:
            click.echo("\n\n".join(table.markdown for table in tables) + f"\n{experiment.folder}")


experiment_options = packed(
    "options",
    ExperimentOptions,
    [field.name for field in fields(ExperimentOptions)],
    dataset_options,
    variant_option,
    stored_options,
    cache_option,
    spec_object("base", ProbeSpec, "protocol", "folds", "test_fraction"),
    spec_option(ProbeSpec, "seeds", default=5, show_default=True, help="Number of repetitions with different seeds."),
    output_option("experiments-output/DATASET-NAME"),
    jobs_option,
    json_option,
)
head_option = spec_option(ProbeSpec, "head")


@command.command(examples="actionvit experiment heads videos/ --head linear,knn --shots 1,4,16")
@experiment_options
@spec_values(ProbeSpec, "head", "heads", get_args(HeadName))
@several_numbers("--shots", default=("1,4,16",), help="Training clips per class.  [default: 1,4,16]")
def heads(options: ExperimentOptions, heads: tuple[HeadName, ...], shots: tuple[int, ...]) -> None:
    """Compare heads × class weightings × training clips per class."""
    with options.open("heads") as experiment:
        tables = experiment.compare_heads(heads, shots)
    options.show(experiment, tables)


@command.command(examples="actionvit experiment shots videos/ --head linear --shots 1,2,4,8,16")
@experiment_options
@head_option
@several_numbers("--shots", default=("1,2,4,8,16",), help="Training clips per class.  [default: 1,2,4,8,16]")
def shots(options: ExperimentOptions, head: HeadName, shots: tuple[int, ...]) -> None:
    """Plot a learning curve: accuracy against training clips per class."""
    with options.open("shots") as experiment:
        tables = experiment.learning_curve(head, shots)
    options.show(experiment, tables)


@command.command(examples="actionvit experiment imbalance videos/ --factors 1,4,16")
@experiment_options
@head_option
@several_numbers(
    "--factors", kind=float, default=("1,4,16",), help="Imbalance: largest class / smallest class.  [default: 1,4,16]"
)
def imbalance(options: ExperimentOptions, head: HeadName, factors: tuple[float, ...]) -> None:
    """Compare class weighting, sampling and logit adjustment under long-tailed training sets."""
    with options.open("imbalance") as experiment:
        tables = experiment.compare_weightings(head, factors)
    options.show(experiment, tables)


@command.command(examples="actionvit experiment splits videos/ --shards 4")
@experiment_options
@head_option
@click.option("--shards", type=click.IntRange(2), default=4, show_default=True, help="Number of shards.")
def splits(options: ExperimentOptions, head: HeadName, shards: int) -> None:
    """Compare split protocols (leaks, class balance) and the class mix of data-parallel shards."""
    with options.open("splits") as experiment:
        tables = experiment.compare_splits(head, shards)
    options.show(experiment, tables)
