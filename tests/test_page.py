"""The report in a real browser: three widths, light and dark, sorted, filtered, by mouse, by keyboard, on paper."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Page, browser, find_chromium
from fake_runs import embeddings, predictions, write

from actionvit.features.decoding import Frames
from actionvit.features.timesformer.variants import clip_spec
from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.reporting import ReportFiles, report
from actionvit.pipeline.runs import Run

WIDTHS = (390, 900, 1440)
VERBS = ("catch", "draw", "kick", "pour", "swing")
CLASSES = (*(f"{verb}_{noun}" for verb in VERBS for noun in "abcdefghij"), "wave")


class Shares:
    """Stands in for attention rollout: input frames of 112 × 112 pixels and random attention."""

    spec = clip_spec("tiny")

    def __call__(self, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
        T, S = self.spec.num_frames, self.spec.size
        return frames.data[None, :T, :S, :S], np.random.RandomState(0).rand(1, T, S // 16, S // 16).astype(np.float32)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find_chromium()
    if not program:
        pytest.skip("no Chromium found (`apt-get install chromium`, or set ACTIONVIT_CHROMIUM)")
    with browser(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """51 classes, two variants, three official splits of 1,530 test clips."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, skill, seed in (("base-linear", 2.0, 0), ("hr-linear", 2.4, 1)):
        found = predictions(skill=skill, seed=seed, clips=4590, names=CLASSES, per_source=4, splits=3)
        ids = {split: found.id[found.split == split].tolist() for split in found.split_names}
        train = {split: sorted(ids[other]) for split, other in zip(ids, [*ids][1:] + [*ids][:1], strict=True)}
        made.append(write(folder / name, found, info={"gmac": 100.0 * skill}, train=train))
    return made


@pytest.fixture(scope="module")
def made(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """A report with every clip available, all of noise, the worst case for JPEG, and attention over them."""
    root, random = tmp_path_factory.mktemp("clips"), np.random.RandomState(0)
    write_avi(root / "noise.avi", random.randint(0, 256, (8, 240, 320, 3)).astype(np.uint8))
    for id_ in set(runs[0].predictions.id.tolist()):
        (root / id_).parent.mkdir(exist_ok=True)
        (root / id_).symlink_to(root / "noise.avi")
    space = embeddings(runs[0].predictions, width=64)
    return report(runs, output=tmp_path_factory.mktemp("report"), root=root, embeddings=space, encoder=Shares())


@pytest.fixture
def opened(page: Page, made: ReportFiles) -> Page:
    page.open(made.html.as_uri())
    return page


def column(page: Page, table: str, name: str) -> tuple[int, str]:
    """The column of a heading, and the expression of its button; the last one with that name."""
    heads = page.run(f"[...document.querySelectorAll('#{table} thead tr:last-child th')].map((th) => th.textContent)")
    at = len(heads) - 1 - heads[::-1].index(name)
    return at, f"document.querySelectorAll('#{table} thead tr:last-child th')[{at}].querySelector('button')"


def cells(page: Page, table: str, at: int) -> list[str]:
    found = page.run(
        f"[...document.querySelectorAll('#{table} tbody tr')].filter((tr) => !tr.hidden)"
        f".map((tr) => tr.cells[{at}].textContent)"
    )
    return [str(text) for text in found]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_without_a_complaint_or_a_request(page: Page, made: ReportFiles, width: int, dark: bool) -> None:
    page.open(made.html.as_uri(), width=width, dark=dark)
    assert page.run("document.title") == "hr against base · actionvit"
    assert page.complaints() == []
    assert page.requests() == [made.html.as_uri()]
    assert page.run("document.documentElement.scrollWidth") == width, "only tables scroll sideways"
    assert page.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    light = page.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every((part) => part > 128)")
    assert light is not dark


def test_a_long_name_stays_in_its_column(opened: Page) -> None:
    fits = opened.run(
        "(() => { const name = document.querySelector('#comparison1 thead .tied');"
        " name.lastChild.textContent = 'hr-attentive-balanced-grouped_by_somebody'; const cell = name.closest('th');"
        " return [cell.scrollWidth, cell.clientWidth] })()"
    )
    assert fits[0] <= fits[1]


def test_its_size_and_the_time_it_takes_to_open(page: Page, made: ReportFiles) -> None:
    assert page.run("true") and made.html.stat().st_size < 8e6
    assert made.html.read_text().count('alt="The same frames') >= 20, "with the clips"
    assert min(page.open(made.html.as_uri()) for _ in range(3)) < 2


def test_a_table_sorts_by_number_and_by_name_both_ways(opened: Page) -> None:
    at, button = column(opened, "classes1", "Δ\xa0recall")
    for direction, sign in (("ascending", 1), ("descending", -1)):
        opened.point(button, click=True)
        assert opened.run(f"{button}.parentNode.getAttribute('aria-sort')") == direction
        values = [float(text.replace("−", "-")) for text in cells(opened, "classes1", at)]
        assert len(values) == 51 and values == sorted(values, key=lambda value: sign * value)
        assert values != values[::-1]
    _, button = column(opened, "classtable", "Class")
    opened.point(button, click=True)
    assert cells(opened, "classtable", 0) == sorted(CLASSES)
    assert opened.run("document.querySelectorAll('#classtable th[aria-sort]').length") == 1


def test_it_sorts_from_the_keyboard_and_empty_cells_stay_last(opened: Page) -> None:
    at, button = column(opened, "classtable", "Support")
    opened.run(f"delete document.querySelector('#classtable tbody tr').cells[{at}].dataset.v")
    name = opened.run("document.querySelector('#classtable tbody th').textContent")
    opened.run(f"{button}.focus()")
    for direction in ("ascending", "descending"):
        opened.press("Enter")
        assert opened.run(f"{button}.parentNode.getAttribute('aria-sort')") == direction
        assert cells(opened, "classtable", 0)[-1] == name


@pytest.mark.parametrize("width", [390, 900, 1440, 1920])
def test_p_of_each_class_is_in_view_at_every_width(page: Page, made: ReportFiles, width: int) -> None:
    page.open(made.html.as_uri(), width=width)
    at, button = column(page, "classes1", "p")
    right, visible = page.run(
        f"(() => {{ const head = {button}.parentNode, frame = head.closest('.wide');"
        " return [head.getBoundingClientRect().right, frame.getBoundingClientRect().right] })()"
    )
    assert right <= visible <= width
    values = [text for text in cells(page, "classes1", at) if text != "–"]
    assert len(values) > 40 and all(re.fullmatch(r"<?[01]\.\d+", text) for text in values)


def test_the_filter_shows_what_contains_the_text(opened: Page) -> None:
    opened.point("document.querySelector('#filter')", click=True)
    opened.call("Input.insertText", text=" KICK")
    assert cells(opened, "classtable", 0) == [name for name in CLASSES if "kick" in name]
    assert opened.run("document.querySelector('#shown').textContent") == "10 of 51 classes"
    opened.run("filter.value = 'nothing like it'; filter.dispatchEvent(new Event('input'))")
    assert cells(opened, "classtable", 0) == []
    opened.run("filter.value = ''; filter.dispatchEvent(new Event('input'))")
    assert len(cells(opened, "classtable", 0)) == 51


def clips_of(run: Run, true: str, taken: str) -> set[str]:
    found, names = run.predictions, run.predictions.class_names
    own = (found.true == names.index(true)) & (found.scores.argmax(1) == names.index(taken))
    return set(found.id[own].tolist())


def shown_results(page: Page) -> tuple[str, list[str]]:
    text, items = page.run(
        "[document.querySelector('#cell').textContent, [...document.querySelectorAll('#clips li')]"
        ".map((li) => li.textContent)]"
    )
    return text, items


def check_square(page: Page, run: Run, square: str) -> None:
    """The text and clips shown for a square agree with the run's predictions."""
    true = page.run(f"({square}).parentNode.cells[0].textContent")
    taken = page.run(f"({square}).closest('table').tHead.rows[0].cells[({square}).cellIndex].textContent")
    expected = clips_of(run, true, taken)
    text, items = shown_results(page)
    what = "recognized" if true == taken else f"predicted as {taken}"
    assert text.startswith(f"{true} {what}: {len(expected)} of ") if expected else "was never predicted as" in text
    named = {item.split(" (")[0] for item in items if not item.startswith("and ")}
    assert named <= expected and len(named) == min(12, len(expected))
    if len(expected) > 12:
        assert items[-1] == f"and {len(expected) - 12} more clips"


def square(run: int, row: int, place: int) -> str:
    return f"document.querySelectorAll('.confusion')[{run}].tBodies[0].rows[{row}].cells[{place + 1}]"


def test_confusion_cell_shows_clips_to_mouse_and_keyboard(opened: Page, runs: list[Run]) -> None:
    most = opened.run("document.querySelector('.matrix').dataset.first.split(',').map(Number)")
    check_square(opened, runs[0], square(0, *most))  # shown before any square is selected
    for place in ((0, 0), (5, 7), (50, 49)):
        opened.point(square(0, *place))
        check_square(opened, runs[0], square(0, *place))
    opened.point(square(0, 3, 3), click=True)
    for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowUp", "ArrowLeft"):
        opened.press(key)
    check_square(opened, runs[0], square(0, 2, 3))
    assert opened.run(f"document.activeElement === {square(0, 2, 3)}")
    assert opened.run("document.querySelectorAll('.confusion td[tabindex=\"0\"]').length") == 2, (
        "one tab stop per matrix"
    )


def test_the_other_runs_matrix_is_a_button_away(opened: Page, runs: list[Run]) -> None:
    shown = "[...document.querySelectorAll('.matrix')].map((matrix) => matrix.offsetHeight > 0)"
    assert opened.run(shown) == [True, False]
    opened.point("document.querySelectorAll('#which button')[1]", click=True)
    assert opened.run(shown) == [False, True]
    pressed = "[...document.querySelectorAll('#which button')].map((button) => button.getAttribute('aria-pressed'))"
    assert opened.run(pressed) == ["false", "true"]
    opened.point(square(1, 8, 8))
    check_square(opened, runs[1], square(1, 8, 8))


CONTRAST = """
(() => {
  const light = (colour) => {
    const full = colour.startsWith("color(") ? 1 : 255, parts = colour.match(/[\\d.]+/g).slice(0, 3);
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts.map((part) => linear(part / full));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const ratios = [...document.querySelectorAll(".confusion td[style]")].map((cell) => {
    const { color, backgroundColor } = getComputedStyle(cell), pair = [light(color), light(backgroundColor)];
    return Math.max(...pair) / Math.min(...pair);
  });
  return [ratios.length, Math.min(...ratios)];
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_square_can_be_read(page: Page, made: ReportFiles, dark: bool) -> None:
    page.open(made.html.as_uri(), dark=dark)
    count, least = page.run(CONTRAST)
    assert count > 1000 and least >= 4.5


def test_without_scripts_everything_is_there_to_read(page: Page, made: ReportFiles) -> None:
    page.open(made.html.as_uri(), script=False)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    seen = "[...document.querySelectorAll('{}')].map((element) => element.offsetHeight > 0)"
    assert page.run(seen.format(".matrix, .choice")) == [True] * 4
    assert not any(page.run(seen.format(".controls, #detail")))


def test_it_prints(page: Page, made: ReportFiles) -> None:
    page.open(made.html.as_uri(), dark=True)
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF") and 5 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 40
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "paper is white"
    assert page.run("[...document.querySelectorAll('nav, .controls, .detail')].every((one) => !one.offsetHeight)")
    assert page.run("[...document.querySelectorAll('.matrix')].every((one) => one.offsetHeight > 0)")
    page.call("Emulation.setEmulatedMedia", media="")


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config) -> str:
    """The source of axe-core, fetched once by npm into pytest's cache."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("axe-core")
    file = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm, which would fetch axe-core, is not installed")
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), "axe-core@4"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm could not fetch axe-core: {error}")
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_barrier(page: Page, made: ReportFiles, axe: str, width: int, dark: bool) -> None:
    page.open(made.html.as_uri(), width=width, dark=dark)
    # A tenth of the squares stands for all: they are the same but for their colour, which another test looks at.
    page.run("document.querySelectorAll('.confusion tbody tr:nth-child(n + 6)').forEach((row) => row.remove())")
    page.run(f"{axe}; 0")
    found: list[dict[str, Any]] = json.loads(
        page.run(
            "axe.run(document, { resultTypes: ['violations'] }).then((result) => JSON.stringify(result.violations))"
        )
    )
    violations = [(one["id"], node["html"][:200], node["failureSummary"]) for one in found for node in one["nodes"]]
    assert violations == []


def test_a_report_of_one_run_and_few_classes_opens_as_well(page: Page, tmp_path: Path) -> None:
    made = report([write(tmp_path / "base", predictions())], output=tmp_path / "report")
    page.open(made.html.as_uri(), width=390)
    assert page.complaints() == [] and page.run("document.documentElement.scrollWidth") == 390
    assert page.run("document.querySelector('#which').hidden") and shown_results(page)[1]
    _, button = column(page, "classtable", "95 % CI")
    page.point(button, click=True)
    assert page.run(f"{button}.parentNode.getAttribute('aria-sort')") == "ascending"
