"""The report as LaTeX tables for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actionvit.pipeline.reporting.wording import METRIC_TITLES, metric, p_value, percent, signed

Found = Mapping[str, Any]

_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
}


def latex(found: Found) -> str:
    """Return two tables, results and classes; they need the package booktabs."""
    return f"% Needs \\usepackage{{booktabs}}\n{_results(found)}\n{_classes(found)}"


def escape(text: str) -> str:
    """Return text that LaTeX sets as it stands."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def _results(found: Found) -> str:
    n_splits = len(found["runs"][0]["splits"])
    over = "One split" if n_splits == 1 else f"Mean $\\pm$ standard deviation over {n_splits} splits"
    caption = f"{over}; in brackets, 95\\,\\% bootstrap intervals over source videos. Shares in percent."
    caption += "".join(f" {escape(comparison['verdict'])}" for comparison in found["comparisons"])
    rows = [
        [escape(run["name"]), *(_value(run["summary"][name], name) for name in METRIC_TITLES)] for run in found["runs"]
    ]
    head = ["Run", *METRIC_TITLES.values()]
    return _table("l" + "r" * len(METRIC_TITLES), [head], rows, caption=caption, label="results")


def _classes(found: Found) -> str:
    runs, comparisons = found["runs"], found["comparisons"]
    caption = "Precision, recall and F1 in percent, pooled over the splits; $n$, test results."
    if comparisons:
        caption += f" $\\Delta$R, recall less that of {escape(runs[0]['name'])}, in points; $p$, Holm's correction."
    groups = ["", "", *(_span(3, run["name"]) for run in runs), *(_span(2, one["b"]) for one in comparisons)]
    names = ["Class", "$n$", *(["P", "R", "F1"] * len(runs)), *(["$\\Delta$R", "$p$"] * len(comparisons))]
    rows = []
    for number, name in enumerate(found["class_names"]):
        own = [run["per_class"][number] for run in runs]
        cells = [name, str(own[0]["support"])]
        cells += [percent(row[key]) for row in own for key in ("precision", "recall", "f1")]
        for one in comparisons:
            cells += [signed(one["per_class"][number]["delta"]), p_value(one["per_class"][number]["p_holm"])]
        rows.append([escape(cell) for cell in cells])
    return _table("l" + "r" * (len(names) - 1), [groups, names], rows, caption=caption, label="classes")


def _table(
    columns: str, head: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], *, caption: str, label: str
) -> str:
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{caption}}}", f"\\label{{tab:{label}}}"]
    lines += [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", *map(_line, head), "\\midrule", *map(_line, rows)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _span(columns: int, name: str) -> str:
    return f"\\multicolumn{{{columns}}}{{c}}{{{escape(name)}}}"


def _value(value: Mapping[str, Any], name: str) -> str:
    low, high = (metric(name, end) for end in value["ci95"])
    spread = "" if value["std"] is None else f" $\\pm$ {metric(name, value['std'])}"
    return f"{metric(name, value['mean'])}{spread} [{low}, {high}]"
