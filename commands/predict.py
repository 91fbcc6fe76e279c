"""`actionvit predict`: classes of videos, by what a run learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actionvit.commands.command import Command
from actionvit.commands.options import (
    decoding_options,
    device_option,
    echo_json,
    json_option,
    precision_option,
    setting,
    weights_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actionvit.pipeline.prediction.predictor import Prediction, Predictor
    from actionvit.pipeline.runs import Run


@click.command(cls=Command, examples="actionvit predict a.mp4 b.mp4 --run base-linear --top 3")
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="VIDEO...")
@click.option("--run", required=True, help="Run to predict with: its folder, or its name below runs/.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Number of classes shown per video.")
@weights_option
@device_option()
@precision_option()
@decoding_options
@json_option
def command(videos: tuple[Path, ...], **options: Any) -> None:
    """Predict the classes of each VIDEO (a file, or a folder of frames), with calibrated probabilities.

    The model is that of the run's first split: a fine-tuned network, or a probe's head on its encoder.
    """
    from tqdm import tqdm

    from actionvit.pipeline.prediction.predictor import load_predictor, predict

    run = find_run(options["run"])
    predictor = load_predictor(run, weights=options["weights"])
    how = {name: options[name] for name in ("device", "precision", "workers", "timeout")}
    stream = predict(predictor, videos, **how)
    found = list(tqdm(stream, total=len(videos), unit="video", disable=None, leave=False, delay=2))
    if options["as_json"]:
        echo_json(_as_json(run, predictor, found, options["top"]))
    else:
        _say(predictor, found, options["top"])
    if any(one.scores is None for one in found):
        click.get_current_context().exit(3)


def find_run(name: str) -> Run:
    """Read a run by its folder, or by its name below the runs' folder."""
    from actionvit.pipeline.runs import read_run

    return read_run(Path(name) if Path(name).is_dir() else setting("runs") / name)


def _as_json(run: Run, predictor: Predictor, found: Sequence[Prediction], top: int) -> dict[str, Any]:
    from actionvit.pipeline.prediction.predictor import best

    videos = []
    for one in found:
        entry: dict[str, Any] = {"video": str(one.path), "flags": list(one.flags)}
        if one.scores is None:
            entry["failure"] = one.failure
        else:
            told = best(one.scores, predictor.class_names, top)
            entry["top"] = [{"class": name, "score": round(score, 6)} for name, score in told]
        videos.append(entry)
    return {
        "run": str(run.folder),
        "temperature": round(predictor.temperature, 4),
        "calibrated_on": predictor.calibrated_on,
        "videos": videos,
    }


def _say(predictor: Predictor, found: Sequence[Prediction], top: int) -> None:
    from actionvit.pipeline.prediction.predictor import best

    for one in found:
        if one.scores is None:
            click.echo(f"{one.path}: {one.failure}", err=True)
            continue
        told = ", ".join(f"{name} {100 * score:.1f} %" for name, score in best(one.scores, predictor.class_names, top))
        flags = f"  ({', '.join(one.flags)})" if one.flags else ""
        click.echo(f"{one.path}: {told}{flags}")
