"""JSON files that carry the sha256 of their own content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from actionvit.features.store.parts import decode_text, encode_text


def render_checked(value: dict[str, Any]) -> bytes:
    """Return a value as JSON text whose last entry is the sha256 of the rest."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return encode_text(json.dumps(value | {"sha256": digest}, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def parse_checked(data: bytes) -> dict[str, Any] | None:
    """Return the value in the bytes of such a file, or None if any byte was altered."""
    try:
        value: dict[str, Any] = json.loads(decode_text(data))
        value.pop("sha256")
        return value if render_checked(value) == data else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
