"""Reports with odd names and extreme results: every format shows names unchanged, and every result is reported."""

from __future__ import annotations

import csv
import dataclasses
import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from fake_runs import embeddings, predictions, write

from actionvit import escape
from actionvit.pipeline.reporting import ReportFiles, report
from actionvit.pipeline.runs import Run

NAMES = ("make it rain $$", "from $5 to $10", "_x", "跳跃", "=1+1", "![a](http://b)", "\x1b[31mred\n", r"\input{x}_%&")
RUNS = ("_base", "$hr$", "跑步", "+1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    plain = [f"class{number}" for number in range(len(NAMES))]
    return [
        write(
            folder / name,
            dataclasses.replace(predictions(names=plain, seed=seed, clips=160), class_names=NAMES),
            info={"gmac": 10.0 + seed},
        )
        for seed, name in enumerate(RUNS)
    ]


@pytest.fixture(scope="module")
def made(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return report(runs, output=tmp_path_factory.mktemp("report"), embeddings=embeddings(runs[0].predictions))


def svg_texts(made: ReportFiles, name: str) -> list[str]:
    tree = ET.parse(made.html.parent / "figures" / f"{name}.svg")
    return [node.text or "" for node in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_svg_figures_show_every_class_name_as_text(made: ReportFiles) -> None:
    for name in ("per_class", "confusion-_base"):
        texts = [text.strip("\u200a") for text in svg_texts(made, name)]
        for expected in ("make it rain $$", "from $5 to $10", "跳跃", "=1+1", "![a](http://b)", r"\x1b[31mred\n"):
            assert expected in texts, (name, expected)


def test_legends_have_every_run(made: ReportFiles) -> None:
    for name in ("per_class", "cmc", "reliability", "cost"):
        assert set(RUNS) <= {text.strip("\u200a") for text in svg_texts(made, name)}


def test_page_has_names_without_control_characters(made: ReportFiles) -> None:
    page = made.html.read_text()
    assert "\x1b" not in page
    for name in NAMES:
        assert html.escape(escape.plain(name)) in page.replace("&#39;", "&#x27;")


def test_csv_fields_are_no_formulas(made: ReportFiles) -> None:
    for path in (made.html.parent / "tables").iterdir():
        with path.open(newline="") as file:
            for row in csv.reader(file):
                for field in row:
                    number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", field)
                    assert number or field[:1] not in tuple("=+-@"), (path.name, field)
                    assert "\x1b" not in field
    with (made.html.parent / "tables" / "per_class.csv").open(newline="") as file:
        assert {"'=1+1", "跳跃"} <= {row["class"] for row in csv.DictReader(file)}


def test_markdown_has_no_images_links_or_control_characters(made: ReportFiles) -> None:
    text = (made.html.parent / "report.md").read_text()
    assert "\x1b" not in text and not re.search(r"(?<!\\)!\[|\]\(", text)
    assert r"\![a]\(http://b)" in text


def test_latex_has_no_commands_from_names(made: ReportFiles) -> None:
    text = (made.html.parent / "report.tex").read_text()
    assert r"\input" not in text and r"\textbackslash{}input\{x\}\_\%\&" in text
    assert r"make it rain \$\$" in text


def test_latex_tables_fit_a_page_whatever_is_compared(tmp_path: Path) -> None:
    names = [f"some class number {number}" for number in range(130)]
    runs = [write(tmp_path / f"run{seed}", predictions(names=names, seed=seed, clips=400)) for seed in range(4)]
    text = (report(runs, output=tmp_path / "report").html.parent / "report.tex").read_text()
    for body in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        columns = re.match(r"\{(\w+)\}", body)
        assert columns and len(columns[1]) <= 8
        assert body.count(r"\\") <= 62
    for name in names:
        assert text.count(f"\n{name} &") == 2 + 3, "classes by two runs, differences by two pairs"
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels)


def test_nothing_correct_is_reported(tmp_path: Path) -> None:
    runs = [write(tmp_path / name, predictions(skill=-50.0, seed=seed)) for seed, name in enumerate(("a", "b"))]
    made = report(runs, output=tmp_path / "report", embeddings=embeddings(runs[0].predictions))
    assert "No significant difference in top-1 between a and b" in made.html.read_text().replace("\xa0", " ")
    alone = report(runs[:1], output=tmp_path / "alone").html.read_text().replace("\xa0", " ")
    assert re.search(r"Top-1 0\.0 %, 95 % confidence interval 0\.0 to [\d.]+,", alone)


def test_everything_correct_is_reported(tmp_path: Path) -> None:
    run = write(tmp_path / "a", predictions(skill=50.0))
    assert "Top-1 100.0" in report([run], output=tmp_path / "report").html.read_text()


def test_bounds_hold_for_many_classes_and_runs(tmp_path: Path) -> None:
    names = [f"class{number}" for number in range(150)]
    runs = [write(tmp_path / f"run{seed}", predictions(names=names, seed=seed, clips=600)) for seed in range(2)]
    made = report(runs, output=tmp_path / "report")
    page = made.html.read_text()
    assert "Shown are the 100 of 150 classes with most errors." in page
    assert page.count('class="confusion dense"') == 2
    from PIL import Image

    with Image.open(made.html.parent / "figures" / "confusion-run0.png") as image:
        assert max(image.size) <= 20 * 200 + 200
    assert len((made.html.parent / "tables" / "confusion.csv").read_text().splitlines()) == 1 + 2 * 150**2


def test_terminal_shows_control_characters_instead_of_obeying() -> None:
    assert escape.terminal("a\x1b[2Jb\u202ec\n") == "a\\x1b[2Jb\\u202ec\n"
    assert escape.terminal("95\u00a0% — 跳") == "95\u00a0% — 跳"
