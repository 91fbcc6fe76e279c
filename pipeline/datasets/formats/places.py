"""Find where the paths of lists start: at the list's folder, a folder in it, or its parent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from actionvit.pipeline.datasets.formats.rows import Listing, Row
from actionvit.pipeline.datasets.reading import set_of
from actionvit.text import abbreviate

ListFile = tuple[Path, str, int]
"""List file, set and number of the split."""


def existing(paths: Iterable[str], base: Path) -> int:
    """Return how many of these paths exist below a folder."""
    return sum(os.path.exists(os.path.join(base, path)) for path in paths if "\0" not in path)  # noqa: PTH110, PTH118


def choose_places(
    files: Sequence[ListFile], paths: Sequence[Sequence[str]], roots: Sequence[Path], shared: Path
) -> list[Path]:
    """Return for each file the root under which most of its first paths exist.

    Of two with as many, the one called like the file's set is taken (`videos_val/`), then the shared one.
    """
    places = []
    for (_, name, _), first in zip(files, paths, strict=True):
        counts = {root: _count(first, root, name) for root in (shared, *roots)}
        places.append(max((shared, *roots), key=counts.__getitem__))
    return places


def _count(paths: Sequence[str], root: Path, name: str) -> tuple[int, bool]:
    count = existing(_relative(paths), root)
    return count, bool(count and name) and set_of(root.name)[0] == name


def _relative(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).is_absolute()]


def common_base(places: Sequence[Path]) -> tuple[Path, list[Callable[[str], str]]]:
    """Return a folder that holds all places, and for each place the function that makes its paths start there."""
    if len(set(places)) == 1:
        return places[0], [str] * len(places)
    base = Path(os.path.commonpath([place.absolute() for place in places]))
    below = [place.absolute().relative_to(base).as_posix() for place in places]
    return base, [_prefixed("" if path == "." else f"{path}/") for path in below]


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda path: f"{prefix}{path}" if path[:1] not in ("", "/") else path


def move_to_common_base(listing: Listing, files: Sequence[ListFile], roots: Sequence[Path]) -> None:
    """Set the base of a listing and the paths of its rows by where the first paths of each file exist."""
    first = [[row.path for row in rows[:20] if row.path] for _, rows in listing.files]
    shared = max(roots, key=lambda root: existing([path for paths in first for path in paths], root))
    places = choose_places(files, first, roots, shared)
    listing.base, moves = common_base(places)
    if len(set(places)) > 1:
        listing.files = [
            (file, [_moved(row, move) for row in rows]) for (file, rows), move in zip(listing.files, moves, strict=True)
        ]
    listing.notes += other_places(files, first, roots, places)


def _moved(row: Row, move: Callable[[str], str]) -> Row:
    return row._replace(path=move(row.path))


def other_places(
    files: Sequence[ListFile], paths: Sequence[Sequence[str]], roots: Sequence[Path], places: Sequence[Path]
) -> list[str]:
    """Return a note if the first paths of a file exist in another folder as well."""
    for (file, _, _), first, place in zip(files, paths, places, strict=True):
        count = existing(_relative(first), place)
        others = {root for root in roots if count and existing(_relative(first), root) >= count}
        if names := {root.name for root in others if root.resolve() != place.resolve()}:
            return [f"paths of `{file.name}` start at `{place.name}`, but exist in {abbreviate(names)} as well"]
    return []
