"""`actionvit predict`: classes of new videos, with the model of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from actionvit.commands.command import Command, note, warn
from actionvit.commands.options import (
    decoding_options,
    device_option,
    echo_json,
    json_option,
    precision_option,
    weights_option,
)
from actionvit.commands.progress import progress
from actionvit.commands.run_name import RUN, open_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actionvit.features.decoding.policy import DecodingOptions
    from actionvit.features.device import Precision
    from actionvit.pipeline.prediction.predictor import Prediction, Predictor
    from actionvit.pipeline.runs import Run


def _single(_ctx: click.Context, _param: click.Parameter, names: tuple[str, ...]) -> str:
    """Return the run's name; refuse several, of which click would take the last."""
    if len(names) > 1:
        raise click.UsageError(f"--run: got {', '.join(names)}, expected one run; predict with each in turn")
    return names[0]


@click.command(
    cls=Command,
    examples="""
    actionvit predict a.mp4 b.mp4 --run base-linear --top 3
    actionvit predict videos/ --run base-last1 --json
    """,
)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="VIDEO...")
@click.option(
    "--run",
    required=True,
    multiple=True,
    type=RUN,
    callback=_single,
    help="Run to predict with: its folder or name below runs/.",
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Number of classes shown per video.")
@weights_option
@device_option()
@precision_option()
@decoding_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    videos: tuple[Path, ...],
    run: str,
    top: int,
    weights: str | None,
    device: str,
    precision: Precision | Literal["auto"],
    decoding: DecodingOptions,
    as_json: bool,
) -> None:
    """Predict the classes of each VIDEO, with their probabilities.

    VIDEO is a file, a folder of frames, or a folder of videos, which is searched recursively. The model is the run's
    final model if it has one, otherwise that of its first split. Probabilities are as the head gives them; they are
    calibrated if it was fine-tuned, or probed with --calibrate.

    Exit code 3: some videos did not decode.
    """
    from actionvit.pipeline.prediction.predictor import expand_folders, load_predictor, predict

    opened = open_run(run)
    paths = expand_folders(videos)
    predictor = load_predictor(opened, weights=weights)
    trained, seen = predictor.training, predictor.training.count(paths)
    if not as_json:
        note(f"{opened.name}: {trained}")
        if seen and trained.split is not None:
            which = "the video was" if len(paths) == 1 else f"{seen} of these {len(paths)} videos were"
            note(f"note: {which} in its training set; --final trains one on all")
    stream = predict(predictor, paths, device=device, precision=precision, **decoding)
    predictions = []
    with progress("predict", "video", delay=2, total=len(paths)) as advance:
        for prediction in stream:
            predictions.append(prediction)
            if prediction.scores is None:
                warn(f"{prediction.path}: {prediction.failure}")
            advance(len(predictions), len(paths))
    if as_json:
        echo_json({**_as_json(opened, predictor, predictions, top), "model": str(trained), "trained_on": seen})
    else:
        _print(predictor, predictions, top)
    if any(prediction.scores is None for prediction in predictions):
        ctx.exit(3)


def _as_json(run: Run, predictor: Predictor, predictions: Sequence[Prediction], top: int) -> dict[str, Any]:
    from actionvit.pipeline.prediction.predictor import top_classes

    videos = []
    for prediction in predictions:
        entry: dict[str, Any] = {"video": str(prediction.path), "flags": list(prediction.flags)}
        if prediction.scores is None:
            entry["failure"] = prediction.failure
        else:
            classes = top_classes(prediction.scores, predictor.class_names, top)
            entry["top"] = [{"class": name, "score": round(score, 6)} for name, score in classes]
        videos.append(entry)
    return {
        "run": str(run.folder),
        "calibrated_on": predictor.calibrated_on or None,
        "videos": videos,
    }


def _print(predictor: Predictor, predictions: Sequence[Prediction], top: int) -> None:
    from actionvit.pipeline.prediction.predictor import top_classes

    for prediction in predictions:
        if prediction.scores is None:
            continue
        classes = top_classes(prediction.scores, predictor.class_names, top)
        flags = f"  ({', '.join(prediction.flags)})" if prediction.flags else ""
        click.echo(f"{prediction.path}: {', '.join(f'{name} {100 * score:.1f} %' for name, score in classes)}{flags}")
