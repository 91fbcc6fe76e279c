"""Runs, reports and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actionvit.api.places import RUNS, PathLike

if TYPE_CHECKING:
    from actionvit.pipeline.runs import Run


def report(
    runs: Run | PathLike | Sequence[Run | PathLike],
    output: PathLike | None = None,
    *,
    root: PathLike | None = None,
    projection: Literal["pca", "tsne", "umap"] = "pca",
) -> Path:
    """Write a per-class report of one run, or a pairwise comparison of several; return the path of report.html.

    Parameters
    ----------
    runs : Run, path or sequence of them
        In a comparison the earlier run is the baseline.
    output : path, optional
        Folder to write to, by default `report` in the first run.
    root : path, optional
        Folder of the dataset, for thumbnails, by default as recorded.
    projection : {"pca", "tsne", "umap"}
        Method of the 2-D embedding plot.

    Raises
    ------
    ActionVitError
        If the runs were not tested on the same videos, or `output` cannot be written.
    """
    from actionvit.pipeline.reporting.embeddings import read_embeddings
    from actionvit.pipeline.reporting.inputs import dataset_folder
    from actionvit.pipeline.reporting.writer import report as run_stage
    from actionvit.pipeline.runs import Run

    sources = [runs] if isinstance(runs, (Run, str, Path)) else list(runs)
    read = [run if isinstance(run, Run) else load_run(run) for run in sources]
    files = run_stage(
        read,
        output=Path(output) if output else read[0].folder / "report",
        root=dataset_folder(read[0], Path(root) if root else None),
        embeddings=read_embeddings(read[0]),
        projection=projection,
    )
    return files.html


def predict(
    run: Run | PathLike,
    videos: Sequence[PathLike],
    *,
    top: int = 5,
    weights: str | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
) -> list[list[dict[str, Any]]]:
    """Return the most probable classes of each video: `[{"class": name, "score": probability}, …]`, best first.

    Parameters
    ----------
    run : Run or path
        Of `probe` or `finetune`; its final model predicts, or that of its first split.
    videos : sequence of path
        Files, or folders of frames. A video that cannot be decoded gives an empty list.
    top : int
        Number of classes per video.
    weights : str, optional
        The encoder's weights, if they are no longer where the run recorded them.
    device, precision, workers, timeout
        As for `extract`.

    Raises
    ------
    ActionVitError
        If the weights are missing or differ from the run's.
    """
    from actionvit.pipeline.prediction.predictor import load_predictor, top_classes
    from actionvit.pipeline.prediction.predictor import predict as run_stage
    from actionvit.pipeline.runs import Run

    predictor = load_predictor(run if isinstance(run, Run) else load_run(run), weights=weights)
    paths = [Path(video) for video in videos]
    stream = run_stage(predictor, paths, device=device, precision=precision, workers=workers, timeout=timeout)
    scores = [prediction.scores for prediction in stream]
    return [
        []
        if row is None
        else [{"class": name, "score": value} for name, value in top_classes(row, predictor.class_names, top)]
        for row in scores
    ]


def load_run(path: PathLike) -> Run:
    """Return a run by its folder, or by its name below `runs`.

    Raises
    ------
    ActionVitError
        If the run does not exist or is damaged.
    """
    from actionvit.pipeline.runs import read_run

    folder = Path(path)
    return read_run(folder if folder.exists() or folder.parent != Path() else RUNS / folder)
