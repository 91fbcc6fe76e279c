"""`actionvit probe`: stage 2 on cached embeddings."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from actionvit.commands.command import Command, note, refuse_options, warn, with_options
from actionvit.commands.dataset_options import DatasetOptions, dataset_options
from actionvit.commands.missing import warn_of_missing
from actionvit.commands.options import (
    VARIANT_HELP,
    balanced_option,
    cache_option,
    echo_json,
    jobs_option,
    json_option,
    overwrite_option,
    run_name_option,
    runs_option,
    several,
    stored_options,
)
from actionvit.commands.progress import progress
from actionvit.commands.spec_options import spec_object, spec_option, spec_values
from actionvit.pipeline.datasets.dataset import Protocol
from actionvit.pipeline.probing.spec import ProbeSpec
from actionvit.text import metric_line, pluralize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actionvit.heads.fusion import FusionRule
    from actionvit.heads.weighting import ClassWeight
    from actionvit.pipeline.datasets.dataset import Dataset
    from actionvit.pipeline.probing.features import FeatureTable, StoreChoice
    from actionvit.pipeline.probing.results import ProbeResult

FROM_SPEC = (
    *("head", "features", "views", "sampler", "logit_adjust", "focal", "grid", "criterion", "select_on", "calibrate"),
    *("folds", "test_fraction", "seeds", "long_tail", "shots", "device", "final"),
)
"""Fields of `ProbeSpec` that are options as they stand."""
FIXED_BY_MVEB = (
    *("head", "features", "views", "balanced", "class_weights", "sampler", "logit_adjust", "grid", "calibrate"),
    *("criterion", "fuse", "seeds", "long_tail", "shots", "focal", "final", "select_on", "folds", "test_fraction"),
    *("device", "jobs"),
)


@click.command(
    cls=Command,
    examples="""
    actionvit probe videos/ --variant base --balanced
    actionvit probe videos/ --variant base,hr --class-weight none,balanced --protocol grouped
    actionvit probe videos/ --head knn --grid k=1,5,20
    """,
)
@dataset_options
@several("--variant", "variants", default=("base",), help=f"{VARIANT_HELP}  [default: base; repeatable]")
@stored_options
@cache_option
@runs_option
@run_name_option
@overwrite_option
@spec_object("spec", ProbeSpec, *FROM_SPEC)
@balanced_option
@spec_values(ProbeSpec, "class_weight", "class_weights")
@several(
    "--fuse", choices=("mean", "stacked"), help="Also fuse the variants: average log-probabilities, or stacked weights."
)
@spec_option(ProbeSpec, "protocol", type=click.Choice((*get_args(Protocol), "mveb")))
@jobs_option
@json_option
def command(
    data: DatasetOptions,
    variants: tuple[str, ...],
    stored: StoreChoice,
    cache: Path,
    runs: Path,
    run_name: str | None,
    overwrite: bool,
    spec: ProbeSpec,
    balanced: bool,
    class_weights: tuple[ClassWeight, ...],
    fuse: tuple[FusionRule, ...],
    protocol: Protocol | Literal["mveb"] | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Stage 2: train a classifier head on cached embeddings for every split, and score each test set once.

    Hyper-parameters are chosen by cross-validation inside the training set, with folds by source where sources are
    known. The search and its result are recorded in the run's run.json.
    """
    from actionvit.features.device import resolve_device
    from actionvit.heads.saving import head_class
    from actionvit.pipeline.datasets.splits import untested_classes
    from actionvit.pipeline.probing.features import read_tables
    from actionvit.pipeline.probing.mveb import planned_mveb, probe_mveb
    from actionvit.pipeline.probing.probe import probe
    from actionvit.pipeline.probing.results import planned_runs, reserved_runs
    from actionvit.pipeline.run_folder import check_run_name

    if protocol == "mveb":
        refuse_options("--protocol mveb fixes classifier and draws", *FIXED_BY_MVEB)
    check_run_name(run_name)
    dataset = data.open()
    if protocol == "mveb":
        mveb, spec = True, replace(spec, protocol="official", seeds=1)
    else:
        mveb, spec = False, replace(spec, protocol=protocol)
    if fuse and len(variants) < 2:
        raise click.UsageError("--fuse joins several variants' heads; name them with --variant A --variant B")
    if balanced and class_weights:
        raise click.UsageError("--balanced is --class-weight balanced; give one of them")
    automatic = spec.device == "auto" and "device" not in head_class(spec.head)().get_params()
    spec = replace(spec, device=resolve_device("cpu" if automatic else spec.device, "fp32")[0])
    weightings = dict.fromkeys(("balanced",) if balanced else class_weights or ("none",))
    specs = [replace(spec, class_weight=weighting) for weighting in weightings]
    tables = read_tables(dataset, variants, cache=cache, quantity=spec.features, **stored)
    if not as_json:
        _print_task(dataset, specs[0], tables)
    for table in tables:
        warn_of_missing(dataset, table.store)
    planned = planned_mveb(dataset, tables, spec) if mveb else planned_runs(dataset, tables, specs, fuse)
    if untested := untested_classes(dataset, [task.split for task in planned[0].tasks]):
        warn(untested)
    if run_name and len(planned) > 1:
        raise click.UsageError(f"--run-name names one run, and there are {len(planned)}; leave it out")
    with reserved_runs(runs, dataset, planned, name=run_name, overwrite=overwrite):
        results = [probe_mveb(dataset, run) for run in planned] if mveb else []
        for each in specs if not mveb else ():
            with progress(f"probe, class weight {each.class_weight}", "head", delay=2) as advance:
                results += probe(dataset, tables, each, fusion=fuse, jobs=jobs, on_task=advance)
        _publish(results, runs, run_name, overwrite=overwrite, as_json=as_json)


def _print_task(dataset: Dataset, spec: ProbeSpec, tables: Sequence[FeatureTable]) -> None:
    """Print the splits and how many videos have embeddings."""
    from actionvit.pipeline.datasets.splits import default_protocol
    from actionvit.pipeline.probing.tasks import default_seeds

    protocol = spec.protocol or default_protocol(dataset)
    chosen = "" if spec.protocol else " (the default for this dataset)"
    scored = ", scored on the validation set (val)" if protocol == "official" and dataset.test_set == "val" else ""
    seeds = pluralize(spec.seeds or default_seeds(protocol, spec), "seed")
    click.echo(f"{dataset.name}: {protocol} splits{chosen}{scored}, {seeds}")
    used = len(tables[0].id)
    click.echo(f"{used} of {len(dataset.videos)} videos have embeddings of {', '.join(t.variant for t in tables)}")


def _publish(
    results: Sequence[ProbeResult], runs: Path, run_name: str | None, *, overwrite: bool, as_json: bool
) -> None:
    """Write the runs and print their results."""
    rows = []
    for result in results:
        result.info["command"] = ["actionvit", *sys.argv[1:]]
        run = result.write(runs, name=run_name, overwrite=overwrite)
        rows.append({"run": str(run.folder), "summary": result.metrics["summary"], "leaks": result.info["leaks"]})
        if not as_json:
            _print(result, run.folder)
        _warn_of_leaks(result)
    if as_json:
        echo_json(rows)


def _print(result: ProbeResult, folder: Path) -> None:
    """Print the metrics of a run and the chosen hyper-parameters."""
    from actionvit.pipeline.experiments.tables import chosen_counts, edge_notes
    from actionvit.pipeline.runs import on_validation_set

    summary, splits = result.metrics["summary"], result.metrics["splits"]
    click.echo(f"\n{folder}")
    metrics = ("top1", "top5", "mean_class_accuracy", "macro_f1")
    if on_validation_set(result.info):
        click.echo("  scored on the validation set (val)")
    for metric in (name for name in metrics if name != "top5" or len(result.predictions.class_names) > 5):
        click.echo(metric_line(metric, summary[metric]))
    if mveb := result.info.get("mveb"):
        click.echo(f"  MVEB: accuracy {100 * mveb['accuracy']:.2f} %, macro F1 {100 * mveb['f1']:.2f} %, over 10 draws")
    counts = [f"{value or 'the default (too few clips)'} ({n}×)" for value, n in chosen_counts(result.info["search"])]
    click.echo(f"  chosen {'; '.join(counts)}, over {len(splits)} splits")
    for text in edge_notes(result.info["search"]):
        note(f"  note: {with_options(text)}, and replace this run with --overwrite")
    if final := result.info["final"]:
        click.echo(f"  final head: trained on all {final['videos']} videos; the figures above are of the splits' heads")


def _warn_of_leaks(result: ProbeResult) -> None:
    """Warn of sources in both the training and the test set of a split."""
    if leaks := result.info["leaks"]:
        warn(
            f"in {len(leaks)} of {len(result.metrics['splits'])} splits up to {max(leaks.values())}"
            " sources have clips of one class in both the training and the test set, so these numbers are too high;"
            " --protocol grouped keeps sources apart"
        )
