"""Stage 3: runs -> JSON, CSV, Markdown, figures, and one HTML file that needs no network."""

from __future__ import annotations

import csv
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionvit.errors import ActionVitError
from actionvit.pipeline.compare import compare_all
from actionvit.pipeline.describe import by_metadata, describe, similarity_order
from actionvit.pipeline.figures import confusion_figure, recall_figure
from actionvit.pipeline.runs import Run
from actionvit.pipeline.wording import METRIC_TITLES, coverage_line, is_complete, metric, percent, signed

SCHEMA = 1
"""Version of `report.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """What was written."""

    html: Path
    others: tuple[Path, ...]


def report(runs: Sequence[Run], *, out: Path) -> ReportFiles:
    """Write the report of one run, or of several over the same test clips, compared with the first.

    Parameters
    ----------
    runs : sequence of Run
        The first is the baseline of every comparison.
    out : Path
        The folder to write to; files of an earlier report there are replaced.

    Returns
    -------
    ReportFiles
        `report.html` and, beside it, `report.json`, `report.md`, `per_class.csv`, `summary.csv`, `confusion-RUN.csv`
        and the figures as SVG and PNG.

    Raises
    ------
    ActionVitError
        If two runs have one name, or tested different clips.
    """
    if len({run.name for run in runs}) < len(runs):
        raise ActionVitError("report: two runs have the same name; rename the folder of one")
    found = assemble(runs)
    out.mkdir(parents=True, exist_ok=True)
    figures = _figures(found, out)
    files = [
        _write(out / "report.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        _write(out / "report.md", markdown(found)),
        _write_rows(out / "summary.csv", summary_rows(found)),
        _write_rows(out / "per_class.csv", per_class_rows(found)),
    ]
    for run in found["runs"]:
        table = [["true \\ predicted", *found["class_names"]]]
        table += [[name, *row] for name, row in zip(found["class_names"], run["confusion"], strict=True)]
        files.append(_write_rows(out / f"confusion-{run['name']}.csv", table))
    html = _write(out / "report.html", page(found, figures))
    return ReportFiles(html=html, others=(*files, *figures))


def assemble(runs: Sequence[Run]) -> dict[str, Any]:
    """Return every number of the report, ready for JSON."""
    comparisons = compare_all(runs) if len(runs) > 1 else []
    return {
        "schema": SCHEMA,
        "class_names": list(runs[0].predictions.class_names),
        "order": similarity_order(runs),
        "runs": [describe(run) for run in runs],
        "comparisons": comparisons,
        "by_metadata": by_metadata(runs),
    }


def summary_rows(found: dict[str, Any]) -> list[list[Any]]:
    """Return the headline as rows: one a run and metric."""
    rows: list[list[Any]] = [["run", "metric", "mean", "std", "ci95_low", "ci95_high"]]
    for run in found["runs"]:
        for name, value in run["summary"].items():
            rows.append([run["name"], name, value["mean"], value["std"], *value["ci95"]])
    return rows


def per_class_rows(found: dict[str, Any]) -> list[list[Any]]:
    """Return tidy rows: one a run and class, pooled over the splits."""
    rows: list[list[Any]] = [["run", "class", "precision", "recall", "f1", "support"]]
    for run in found["runs"]:
        for row in run["per_class"]:
            rows.append([run["name"], *(row[key] for key in rows[0][1:])])
    return rows


def markdown(found: dict[str, Any]) -> str:
    """Return the report for a README: headline, verdicts, classes, confused pairs."""
    titles = list(METRIC_TITLES.items())
    lines = ["| run | " + " | ".join(title for _, title in titles) + " |", "|---" + "|--:" * len(titles) + "|"]
    for run in found["runs"]:
        cells = [headline_cell(run["summary"][name], name) for name, _ in titles]
        lines.append(f"| {run['name']} | " + " | ".join(cells) + " |")
    lines += ["", "Mean over the splits ± their standard deviation [95 % interval by source].", ""]
    lines += [f"- {comparison['verdict']}" for comparison in found["comparisons"]]
    lines += [f"- {run['name']}: {coverage_line(run['coverage'])}." for run in found["runs"]]
    for run in found["runs"]:
        lines += ["", f"**{run['name']}**, pooled over the splits:", ""]
        lines += ["| class | precision | recall | F1 | support |", "|---|--:|--:|--:|--:|"]
        for row in run["per_class"]:
            cells = [percent(row[key]) for key in ("precision", "recall", "f1")]
            lines.append(f"| {row['class']} | {' | '.join(cells)} | {row['support']} |")
        pairs = [
            f"{pair['true']} taken for {pair['predicted']} ({pair['count']}×)" for pair in run["most_confused"][:5]
        ]
        lines += ["", f"Most confused: {'; '.join(pairs) or 'nothing'}."]
    return "\n".join(lines) + "\n"


def headline_cell(value: dict[str, Any], name: str) -> str:
    """Return `61.9 ± 2.1 [58.0, 65.5]`."""
    low, high = value["ci95"]
    spread = "" if value["std"] is None else f" ± {metric(name, value['std'])}"
    return f"{metric(name, value['mean'])}{spread} [{metric(name, low)}, {metric(name, high)}]"


def page(found: dict[str, Any], figures: Sequence[Path]) -> str:
    """Return the HTML file: everything inline, no number computed in the template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("actionvit.pipeline", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, signed=signed)
    pictures = {
        figure.stem: "data:image/png;base64," + b64encode(figure.read_bytes()).decode()
        for figure in figures
        if figure.suffix == ".png"
    }
    return environment.get_template("report.html").render(
        found=found,
        titles=METRIC_TITLES,
        cell=headline_cell,
        pictures=pictures,
        classes=_class_table(found),
        coverage=[(run["name"], coverage_line(run["coverage"]), is_complete(run["coverage"])) for run in found["runs"]],
        provenance=json.dumps([run["provenance"] for run in found["runs"]], indent=1, ensure_ascii=False),
    )


def _class_table(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row a class: every run's numbers side by side, and with several the differences to the first."""
    rows = []
    for number, name in enumerate(found["class_names"]):
        rows.append(
            {
                "class": name,
                "support": found["runs"][0]["per_class"][number]["support"],
                "runs": [run["per_class"][number] for run in found["runs"]],
                "deltas": [comparison["per_class"][number] for comparison in found["comparisons"]],
            }
        )
    return rows


def _figures(found: dict[str, Any], out: Path) -> list[Path]:
    """Draw the figures, each as SVG and PNG."""
    names, written = found["class_names"], []
    for run in found["runs"]:
        written += confusion_figure(run["confusion"], names, found["order"], out / f"confusion-{run['name']}")
    recalls = {run["name"]: [row["recall"] for row in run["per_class"]] for run in found["runs"]}
    written += recall_figure(recalls, names, out / "recall")
    return written


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _write_rows(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
