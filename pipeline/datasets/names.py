"""Read a video's source and metadata from its file name."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from actionvit.features.media import VIDEO_SUFFIXES

# fmt: off
HMDB51_CLASSES = (
    "brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive", "draw_sword", "dribble",
    "drink", "eat", "fall_floor", "fencing", "flic_flac", "golf", "handstand", "hit", "hug", "jump", "kick",
    "kick_ball", "kiss", "laugh", "pick", "pour", "pullup", "punch", "push", "pushup", "ride_bike", "ride_horse",
    "run", "shake_hands", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault",
    "stand", "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk", "wave",
)
# fmt: on

_BY_LAST_WORD: dict[str, list[str]] = {}
for _name in HMDB51_CLASSES:
    _BY_LAST_WORD.setdefault(_name.rpartition("_")[2], []).append(_name)

_HMDB51 = re.compile(
    r"(?P<stem>.+)_(?P<body>[fulh])_(?P<motion>cm|nm)_np(?P<people>\d+)_(?P<view>fr|ba|le|ri)_(?P<quality>goo|med|bad)_\d+"
)
_UCF101 = re.compile(r"(?P<source>v_.+_g\d+)_c\d+")
_MEANING = {
    "body": {"h": "head", "u": "upper body", "f": "full body", "l": "lower body"},
    "motion": {"cm": "camera moves", "nm": "camera still"},
    "view": {"fr": "front", "ba": "back", "le": "left", "ri": "right"},
    "quality": {"goo": "good", "med": "medium", "bad": "bad"},
}


class ClipMetadata(NamedTuple):
    """The properties in an HMDB51 file name (Kuehne et al., ICCV 2011, table 3)."""

    body_part: str
    """`head`, `upper body`, `full body` or `lower body`."""
    camera_motion: str
    """`camera moves` or `camera still`."""
    people: int
    """Number of people who take part in the action."""
    viewpoint: str
    """`front`, `back`, `left` or `right`."""
    quality: str
    """`good`, `medium` or `bad`."""


_SEGMENT = re.compile(r"@[0-9.e+]+-[0-9.e+]+f?\Z")


def stem(id: str) -> str:
    """Return the last part of an id without a segment and a video's suffix; frame folders have none."""
    name = _SEGMENT.sub("", id.rpartition("/")[2])
    return name[: name.rindex(".")] if name.lower().endswith(VIDEO_SUFFIXES) else name


def is_text(name: str) -> bool:
    """Return whether a name was read from valid UTF-8: it holds no lone surrogate."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def letters(name: str) -> str:
    """Return the letters and digits of a class name, without case, to compare spellings: `Pick up` and `pick_up`."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def parse_metadata(stem: str) -> ClipMetadata | None:
    """Return the metadata in an HMDB51 name (without suffix), or None if the name follows another pattern."""
    if (match := _HMDB51.fullmatch(stem)) is None:
        return None
    body, motion, view, quality = (_MEANING[part][match[part]] for part in ("body", "motion", "view", "quality"))
    return ClipMetadata(body, motion, int(match["people"]), view, quality)


def parse_source(stem: str, label: str) -> str | None:
    """Return the source that a video was cut from, or None where its name does not contain one.

    HMDB51 names begin with `<source>_<class>_`, in any folder: a relabelled clip keeps its source.
    UCF101's `v_Class_gNN_cNN` gives the group `v_Class_gNN`.
    """
    if stem.startswith("v_") and (match := _UCF101.fullmatch(stem)):
        return match["source"]
    if "_np" not in stem or (match := _HMDB51.fullmatch(stem)) is None:
        return None
    stem = match["stem"]
    candidates = _BY_LAST_WORD.get(stem.rpartition("_")[2], ())
    named = [name for name in (label, *candidates) if stem.endswith(f"_{name}")]
    longest = max(named, key=len, default="")
    return stem[: -len(longest) - 1] if longest else stem
