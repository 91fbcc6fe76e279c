"""`actionvit probe`: stage 2 on cached embeddings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Command
from actionvit.commands.dataset_options import dataset_options, open_dataset
from actionvit.commands.options import (
    CLASS_WEIGHT_HELP,
    CLASS_WEIGHTS,
    HEADS,
    FiniteRange,
    cache_option,
    class_options,
    device_option,
    echo_json,
    embedding_options,
    embeddings_wanted,
    jobs_option,
    json_option,
    overwrite_option,
    root_argument,
    run_name_option,
    runs_option,
    seeds_option,
    selection_metric_option,
    several,
    split_options,
    variants_option,
)
from actionvit.commands.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actionvit.pipeline.datasets.dataset import Dataset
    from actionvit.pipeline.probing.features import FeatureTable, Quantity
    from actionvit.pipeline.probing.results import ProbeResult
    from actionvit.pipeline.probing.tasks import ProbeSpec


def parse_grid(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Parse `C=0.01,0.1` or `standardize=true,false` into numbers and truth values where they are some."""
    grid: dict[str, tuple[Any, ...]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise click.BadParameter(f"got {text!r}, expected NAME=VALUE or NAME=VALUE,VALUE, for example C=0.01,0.1")
        if name in grid:
            raise click.BadParameter(f"got {name} twice, expected all its values together: {name}=VALUE,VALUE")
        grid[name] = tuple(_value(value.strip()) for value in values.split(","))
    return grid


def _value(text: str) -> int | float | str | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@click.command(
    cls=Command,
    examples="""
    actionvit probe videos/ --variant base --balanced
    actionvit probe videos/ --variant base,hr --class-weight none,balanced --protocol grouped
    actionvit probe videos/ --head knn --grid k=1,5,20
    """,
)
@root_argument
@variants_option
@embedding_options
@dataset_options
@cache_option
@runs_option
@run_name_option
@overwrite_option
@click.option("--head", type=click.Choice(HEADS), default="linear", show_default=True, help="Classifier head.")
@click.option(
    "--features",
    type=click.Choice(["clip", "frame", "layers"]),
    help="Clip embeddings, frame embeddings, or all saved blocks joined.  [default: frame for attentive, else clip]",
)
@click.option(
    "--view-aggregation",
    "views",
    type=click.Choice(["mean", "each"]),
    default="mean",
    show_default=True,
    help="Average a video's views, or train on each view and average the predictions.",
)
@class_options
@several("--class-weight", "class_weights", choices=CLASS_WEIGHTS, help=f"{CLASS_WEIGHT_HELP}  [default: none]")
@click.option(
    "--grid",
    multiple=True,
    callback=parse_grid,
    metavar="NAME=V,V",
    help="Values to search instead of the head's own grid; a single value fixes the parameter.",
)
@selection_metric_option
@click.option(
    "--select-on",
    type=click.Choice(["folds", "val"]),
    default="folds",
    show_default=True,
    help="Choose hyper-parameters on folds of the training set, or on the validation set that came with the data.",
)
@click.option("--calibrate", is_flag=True, help="Fit a temperature to out-of-fold predictions.")
@several(
    "--fuse", choices=("mean", "stacked"), help="Also fuse the variants: average log-probabilities, or stacked weights."
)
@split_options(more=("mveb",))
@seeds_option(note="5, or 1 if nothing depends on the seed")
@click.option("--final", is_flag=True, help="Also train a model on all videos, for predict and export.")
@click.option("--long-tail", type=FiniteRange(1), metavar="FACTOR", help="Thin training classes to this imbalance.")
@click.option("--shots", type=click.IntRange(1), help="Training clips per class.  [default: all]")
@device_option("cpu")
@jobs_option
@json_option
def command(**options: Any) -> None:
    """Stage 2: train a classifier head on cached embeddings for every split, and score each test set once.

    Hyper-parameters are chosen by cross-validation inside the training set, with folds by source where sources are
    known. The search and its result are recorded in the run's run.json.
    """
    from actionvit.pipeline.datasets.splits import default_protocol
    from actionvit.pipeline.probing.features import read_tables
    from actionvit.pipeline.probing.probe import probe
    from actionvit.pipeline.probing.results import refuse_other
    from actionvit.pipeline.probing.tasks import default_seeds

    dataset = open_dataset(options["root"], options)
    mveb = _takes_mveb(options)
    specs = _specs(options)
    wanted = embeddings_wanted(options)
    tables = read_tables(dataset, options["variants"], cache=options["cache"], quantity=specs[0].features, **wanted)
    protocol = options["protocol"] or default_protocol(dataset)
    if not options["as_json"]:
        seeds = options["seeds"] or default_seeds(protocol, specs[0])
        chosen = "" if options["protocol"] else " (the default for this dataset)"
        scored = ", scored on the validation set (val)" if dataset.test_set == "val" else ""
        click.echo(f"{dataset.name}: {protocol} splits{chosen}{scored}, {seeds} seed{'s' if seeds > 1 else ''}")
        _print_coverage(dataset, tables)
    if mveb:
        from actionvit.pipeline.probing.mveb import probe_mveb

        _publish(probe_mveb(dataset, tables, specs[0]), options)
        return
    fusions = [(tables, f"-fused-{rule}") for rule in options["fuse"]]
    asked = [(spec, used, suffix) for spec in specs for used, suffix in [*(([one], "") for one in tables), *fusions]]
    if options["run"] and Path(options["run"]).name != options["run"]:
        raise click.UsageError(f"--run-name: got {options['run']!r}, expected a name; --runs says where")
    if options["run"] and len(asked) > 1:
        raise click.UsageError(f"--run-name names one run, and there are {len(asked)}; leave it out")
    for spec, used, suffix in asked:
        taken = {"name": options["run"], "overwrite": options["overwrite"]}
        refuse_other(options["runs"], dataset, used, spec, suffix=suffix, **taken)
    results = []
    for spec in specs:
        with progress(f"probe {spec.class_weight}", "head", delay=2) as advance:
            results += probe(dataset, tables, spec, fusion=options["fuse"], jobs=options["jobs"], on_task=advance)
    _publish(results, options)


def _takes_mveb(options: dict[str, Any]) -> bool:
    """Return whether the protocol is MVEB's, which fixes head, weighting, shots and seeds; then take it as official."""
    if options["protocol"] != "mveb":
        return False
    fixed = (
        *("head", "features", "views", "balanced", "class_weights", "sampler", "logit_adjust", "grid", "calibrate"),
        *("criterion", "fuse", "seeds", "long_tail", "shots"),
    )
    source = click.get_current_context().get_parameter_source
    for name in fixed:
        if source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--protocol mveb fixes classifier and draws; leave out the option for {name}")
    options["protocol"], options["seeds"] = "official", 1
    return True


def _specs(options: dict[str, Any]) -> list[ProbeSpec]:
    """Return one spec a weighting."""
    from actionvit.features.device import resolve_device
    from actionvit.heads.saving import head_class
    from actionvit.pipeline.probing.tasks import ProbeSpec

    options["variants"] = tuple(dict.fromkeys(options["variants"]))
    if options["fuse"] and len(options["variants"]) < 2:
        raise click.UsageError("--fuse joins several variants' heads; name them with --variant A --variant B")
    if "device" not in head_class(options["head"])().get_params() and options["device"] == "auto":
        options["device"] = "cpu"
    options["device"], _ = resolve_device(options["device"], "fp32")
    if options["balanced"] and options["class_weights"]:
        raise click.UsageError("--balanced says --class-weight balanced already; give one of them")
    weights = ("balanced",) if options["balanced"] else options["class_weights"] or ("none",)
    same = (
        *(
            "head",
            "views",
            "sampler",
            "logit_adjust",
            "focal",
            "grid",
            "criterion",
            "calibrate",
            "protocol",
            "folds",
            "select_on",
        ),
        *("test_fraction", "seeds", "long_tail", "shots", "device", "final"),
    )
    features: Quantity = options["features"] or ("frame" if options["head"] == "attentive" else "clip")
    return [
        ProbeSpec(class_weight=weight, features=features, **{name: options[name] for name in same})
        for weight in dict.fromkeys(weights)
    ]


def _print_coverage(dataset: Dataset, tables: Sequence[FeatureTable]) -> None:
    """Print how many videos have embeddings, and warn of stores that lack some."""
    used = len(tables[0].id)
    click.echo(f"{used} of {len(dataset.videos)} videos have embeddings of {', '.join(t.variant for t in tables)}")
    for table in tables:
        if missing := len({video.id for video in dataset.videos} - set(table.store.ids)):
            click.echo(
                f"warning: {missing} videos have no {table.variant} embedding and are left out: run"
                f" `actionvit extract {dataset.root}`",
                err=True,
            )


def _publish(results: Sequence[ProbeResult], options: dict[str, Any]) -> None:
    """Write the runs and print their results."""
    said = []
    for result in results:
        result.info["command"] = ["actionvit", *sys.argv[1:]]
        run = result.write(options["runs"], name=options["run"], overwrite=options["overwrite"])
        said.append({"run": str(run.folder), "summary": result.metrics["summary"], "leaks": result.info["leaks"]})
        if not options["as_json"]:
            _print(result, run.folder)
    if options["as_json"]:
        echo_json(said)


def _print(result: ProbeResult, folder: Path) -> None:
    """Print the metrics of a run, the chosen hyper-parameters, and warnings."""
    from collections import Counter

    from actionvit.pipeline.experiments.tables import chosen_in_words

    summary, splits = result.metrics["summary"], result.metrics["splits"]
    click.echo(f"\n{folder}")
    metrics = ("top1", "top5", "mean_class_accuracy", "macro_f1")
    if result.info["dataset"].get("test_set") == "val":
        click.echo("  scored on the validation set (val)")
    for metric in (name for name in metrics if name != "top5" or len(result.predictions.class_names) > 5):
        value = summary[metric]
        spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
        low, high = value["ci95"]
        name = metric.replace("_", " ")
        click.echo(
            f"  {name:20} {100 * value['mean']:5.1f}{spread} %   95 % interval {100 * low:.1f} to {100 * high:.1f}"
        )
    if mveb := result.info.get("mveb"):
        click.echo(f"  MVEB: accuracy {100 * mveb['accuracy']:.2f} %, macro F1 {100 * mveb['f1']:.2f} %, over 10 draws")
    chosen = Counter(chosen_in_words(search) for search in result.info["search"])
    counts = "; ".join(f"{value or 'the default (too few clips)'} ({count}×)" for value, count in chosen.items())
    click.echo(f"  chosen {counts}, over {len(splits)} splits")
    if edges := sorted({name for search in result.info["search"] for name in search["at_edge"]}):
        click.echo(
            f"  note: {', '.join(edges)} was chosen at the edge of its grid; widen it with --grid and replace this run"
            " with --overwrite",
            err=True,
        )
    if final := result.info["final"]:
        click.echo(f"  final head: trained on all {final['videos']} videos; the figures above are of the splits' heads")
    if leaks := result.info["leaks"]:
        most = max(leaks.values())
        click.echo(
            f"  warning: in {len(leaks)} of {len(splits)} splits up to {most} sources have clips of one class in both"
            " the training and the test set, so these numbers are too high; --protocol grouped keeps sources apart",
            err=True,
        )
