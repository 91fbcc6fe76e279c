"""Reports with odd names and extreme results: every format shows names unchanged, and every result is reported."""

from __future__ import annotations

import csv
import dataclasses
import html
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_runs import embeddings, predictions, write
from matplotlib.figure import Figure

from actionvit import escape
from actionvit.pipeline.reporting import ReportFiles, drawing, report
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


def draw_title(text: str) -> dict[str, bytes]:
    def draw(figure: Figure) -> None:
        figure.text(0.1, 0.5, text)

    return drawing.files(drawing.drawn((2, 1), draw), "title")


def test_pdf_and_png_draw_dollars_as_text() -> None:
    formula, plain = (draw_title(text) for text in ("$5 to $10", drawing.class_text("$5 to $10")))
    assert b"DejaVuSans-Oblique" in formula[".pdf"] and b"DejaVuSans-Oblique" not in plain[".pdf"]
    assert formula[".png"] != plain[".png"]


def test_missing_characters_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    drawing.warn_of_boxes.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("\U00012000", "\U00012001 and more"):  # cuneiform
            assert name in draw_title(name)[".svg"].decode()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "boxes in PNG and PDF" in caplog.text and "install a font" in caplog.text


@pytest.fixture
def cjk_font(tmp_path: Path) -> Iterator[None]:
    """A font with squares for two characters, installed under the name of a CJK font."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib.font_manager import fontManager

    pen = TTGlyphPen(None)
    for step, point in enumerate(((100, 0), (100, 800), (900, 800), (900, 0))):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square" for letter in "跳跃"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Microsoft YaHei", "styleName": "Regular", "psName": "TestSquares"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    before = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "squares.ttf")
    drawing._fonts.cache_clear()
    yield
    fontManager.ttflist[:] = before
    drawing._fonts.cache_clear()


@pytest.mark.usefixtures("cjk_font")
def test_installed_fonts_draw_what_dejavu_lacks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drawing, "CJK_FONTS", ("Microsoft YaHei",))
    drawing.warn_of_boxes.cache_clear()
    made = draw_title("jump 跳跃")
    assert b"TestSquares" in made[".pdf"] and b"DejaVuSans" in made[".pdf"]
    assert "jump 跳跃" in made[".svg"].decode() and not caplog.records


def test_page_has_names_without_control_characters(made: ReportFiles) -> None:
    page = made.html.read_text()
    assert "\x1b" not in page
    for name in NAMES:
        assert html.escape(escape.plain(name)) in page.replace("&#39;", "&#x27;")


def test_undecodable_bytes_of_names_are_escaped(tmp_path: Path) -> None:
    names = [f"{name}\udcff" for name in ("clap", "jump", "run")]
    info = {"dataset": {"name": "set\udcfe", "root": "data/set\udcfe"}}
    runs = [
        write(tmp_path / f"{name}\udcfd", predictions(names=names, seed=seed), info=info)
        for seed, name in enumerate("ab")
    ]
    made = report(runs, output=tmp_path / "report", command=["actionvit", "report", "a\udcfd"])
    for file in (made.html, *made.others):
        if file.suffix in (".html", ".md", ".tex", ".json", ".csv", ".svg"):
            file.read_text(encoding="utf-8")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("clap\\udcff", "set\\udcfe", "a\\udcfd"))
    assert "clap\\\\udcff" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert r"clap\textbackslash{}udcff" in (tmp_path / "report" / "report.tex").read_text(encoding="utf-8")


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


def test_markdown_has_no_formulas(made: ReportFiles) -> None:
    text = (made.html.parent / "report.md").read_text()
    assert r"from \$5 to \$10" in text and r"\$hr\$" in text and not re.search(r"(?<!\\)\$", text)


def test_latex_has_no_commands_from_names(made: ReportFiles) -> None:
    text = (made.html.parent / "report.tex").read_text()
    assert r"\input" not in text and r"\textbackslash{}input\{x\}\_\%\&" in text
    assert r"make it rain \$\$" in text


@pytest.mark.slow
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


@pytest.mark.slow
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
