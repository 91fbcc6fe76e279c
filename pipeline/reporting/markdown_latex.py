"""The report as text that others typeset: Markdown for a README, LaTeX tables (booktabs) for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actionvit.pipeline.reporting.text import (
    METRIC_TITLES,
    coverage_line,
    headline,
    metric,
    p_value,
    percent,
    signed,
)

Found = Mapping[str, Any]

MANY_CLASSES = 30
"""From this many on the LaTeX table of classes is set in small type, so that it fits a page."""

_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "’": "'",
    "±": "$\\pm$",
    "×": "$\\times$",
    "Δ": "$\\Delta$",
    "<": "$<$",
    ">": "$>$",
}


def markdown(found: Found) -> str:
    """Return the report for a README: headline, verdicts, coverage, classes, confused pairs."""
    titles = list(METRIC_TITLES.items())
    lines = ["| run | " + " | ".join(title for _, title in titles) + " |", "|---" + "|--:" * len(titles) + "|"]
    for run in found["runs"]:
        cells = [headline(run["summary"][name], name) for name, _ in titles]
        lines.append(f"| {_md(run['name'])} | " + " | ".join(cells) + " |")
    lines += ["", f"{_over(found)} [95 % interval by source]; shares in percent.", ""]
    lines += [f"- {_md(comparison['verdict'])}" for comparison in found["comparisons"]]
    lines += [f"- {_md(run['name'])}: {coverage_line(run['coverage'])}." for run in found["runs"]]
    for run in found["runs"]:
        lines += ["", f"**{_md(run['name'])}**, pooled over the splits, in percent:", ""]
        lines += ["| class | precision | recall | F1 | support |", "|---|--:|--:|--:|--:|"]
        for row in run["per_class"]:
            cells = [percent(row[key]) for key in ("precision", "recall", "f1")]
            lines.append(f"| {_md(row['class'])} | {' | '.join(cells)} | {row['support']} |")
        worst = [
            f"{pair['true']} taken for {pair['predicted']} ({pair['count']}×)" for pair in run["most_confused"][:5]
        ]
        lines += ["", f"Most confused: {_md('; '.join(worst)) or 'nothing'}."]
    return "\n".join(lines) + "\n"


def latex(found: Found) -> str:
    """Return two tables, results and classes; they need the package booktabs."""
    return f"% Needs \\usepackage{{booktabs}}\n{_results(found)}\n{_classes(found)}"


def escape(text: str) -> str:
    """Return text that LaTeX sets as it stands."""
    return "".join(_LATEX.get(c, c) for c in text)


def _over(found: Found) -> str:
    n = len(found["runs"][0]["splits"])
    return "One split" if n == 1 else f"Mean over {n} splits ± their standard deviation"


def _results(found: Found) -> str:
    caption = (
        f"{escape(_over(found))}; in brackets, 95\\,\\% bootstrap intervals over source videos. Shares in percent."
    )
    caption += "".join(f" {escape(comparison['verdict'])}" for comparison in found["comparisons"])
    # A row a metric, its interval below: seven columns of a mean, a deviation and an interval would not fit a page.
    head = ["Metric", *(escape(run["name"]) for run in found["runs"])]
    rows = []
    for name, title in METRIC_TITLES.items():
        values = [run["summary"][name] for run in found["runs"]]
        rows.append([title, *(_value(value, name) for value in values)])
        rows.append(["", *(_interval(value, name) for value in values)])
    return _table("l" + "r" * len(found["runs"]), [_line(head)], rows, caption=caption, label="results")


def _classes(found: Found) -> str:
    runs, comparisons = found["runs"], found["comparisons"]
    caption = "Precision, recall and F1 in percent, pooled over the splits; $n$, test results."
    if comparisons:
        caption += f" $\\Delta$R, recall less that of {escape(runs[0]['name'])}, in points; $p$, Holm's correction."
    spans = [(run["name"], 3) for run in runs]
    spans += [(f"{one['b']} − {one['a']}", 2) for one in comparisons]
    names = ["Class", "$n$", *(["P", "R", "F1"] * len(runs)), *(["$\\Delta$R", "$p$"] * len(comparisons))]
    head = [_line(names)] if len(runs) == 1 else [*_grouped(spans), _line(names)]
    rows = []
    for number, name in enumerate(found["class_names"]):
        own = [run["per_class"][number] for run in runs]
        cells = [name, str(own[0]["support"])]
        cells += [percent(row[key]) for row in own for key in ("precision", "recall", "f1")]
        for one in comparisons:
            cells += [signed(one["per_class"][number]["delta"]), p_value(one["per_class"][number]["p_holm"])]
        rows.append([escape(cell) for cell in cells])
    small = len(rows) >= MANY_CLASSES
    return _table("l" + "r" * (len(names) - 1), head, rows, caption=caption, label="classes", small=small)


def _grouped(spans: Sequence[tuple[str, int]], first: int = 3) -> list[str]:
    """Return a line of names over some columns each, from column `first` on, and the rules below them."""
    cells, rules, at = [""] * (first - 1), [], first
    for name, columns in spans:
        cells.append(f"\\multicolumn{{{columns}}}{{c}}{{{escape(name)}}}")
        rules.append(f"\\cmidrule(lr){{{at}-{at + columns - 1}}}")
        at += columns
    return [_line(cells), " ".join(rules)]


def _table(
    columns: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, small: bool = False
) -> str:
    size = "\\footnotesize" if small else "\\small"
    lines = ["\\begin{table}", "\\centering", size, "\\setlength{\\tabcolsep}{4pt}"]
    lines += [f"\\caption{{{caption}}}", f"\\label{{tab:{label}}}"]
    lines += [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", *head, "\\midrule", *map(_line, rows)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _value(value: Mapping[str, Any], name: str) -> str:
    spread = "" if value["std"] is None else f" $\\pm$ {metric(name, value['std'])}"
    return f"{metric(name, value['mean'])}{spread}"


def _interval(value: Mapping[str, Any], name: str) -> str:
    low, high = (metric(name, end) for end in value["ci95"])
    return f"\\footnotesize [{low}, {high}]"


def _md(text: str) -> str:
    return "".join(f"\\{c}" if c in "|<>*`" else c for c in text)
