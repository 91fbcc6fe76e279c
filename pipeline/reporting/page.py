"""The report as one HTML file: everything inline, nothing loaded, no number computed in the template."""

from __future__ import annotations

import json
import re
import shlex
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from actionvit import __version__, escape
from actionvit.evaluation.metrics import predicted
from actionvit.pipeline.reporting import html_tables
from actionvit.pipeline.reporting.describe import row_order, shortened
from actionvit.pipeline.reporting.documents import templates
from actionvit.pipeline.reporting.model import Comparison, HardClip, Report, RunSection
from actionvit.pipeline.reporting.pictures import Strip
from actionvit.pipeline.reporting.table import tint
from actionvit.pipeline.reporting.text import (
    BY_SOURCE,
    INTERVAL,
    coverage_line,
    duplicate_line,
    is_complete,
    mixing_line,
    opening,
    overview,
    percent,
    protocol_of,
    setting,
    tests,
)
from actionvit.pipeline.runs import Run
from actionvit.text import pluralize

CAPTIONS = {
    "per_class": f"Recall of each class with its {INTERVAL} {BY_SOURCE}, ordered by the first run’s recall.",
    "reliability": "Accuracy of predictions of a given confidence. On the dashed line both agree; the area of a mark "
    "is the number of results.",
    "cmc": "Top-k accuracy: how often the true class is among the k best (cumulative match curve).",
    "cost": f"Top-1 and its {INTERVAL} against the multiply-adds per video.",
    "projection": "The embeddings of the test clips in two dimensions, colored by class. Distances in two dimensions "
    "reflect those between the embeddings only roughly.",
}
MOST = 40
"""Failures and near-duplicate pairs that the page lists; report.json has all of them, or their number."""

PAIRS = 15
"""Pairs of runs that the page shows in detail; report.json and the CSV tables have all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Frames of clips as JPEG files, by id."""

    strips: Mapping[str, Strip] = field(default_factory=dict)
    faces: Mapping[str, bytes] = field(default_factory=dict)
    """Single frames of the nearest training clips."""


def page(
    report: Report,
    runs: Sequence[Run],
    *,
    figures: Mapping[str, str],
    captions: Mapping[str, str],
    pictures: Pictures,
    command: Sequence[str] = (),
) -> str:
    """Return the HTML of a report.

    Parameters
    ----------
    report : Report
        All numbers.
    runs : sequence of Run
        The runs of the report in the same order, for the clips behind a cell of a confusion matrix.
    figures : mapping
        SVG elements by name.
    captions : mapping
        Captions of the figures that have none in `CAPTIONS`.
    pictures : Pictures
        Frames of the hard clips and of their neighbors.
    command : sequence of str
        The command line that makes this report; `actionvit report RUN...` where it is unknown.
    """
    from markupsafe import Markup

    captions = {**captions, **CAPTIONS}
    shown = report.comparisons[:PAIRS]
    order = html_tables.shown_order(report)
    template = templates(_on_page).get_template("report.html")
    return template.render(
        title=_title([run.name for run in report.runs]),
        setting=setting(report),
        opening=[_tied(line) for line in _opening(report)],
        coverage=_coverage(report),
        results=html_tables.results(report),
        pairs=html_tables.pairs(report) if len(report.comparisons) > 1 else None,
        comparisons=[_comparison(report, comparison, number) for number, comparison in enumerate(shown, 1)],
        classes=html_tables.classes(report),
        differences=[
            html_tables.class_differences(report, comparison, number) for number, comparison in enumerate(shown, 1)
        ],
        matrices=html_tables.matrices(report, order),
        all_classes=len(report.class_names),
        confused=html_tables.confused(report),
        metadata=html_tables.metadata(report) if report.by_metadata else None,
        hard=_hard(report, pictures),
        duplicates=_duplicates(report),
        cost=html_tables.cost(report),
        figures={name: {"svg": Markup(svg), "caption": captions[name]} for name, svg in figures.items()},
        curves=[name for name in figures if name not in CAPTIONS],
        provenance=[_provenance(run, tint(number)) for number, run in enumerate(report.runs)],
        repeat=_shell(command or ["actionvit", "report", *(str(run.folder) for run in runs)]),
        data=Markup(_data(order, runs)),
        version=__version__,
    )


def _on_page(value: object) -> object:
    return escape.plain(value) if type(value) is str else value


def _title(names: Sequence[str]) -> str:
    """Return `hr against base`, or of more than two runs all names."""
    return f"{names[1]} against {names[0]}" if len(names) == 2 else ", ".join(names)


def _opening(report: Report) -> list[str]:
    """Return the conclusions at the top: the result of one run, the verdict on two, an overview of more."""
    if not report.comparisons:
        return [opening(report)]
    if len(report.comparisons) == 1:
        return [report.comparisons[0].verdict]
    return [overview(report.comparisons)]


def _coverage(report: Report) -> list[dict[str, Any]]:
    """Return the videos that the results cover, runs with the same coverage together, with warnings."""
    entries: dict[str, dict[str, Any]] = {}
    for run in report.runs:
        failures = [f"{failure['id']}: {failure['reason']}" for failure in run.coverage.get("failures", [])]
        warnings = [mixing_line(run.leaks)] if run.leaks else []
        notes = (run.provenance.get("dataset") or {}).get("notes", [])
        complete = is_complete(run.coverage) and not warnings
        entry = {
            "text": coverage_line(run.coverage),
            "complete": complete,
            "heading": "Incomplete" if not complete else "Notes" if notes else "Complete",
            "notes": [*warnings, *notes],
            "failures": failures[:MOST],
            "more": max(0, len(failures) - MOST),
        }
        entries.setdefault(json.dumps(entry), {**entry, "runs": []})["runs"].append(run.name)
    return list(entries.values())


def _comparison(report: Report, result: Comparison, number: int) -> dict[str, Any]:
    colors = {run.name: tint(place) for place, run in enumerate(report.runs)}
    results = [("both correct", result.clips.both, None), (f"only {result.a}", result.clips.only_a, colors[result.a])]
    results += [(f"only {result.b}", result.clips.only_b, colors[result.b]), ("neither", result.clips.neither, None)]
    tally = [(f"{result.b} better", result.classes.wins, colors[result.b]), ("equal", result.classes.ties, None)]
    tally += [(f"{result.a} better", result.classes.losses, colors[result.a])]
    return {
        "title": f"{result.b} against {result.a}",
        "verdict": _tied(result.verdict) if len(report.comparisons) > 1 else "",
        "table": html_tables.comparison(report, result, number),
        "tests": _tied(tests(result, len(report.comparisons))),
        "results": html_tables.stack(results),
        "classes": html_tables.stack(tally),
    }


def _hard(report: Report, pictures: Pictures) -> list[dict[str, Any]]:
    """Return cards of the clips that have a picture; of all clips where none has."""
    nearest = {clip.id: clip.nearest for clip in (report.analysis.neighbors if report.analysis else ())}
    cards = []
    for clip in report.hard:
        strip = pictures.strips.get(clip.id, Strip(frames=b""))
        if pictures.strips and not strip.frames:
            continue
        near = [
            {
                "class": neighbor.class_ or str(PurePath(neighbor.id).parent),
                "cosine": f"{neighbor.cosine:.2f}",
                "face": _base64(pictures.faces.get(neighbor.id, b"")),
            }
            for neighbor in nearest.get(clip.id, ())
        ]
        cards.append(
            {
                "clip": clip,
                "rows": _predictions(clip),
                "frames": _base64(strip.frames),
                "attention": _base64(strip.attention),
                "nearest": near,
            }
        )
    return cards


def _predictions(clip: HardClip) -> list[dict[str, Any]]:
    return [
        {
            "name": result.name,
            "predicted": result.predicted,
            "score": percent(result.score, 0),
            "true_score": percent(result.true_score, 0),
            "run": tint(number),
        }
        for number, result in enumerate(clip.results)
    ]


def _duplicates(report: Report) -> dict[str, Any] | None:
    """Return the near-duplicates; None where the training clips are unknown."""
    duplicates = report.analysis.duplicates if report.analysis else None
    if duplicates is None:
        return None
    shown = duplicates.pairs[:MOST]
    return {
        "text": duplicate_line(duplicates),
        "table": html_tables.duplicates(report),
        "pairs": [{"clips": p.clips, "cosine": f"{p.cosine:.3f}", "same_file": p.same_file} for p in shown],
        "more": duplicates.n_pairs - len(shown),
    }


def _provenance(run: RunSection, color: int) -> dict[str, Any]:
    """Return the facts needed to repeat a run."""
    record = run.provenance
    dataset, store = record.get("dataset") or {}, record.get("store") or {}
    chosen = _chosen(run)
    head = {key: value for key, value in run.head.items() if key not in chosen}
    lines = {
        "Run": run.folder,
        "Dataset": " · ".join(str(dataset[key]) for key in ("name", "layout", "root") if dataset.get(key)),
        "Protocol": protocol_of(record),
        "Embeddings": " · ".join(str(store[key]) for key in ("path", "digest") if store.get(key)),
        "Head": ", ".join(f"{key} {value}" for key, value in head.items()),
        "Chosen": "; ".join(f"{name} {values}" for name, values in chosen.items()),
        "Seeds": ", ".join(f"{key} {value}" for key, value in (record.get("seeds") or {}).items()),
        "Versions": ", ".join(f"{key} {value}" for key, value in (record.get("versions") or {}).items()),
    }
    return {
        "name": run.name,
        "run": color,
        "lines": {key: value for key, value in lines.items() if value},
        "command": _shell(record["command"]) if record.get("command") else "",
        "key": json.dumps(store.get("key"), indent=1, ensure_ascii=False).split("\n") if store.get("key") else [],
    }


def _chosen(run: RunSection) -> dict[str, str]:
    """Return the values that the splits chose for each searched parameter: `0.1 in 3 splits, 1 in 2 splits`."""
    counts: dict[str, Counter[str]] = {}
    for entry in run.search:
        choice = entry.get("chosen")
        for name, value in choice.items() if isinstance(choice, Mapping) else [(entry["parameter"], choice)]:
            if value is not None:
                counts.setdefault(name, Counter())[f"{value:g}" if isinstance(value, float) else str(value)] += 1
    return {
        name: next(iter(values))
        if len(values) == 1
        else ", ".join(f"{value} in {pluralize(n, 'split')}" for value, n in sorted(values.items(), key=_by_number))
        for name, values in counts.items()
    }


def _by_number(item: tuple[str, int]) -> tuple[bool, float, str]:
    """Return a sort key of a value and its count: numbers in order, then words."""
    try:
        return (False, float(item[0]), "")
    except ValueError:
        return (True, 0.0, item[0])


def _shell(command: Sequence[str]) -> str:
    """Return a command line for display, without local absolute paths."""
    return " ".join(shortened(part) if shortened(part) != part else shlex.quote(part) for part in command)


def _data(order: Sequence[int], runs: Sequence[Run]) -> str:
    """Return, as JSON for the script, the clips with their true and predicted classes."""
    orders = [row_order(run.predictions) for run in runs]
    first, rows = runs[0].predictions, orders[0]
    ids, splits = sorted(set(first.id.tolist())), list(first.split_names)
    id_number, split_number = ({name: number for number, name in enumerate(names)} for names in (ids, splits))
    value = {
        "order": list(order),
        "ids": [escape.plain(id_) for id_ in ids],
        "splits": splits,
        "id": [id_number[id_] for id_ in first.id[rows].tolist()],
        "split": [split_number[name] for name in first.split[rows].tolist()],
        "true": first.true[rows].tolist(),
        "predicted": [
            predicted(run.predictions.scores)[order].tolist() for run, order in zip(runs, orders, strict=True)
        ],
    }
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Inside <script> only `<` could end the element; JSON has an escape for it.
    return text.replace("<", "\\u003c")


def _tied(text: str) -> str:
    """Return text without line breaks inside `95 %`, `n = 523` or `p < 0.001`."""
    text = re.sub(r"(?<=\d) (?=%)|(?<=\b[np]) (?=[=<])", "\u00a0", text)
    return re.sub(r"(?<=[=<]) (?=[\d.])", "\u00a0", text)


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
