"""Give numbered classes their names, from a file of class names beside the lists."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.media import VIDEO_SUFFIXES
from actionvit.pipeline.datasets.formats.rows import Listing
from actionvit.pipeline.datasets.formats.tables import is_header
from actionvit.pipeline.datasets.names import is_text, letters
from actionvit.pipeline.datasets.reading import set_of
from actionvit.pipeline.datasets.textfile import head, read_text
from actionvit.text import abbreviate, pluralize, printable

_CLASSES = r"class(es)?|class_?(ind|names?|list|labels?|map)|labels?|label_?(names?|list)|categories|names"
_FILE = re.compile(
    rf"(({_CLASSES})|.*label_?map.*|.*_(labels|classes|class_?names|categories))\.(txt|csv|tsv)", re.IGNORECASE
)
_NUMBER = re.compile(r"(-?[0-9]{1,9})(?:\.0+)?")
_SEVERAL = re.compile(r"-?[0-9]+(\s*[\s,;|]\s*-?[0-9]+)+|\[\s*(['\"0-9-].*)?\]|\{.*\}")
"""Several labels: numbers, or a list or mapping of Python or JSON."""
_DECIMAL = re.compile(r"-?[0-9]*\.[0-9]+")
_NUMBER_NAME = re.compile(r"([0-9]{1,9})\s*[\s,:;|]\s*(\S.*)")
_NAME_NUMBER = re.compile(r"(\S.*?)\s*[\s,:;|]\s*([0-9]{1,9})")
_HEADERS = frozenset(
    ("name", "names", "class", "classes", "label", "labels", "category", "categories", "class_name", "label_name")
)
_MISSING = frozenset(("nan", "null", "n/a", "#n/a", "<na>"))
_LONGEST = 200
"""Characters in a class name; longer labels are text that is not a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """The class names in a file, by number."""

    file: Path
    names: Mapping[int, str]
    numbered: bool
    """Whether the lines have numbers of their own; if not, they count from 0."""


def name_classes(listing: Listing) -> list[str]:
    """Replace label numbers by the class names in a file beside the lists; return notes on labels without a name.

    `-1` becomes no label. `1.0`, as pandas writes a column with gaps, is 1.

    Raises
    ------
    ActionVitError
        If a label is negative, a missing value or too long; if a file of class names is damaged, lacks a label,
        contradicts another such file or the class folders in the paths, or leaves open whether classes count from 0
        or from 1.
    """
    labels = {row.label for _, rows in listing.files for row in rows if row.label}
    matches = {label: _NUMBER.fullmatch(label) for label in labels}
    numbers = {label: int(match[1]) for label, match in matches.items() if match}
    _check_labels(listing, numbers)
    without = {label for label, number in numbers.items() if number == -1}
    rename = dict.fromkeys(without, "")
    words = sorted(labels - numbers.keys())
    labels, notes = labels - without, []
    if words:
        if all(_DECIMAL.fullmatch(word) for word in words):
            notes.append(f"labels are decimal numbers, each its own class: {abbreviate(words)}")
        elif mixed := sorted(labels & numbers.keys()):
            _refuse_mixed_lists(listing, numbers)
            notes.append(f"labels are words and numbers: {abbreviate(words, 2)} and {abbreviate(mixed, 2)}")
        if joined := [
            word for word in words if all(map(str.strip, parts := re.split("[;|]", word))) and len(parts) > 1
        ]:
            notes.append(f"labels that hold `;` or `|` are read as one class each: {abbreviate(joined)}")
        if "None" in words:
            notes.append("`None` is read as a class; if it is a missing value, remove the lines")
    elif labels:
        named = _find_names(listing, {label: numbers[label] for label in labels})
        if named is not None:
            rename |= {label: named.names[numbers[label]] for label in labels}
            notes.append(f"class names from `{named.file.name}`")
        else:
            if len({numbers[label] for label in labels}) < len(labels) or any("." in label for label in labels):
                rename |= {label: str(numbers[label]) for label in labels}
            notes.append(
                f"labels are numbers without names ({pluralize(len(labels), 'class', 'classes')}):"
                " put classes.txt, one name per line from 0, beside the list"
            )
    if rename:
        listing.files = [
            (file, [row._replace(label=rename.get(row.label, row.label)) for row in rows])
            for file, rows in listing.files
        ]
    return notes


def _refuse_mixed_lists(listing: Listing, numbers: Mapping[str, int]) -> None:
    """Raise if one list gives every label as a number and another gives every label as a word."""
    by_kind: dict[bool, Path] = {}
    for file, rows in listing.files:
        kinds = {row.label in numbers for row in rows if row.label}
        by_kind.update(dict.fromkeys(kinds, file) if len(kinds) == 1 else {})
    if len(by_kind) == 2:
        raise ActionVitError(
            f"`{by_kind[True]}` labels videos by number, `{by_kind[False].name}` by name, so that they would be of"
            " different classes; use numbers or names in both"
        )


def _check_labels(listing: Listing, numbers: Mapping[str, int]) -> None:
    """Raise for the first line whose label is wrong; each label is looked at once."""
    checked: set[str] = set()
    for file, rows in listing.files:
        for row in rows:
            if row.label in checked:
                continue
            checked.add(row.label)
            if len(row.label) > _LONGEST:
                raise ActionVitError(
                    f"`{file}` line {row.line}: a label of {len(row.label):,} characters; expected a class name"
                )
            if not is_text(row.label):
                raise ActionVitError(
                    f"`{file}` line {row.line}: label `{printable(row.label)}` is not UTF-8; save the list as UTF-8"
                )
            if _SEVERAL.fullmatch(row.label):
                raise ActionVitError(
                    f"`{file}` line {row.line}: `{printable(row.label[:60])}` is several labels; give a video one"
                    " label, a word or a number"
                )
            if row.label.lower() in _MISSING:
                raise ActionVitError(
                    f"`{file}` line {row.line}: label `{row.label}` looks like a missing value; fill it in or remove"
                    " the line"
                )
            if numbers.get(row.label, 0) < -1:
                raise ActionVitError(
                    f"`{file}` line {row.line}: label {row.label}; expected a number from 0, or a word for the class"
                )


def _find_names(listing: Listing, numbers: Mapping[str, int]) -> _Names | None:
    """Return the class names that cover all label numbers; None without a file of class names."""
    lists = [file for file, _ in listing.files]
    files = [file for file in _candidates(lists[0].parent) if file not in lists]
    every = [names for file in files if (names := _read_names(file)) is not None]
    if not every:
        return None
    covering = [names for names in every if names.names.keys() >= set(numbers.values())]
    if not covering:
        raise ActionVitError(_lacking(listing, numbers, every[0]))
    for other in covering[1:]:
        for number in sorted(set(numbers.values())):
            first, second = covering[0].names[number], other.names[number]
            if first != second:
                raise ActionVitError(
                    f"`{covering[0].file}` and `{other.file.name}` name class {number} `{printable(first)}` and"
                    f" `{printable(second)}`; keep the file that belongs to the list"
                )
    named = next((names for names in covering if names.numbered), covering[0])
    confirmed = _agree_with_folders(listing, numbers, named)
    if not named.numbered and 0 not in numbers.values() and not confirmed:
        raise ActionVitError(
            f"`{named.file}` does not number its classes, and no label is 0: do they count from 0 or from 1? Begin each"
            " line with its number: `1 NAME`"
        )
    return named


def _candidates(folder: Path) -> list[Path]:
    """Return the files in a folder that may hold class names, by name and by their first lines."""
    return [
        file
        for file in sorted(folder.iterdir())
        if _FILE.fullmatch(file.name) and not set_of(file.name)[0] and (lines := head(file)) and not _is_list(lines)
    ]


def _is_list(lines: list[str]) -> bool:
    """Return whether lines list videos rather than classes."""
    return is_header(lines[0]) or any(
        part.strip('"').lower().endswith(VIDEO_SUFFIXES) for line in lines for part in re.split(r"[\s,;|]", line)
    )


def _read_names(file: Path) -> _Names | None:
    """Return the class names of a file: `NUMBER NAME` or `NAME NUMBER` per line, or a name per line, from 0.

    A header, and comments that begin with `#`, are ignored. Returns None for a file of comments alone.
    """
    lines = [(number, text.strip()) for number, text in enumerate(re.split(r"\r\n|\r|\n", read_text(file)), start=1)]
    while lines and not lines[-1][1]:
        lines.pop()
    lines = [(number, text) for number, text in lines if text[:1] != "#"]
    filled = [(number, text) for number, text in lines if text]
    if not filled:
        return None
    by_header = [filled, filled[1:]] if len(filled) > 1 else [filled]
    for rows in by_header:
        if not any(map(_matches_none, rows)):
            return _Names(file=file, names=_numbered(file, rows), numbered=True)
    has_header = filled[0][1].strip('"').lower() in _HEADERS
    if has_header:
        lines, filled = lines[lines.index(filled[0]) + 1 :], filled[1:]
    for number, text in lines:
        if not text:
            raise ActionVitError(f"`{file}` line {number} is empty; name the class, or begin each line with its number")
        if not _matches_none((number, text)):
            raise ActionVitError(
                f"`{file}` line {number}: `{printable(text[:60])}`; expected a number in every line, `NUMBER NAME`, or"
                " in none; if the file holds no class names, rename it"
            )
    return _Names(file=file, names=_unique(file, [(n, i, text) for i, (n, text) in enumerate(filled)]), numbered=False)


def _matches_none(row: tuple[int, str]) -> bool:
    return not (_NUMBER_NAME.fullmatch(row[1]) or _NAME_NUMBER.fullmatch(row[1]))


def _numbered(file: Path, rows: list[tuple[int, str]]) -> dict[int, str]:
    """Return the names of numbered lines, `NUMBER NAME` or `NAME NUMBER`."""
    if len(rows) > 1 and all(len(re.split(r"[,;\t|]", text)) > 2 for _, text in rows):
        raise ActionVitError(f"`{file}` has more than two columns; expected `NUMBER,NAME`")
    first = [_NUMBER_NAME.fullmatch(text) for _, text in rows]
    last = [_NAME_NUMBER.fullmatch(text) for _, text in rows]
    if all(first) and all(last) and any(match[1] != match[2] for match in first if match):
        raise ActionVitError(
            f"`{file}` line {rows[0][0]}: `{printable(rows[0][1][:60])}`: is its number the first or the last word?"
            " Write class names that neither begin nor end with a number"
        )
    if all(first):
        return _unique(file, [(line, int(m[1]), m[2]) for (line, _), m in zip(rows, first, strict=True) if m])
    if all(last):
        return _unique(file, [(line, int(m[2]), m[1]) for (line, _), m in zip(rows, last, strict=True) if m])
    line, text = next(row for row, match in zip(rows, first, strict=True) if not match)
    raise ActionVitError(f"`{file}` line {line}: `{printable(text[:60])}`; expected `NUMBER NAME`, as in other lines")


def _unique(file: Path, rows: list[tuple[int, int, str]]) -> dict[int, str]:
    """Return names by number; raise if a number or a name occurs twice."""
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for line, number, text in rows:
        name = text.strip().strip('"').strip()
        if number in names or name in numbers:
            what = f"number {number}" if number in names else f"class `{printable(name[:60])}`"
            raise ActionVitError(f"`{file}` line {line}: {what} occurs twice; a class has one number and one name")
        names[number], numbers[name] = name, number
    return names


def _lacking(listing: Listing, numbers: Mapping[str, int], names: _Names) -> str:
    """Return an error that names the first row whose label has no name."""
    file, row = next(
        (file, row)
        for file, rows in listing.files
        for row in rows
        if row.label in numbers and numbers[row.label] not in names.names
    )
    return (
        f"`{file}` line {row.line}: label {row.label} has no name in `{names.file}`, which numbers"
        f" {min(names.names)} to {max(names.names)}; number its lines as the list does: `{row.label} NAME`"
    )


def _agree_with_folders(listing: Listing, numbers: Mapping[str, int], named: _Names) -> bool:
    """Return whether the folders in the paths, where they are called like classes, confirm the names.

    Raises ActionVitError if most videos of a class lie in a folder called like another class: the names are shifted.
    """
    key_of = {letters(name): name for name in named.names.values()}
    folders: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for _, rows in listing.files:
        for row in rows:
            folder = row.path.rpartition("/")[0].rpartition("/")[2]
            if row.label in numbers and (name := key_of.get(letters(folder))) is not None:
                folders[numbers[row.label]][name] += 1
    for number, counts in sorted(folders.items()):
        [(folder, _)] = counts.most_common(1)
        if folder != named.names[number]:
            raise ActionVitError(
                f"`{named.file}` names class {number} `{printable(named.names[number])}`, but its videos lie in folders"
                f" called `{printable(folder)}`; number the lines as the list does: `{number} NAME`"
            )
    return bool(folders)
