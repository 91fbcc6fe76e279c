"""Drawing of figures: settings, names as text, and files in SVG, PDF and PNG; the same numbers give the same bytes."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit import escape
from actionvit.pipeline.reporting.table import PALETTE_SIZE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE, BACK = "#1b1f24", "#5c6670", "#d5dade", "#fefefe"
PALETTE = ("#2f6db3", "#c4570c", "#2c8060", "#8457a6", "#8f7a12", "#4a5560")
"""Colors of the runs in order; they differ in lightness too, and markers differ."""
MARKERS = "osD^vP"
assert len(PALETTE) == len(MARKERS) == PALETTE_SIZE

CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB"),
    *("Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)
"""Fonts for names that DejaVu Sans has no glyphs for, as far as they are installed."""

logger = logging.getLogger(__name__)

MISSING_GLYPH = re.compile(r"Glyph .* missing from")
"""matplotlib's warning about a character that no font has."""

RC: Any = {
    "svg.hashsalt": "actionvit",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # text remains text
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "text.color": INK,
    "figure.facecolor": BACK,
    "axes.facecolor": "none",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}

DOTS_PER_INCH = 200
"""Of PNG files."""

PNG_LEVEL = 4
"""zlib's level for PNG files: with 3 they are a fourth larger, with 6 at most 3 % smaller."""

LAYOUT_TABLES = ("GDEF", "GPOS", "GSUB")
"""A font's tables for laying out text. The text of a PDF file is laid out, but they would be reduced and embedded."""

Draw = Callable[["Figure"], None]
"""Adds axes and marks to an empty figure."""


def files(figure: Figure, name: str) -> dict[str, bytes]:
    """Return a figure as files by suffix: `.svg`, `.pdf` and `.png`; `name` makes ids unique on a page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    svg, pdf = io.BytesIO(), io.BytesIO()
    # `savefig` would draw each figure twice to compute a layout that is there already.
    with drawing(**{"svg.hashsalt": escape.plain(name)}), ThreadPoolExecutor(1) as thread:
        figure.dpi = DOTS_PER_INCH
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        png = thread.submit(_png, np.asarray(canvas.buffer_rgba()))  # takes as long as drawing SVG
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})  # type: ignore[no-untyped-call]
        figure.dpi = DOTS_PER_INCH
        with _without_layout_tables():
            FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})  # type: ignore[no-untyped-call]
    return {".svg": svg.getvalue(), ".pdf": pdf.getvalue(), ".png": png.result()}


@contextmanager
def _without_layout_tables() -> Iterator[None]:
    """Embed fonts without `LAYOUT_TABLES`, which takes an eighth less of the time for drawing a report.

    fontTools has no public setting for this that reaches the options which matplotlib makes; without the private one,
    files are larger.
    """
    from fontTools import subset

    options: Any = subset.Options
    dropped = getattr(options, "_drop_tables_default", [])
    options._drop_tables_default = [*dropped, *LAYOUT_TABLES]
    try:
        yield
    finally:
        options._drop_tables_default = dropped


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return opaque pixels (h, w, 4) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(pixels).convert("RGB")
    image.save(file, "png", compress_level=PNG_LEVEL, dpi=(DOTS_PER_INCH, DOTS_PER_INCH))
    return file.getvalue()


def inline(svg: bytes, label: str) -> str:
    """Return an SVG file as an element of a page: its text is text, its colors are the page's."""
    from html import escape

    text = svg.decode()
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    text = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    width = float(re.search(r'width="([\d.]+)pt"', text)[1]) * 4 / 3  # type: ignore[index]
    for color, value in {INK: "currentColor", SOFT: "var(--soft)", LINE: "var(--line)", BACK: "var(--back)"}.items():
        text = text.replace(color, value)
    for place, color in enumerate(PALETTE):
        text = text.replace(color, f"var(--run{place})")
    head = f'<svg class="chart" role="img" aria-label="{escape(label)}" style="width:{width:.0f}px"'
    return re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf"{head} \1>", text, count=1)


def drawn(size: tuple[float, float], draw: Draw, layout: str | None = "constrained") -> Figure:
    """Return a drawn figure whose layout is computed once, not again for each format."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=size, layout=layout)  # type: ignore[arg-type]
        draw(figure)
        if (engine := figure.get_layout_engine()) is not None:
            if figure.axes:
                engine.execute(figure)
            figure.set_layout_engine("none")
        return figure


@contextmanager
def drawing(**settings: Any) -> Iterator[None]:
    """Draw with the report's settings; warn once if names have characters that no installed font has.

    Such characters are boxes in PNG and PDF; in SVG they are text.
    """
    from matplotlib import rc_context

    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    rc: Any = {**RC, "font.family": _fonts(), **settings}
    with rc_context(rc), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fonts.setLevel(logging.ERROR)  # a font that lacks a bold face is used as it is
        try:
            yield
        finally:
            fonts.setLevel(level)
    missing = False
    for warning in caught:
        if MISSING_GLYPH.match(str(warning.message)):
            missing = True
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        warn_of_boxes()


@cache
def warn_of_boxes() -> None:
    """Warn of missing fonts, once per process."""
    logger.warning(
        "no installed font has all characters of the names: they are boxes in PNG and PDF files, and text in HTML and"
        " SVG; install a font that has them, such as Noto Sans CJK, and run the command again"
    )


@cache
def _fonts() -> list[str]:
    """Return DejaVu Sans and the fonts that fill its gaps; a list, because a generic family has no fallback."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in CJK_FONTS if name in installed), "sans-serif"]


def run_style(run: int, size: float = 4.5) -> dict[str, Any]:
    """Return the color and the marker of a run."""
    return {"color": PALETTE[run % len(PALETTE)], "marker": MARKERS[run % len(MARKERS)], "markersize": size}


def plain_text(name: str) -> str:
    """Return text for matplotlib: without formulas, and with a space before the underscore that would hide a label."""
    text = escape.mathtext(name)
    return f"\u200a{text}" if text.startswith("_") else text


def class_text(name: str) -> str:
    """Return a class name as words."""
    return plain_text(name.replace("_", " "))
