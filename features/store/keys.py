"""The cache key: every setting that changes an embedding's numbers, comparable, hashable and printable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureKey:
    """Everything that changes the numbers, as JSON values; rows of stores with equal keys are interchangeable."""

    weights: str
    """sha256 of the weights' bytes; never their name, whose bytes may change."""
    model: dict[str, Any]
    """The encoder's shape: width, depth, heads, patch, ..."""
    clip: dict[str, Any]
    """The `ClipSpec`, field by field."""
    preprocessing: dict[str, Any]
    """Mean, standard deviation, interpolation."""
    decoder: str
    """The part of the decoder policy that can change pixels."""
    precision: str
    """Number format of the forward pass: `fp32`, `bf16`, ..."""
    outputs: dict[str, Any]
    """Which outputs of the forward pass are stored, and how they are pooled."""
    schema: int
    """Version of the store's layout and of everything that the other fields do not cover."""

    def __post_init__(self) -> None:
        """Convert to plain JSON values (tuples become lists); refuse values that JSON cannot hold."""
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
        if unexpected := names.symmetric_difference(value):
            raise ValueError(f"feature key: fields missing or unknown: {', '.join(sorted(unexpected))}")
        return cls(**value)

    @classmethod
    def parse(cls, canonical: str) -> FeatureKey:
        """Return the key of a canonical text."""
        return cls.from_dict(json.loads(canonical))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, in the order of the class."""
        return asdict(self)

    def canonical(self) -> str:
        """Return the key as canonical JSON text: names sorted, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def digest(self) -> str:
        """The sha256 of the canonical text, in hex."""
        return hashlib.sha256(self.canonical().encode("utf-8", "surrogateescape")).hexdigest()

    def differences(self, other: FeatureKey) -> list[tuple[str, Any, Any]]:
        """Return (`clip.num_frames`, ours, theirs) for each leaf that differs, sorted; None for an absent leaf."""
        ours, theirs = flatten(self.to_dict()), flatten(other.to_dict())
        names = sorted(ours.keys() | theirs.keys())
        return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def describe(
    differences: list[tuple[str, Any, Any]], first: str = "here", second: str = "there", max_fields: int = 3
) -> str:
    """Return `clip.num_frames is 8 here and 16 there; ...`, at most `max_fields` of them."""
    texts = [
        f"{name} is {json.dumps(ours)} {first} and {json.dumps(theirs)} {second}" for name, ours, theirs in differences
    ]
    more = len(texts) - max_fields
    return "; ".join(texts[:max_fields]) + (f"; and {more} more" if more > 0 else "")


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, names joined by dots; lists and empty dicts are values."""
    leaves: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            leaves |= flatten(inner, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = inner
    return leaves
