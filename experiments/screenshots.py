"""Write the pictures of a report for the docs: `python experiments/screenshots.py REPORT.html [STRIP.png]`.

STRIP is a picture of `actionvit attention`. Needs Chromium. Files are small: palettes for text, JPEG for frames.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from chromium import Page, browser, find_chromium  # noqa: E402

WIDTH = 1240


def shot(page: Page, above: str, below: str) -> Image.Image:
    """Return the page between the tops of two elements, each given by a CSS selector."""
    top, bottom = (
        page.run(f"document.querySelector('{selector}').getBoundingClientRect().top + scrollY")
        for selector in (above, below)
    )
    clip = {"x": 0, "y": max(0, top - 24), "width": WIDTH, "height": bottom - max(0, top - 24) - 24, "scale": 1}
    answer = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    return Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")


def main(report: Path, strip: Path | None = None) -> None:
    """Write the pictures into docs/."""
    program = find_chromium()
    assert program, "no Chromium found"
    with tempfile.TemporaryDirectory() as profile, browser(program, Path(profile)) as page:
        page.open(report.resolve().as_uri(), width=WIDTH)
        head, clips = shot(page, "body", "#classes"), shot(page, "#hard", "article:nth-of-type(7)")
        page.open(report.resolve().as_uri(), width=WIDTH, dark=True)
        matrix = shot(page, "#confusions", ".matrices + .wide")
    for name, picture in (("report-light.png", head), ("report-dark.png", matrix)):
        picture.quantize(200, dither=Image.Dither.NONE).save(HERE.parent / "docs" / name, optimize=True)
    clips.save(HERE.parent / "docs" / "report-clips.jpg", quality=80, optimize=True)
    if strip is None:
        return
    with Image.open(strip) as picture:
        wide = picture.convert("RGB").resize((1400, round(1400 * picture.height / picture.width)))
    wide.save(HERE.parent / "docs" / "attention.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
