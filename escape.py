"""Text that must not become code: one function per output format.

Class names, video ids and run names come from file names, so they may hold anything: escape sequences for a terminal,
formulas for a spreadsheet, links for Markdown, commands for LaTeX. HTML is escaped by Jinja's autoescape.
"""

from __future__ import annotations

import re

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
    "\u00a0": "~",
}
# An underscore inside a word, as in `brush_hair`, is plain in Markdown; so are brackets that make no link or image.
# Dollars enclose formulas on GitHub and in notebooks.
_MARKDOWN = re.compile(r"[\\|<>*`~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|!(?=\[)|(?<=\])[(\[]")
# Control characters, marks that reverse the direction of writing, surrogates, and what XML 1.0 forbids.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def terminal(text: str) -> str:
    """Return text with control characters escaped for a terminal; line breaks and tabs stay."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else _code(match), text)


def plain(text: str) -> str:
    """Return text on one line without control characters or undecodable bytes, for SVG, PDF and HTML."""
    return _CONTROL.sub(_code, text)


def csv_cell(text: str) -> str:
    """Return a field with an apostrophe before a leading `= + - @`: spreadsheets would run a formula (OWASP)."""
    return f"'{plain(text)}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else plain(text)


def markdown(text: str) -> str:
    r"""Return text that Markdown prints as it is: no table cell, HTML, emphasis, code, link or image begins in it."""
    return _MARKDOWN.sub(lambda match: "".join(f"\\{c}" for c in match[0]), plain(text))


def latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_LATEX.get(c, c) for c in plain(text))


def encode(text: str) -> bytes:
    r"""Return text in UTF-8 with undecodable bytes of file names as `\udcff`, the escape that JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def mathtext(text: str) -> str:
    r"""Return text in which matplotlib sees no formula: `\$`."""
    return plain(text).replace("$", r"\$")


def _code(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
