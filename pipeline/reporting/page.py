"""The report as one HTML file: everything inline, nothing loaded, no number computed in the template."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from actionvit import __version__
from actionvit.heads.metrics import predicted
from actionvit.pipeline.reporting import views
from actionvit.pipeline.reporting.wording import count, coverage_line, is_complete, leak_line, opening, percent, tests
from actionvit.pipeline.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Any]

ALT = {
    "reliability": "Reliability diagram: accuracy against confidence; the numbers stand in reliability.csv",
    "cmc": "Top-k accuracy against k; the numbers stand in cmc.csv",
    "recall": "Recall of each class; the numbers stand in the table of classes",
    "metadata": "Top-1 by what the clips' names tell; the numbers stand in the table beside it",
    "projection": "Embeddings of the test clips in two dimensions; the points stand in projection.csv",
}
CAPTIONS = {
    "reliability": "Reliability: how often a prediction of a given confidence is right. On the dashed line they agree; "
    "the larger a mark, the more results.",
    "cmc": "Top-k: how often the true class is among the k best.",
    "recall": "Recall by class, in the order of the first run’s.",
    "metadata": "",
    "projection": "Each point a test clip. Distances in two dimensions tell little of those in all of them.",
}


def page(found: Found, runs: Sequence[Run], *, figures: Mapping[str, Figure], pictures: Mapping[str, bytes]) -> str:
    """Return the HTML of what `report.assemble` found.

    Parameters
    ----------
    found : mapping
        All numbers.
    runs : sequence of Run
        What they come from, in the same order: for the clips behind a cell of a confusion matrix.
    figures : mapping
        matplotlib's, by name.
    pictures : mapping
        JPEG strips by clip id.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("actionvit.pipeline.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=_title([run["name"] for run in found["runs"]]),
        setting=_setting(found),
        opening=[one["verdict"] for one in found["comparisons"]] or [opening(found)],
        coverage=_coverage(found),
        results=views.results(found),
        comparisons=[_comparison(found, one, number) for number, one in enumerate(found["comparisons"], 1)],
        classes=views.classes(found),
        matrices=views.matrices(found),
        confused=views.confused(found),
        metadata=views.metadata(found) if found["by_metadata"] else None,
        hard=_hard(found, pictures),
        analysis=_analysis(found),
        cost=views.cost(found),
        charts=_charts(figures),
        provenance=_provenance(found),
        repeat=shlex.join(["actionvit", "report", *(str(run.folder) for run in runs)]),
        data=_data(found, runs),
        version=__version__,
    )


def _title(names: Sequence[str]) -> str:
    """Return `hr against base`, or of more than two runs all names."""
    return f"{names[1]} against {names[0]}" if len(names) == 2 else ", ".join(names)


def _setting(found: Found) -> str:
    """Return what was tested, in one line."""
    first = found["runs"][0]["provenance"]
    name = (first.get("dataset") or {}).get("name")
    n = len(found["runs"][0]["splits"])
    parts = [name, f"{count(n, 'split')}" + (f" ({first['protocol']})" if first.get("protocol") else "")]
    parts += [count(len(found["class_names"]), "class", "classes"), count(found["n_clips"], "test clip")]
    parts += [count(found["n_sources"], "source")]
    return " · ".join(part for part in parts if part)


def _coverage(found: Found) -> list[dict[str, Any]]:
    """Return what the numbers rest on, runs that say the same together, with the dataset's notes and the failures."""
    said: dict[str, dict[str, Any]] = {}
    for run in found["runs"]:
        coverage = run["coverage"]
        notes = (run["provenance"].get("dataset") or {}).get("notes", [])
        failures = [f"{one['id']}: {one['reason']}" for one in coverage.get("failures", [])]
        line = {
            "text": coverage_line(coverage),
            "complete": is_complete(coverage),
            "notes": notes,
            "failures": failures,
        }
        said.setdefault(json.dumps(line), {**line, "runs": []})["runs"].append(run["name"])
    return list(said.values())


def _comparison(found: Found, one: Mapping[str, Any], number: int) -> dict[str, Any]:
    clips, classes = one["clips"], one["classes"]
    results = [("both right", clips["both"], None), (f"only {one['a']}", clips["only_a"], 0)]
    results += [(f"only {one['b']}", clips["only_b"], number), ("neither", clips["neither"], None)]
    tally = [(f"{one['b']} better", classes["wins"], number), ("equal", classes["ties"], None)]
    tally += [(f"{one['a']} better", classes["losses"], 0)]
    return {
        "title": f"{one['b']} against {one['a']}",
        "verdict": one["verdict"],
        "table": views.comparison(found, one, number),
        "tests": tests(one, len(found["comparisons"])),
        "results": views.stack(results),
        "classes": views.stack(tally),
    }


def _hard(found: Found, pictures: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return cards of the clips that have a picture; all of them where none has."""
    nearest = {one["id"]: one["nearest"] for one in (found["analysis"] or {}).get("neighbours", ())}
    cards = []
    for clip in found["hard"]:
        if pictures and clip["id"] not in pictures:
            continue
        rows = [
            {**one, "score": percent(one["score"], 0), "true_score": percent(one["true_score"], 0), "run": number}
            for number, one in enumerate(clip["results"])
        ]
        picture = b64encode(pictures[clip["id"]]).decode() if pictures else ""
        near = [
            f"{one['class'] or PurePath(one['id']).parent} ({one['cosine']:.2f})" for one in nearest.get(clip["id"], ())
        ]
        cards.append({**clip, "rows": rows, "picture": picture, "attention": "", "nearest": ", ".join(near)})
    return cards


def _analysis(found: Found) -> dict[str, Any] | None:
    """Return what is said of near-duplicates."""
    if not found["analysis"] or not (leaks := found["analysis"]["duplicates"]):
        return None
    pairs = [
        {"clips": pair["clips"], "cosine": f"{pair['cosine']:.3f}", "same_file": pair["same_file"]}
        for pair in leaks["pairs"]
    ]
    table = views.duplicates(found) if leaks["clips"] else None
    return {
        "text": leak_line(leaks),
        "table": table,
        "pairs": pairs,
        "more": leaks["n_pairs"] - len(pairs),
    }


def _charts(figures: Mapping[str, Figure]) -> dict[str, dict[str, str]]:
    """Return the figures that the page draws as SVG; a confusion matrix is a table there."""
    from markupsafe import Markup

    from actionvit.pipeline.reporting.figures import inline

    made = {}
    for name, figure in figures.items():
        if name.startswith("confusion-"):
            continue
        alt = ALT.get(name, f"Curves: {name}; the numbers stand beside the page")
        caption = CAPTIONS.get(
            name, f"{name.removeprefix('search-')}, as searched" if name.startswith("search-") else name
        )
        made[name] = {"svg": Markup(inline(figure, name, alt)), "caption": caption}
    return made


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
                "run": number,
                "lines": {key: value for key, value in lines.items() if value},
                "command": shlex.join(known["command"]) if known.get("command") else "",
                "key": json.dumps(store.get("key"), indent=1, ensure_ascii=False) if store.get("key") else "",
            }
        )
    return made


def _data(found: Found, runs: Sequence[Run]) -> Any:
    """Return, as JSON for the script, which clip of which class each run took for which."""
    from markupsafe import Markup

    from actionvit.pipeline.reporting.describe import row_order

    orders = [row_order(run.predictions) for run in runs]
    first, rows = runs[0].predictions, orders[0]
    ids, splits = sorted(set(first.id.tolist())), list(first.split_names)
    at_id, at_split = ({name: place for place, name in enumerate(names)} for names in (ids, splits))
    value = {
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
    return Markup(text.replace("<", "\\u003c"))
