"""Stage 3: runs -> JSON, CSV, Markdown, LaTeX, figures, and one HTML file that needs no network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionvit import escape
from actionvit.errors import ActionVitError, SettingError
from actionvit.features.atomic import atomic_write, remove, remove_leftovers
from actionvit.pipeline.reporting.compare import compare_all, on_common_splits
from actionvit.pipeline.reporting.csv_tables import csv_tables
from actionvit.pipeline.reporting.curves import charts
from actionvit.pipeline.reporting.describe import by_metadata, by_similarity, describe
from actionvit.pipeline.reporting.documents import latex, markdown
from actionvit.pipeline.reporting.figure_files import Draw, FigureFiles, Files
from actionvit.pipeline.reporting.hard_clips import hard_clips
from actionvit.pipeline.reporting.model import Report, as_json
from actionvit.pipeline.reporting.table import to_csv
from actionvit.pipeline.reporting.text import short_names
from actionvit.pipeline.runs import Run, parsing

if TYPE_CHECKING:
    from actionvit.pipeline.reporting.analysis import Projection
    from actionvit.pipeline.reporting.embeddings import Embeddings
    from actionvit.pipeline.reporting.page import Pictures
    from actionvit.pipeline.reporting.pictures import AttentionEncoder, Pixels

SCHEMA = 3
"""Version of `report.json`."""

FIGURES, TABLES = "figures", "tables"
"""The folders beside `report.html`."""

LARGE = 100
"""Class names, and 20 more per run, from which a second process draws: one run of 80 classes, or four of 5."""

Progress = Callable[[str, int, int], None]
"""Called with a step's name, the units of it that are done, and their total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """The files of a report."""

    html: Path
    others: tuple[Path, ...]


def report(
    runs: Sequence[Run],
    *,
    output: Path,
    root: Path | None = None,
    embeddings: Embeddings | None = None,
    projection: Projection = "pca",
    encoder: AttentionEncoder | None = None,
    command: Sequence[str] = (),
    progress: Progress = lambda step, done, total: None,
) -> ReportFiles:
    """Write the report of one run, or of several over the same test clips, which are compared pairwise.

    Parameters
    ----------
    runs : sequence of Run
        In the order of the report; in a comparison the earlier run is the baseline.
    output : Path
        The folder to write to; files of an earlier report there are replaced or removed, others remain.
    root : Path, optional
        The dataset's folder, for frames of the hard clips; a clip that is not there has no picture.
    embeddings : Embeddings, optional
        Of the first run's store: for the projection, the nearest training clips and near-duplicates.
    projection : {"pca", "tsne", "umap"}
        Method of the projection.
    encoder : callable, optional
        Encoder for attention over the frames of the hard clips: `rollout.Attention` of the first run's encoder.
    command : sequence of str
        The command line, for the page's provenance.
    progress : callable
        Called as each step proceeds.

    Returns
    -------
    ReportFiles
        `report.html` and, beside it, `report.json`, `report.md`, `report.tex`; in `tables/` one tidy CSV file per table
        and figure, in `figures/` every figure as SVG, PDF and PNG.

    Raises
    ------
    ActionVitError
        If two runs have one name or tested different clips, or if the folder cannot be written.
    """
    _check_writable(output)
    with parsing(*runs), FigureFiles(second_process=_needs_second_process(runs)) as draw:
        content = assemble(runs, embeddings=embeddings, projection=projection, progress=progress)
        data = _files(content, runs, draw, root, encoder, command, progress)
    progress("writing", 0, len(data))
    _write(output, data)
    progress("writing", len(data), len(data))
    return ReportFiles(
        html=output / "report.html", others=tuple(output / name for name in data if name != "report.html")
    )


def _needs_second_process(runs: Sequence[Run]) -> bool:
    """Return whether figures take longer to draw than a second process to start, and there is a core for it."""
    from actionvit.features.decoding import available_cores

    return available_cores() > 1 and sum(20 + len(run.predictions.class_names) for run in runs) >= LARGE


def _files(
    content: Report,
    runs: Sequence[Run],
    draw: FigureFiles,
    root: Path | None,
    encoder: AttentionEncoder | None,
    command: Sequence[str],
    progress: Progress,
) -> dict[str, bytes]:
    """Return every file of the report by its name below the output folder."""
    from jinja2 import UndefinedError

    from actionvit.pipeline.reporting import drawing
    from actionvit.pipeline.reporting.page import page

    pictures, thumbnails = _pictures(content, root, encoder, progress)
    captions = {name: chart.caption for name, chart in charts(content.runs).items()}
    draws = figures(content, thumbnails)
    drawn: dict[str, Files] = {}
    progress("figures", 0, len(draws))
    for name, files in draw(draws):
        drawn[name] = files
        progress("figures", len(drawn), len(draws))
    data = {f"{FIGURES}/{name}{suffix}": part for name in draws for suffix, part in drawn[name].items()}
    inline = {
        name: drawing.inline(drawn[name][".svg"], _alt(name, captions))
        for name in draws
        if name != "metadata" and not name.startswith("confusion-")  # the page shows these as tables
    }
    try:
        html = page(content, runs, figures=inline, captions=captions, pictures=pictures, command=command)
    except UndefinedError as error:  # a value that a malformed run lacks
        raise ValueError(str(error)) from error
    data |= {
        "report.html": escape.encode(html),
        "report.md": escape.encode(markdown(content)),
        "report.tex": escape.encode(latex(content)),
    }
    data |= {f"{TABLES}/{name}.csv": escape.encode(to_csv(table)) for name, table in csv_tables(content).items()}
    text = json.dumps({**as_json(content), "files": sorted(data)}, indent=1, ensure_ascii=False, allow_nan=False)
    return {**data, "report.json": escape.encode(f"{text}\n")}


def assemble(
    runs: Sequence[Run],
    *,
    embeddings: Embeddings | None = None,
    projection: Projection = "pca",
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Return every number of the report; parameters are as for `report`.

    Raises
    ------
    ActionVitError
        If two runs have one name, or tested different clips.
    """
    from actionvit.pipeline.reporting.analysis import analyse

    if len({run.name for run in runs}) < len(runs):
        raise ActionVitError("report: two runs have the same name; rename the folder of one")
    names = short_names([run.name for run in runs])
    common = on_common_splits(runs)
    progress("statistics", 0, 3)
    sections = [describe(run, name) for run, name in zip(runs, names, strict=True)]
    progress("statistics", 1, 3)
    runs = common
    comparisons = compare_all(runs, names=names) if len(runs) > 1 else []
    hard = hard_clips(runs, names=names)
    progress("statistics", 2, 3)
    analysis = analyse(runs, embeddings, names=names, hard=hard, method=projection) if embeddings else None
    progress("statistics", 3, 3)
    predictions = runs[0].predictions
    return Report(
        schema=SCHEMA,
        class_names=list(predictions.class_names),
        n_clips=len(set(predictions.id.tolist())),
        n_results=len(predictions.id),
        n_sources=len(set(predictions.cluster.tolist())),
        order=by_similarity(np.sum([section.confusion for section in sections], axis=0)),
        runs=sections,
        comparisons=comparisons,
        by_metadata=by_metadata(runs),
        hard=hard,
        analysis=analysis,
    )


def figures(content: Report, thumbnails: Mapping[str, Pixels]) -> dict[str, Draw]:
    """Return functions that draw the figures, by name; `thumbnails` (h, w, 3) of clips by id, for the projection."""
    from actionvit.pipeline.reporting import figures as make

    runs, names = content.runs, content.class_names
    draws: dict[str, Draw] = {
        f"confusion-{run.name}": partial(make.confusion_figure, run.confusion, names, content.order) for run in runs
    }
    draws["per_class"] = partial(make.classes_figure, {run.name: run.per_class for run in runs}, names)
    draws["reliability"] = partial(make.reliability_figure, {run.name: run.reliability for run in runs})
    draws["cmc"] = partial(make.cmc_figure, {run.name: run.cmc for run in runs})
    draws |= {name: partial(make.lines_figure, chart) for name, chart in charts(runs).items()}
    if content.by_metadata:
        draws["metadata"] = partial(make.metadata_figure, content.by_metadata, [run.name for run in runs])
    costs = {run.name: [(run.cost.gmac, run.summary["top1"])] for run in runs if run.cost.gmac}
    if len(costs) == len(runs) and len({points[0][0] for points in costs.values()}) > 1:
        draws["cost"] = partial(make.cost_figure, costs)
    if content.analysis:
        projection, order = content.analysis.projection, [names[number] for number in content.order]
        draws["projection"] = partial(make.projection_figure, projection, order, thumbnails)
    return draws


def _alt(name: str, captions: Mapping[str, str]) -> str:
    """Return a figure's description for screen readers, with the file that has its numbers."""
    from actionvit.pipeline.reporting.page import CAPTIONS

    table = name if name in CAPTIONS else "search" if name.startswith("search-") else "curves"
    return f"{captions.get(name) or CAPTIONS[name]} The numbers are in {TABLES}/{table}.csv."


def _pictures(
    content: Report, root: Path | None, encoder: AttentionEncoder | None, progress: Progress
) -> tuple[Pictures, dict[str, Pixels]]:
    """Return the page's pictures, and the thumbnails of the projection, of all clips that are available."""
    from actionvit.pipeline.reporting.page import Pictures
    from actionvit.pipeline.reporting.pictures import faces, jpeg, strips

    if root is None:
        return Pictures(), {}
    neighbors = content.analysis.neighbors if content.analysis else ()
    near = {neighbor.id: root / neighbor.id for clip in neighbors for neighbor in clip.nearest}
    hard = {clip.id: root / clip.id for clip in content.hard}
    shown = strips(hard, encoder=encoder, on_clip=lambda done, total: progress("hard clips", done, total))
    small = {id_: jpeg(face) for id_, face in faces(near, height=80).items()}
    points = content.analysis.projection.shown if content.analysis else ()
    return Pictures(strips=shown, faces=small), faces({id_: root / id_ for id_ in points})


def _check_writable(output: Path) -> None:
    """Raise ActionVitError if the folder cannot be made or written, before anything is computed."""
    place = output
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise SettingError(f"output: `{output}` cannot be written; choose another folder")


def _write(output: Path, data: Mapping[str, bytes]) -> None:
    """Publish files by name below `output`, and remove those that only an earlier report has."""
    try:
        for folder in (output, output / FIGURES, output / TABLES):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        remove(output / name for name in _earlier(output) if name not in data)
        for name, content in data.items():
            atomic_write(output / name, content)
    except OSError as error:
        raise SettingError(f"output: `{output}` cannot be written: {error.strerror}") from error


def _earlier(output: Path) -> list[str]:
    """Return the figures and tables of an earlier report."""
    try:
        names = json.loads((output / "report.json").read_text(encoding="utf-8"))["files"]
        return [str(name) for name in names if Path(str(name)).parent.as_posix() in (FIGURES, TABLES)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
