"""Stage 3: runs -> JSON, CSV, Markdown, LaTeX, figures, and one HTML file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionvit.errors import ActionVitError
from actionvit.evaluation.metrics import METRICS
from actionvit.features.atomic import atomic_write, remove
from actionvit.pipeline.reporting import csv_tables
from actionvit.pipeline.reporting.compare import compare_all
from actionvit.pipeline.reporting.curves import charts
from actionvit.pipeline.reporting.describe import by_metadata, describe
from actionvit.pipeline.reporting.hard_clips import hard_clips
from actionvit.pipeline.reporting.markdown_latex import latex, markdown
from actionvit.pipeline.reporting.ordering import by_similarity
from actionvit.pipeline.reporting.text import short_names
from actionvit.pipeline.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actionvit.pipeline.reporting.analysis import Embeddings, Projection
    from actionvit.pipeline.reporting.page import Pictures
    from actionvit.pipeline.reporting.pictures import Look, Pixels

SCHEMA = 2
"""Version of `report.json`."""

SPLIT_KEYS = ("name", "n_train", "n_test", *METRICS)
"""What the report repeats of a split; the rest stands in the run's `metrics.json`."""

FIGURES, TABLES = "figures", "tables"
"""The folders beside `report.html`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """What was written."""

    html: Path
    others: tuple[Path, ...]


def report(
    runs: Sequence[Run],
    *,
    out: Path,
    root: Path | None = None,
    embeddings: Embeddings | None = None,
    projection: Projection = "pca",
    look: Look | None = None,
    command: Sequence[str] = (),
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> ReportFiles:
    """Write the report of one run, or of several over the same test clips, compared with the first.

    Parameters
    ----------
    runs : sequence of Run
        The first is the baseline of every comparison.
    out : Path
        The folder to write to; files of an earlier report there are replaced or removed, others left alone.
    root : Path, optional
        The dataset's folder, for frames of the hard clips; a clip that is not there is left without.
    embeddings : Embeddings, optional
        Of the first run's store: for the picture of the space, nearest training clips and near-duplicates.
    projection : {"pca", "tsne", "umap"}
        How the picture is made.
    look : callable, optional
        For attention over the frames of the hard clips: `rollout.Attention` of the first run's encoder.
    command : sequence of str
        The command line, for the page's provenance.
    on_clip : callable
        Told (hard clips pictured, hard clips) after each: with `look` a forward each.

    Returns
    -------
    ReportFiles
        `report.html` and, beside it, `report.json`, `report.md`, `report.tex`; in `tables/` a tidy CSV file a table and
        figure, in `figures/` every figure as SVG, PDF and PNG.

    Raises
    ------
    ActionVitError
        If two runs have one name, or tested different clips, or the folder cannot be written.
    """
    from actionvit.pipeline.reporting import figures as drawing
    from actionvit.pipeline.reporting.page import page

    found = assemble(runs, embeddings=embeddings, projection=projection)
    pictures, thumbnails = _pictures(found, root, look, on_clip)
    drawn = {name: drawing.files(figure, f"{name}") for name, figure in draw(found, thumbnails).items()}
    captions = {name: chart.caption for name, chart in charts(found["runs"]).items()}
    inline = {
        name: drawing.inline(made[".svg"], _alt(name, captions)) for name, made in drawn.items() if _on_page(name)
    }
    html = page(found, runs, figures=inline, captions=captions, pictures=pictures, command=command)
    data: dict[str, bytes] = {
        "report.html": html.encode(),
        "report.md": markdown(found).encode(),
        "report.tex": latex(found).encode(),
    }
    data |= {
        f"{TABLES}/{name}.csv": csv_tables.as_csv(table).encode() for name, table in csv_tables.tables(found).items()
    }
    data |= {f"{FIGURES}/{name}{end}": part for name, made in drawn.items() for end, part in made.items()}
    text = json.dumps({**found, "files": sorted(data)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    data["report.json"] = text.encode()
    _write(out, data)
    return ReportFiles(html=out / "report.html", others=tuple(out / name for name in data if name != "report.html"))


def assemble(
    runs: Sequence[Run], *, embeddings: Embeddings | None = None, projection: Projection = "pca"
) -> dict[str, Any]:
    """Return every number of the report, ready for JSON.

    Raises
    ------
    ActionVitError
        If two runs have one name, or tested different clips.
    """
    from actionvit.pipeline.reporting.analysis import analyse

    if len({run.name for run in runs}) < len(runs):
        raise ActionVitError("report: two runs have the same name; rename the folder of one")
    names = short_names([run.name for run in runs])
    comparisons = compare_all(runs, names=names) if len(runs) > 1 else []
    sections = [describe(run, name) for run, name in zip(runs, names, strict=True)]
    for section in sections:
        section["splits"] = [{key: split[key] for key in SPLIT_KEYS} for split in section["splits"]]
    hard = hard_clips(runs, names=names)
    predictions = runs[0].predictions
    return {
        "schema": SCHEMA,
        "class_names": list(predictions.class_names),
        "n_clips": len(set(predictions.id.tolist())),
        "n_results": len(predictions.id),
        "n_sources": len(set(predictions.cluster.tolist())),
        "order": by_similarity(np.sum([section["confusion"] for section in sections], axis=0)),
        "runs": sections,
        "comparisons": comparisons,
        "by_metadata": by_metadata(runs),
        "hard": hard,
        "analysis": analyse(runs, embeddings, names=names, look_at=hard, method=projection) if embeddings else None,
    }


def draw(found: Mapping[str, Any], thumbnails: Mapping[str, Pixels]) -> dict[str, Figure]:
    """Return the figures by name; `thumbnails` are small pictures (h, w, 3) of clips by id, for the embeddings."""
    from actionvit.pipeline.reporting import figures as make

    runs, names = found["runs"], found["class_names"]
    drawn = {f"confusion-{run['name']}": make.confusion_figure(run["confusion"], names, found["order"]) for run in runs}
    drawn["per_class"] = make.classes_figure({run["name"]: run["per_class"] for run in runs}, names)
    drawn["reliability"] = make.reliability_figure({run["name"]: run["reliability"] for run in runs})
    drawn["cmc"] = make.cmc_figure({run["name"]: run["cmc"] for run in runs})
    drawn |= {name: make.lines_figure(chart) for name, chart in charts(runs).items()}
    if found["by_metadata"]:
        drawn["metadata"] = make.metadata_figure(found["by_metadata"], [run["name"] for run in runs])
    costs = {run["cost"]["gmac"] for run in runs}
    if len(costs) > 1 and all(costs):
        drawn["cost"] = make.cost_figure(runs)
    if found["analysis"]:
        drawn["projection"] = make.projection_figure(found["analysis"]["projection"], thumbnails)
    return drawn


def _on_page(name: str) -> bool:
    """Return whether the page shows a figure as it is; of some it has a table that says the same."""
    return name != "metadata" and not name.startswith("confusion-")


def _alt(name: str, captions: Mapping[str, str]) -> str:
    """Return what a figure is, for those who do not see it, and where its numbers stand."""
    from actionvit.pipeline.reporting.page import CAPTIONS

    table = name if name in CAPTIONS else "search" if name.startswith("search-") else "curves"
    return f"{captions.get(name) or CAPTIONS[name]} The numbers stand in {TABLES}/{table}.csv."


def _pictures(
    found: Mapping[str, Any], root: Path | None, look: Look | None, on_clip: Callable[[int, int], None]
) -> tuple[Pictures, dict[str, Pixels]]:
    """Return the page's pictures, and those of the projection, as far as the clips are at hand."""
    from actionvit.pipeline.reporting.page import Pictures
    from actionvit.pipeline.reporting.pictures import faces, jpeg, strips

    if root is None:
        return Pictures(), {}
    analysis = found["analysis"] or {"projection": {"shown": []}, "neighbours": []}
    near = dict.fromkeys(near["id"] for one in analysis["neighbours"] for near in one["nearest"])
    hard = [str(clip["id"]) for clip in found["hard"]]

    def counted() -> Iterator[tuple[str, Path]]:
        for number, id_ in enumerate(hard, start=1):
            yield id_, root / id_
            on_clip(number, len(hard))

    shown = strips(counted(), look=look)
    small = {id_: jpeg(face) for id_, face in faces(((id_, root / id_) for id_ in near), height=80).items()}
    points = faces((id_, root / id_) for id_ in analysis["projection"]["shown"])
    return Pictures(strips=shown, faces=small), points


def _write(out: Path, data: Mapping[str, bytes]) -> None:
    """Publish files by name below `out`, and remove those of an earlier report that this one has not."""
    try:
        for folder in (FIGURES, TABLES):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ActionVitError(f"{out}: cannot be made: {error.strerror}; choose another --output") from error
    remove(out / name for name in _earlier(out) if name not in data)
    for name, content in data.items():
        atomic_write(out / name, content)


def _earlier(out: Path) -> list[str]:
    """Return the figures and tables of an earlier report at `out`."""
    try:
        names = json.loads((out / "report.json").read_text(encoding="utf-8"))["files"]
        return [str(name) for name in names if Path(str(name)).parent.as_posix() in (FIGURES, TABLES)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
