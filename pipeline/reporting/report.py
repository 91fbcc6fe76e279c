"""Stage 3: runs -> JSON, CSV, Markdown, LaTeX, figures, and one HTML file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.errors import ActionVitError
from actionvit.heads.metrics import METRICS
from actionvit.pipeline.reporting import tidy
from actionvit.pipeline.reporting.compare import compare_all
from actionvit.pipeline.reporting.curves import charts
from actionvit.pipeline.reporting.describe import by_metadata, describe, similarity_order
from actionvit.pipeline.reporting.hard import hard_clips
from actionvit.pipeline.reporting.latex import latex
from actionvit.pipeline.reporting.wording import short_names
from actionvit.pipeline.runs import Run

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from actionvit.pipeline.reporting.analysis import Embeddings, Projection

SCHEMA = 2
"""Version of `report.json`."""

SPLIT_KEYS = ("name", "n_train", "n_test", *METRICS)
"""What the report repeats of a split; the rest stands in the run's `metrics.json`."""


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
) -> ReportFiles:
    """Write the report of one run, or of several over the same test clips, compared with the first.

    Parameters
    ----------
    runs : sequence of Run
        The first is the baseline of every comparison.
    out : Path
        The folder to write to; files of an earlier report there are replaced.
    root : Path, optional
        The dataset's folder, for frames of the hard clips; a clip that is not there is left without.
    embeddings : Embeddings, optional
        Of the first run's store: for the picture of the space, nearest training clips and near-duplicates.
    projection : {"pca", "tsne", "umap"}
        How the picture is made.

    Returns
    -------
    ReportFiles
        `report.html` and, beside it, `report.json`, `report.md`, `report.tex`, a tidy CSV file a table and figure, and
        the figures as SVG and PNG.

    Raises
    ------
    ActionVitError
        If two runs have one name, or tested different clips.
    """
    from actionvit.pipeline.reporting.figures import save
    from actionvit.pipeline.reporting.page import page
    from actionvit.pipeline.reporting.thumbnails import faces, strips

    found = assemble(runs, embeddings=embeddings, projection=projection)
    shown = found["analysis"]["projection"]["shown"] if found["analysis"] else []
    pictures = strips((clip["id"], root / clip["id"]) for clip in found["hard"]) if root else {}
    figures = draw(found, faces((id_, root / id_) for id_ in shown) if root else {})
    out.mkdir(parents=True, exist_ok=True)
    files = [
        _write(out / "report.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        _write(out / "report.md", tidy.markdown(found)),
        _write(out / "report.tex", latex(found)),
        *(tidy.write_csv(out / f"{name}.csv", table) for name, table in tidy.tables(found).items()),
    ]
    for name, figure in figures.items():
        files += save(figure, out / name)
    html = _write(out / "report.html", page(found, runs, figures=figures, pictures=pictures))
    return ReportFiles(html=html, others=tuple(files))


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
        "order": similarity_order(runs),
        "runs": sections,
        "comparisons": comparisons,
        "by_metadata": by_metadata(runs),
        "hard": hard,
        "analysis": analyse(runs, embeddings, names=names, look_at=hard, method=projection) if embeddings else None,
    }


def draw(found: Mapping[str, Any], faces: Mapping[str, NDArray[np.uint8]]) -> dict[str, Figure]:
    """Return the figures by name; `faces` are small pictures (h, w, 3) of clips by id, for the embeddings."""
    from actionvit.pipeline.reporting import figures as make

    runs, names = found["runs"], found["class_names"]
    drawn = {f"confusion-{run['name']}": make.confusion_figure(run["confusion"], names, found["order"]) for run in runs}
    drawn["recall"] = make.recall_figure({r["name"]: [row["recall"] for row in r["per_class"]] for r in runs}, names)
    drawn["reliability"] = make.reliability_figure({run["name"]: run["reliability"] for run in runs})
    drawn["cmc"] = make.cmc_figure({run["name"]: run["cmc"] for run in runs})
    if found["by_metadata"]:
        drawn["metadata"] = make.metadata_figure(found["by_metadata"], [run["name"] for run in runs])
    for name, chart in charts(runs).items():
        drawn[name] = make.lines_figure(chart.lines, x_name=chart.x_name, y_name=chart.y_name, log=chart.log)
    if found["analysis"]:
        drawn["projection"] = make.projection_figure(found["analysis"]["projection"], faces)
    return drawn


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
