"""Stage 3 in every form: JSON, CSV, Markdown, LaTeX, figures, the page's text, and the command."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import quick_figures
from click.testing import CliRunner
from fake_runs import NAMES, embeddings, predictions, write
from PIL import Image

from actionvit import escape
from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline import reporting
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.reporting.curves import charts
from actionvit.pipeline.reporting.documents import latex, markdown
from actionvit.pipeline.reporting.embeddings import Embeddings
from actionvit.pipeline.reporting.figures import projection_figure
from actionvit.pipeline.reporting.model import Point, ProjectedClips, Report, RunSection, as_json
from actionvit.pipeline.reporting.text import METRIC_TITLES, percent, short_names
from actionvit.pipeline.reporting.writer import ReportFiles, assemble, report
from actionvit.pipeline.runs import Run, read_run

SEARCH = [
    {
        "split": name,
        "parameter": "C",
        "values": [0.01, 1.0, 100.0],
        "scores": scores,
        "chosen": 1.0,
        "criterion": "accuracy",
    }
    | {"chosen": 1.0}
    for name, scores in (("official-1", [0.2, 0.6, 0.4]), ("official-2", [0.4, 0.8, 0.5]))
]


def curve(split: str, values: list[float]) -> dict[str, Any]:
    series = [{"name": "training", "x": list(range(1, len(values) + 1)), "y": values}]
    return {"name": f"loss, {split}", "x_name": "epoch", "y_name": "loss", "series": series}


CURVES = [curve("official-1", [1.0, 0.5, 0.25]), curve("official-2", [2.0, 1.5])]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    found = predictions()
    ids = {name: sorted(found.id[found.split == name].tolist()) for name in found.split_names}
    train = {"official-1": ids["official-2"], "official-2": ids["official-1"]}
    failures = [{"id": "run/<gone>.avi", "reason": "missing"}]
    coverage = {
        "videos": 122,
        "cached": 120,
        "used": 119,
        "missing": 2,
        "failed": 1,
        "flagged": 3,
        "failures": failures,
    }
    known = {"search": SEARCH, "curves": CURVES, "leaks": {"official-1": 4}, "coverage": coverage}
    return [
        write(folder / "base-linear", found, info={"gmac": 196.0, **known}, train=train),
        write(folder / "hr-linear", predictions(skill=2.2, seed=4), info={"gmac": 1703.0, **known}, train=train),
    ]


@pytest.fixture(scope="module")
def clips(pair: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset's folder, with every clip but one."""
    root = tmp_path_factory.mktemp("clips")
    random = np.random.RandomState(0)
    for id_ in sorted(set(pair[0].predictions.id.tolist()))[1:]:
        (root / id_).parent.mkdir(exist_ok=True)
        write_avi(root / id_, random.randint(0, 256, (8, 32, 48, 3)).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def space(pair: list[Run]) -> Embeddings:
    """Embeddings in which one clip of each split is the same file."""
    found = pair[0].predictions
    made = embeddings(found)
    twins = made.rows([str(found.id[found.split == split][0]) for split in found.split_names])
    digest = made.digest.copy()
    digest[twins[0]] = digest[twins[1]]
    return dataclasses.replace(made, digest=digest)


@pytest.fixture(scope="module")
def made(pair: list[Run], space: Embeddings, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return report(pair, output=tmp_path_factory.mktemp("report"), root=clips, embeddings=space)


@pytest.fixture(scope="module")
def content(pair: list[Run], space: Embeddings) -> Report:
    return assemble(pair, embeddings=space)


@pytest.fixture(scope="module")
def found(made: ReportFiles) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((made.html.parent / "report.json").read_text())
    return value


def table(made: ReportFiles, name: str) -> list[dict[str, str]]:
    with (made.html.parent / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_report_json_holds_all_numbers_and_lists_the_files(content: Report, made: ReportFiles, found: Any) -> None:
    assert {**json.loads(json.dumps(as_json(content))), "files": found["files"]} == found
    there = {path.relative_to(made.html.parent).as_posix() for path in made.html.parent.rglob("*") if path.is_file()}
    assert there == {*found["files"], "report.json"}
    assert {path.relative_to(made.html.parent).as_posix() for path in made.others} == there - {"report.html"}
    assert found["schema"] == 3 and [run["name"] for run in found["runs"]] == ["base", "hr"]


def test_every_table_is_tidy_and_says_what_report_json_says(made: ReportFiles, found: Any) -> None:
    names = {path.stem for path in (made.html.parent / "tables").iterdir()}
    assert names == {
        *("summary", "splits", "per_class", "per_class_differences", "comparisons", "confusion", "reliability", "cmc"),
        *("metadata", "cost", "search", "curves", "projection", "neighbors", "near_duplicates"),
    }
    for name in names:
        rows = table(made, name)
        assert rows and all(None not in row and None not in row.values() for row in rows), name
    for run in found["runs"]:
        own = [row for row in table(made, "summary") if row["run"] == run["name"]]
        assert {row["metric"]: float(row["mean"]) for row in own} == {
            name: value["mean"] for name, value in run["summary"].items()
        }
        classes = [row for row in table(made, "per_class") if row["run"] == run["name"]]
        assert [float(row["recall"]) for row in classes] == [row["recall"] for row in run["per_class"]]
        cells = [int(row["count"]) for row in table(made, "confusion") if row["run"] == run["name"]]
        assert cells == np.ravel(run["confusion"]).tolist()
        cost = next(row for row in table(made, "cost") if row["run"] == run["name"])
        assert (float(cost["gmac"]), cost["clips_per_second"]) == (run["cost"]["gmac"], "")
    deltas = [float(row["delta"]) for row in table(made, "per_class_differences")]
    assert deltas == [row["delta"] for row in found["comparisons"][0]["per_class"]]
    assert len(table(made, "curves")) == 2 * 5 and len(table(made, "search")) == 2 * 6


def cell(text: str) -> str:
    """Return the visible text of a part of the page."""
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def test_the_page_shows_the_numbers(made: ReportFiles, found: Any) -> None:
    page = made.html.read_text()
    message = cell(page)
    for run in found["runs"]:
        for name, value in run["summary"].items():
            if name not in ("log_loss", "brier"):
                assert f" {percent(value['mean'])} " in message, name
        rows = re.findall(r"<tr><th scope=\"row\" data-v=\"[^\"]*\">(.*?)</tr>", page, re.DOTALL)
        for row in run["per_class"]:
            line = next(cell(text).split() for text in rows if cell(text).split()[:1] == [row["class"]])
            assert percent(row["recall"]) in line and str(row["support"]) in line
    for name in NAMES:
        assert html.escape(name) in page
    assert "<b>&" not in page, "names are escaped"
    assert found["comparisons"][0]["verdict"].split(":")[0] in message.replace("\xa0", " ")


def test_what_is_missing_stands_at_the_top(made: ReportFiles) -> None:
    page = made.html.read_text()
    top = cell(page[page.index("<header>") : page.index("</header>")])
    assert "122 videos listed: 120 cached, 119 used, 2 missing, 1 failed, 3 flagged" in top
    assert "run/<gone>.avi: missing" in top
    assert "In 1 split up to 4 sources have clips in both the training and the test set: results are too high." in top
    assert "Complete" not in top


def test_no_file_of_a_report_holds_a_local_path(tmp_path: Path) -> None:
    home = tmp_path / "home" / "user"
    notes = [f"official split lists read from `{home}/lists`", "2,519 videos in the official lists, but not here"]
    info = {
        "dataset": {"name": "films", "root": f"{home}/films", "layout": "hmdb51", "videos": 122, "notes": notes},
        "command": ["actionvit", "probe", f"{home}/films", f"--cache={home}/cache"],
        "store": {"path": f"{home}/cache/films/base-1"},
        "coverage": {"videos": 120, "cached": 120, "missing": 0, "failed": 0, "flagged": 0},
    }
    run = write(home / "runs" / "base", predictions(), info=info)
    made = report([run], output=home / "report", root=home, command=["actionvit", "report", str(run.folder)])
    for path in (made.html, *made.others):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    page = made.html.read_text()
    header = cell(page[page.index("<header>") : page.index("</header>")])
    assert "official split lists read from `…/user/lists`" in header and "2,519 videos" in header
    assert "Complete" not in header


def test_every_chosen_value_and_the_chance_level_are_stated(tmp_path: Path) -> None:
    search = [{**SEARCH[0], "split": f"official-{n + 1}", "chosen": value} for n, value in enumerate((0.01, 10.0))]
    made = report([write(tmp_path / "a", predictions(), info={"search": search})], output=tmp_path / "report")
    page = cell(made.html.read_text()).replace("\xa0", " ")
    assert "C 0.01 in 1 split, 10 in 1 split" in page and "C 0.1" not in page
    assert "chance level 16.7 %" in page, "six classes"
    scale = made.html.parent / "figures" / "confusion-a.svg"
    assert "% of the true class" in scale.read_text()


def test_clips_of_a_class_share_a_color_in_the_projection() -> None:
    clips = [
        Point(id=f"{name}/{n}", x=n, y=len(name), true=name, correct=1.0)
        for name in ("jump", "wave in")
        for n in range(3)
    ]
    projection = ProjectedClips(method="pca", points=clips, shown=[], explained=[])
    figure = projection_figure(projection, ["jump", "wave in"], {})
    colors = [tuple(color) for color in figure.axes[0].collections[0].get_facecolor()]
    assert len(set(colors[:3])) == len(set(colors[3:])) == 1 and colors[0] != colors[3]


def test_provenance_stands_at_the_bottom_with_the_commands(made: ReportFiles, pair: list[Run]) -> None:
    page = made.html.read_text()
    bottom = cell(page[page.index('<section id="provenance"') :])
    assert "actionvit probe 'clips & more' --variant hr-linear" in bottom
    names = [f"…/{run.folder.parent.name}/{run.folder.name}" for run in pair]
    assert f"actionvit report {names[0]} {names[1]}" in bottom and str(pair[0].folder.parent) not in page
    for text in ("kind linear", "C 1", "bootstrap 0", "python 3.11, actionvit 0.1.0", "films · hmdb51 · clips"):
        assert text in bottom


def test_key_of_the_embeddings_is_shown_in_lines(pair: list[Run], tmp_path: Path) -> None:
    info = {**pair[0].info, "store": {"path": "store", "digest": "0", "key": {"decoder": "test", "schema": 1}}}
    page = report([dataclasses.replace(pair[0], info=info)], output=tmp_path / "report").html.read_text()
    assert "Support: clips" in page
    block = page[page.index("<summary>Key of the embeddings</summary>") :].partition("</details>")[0]
    assert "\\n" not in block and len(block.splitlines()) >= 4


def test_template_loads_and_computes_nothing(made: ReportFiles) -> None:
    page = made.html.read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#|data:)[a-z/]""", re.sub(r"<pre.*?</pre>", "", page))
    folder = Path(reporting.__file__).parent / "templates"
    for name in ("report.html", "macros.html"):
        text = (folder / name).read_text()
        for inside in re.findall(r"\{\{(.*?)\}\}|\{%(.*?)%\}", text, re.DOTALL):
            code = re.sub(r"'[^']*'|\"[^\"]*\"", "''", "".join(inside))
            code = code.replace("'' % ", "").replace("'' + record.name", "")  # a class name, a label
            assert not re.search(r"[-+*/%]\s*[\w(]|round|sum|\babs\b", code.strip("-% ")), inside


def test_figures_are_vector_and_pixels_and_repeat(pair: list[Run], made: ReportFiles, tmp_path: Path) -> None:
    names = {path.stem for path in (made.html.parent / "figures").iterdir()}
    assert names == {
        *("confusion-base", "confusion-hr", "per_class", "reliability", "cmc", "metadata", "cost", "projection"),
        *("search-C", "loss-base", "loss-hr"),
    }
    for name in names:
        svg, png, pdf = (made.html.parent / "figures" / f"{name}{end}" for end in (".svg", ".png", ".pdf"))
        texts = [node.text for node in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
        assert texts, f"{name}: text is text"
        with Image.open(png) as image:
            assert min(image.size) > 400
        assert pdf.read_bytes().startswith(b"%PDF")
    numbers = [ET.parse(made.html.parent / "figures" / "confusion-base.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"jump", "wave", "Predicted class", "True class"} <= {node.text for texts in numbers for node in texts}


@pytest.fixture(scope="module")
def single(pair: list[Run], made: ReportFiles, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """A report of the first run alone, written over one of both runs whose report.json was edited."""
    out = tmp_path_factory.mktemp("single")
    shutil.copytree(made.html.parent, out, dirs_exist_ok=True)
    for name in ("figures/mine.svg", "notes.txt", "../thesis.csv"):
        (out / name).touch()
    there = json.loads((out / "report.json").read_text())
    there["files"] += ["../thesis.csv", "tables/../../thesis.csv", str(out.parent / "thesis.csv"), 7]
    (out / "report.json").write_text(json.dumps(there))
    return report(pair[:1], output=out)


def test_new_report_replaces_the_files_of_the_earlier_one(single: ReportFiles) -> None:
    out = single.html.parent
    assert not (out / "figures" / "confusion-hr.svg").exists() and not (out / "tables" / "comparisons.csv").exists()
    assert (out / "figures" / "mine.svg").exists() and (out / "notes.txt").exists()
    assert (out.parent / "thesis.csv").exists(), "nothing outside the folder is touched"


def test_the_same_run_gives_the_same_bytes(pair: list[Run], single: ReportFiles, tmp_path: Path) -> None:
    quick_figures.draw_anew()
    again = report(pair[:1], output=tmp_path)
    for path in (again.html, *again.others):
        assert path.read_bytes() == (single.html.parent / path.relative_to(tmp_path)).read_bytes(), path.name


def test_one_run_has_no_comparison_and_an_interval_by_class(pair: list[Run], single: ReportFiles) -> None:
    page = single.html.read_text()
    assert 'id="comparison"' not in page and "Top-1 " in cell(page[page.index("<header>") :])
    low, high = assemble(pair[:1]).runs[0].per_class[0].recall_ci95 or (None, None)
    assert f"{percent(low)} – {percent(high)}" in page
    assert not (single.html.parent / "figures" / "cost.svg").exists(), "one cost needs no comparison"


def test_clips_are_shown_as_far_as_they_are_at_hand(made: ReportFiles, single: ReportFiles) -> None:
    page, without = made.html.read_text(), single.html.read_text()
    cards = page.count("<article>")
    assert 6 <= cards <= 24 and page.count('alt="Frames of') == cards
    assert "Nearest training clips" in page and "Kuehne" in page
    assert without.count("<article>") >= 6 and 'alt="Frames of' not in without
    assert "the clips were not available" in without and "Kuehne" not in without


def test_runs_of_one_name_and_of_other_clips_are_refused(pair: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ActionVitError, match="two runs have the same name"):
        report([pair[0], pair[0]], output=tmp_path / "report")
    other = write(tmp_path / "short", predictions(clips=100))
    with pytest.raises(ActionVitError, match="tested different clips: 20 only in the first, 0 only in the second"):
        report([pair[0], other], output=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_runs_of_different_folds_are_refused_in_one_line(pair: list[Run], tmp_path: Path, caplog: Any) -> None:
    runs = []
    for run, folds in zip(pair, (5, 3), strict=True):
        names = [f"grouped-{number}" for number in range(1, 3 + (folds == 5))]
        info = {**run.info, "protocol": "grouped", "spec": {"folds": folds}}
        split = np.array([names[number % len(names)] for number in range(len(run.predictions.id))])
        changed = dataclasses.replace(run.predictions, split=split)
        runs.append(dataclasses.replace(run, info=info, predictions=changed))
    with pytest.raises(ActionVitError) as refused:
        report(runs, output=tmp_path / "report")
    assert str(refused.value) == (
        f"{runs[0].name} has 5 folds and {runs[1].name} 3, so their splits differ; probe both with the same folds="
    )
    assert not caplog.messages


# Markdown and LaTeX


def test_markdown_tables_are_rectangular_and_hold_the_results(content: Report, found: Any) -> None:
    text = markdown(content)
    blocks = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    assert len(blocks) == 3, "results, and the classes of two runs"
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block}
        assert len(widths) == 1, block
        assert re.fullmatch(r"\|[-:|]+\|", block[1])
    assert r"\<b\>&" in text and found["comparisons"][0]["verdict"] in text.replace("\\", "")
    value = found["runs"][1]["summary"]["top1"]
    assert f"{percent(value['mean'])} ± {percent(value['std'])} [{percent(value['ci95'][0])}, " in text


def test_latex_is_well_formed(content: Report) -> None:
    text = latex(content)
    plain = re.sub(r"\\[\\&%$#_{}]", "", re.sub(r"^%.*$", "", text, flags=re.MULTILINE))
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert not re.search(r"[#_%~^]", plain) and plain.isascii()
    assert [*re.findall(r"\\begin\{(\w+)\}", text)] == ["table", "tabular"] * 3
    for body in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        columns = len(re.match(r"\{(\w+)\}", body)[1])  # type: ignore[index]
        assert [body.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule")] == [1, 1, 1]
        for line in (line for line in body.splitlines() if line.endswith("\\\\")):
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans) == columns, line
    known = {
        *("begin", "end", "centering", "footnotesize", "caption", "label", "toprule", "midrule", "bottomrule"),
        *("cmidrule", "multicolumn", "pm", "Delta", "textbackslash", "textasciitilde", "textasciicircum", "times"),
        *("usepackage", "small", "setlength", "tabcolsep", "par"),
    }
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= known
    for title in METRIC_TITLES.values():
        assert title in text
    captions = re.findall(r"\\caption\{(.*)\}", text)
    assert len(captions) == 3 and not any(". " in caption for caption in captions)
    assert "{\\footnotesize Fractions in percent." in text, "the other sentences stand below the table"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(content: Report, tmp_path: Path) -> None:
    wide = dataclasses.replace(content, class_names=[r"\a_b&5%{}~^#$<>−–’", *content.class_names[1:]])
    (tmp_path / "report.tex").write_text(latex(wide), encoding="utf-8")
    main = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{report.tex}\\end{document}"
    (tmp_path / "main.tex").write_text(main)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "main.pdf").exists(), done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout, "the tables of two runs fit on a page"


def test_what_latex_and_markdown_take_amiss_is_escaped() -> None:
    assert escape.latex(r"50% of a_b & {c} #1 $x ~ ^ \d") == (
        r"50\% of a\_b \& \{c\} \#1 \$x \textasciitilde{} \textasciicircum{} \textbackslash{}d"
    )


def test_the_docs_name_every_key_and_every_form(found: Any) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "report.md").read_text(encoding="utf-8")
    keys = page[page.index("## `report.json`") :]
    one = found["comparisons"][0]
    named = [*found, *found["runs"][0], *found["by_metadata"][0], *found["hard"][0], *found["analysis"]]
    named += [key for key in one if key not in ("a", "b", "n_clips", "n_results", "n_sources")]
    for name in named:
        assert f"`{name}`" in keys or name in ("variant", "head"), name
    for form in (".svg", ".pdf", ".png", "report.tex", "report.md", "tables/*.csv"):
        assert f"{form}`" in page, form
    options = {name for option in cli.get_command(click.Context(cli), "report").params for name in option.opts}  # type: ignore[union-attr]
    assert set(re.findall(r"--[a-z][a-z-]*", page)) - {"--variant", "--num-frames", "--size", "--animate"} <= options


# Curves


def section(content: Report, name: str = "base", splits: int = 2, **more: Any) -> RunSection:
    base = content.runs[0]
    rows = [dataclasses.replace(base.splits[0], name=f"official-{n + 1}") for n in range(splits)]
    return dataclasses.replace(base, **{"name": name, "search": [], "curves": [], "splits": rows, **more})


def test_a_search_is_the_mean_over_the_splits(content: Report) -> None:
    made = charts([section(content, "base", search=SEARCH), section(content, "hr", search=SEARCH[::-1])])
    chart = made["search-C"]
    assert chart.log and chart.y_name == "accuracy" and [line.name for line in chart.lines] == ["base", "hr"]
    assert chart.lines[0].x == [0.01, 1.0, 100.0] and chart.lines[0].y == pytest.approx([0.3, 0.7, 0.45])


def test_searches_of_two_criteria_say_which(content: Report) -> None:
    other = [{**one, "criterion": "mean_class_accuracy"} for one in SEARCH]
    chart = charts([section(content, "base", search=SEARCH), section(content, "hr", search=other)])["search-C"]
    assert chart.y_name == "score"
    assert [line.name for line in chart.lines] == ["base, accuracy", "hr, mean class accuracy"]


@pytest.mark.parametrize(
    "search",
    [
        [{**SEARCH[0], "values": ["linear", "mlp", "knn"]}],
        [{**SEARCH[0], "values": [1.0], "scores": [0.5]}],
        [SEARCH[0], {**SEARCH[1], "values": [1, 2, 3]}],
        [{**SEARCH[0], "parameter": "epoch"}],
    ],
)
def test_what_is_no_search_of_numbers_is_not_drawn(content: Report, search: Any) -> None:
    assert charts([section(content, search=search)]) == {}


def test_curves_of_few_splits_are_drawn_one_by_one(content: Report) -> None:
    made = charts([section(content, curves=CURVES)])
    assert list(made) == ["loss"]
    assert [line.name for line in made["loss"].lines] == ["training, official-1", "training, official-2"]
    assert made["loss"].caption == "Loss, 2 splits."


def test_curves_of_many_splits_are_a_mean_and_a_band(content: Report) -> None:
    names = [f"official-{n}" for n in range(1, 9)]
    curves = [curve(name, [1.0 + n, 0.5 + n, 0.1][: 3 if n < 3 else 2]) for n, name in enumerate(names)]
    made = charts([section(content, curves=curves, splits=len(names))])
    (line,) = made["loss"].lines
    assert line.name == "training, mean of 8 splits"
    assert line.x == [1, 2], "the third epoch, which three of eight reached, would bend the mean"
    assert line.y == pytest.approx([4.5, 4.0])
    assert line.low == [1.0, 0.5] and line.high == [8.0, 7.5]


def test_curves_whose_names_no_file_can_have_become_files(content: Report) -> None:
    odd = [{**CURVES[0], "name": "top-1 / shots: 5 %"}]
    assert list(charts([section(content, "a", curves=odd), section(content, "b", curves=odd)])) == [
        "top-1-shots-5-a",
        "top-1-shots-5-b",
    ]


def test_names_are_shortened_as_far_as_they_stay_clear() -> None:
    assert short_names(["base-linear-grouped", "hr-linear-grouped"]) == ["base", "hr"]
    assert short_names(["base-linear", "base-linear-balanced"]) == ["linear", "linear-balanced"]
    assert short_names(["tiny-linear", "tiny-hr-linear-balanced"]) == ["linear", "hr-linear-balanced"]
    assert short_names(["tiny-linear", "tiny-hr-linear", "tiny-mlp"]) == ["tiny-linear", "tiny-hr-linear", "tiny-mlp"]
    assert short_names(["base"]) == ["base"]


# The command


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["report", *(str(each) for each in arguments)])


def test_report_finds_runs_by_name_and_writes_into_the_first(pair: list[Run], tmp_path: Path, monkeypatch) -> None:
    for one in pair:
        shutil.copytree(one.folder, tmp_path / "runs" / one.name)
    monkeypatch.setenv("ACTIONVIT_RUNS", str(tmp_path / "runs"))
    result = run("base-linear", "hr-linear", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert Path(summary["html"]) == tmp_path / "runs" / "base-linear" / "report" / "report.html"
    assert all(Path(path).exists() for path in summary["others"])
    assert read_run(tmp_path / "runs" / "base-linear").name == "base-linear", "still a run"


def test_unwritable_output_is_refused_before_the_work(pair: list[Run], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    steps: list[str] = []
    with pytest.raises(ActionVitError, match=r"output: .*file/below.* cannot be written; choose another folder"):
        report(pair, output=tmp_path / "file" / "below", progress=lambda step, done, total: steps.append(step))
    assert steps == []


def test_progress_covers_every_step(pair: list[Run], space: Embeddings, clips: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    report(pair, output=tmp_path, root=clips, embeddings=space, progress=lambda *step: steps.append(step))
    assert list(dict.fromkeys(name for name, _, _ in steps)) == ["statistics", "hard clips", "figures", "writing"]
    for name in ("statistics", "hard clips", "figures", "writing"):
        own = [(done, total) for step, done, total in steps if step == name]
        assert own == sorted(own) and own[-1][0] == own[-1][1]


def test_the_command_says_what_is_not_at_hand_and_what_is_wrong(pair: list[Run], tmp_path: Path) -> None:
    result = run(pair[0].folder, "--output", tmp_path)
    assert result.exit_code == 0 and "they are not analyzed" in result.stderr
    error = run(tmp_path / "nothing").exception
    assert isinstance(error, ActionVitError) and "is not a run" in str(error)
    (tmp_path / "file").touch()
    error = run(pair[0].folder, "--output", tmp_path / "file").exception
    assert isinstance(error, ActionVitError) and "choose another folder" in str(error)


def test_report_shows_attention_of_the_runs_encoder(tmp_path: Path) -> None:
    random, cache, runs = np.random.RandomState(0), tmp_path / "cache", tmp_path / "runs"
    for label in ("hop", "run"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(6):
            clip = random.randint(0, 256, (6, 32, 32, 3)).astype(np.uint8)
            write_avi(tmp_path / "clips" / label / f"{label}{number}.avi", clip)
    common = (tmp_path / "clips", "--variant", "tiny", "--cache", cache)
    steps = [("extract", *common, "--size", 32, "--num-frames", 3, "--workers", 0)]
    steps += [("probe", *common, "--runs", runs, "--folds", 2, "--seeds", 1, "--protocol", "stratified")]
    for step in steps:
        result = CliRunner().invoke(cli, [str(part) for part in step])
        assert result.exit_code == 0, result.output
    folder = next(runs.iterdir())
    result = run(folder, "--attention", "--device", "cpu", "--output", tmp_path / "report")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report" / "report.html").read_text()
    shown = page.count('alt="The same frames')
    assert shown == page.count("<article>") > 0 and "attention rollout" in page
    apart = run(folder, "--attention", "--no-thumbnails", "--output", tmp_path / "apart")
    assert apart.exit_code == 2 and "leave out --no-thumbnails" in apart.output
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\n")
    assert run(folder, "--root", listed, "--output", tmp_path / "listed").exit_code == 0
    # Weights other than those of the store's key are refused.
    info = json.loads((folder / "run.json").read_text())
    info["store"]["key"]["weights"] = "0" * 64
    (folder / "run.json").write_text(json.dumps(info))
    error = run(folder, "--attention", "--output", tmp_path / "other").exception
    assert isinstance(error, ActionVitError) and "did not make the embeddings" in str(error)
    assert FeatureStore.open(next((cache / "clips").iterdir())).info["weights"] == "built-in"
