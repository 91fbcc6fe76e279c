"""Print on terminals whose encoding lacks some characters."""

from __future__ import annotations

import codecs

ENCODE_ERRORS = "actionvit"
"""Name of the error handler that importing this module registers."""

_ASCII = {
    "█": "#",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "·": "|",
    "…": "...",
    "±": "+-",
    "’": "'",
    "≥": ">=",
    "≤": "<=",
}


def encode(error: UnicodeError) -> tuple[bytes, int]:
    """Replace the characters that an encoding lacks.

    Undecodable bytes of a file name are written as they are, drawing characters as similar ASCII, others as an escape
    that keeps names apart.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = bytearray()
    for letter in error.object[error.start : error.end]:
        if "\udc80" <= letter <= "\udcff":
            written.append(ord(letter) - 0xDC00)
        else:
            written += (_ASCII.get(letter) or ascii(letter)[1:-1]).encode("ascii")
    return bytes(written), error.end


codecs.register_error(ENCODE_ERRORS, encode)
