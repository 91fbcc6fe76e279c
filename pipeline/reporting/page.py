"""The report as one HTML file: everything inline, nothing loaded, no number computed in the template."""

from __future__ import annotations

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from actionvit import __version__
from actionvit.evaluation.metrics import predicted
from actionvit.pipeline.reporting import html_tables
from actionvit.pipeline.reporting.pictures import Strip
from actionvit.pipeline.reporting.table import tint
from actionvit.pipeline.reporting.text import (
    coverage_line,
    is_complete,
    leak_line,
    mixing_line,
    opening,
    percent,
    setting,
    tests,
)
from actionvit.pipeline.runs import Run

Found = Mapping[str, Any]

CAPTIONS = {
    "per_class": "Recall of each class with its 95 % interval by source, in the order of the first run’s.",
    "reliability": "How often a prediction of a given confidence is right. On the dashed line they agree; the larger a "
    "mark, the more results.",
    "cmc": "How often the true class is among the k best (cumulative match).",
    "cost": "Top-1 and its 95 % interval against the multiply-adds of a video.",
    "projection": "Each point a test clip, by its embedding. Distances in two dimensions tell little of those in all.",
}
MOST = 40
"""Failures and near-duplicate pairs that a page lists; report.json has them all, or says how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Clips to show, as JPEG files by id."""

    strips: Mapping[str, Strip] = field(default_factory=dict)
    faces: Mapping[str, bytes] = field(default_factory=dict)
    """Single frames of the nearest training clips."""


def page(
    found: Found,
    runs: Sequence[Run],
    *,
    figures: Mapping[str, str],
    captions: Mapping[str, str],
    pictures: Pictures,
    command: Sequence[str] = (),
) -> str:
    """Return the HTML of what `report.assemble` found.

    Parameters
    ----------
    found : mapping
        All numbers.
    runs : sequence of Run
        What they come from, in the same order: for the clips behind a cell of a confusion matrix.
    figures : mapping
        SVG elements by name.
    captions : mapping
        Of figures that have none in `CAPTIONS`.
    pictures : Pictures
        Of clips.
    command : sequence of str
        The command line that makes this report; `actionvit report RUN...` where it is not known.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("actionvit.pipeline.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    said = {**captions, **CAPTIONS}
    return environment.get_template("report.html").render(
        title=_title([run["name"] for run in found["runs"]]),
        setting=setting(found),
        opening=[_tied(line) for line in [one["verdict"] for one in found["comparisons"]] or [opening(found)]],
        coverage=_coverage(found),
        results=html_tables.results(found),
        comparisons=[_comparison(found, one, number) for number, one in enumerate(found["comparisons"], 1)],
        classes=html_tables.classes(found),
        matrices=html_tables.matrices(found),
        confused=html_tables.confused(found),
        metadata=html_tables.metadata(found) if found["by_metadata"] else None,
        hard=_hard(found, pictures),
        duplicates=_duplicates(found),
        cost=html_tables.cost(found),
        figures={name: {"svg": Markup(svg), "caption": said[name]} for name, svg in figures.items()},
        curves=[name for name in figures if name not in CAPTIONS],
        provenance=_provenance(found),
        repeat=shlex.join(command or ["actionvit", "report", *(str(run.folder) for run in runs)]),
        data=Markup(_data(found, runs)),
        version=__version__,
    )


def _title(names: Sequence[str]) -> str:
    """Return `hr against base`, or of more than two runs all names."""
    return f"{names[1]} against {names[0]}" if len(names) == 2 else ", ".join(names)


def _coverage(found: Found) -> list[dict[str, Any]]:
    """Return what the numbers rest on, runs that say the same together, with what warns of them."""
    said: dict[str, dict[str, Any]] = {}
    for run in found["runs"]:
        coverage = run["coverage"]
        failures = [f"{one['id']}: {one['reason']}" for one in coverage.get("failures", [])]
        warnings = [mixing_line(run["leaks"])] if run["leaks"] else []
        line = {
            "text": coverage_line(coverage),
            "complete": is_complete(coverage) and not warnings,
            "notes": [*warnings, *(run["provenance"].get("dataset") or {}).get("notes", [])],
            "failures": failures[:MOST],
            "more": max(0, len(failures) - MOST),
        }
        said.setdefault(json.dumps(line), {**line, "runs": []})["runs"].append(run["name"])
    return list(said.values())


def _comparison(found: Found, one: Mapping[str, Any], number: int) -> dict[str, Any]:
    clips, classes, own = one["clips"], one["classes"], tint(number)
    results = [("both right", clips["both"], None), (f"only {one['a']}", clips["only_a"], 0)]
    results += [(f"only {one['b']}", clips["only_b"], own), ("neither", clips["neither"], None)]
    tally = [(f"{one['b']} wins", classes["wins"], own), ("ties", classes["ties"], None)]
    tally += [(f"{one['b']} loses", classes["losses"], 0)]
    return {
        "title": f"{one['b']} against {one['a']}",
        "verdict": one["verdict"],
        "table": html_tables.comparison(found, one, number),
        "tests": _tied(tests(one, len(found["comparisons"]))),
        "results": html_tables.stack(results),
        "classes": html_tables.stack(tally),
    }


def _hard(found: Found, pictures: Pictures) -> list[dict[str, Any]]:
    """Return cards of the clips that have a picture; all of them where none has."""
    nearest = {one["id"]: one["nearest"] for one in (found["analysis"] or {}).get("neighbours", ())}
    cards = []
    for clip in found["hard"]:
        strip = pictures.strips.get(clip["id"], Strip(frames=b""))
        if pictures.strips and not strip.frames:
            continue
        rows = [
            {
                **one,
                "score": percent(one["score"], 0),
                "true_score": percent(one["true_score"], 0),
                "run": tint(number),
            }
            for number, one in enumerate(clip["results"])
        ]
        near = [
            {
                "class": one["class"] or str(PurePath(one["id"]).parent),
                "cosine": f"{one['cosine']:.2f}",
                "face": _base64(pictures.faces.get(one["id"], b"")),
                "id": one["id"],
            }
            for one in nearest.get(clip["id"], ())
        ]
        shown = {"frames": _base64(strip.frames), "attention": _base64(strip.attention)}
        cards.append({**clip, **shown, "rows": rows, "nearest": near})
    return cards


def _duplicates(found: Found) -> dict[str, Any] | None:
    """Return what is said of near-duplicates; None where nobody looked."""
    if not found["analysis"] or not (leaks := found["analysis"]["duplicates"]):
        return None
    shown = leaks["pairs"][:MOST]
    pairs = [
        {"clips": pair["clips"], "cosine": f"{pair['cosine']:.3f}", "same_file": pair["same_file"]} for pair in shown
    ]
    return {
        "text": leak_line(leaks),
        "table": html_tables.duplicates(found) if leaks["clips"] else None,
        "pairs": pairs,
        "more": leaks["n_pairs"] - len(shown),
    }


def _provenance(found: Found) -> list[dict[str, Any]]:
    """Return for each run what is needed to repeat it."""
    made = []
    for number, run in enumerate(found["runs"]):
        known = run["provenance"]
        dataset, store = known.get("dataset") or {}, known.get("store") or {}
        lines = {
            "Run": run["folder"],
            "Dataset": " · ".join(str(dataset[key]) for key in ("name", "layout", "root") if dataset.get(key)),
            "Protocol": known.get("protocol"),
            "Embeddings": " · ".join(str(store[key]) for key in ("path", "digest") if store.get(key)),
            "Head": ", ".join(f"{key} {value}" for key, value in run["head"].items()),
            "Seeds": ", ".join(f"{key} {value}" for key, value in (known.get("seeds") or {}).items()),
            "Versions": ", ".join(f"{key} {value}" for key, value in (known.get("versions") or {}).items()),
        }
        made.append(
            {
                "name": run["name"],
                "folder": run["folder"],
                "run": tint(number),
                "lines": {key: value for key, value in lines.items() if value},
                "command": shlex.join(known["command"]) if known.get("command") else "",
                "key": json.dumps(store.get("key"), indent=1, ensure_ascii=False) if store.get("key") else "",
            }
        )
    return made


def _data(found: Found, runs: Sequence[Run]) -> str:
    """Return, as JSON for the script, which clip of which class each run took for which."""
    from actionvit.pipeline.reporting.describe import row_order

    orders = [row_order(run.predictions) for run in runs]
    first, rows = runs[0].predictions, orders[0]
    ids, splits = sorted(set(first.id.tolist())), list(first.split_names)
    at_id, at_split = ({name: place for place, name in enumerate(names)} for names in (ids, splits))
    value = {
        "order": found["order"],
        "ids": ids,
        "splits": splits,
        "id": [at_id[id_] for id_ in first.id[rows].tolist()],
        "split": [at_split[name] for name in first.split[rows].tolist()],
        "true": first.true[rows].tolist(),
        "predicted": [
            predicted(run.predictions.scores)[order].tolist() for run, order in zip(runs, orders, strict=True)
        ],
    }
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Inside <script> only `<` could end the element; JSON knows it by its number too.
    return text.replace("<", "\\u003c")


def _tied(text: str) -> str:
    """Return text that breaks no line inside `95 %`, `n = 523` or `p < 0.001`."""
    text = re.sub(r"(?<=\d) (?=%)|(?<=\b[np]) (?=[=<])", "\u00a0", text)
    return re.sub(r"(?<=[=<]) (?=[\d.])", "\u00a0", text)


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
