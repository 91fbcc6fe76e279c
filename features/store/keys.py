"""What changes an embedding's numbers, as a value that can be compared, digested and shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureKey:
    """Everything that changes the numbers, as JSON values; two stores with equal keys hold interchangeable rows."""

    weights: str
    """sha256 of the weights' bytes; never their name, behind which the bytes may change."""
    model: dict[str, Any]
    """The encoder's shape: width, depth, heads, patch, ..."""
    clip: dict[str, Any]
    """The `ClipSpec`, field by field."""
    preprocessing: dict[str, Any]
    """Mean, deviation, interpolation."""
    decoder: str
    """The part of the decoder policy that can change pixels."""
    precision: str
    """Number format of the forward: `fp32`, `bf16`, ..."""
    outputs: dict[str, Any]
    """What is kept of the forward, and how it was pooled."""
    schema: int
    """Version of the store's layout and of whatever the fields above leave unsaid."""

    def __post_init__(self) -> None:
        """Normalise to what JSON gives back (tuples become lists); refuse what JSON cannot hold."""
        for field in fields(self):
            value = json.loads(json.dumps(getattr(self, field.name), allow_nan=False))
            object.__setattr__(self, field.name, value)

    def __hash__(self) -> int:
        """Hash by content, so that keys can be grouped."""
        return hash(self.canonical())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FeatureKey:
        """Return the key that `to_dict` wrote; ValueError names fields that are missing or unknown."""
        names = {field.name for field in fields(cls)}
        if odd := names.symmetric_difference(value):
            raise ValueError(f"feature key: fields missing or unknown: {', '.join(sorted(odd))}")
        return cls(**value)

    @classmethod
    def parse(cls, canonical: str) -> FeatureKey:
        """Return the key of a canonical text."""
        return cls.from_dict(json.loads(canonical))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, in the order of the class."""
        return asdict(self)

    def canonical(self) -> str:
        """Return the one JSON text of this key: names sorted, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def digest(self) -> str:
        """The sha256 of the canonical text, in hex."""
        return hashlib.sha256(self.canonical().encode("utf-8", "surrogateescape")).hexdigest()

    def differences(self, other: FeatureKey) -> list[tuple[str, Any, Any]]:
        """Return (`clip.num_frames`, ours, theirs) for each leaf that differs, sorted; None where a side has none."""
        ours, theirs = dict(_leaves(self.to_dict())), dict(_leaves(other.to_dict()))
        names = sorted(ours.keys() | theirs.keys())
        return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def describe(differences: list[tuple[str, Any, Any]], most: int = 3) -> str:
    """Return `clip.num_frames is 8 here and 16 there; ...`, at most `most` of them."""
    said = [f"{name} is {json.dumps(ours)} here and {json.dumps(theirs)} there" for name, ours, theirs in differences]
    return "; ".join(said[:most]) + (f"; and {len(said) - most} more" if len(said) > most else "")


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nested dicts; lists count as leaves."""
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner
